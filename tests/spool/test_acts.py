"""What a person decides, through a real spool: resolve, requeue, drop, and the life of a sink."""

import pytest

from agent.delivery.quantity import Measure
from agent.delivery.rendering import Route
from agent.errors import AgentError
from agent.sinks import Answer
from agent.spool import ledger as reading
from agent.spool.deliveries import deliveries, sink_states
from tests.spool.desk import FORGETFUL, LOST, REFUSED, TAKEN_BEFORE, Start, ambiguous, rejected
from tests.spool.ledger import append, record

# -- resolve -----------------------------------------------------------------------------------------------------------


def test_an_ambiguous_record_that_has_arrived_is_never_sent_again(start: Start) -> None:
    """L10: a person looked, and says so."""
    desk = ambiguous(start)
    desk.act("spool resolve", record="1", verdict="delivered", reason="seen in their console")
    desk.drain()
    (delivery,) = deliveries(desk.spool.db, reading.named(desk.spool.db, "1"))
    assert (delivery.state, delivery.why) == ("delivered", "settled by a person: seen in their console")
    assert len(desk.sent()) == 1


def test_an_ambiguous_record_is_sent_again_byte_for_byte_whatever_the_configuration_says(start: Start) -> None:
    """L3: the retry is what was frozen; the new unit is for what was never submitted."""
    desk = ambiguous(start)
    desk.act("spool resolve", record="1", verdict="resend")
    desk.drain(Route(measures={"cpu": Measure("other", "other", per=10)}))
    assert len(desk.sent()) == 2
    assert len(set(desk.sent())) == 1
    assert desk.state() == "delivered"


def test_a_duplicate_answer_to_what_a_person_sent_again_is_an_arrival(start: Start) -> None:
    """L9: there was an earlier attempt of ours."""
    desk = ambiguous(start, TAKEN_BEFORE)
    desk.act("spool resolve", record="1", verdict="resend")
    desk.drain()
    assert desk.state() == "duplicate"


def test_the_horizon_of_what_is_sent_again_begins_anew(start: Start) -> None:
    """The person takes it upon them; lost again, it is a person's again, with both attempts to be seen."""
    desk = ambiguous(start, LOST)
    desk.act("spool resolve", record="1", verdict="resend")
    desk.drain()
    assert desk.state() == "ambiguous"
    (delivery,) = deliveries(desk.spool.db, reading.named(desk.spool.db, "1"))
    assert [attempt.outcome for attempt in delivery.attempts] == ["ambiguous", "ambiguous"]


def test_a_conflict_may_be_sent_again_unchanged(start: Start) -> None:
    """The person asked the sink, and it has nothing of ours."""
    desk = start(TAKEN_BEFORE)
    desk.drain()
    assert desk.state() == "conflict"
    desk.act("spool resolve", record="1", sink="billing", verdict="resend")
    desk.drain()
    assert desk.state() == "delivered"
    assert len(set(desk.sent())) == 1


def test_all_of_an_outcome_is_resolved_at_once(start: Start) -> None:
    """After a week of time-outs nobody types ids."""
    desk = start(LOST, terms=FORGETFUL)
    append(desk.spool, *(record(n) for n in range(1, 5)))
    desk.drain()
    desk.act("spool resolve", sink="billing", outcome="ambiguous", verdict="delivered")
    assert {desk.state(seq) for seq in range(1, 6)} == {"delivered"}
    assert reading.audit(desk.spool.db)[-1].what == "spool resolve as delivered 1–5 at billing (5)"


def test_a_held_record_is_let_go_and_its_neighbours_stay(start: Start) -> None:
    """The range is split around it, at the sink it waits and is sent."""
    desk = start()
    append(desk.spool, record(1), record(2))
    desk.hold(1, 3)
    desk.act("spool resolve", record="2", verdict="resend")
    assert desk.held() == [(1, 1), (3, 3)]
    desk.drain()
    assert [desk.state(seq) for seq in (1, 2, 3)] == ["held", "delivered", "held"]


def test_all_that_is_held_is_settled_at_once(start: Start) -> None:
    """A restored spool whose backlog had all arrived: nothing of it is sent, and nothing is held any more."""
    desk = start()
    append(desk.spool, record(1), record(2))
    desk.hold(1, 3)
    desk.hold(1, 2)
    desk.act("spool resolve", outcome="held", verdict="delivered")
    desk.drain()
    assert desk.held() == []
    assert desk.sink.sent == []
    assert {desk.state(seq) for seq in (1, 2, 3)} == {"delivered"}


@pytest.mark.parametrize("kept", [True, False])
def test_what_a_damaged_spool_knows_no_submission_of_is_sent_again_as_far_as_it_was_kept(
    start: Start, *, kept: bool
) -> None:
    """Byte for byte where the bytes are there; rendered anew where they are lost, for else it could never be billed."""
    desk = ambiguous(start)
    desk.spool.db.execute("DELETE FROM submission")
    if not kept:
        desk.spool.db.execute("UPDATE item SET submission=NULL, payload=NULL")
    desk.act("spool resolve", record="1", verdict="resend")
    desk.drain(Route(customers={"acme": "cus_1"}))
    assert desk.state() == "delivered"
    assert (desk.sent()[0] == desk.sent()[1]) == kept


def test_what_a_damaged_spool_lost_is_counted_and_can_be_written_off(start: Start) -> None:
    """Neither its line nor its bytes: there is nothing to send."""
    desk = ambiguous(start)
    desk.spool.db.execute("DELETE FROM record")
    desk.spool.db.execute("UPDATE item SET payload=NULL")
    assert sink_states(desk.spool.db)[0].stuck == {"ambiguous": 1}
    with pytest.raises(AgentError, match="its bytes are lost"):
        desk.act("spool resolve", sink="billing", outcome="ambiguous", verdict="resend")
    desk.act("spool drop", sink="billing", outcome="ambiguous", reason="lost with the disk")
    assert sink_states(desk.spool.db)[0].stuck == {}


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"record": "1"}, "nothing is in doubt. It is: owed at billing"),
        ({"record": "1", "sink": "bil"}, "nothing is in doubt at bil"),
        ({"sink": "billing", "outcome": "delivered"}, "one of ambiguous, conflict"),
        ({"record": "99"}, "99: no such record"),
        ({"record": "x"}, "neither a record's id nor its number"),
        ({"verdict": "maybe"}, "verdict"),
        ({"speed": "11"}, "speed"),
    ],
)
def test_what_cannot_be_resolved_is_refused_with_what_can(start: Start, asked: dict[str, str], message: str) -> None:
    """Nothing is done, and the trail stays empty."""
    desk = start()
    with pytest.raises(AgentError, match=message):
        desk.act("spool resolve", **{"verdict": "resend", **asked})
    assert reading.audit(desk.spool.db) == []


# -- requeue -----------------------------------------------------------------------------------------------------------


def test_a_refused_record_is_sent_as_todays_configuration_has_it(start: Start) -> None:
    """It surely has not arrived, so it may be rendered anew, with its attempts still to be seen."""
    desk = rejected(start)
    desk.act("spool requeue", record="1")
    assert desk.state() == "owed"
    desk.drain(Route(customers={"acme": "cus_1"}))
    assert (b" acme " in desk.sent()[0], b" cus_1 " in desk.sent()[1]) == (True, True)
    (delivery,) = deliveries(desk.spool.db, reading.named(desk.spool.db, "1"))
    assert [(attempt.outcome, attempt.why) for attempt in delivery.attempts] == [
        ("rejected", "400: no such customer"),
        ("delivered", "202"),
    ]


@pytest.mark.parametrize("answer", [Answer(outcome="delivered", why="202"), LOST])
def test_what_has_arrived_or_may_have_is_never_requeued(start: Start, answer: Answer) -> None:
    """Rendered anew, it could be billed twice."""
    desk = start(answer, terms=FORGETFUL)
    desk.drain()
    with pytest.raises(AgentError, match=r"Use `spool resolve`|Only what a sink refused"):
        desk.act("spool requeue", record="1", sink="billing")


def test_what_may_have_arrived_and_was_dropped_is_never_requeued(start: Start) -> None:
    """Dropping forgets no attempt."""
    desk = ambiguous(start)
    desk.act("spool drop", record="1", reason="written off")
    with pytest.raises(AgentError, match="may have arrived"):
        desk.act("spool requeue", record="1", sink="billing")


def test_what_was_dropped_by_mistake_is_requeued(start: Start) -> None:
    """It surely has not arrived."""
    desk = rejected(start)
    desk.act("spool drop", record="1", reason="oops")
    desk.act("spool requeue", record="1")
    desk.drain()
    assert desk.state() == "delivered"


def test_a_refused_record_that_is_held_needs_a_decision_first(start: Start) -> None:
    """What a restored spool calls refused may have been taken since."""
    desk = rejected(start)
    desk.hold(1, 1)
    with pytest.raises(AgentError, match="is held: restored"):
        desk.act("spool requeue", record="1")


# -- drop --------------------------------------------------------------------------------------------------------------


def test_a_dropped_record_is_never_sent_and_stays_with_its_reason(start: Start) -> None:
    """Also one that no drain has looked at yet; its neighbour is not touched."""
    desk = start()
    append(desk.spool, record(1))
    desk.act("spool drop", record="1", sink="billing", reason="a test customer")
    desk.drain()
    assert [seq for seq, _ in desk.sink.sent] == [2]
    (delivery,) = deliveries(desk.spool.db, reading.named(desk.spool.db, "1"))
    assert (delivery.state, delivery.why) == ("dropped", "a test customer")


def test_what_has_arrived_cannot_be_dropped(start: Start) -> None:
    """It is billed."""
    desk = start()
    desk.drain()
    with pytest.raises(AgentError, match="is delivered at billing"):
        desk.act("spool drop", record="1", sink="billing", reason="x")


def test_what_is_under_way_is_dropped_only_at_a_paused_sink(start: Start) -> None:
    """Then it is not sent again, and no empty submission is either."""
    desk = start(LOST)
    desk.drain()
    assert desk.state() == "leaving"
    with pytest.raises(AgentError, match="sink pause billing"):
        desk.act("spool drop", record="1", sink="billing", reason="x")
    desk.act("sink pause", sink="billing")
    desk.act("spool drop", record="1", sink="billing", reason="x")
    desk.act("sink resume", sink="billing")
    desk.drain()
    assert len(desk.sent()) == 1
    assert not desk.outbox.has_open(desk.outbox.sinks()["billing"])
    with pytest.raises(AgentError, match="may have arrived"):
        desk.act("spool requeue", record="1", sink="billing")


@pytest.mark.parametrize("name", ["spool drop", "spool erase", "sink discard"])
def test_nothing_is_given_up_without_a_reason(start: Start, name: str) -> None:
    """Blank is none."""
    desk = start()
    asked = {"sink": "billing"} if name == "sink discard" else {"record": "1"}
    with pytest.raises(AgentError, match="--reason is empty"):
        desk.act(name, **asked, reason=" ")


# -- sinks -------------------------------------------------------------------------------------------------------------


def test_a_drained_sink_takes_what_there_was_and_nothing_that_comes(start: Start) -> None:
    """The line is drawn when it is said."""
    desk = start()
    assert "1 records are still to be sent" in str(desk.act("sink drain", sink="billing"))
    append(desk.spool, record(1))
    desk.drain()
    assert [seq for seq, _ in desk.sink.sent] == [1]
    assert desk.state(2) == "after it ended"


def test_a_discarded_sink_is_gone_and_all_it_was_owed_is_written_off(start: Start) -> None:
    """Waiting, stuck and never looked at alike; what had arrived stays so."""
    desk = start(REFUSED)
    desk.drain()
    append(desk.spool, record(1))
    desk.drain()
    append(desk.spool, record(2))
    desk.act("sink discard", sink="billing", reason="contract ended")
    assert desk.outbox.sinks() == {}
    outcomes = [outcome for (outcome,) in desk.spool.db.execute("SELECT outcome FROM item ORDER BY seq")]
    assert outcomes == ["dropped", "delivered", "dropped"]
    (delivery,) = deliveries(desk.spool.db, reading.named(desk.spool.db, "1"))
    assert (delivery.kind, delivery.state, delivery.why) == ("removed", "dropped", "contract ended")


def test_a_sink_is_not_discarded_while_something_is_under_way(start: Start) -> None:
    """Its answer would have nobody to hear it."""
    desk = start(LOST)
    desk.drain()
    with pytest.raises(AgentError, match="sink pause billing"):
        desk.act("sink discard", sink="billing", reason="x")
    desk.act("sink pause", sink="billing")
    desk.act("sink discard", sink="billing", reason="x")
    assert desk.outbox.sinks() == {}


def test_a_paused_sink_is_sent_nothing_until_it_is_resumed(start: Start) -> None:
    """What it is owed waits."""
    desk = start()
    desk.act("sink pause", sink="billing")
    desk.drain()
    assert (desk.sink.sent, sink_states(desk.spool.db)[0].state) == ([], "paused")
    desk.act("sink resume", sink="billing")
    desk.drain()
    assert desk.state() == "delivered"


def test_an_unknown_sink_is_named_with_those_that_are_known(start: Start) -> None:
    """A typing error."""
    desk = start()
    with pytest.raises(AgentError, match="Known: billing"):
        desk.act("sink pause", sink="biling")


def test_what_was_refused_and_may_be_there_is_requeued_only_with_a_reason(start: Start) -> None:
    """It would be rendered anew beside what an earlier attempt may have left there (L3, L10)."""
    desk = start(LOST, Answer(outcome="split", why="400: no such customer"))
    desk.drain()
    desk.drain()
    assert desk.state() == "rejected"
    with pytest.raises(AgentError, match="would be billed twice"):
        desk.act("spool requeue", record="1")
    desk.act("spool requeue", record="1", reason="it is not in its list")
    desk.drain()
    assert desk.state() == "delivered"
