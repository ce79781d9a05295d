"""What no act may ever do, whatever was answered and decided before it."""

from fractions import Fraction

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.delivery.quantity import Measure
from agent.delivery.rendering import Route
from agent.errors import AgentError
from agent.sinks import Answer, Terms
from agent.spool import ledger as reading
from agent.spool.rounding import Rounding
from tests.spool.desk import KIBI, LOST, REFUSED, TAKEN_BEFORE, Desk, Start, rejected
from tests.spool.ledger import NOON, S, append, record


def test_every_act_leaves_who_what_when_and_why(start: Start) -> None:
    """The trail is written with the act, or neither is."""
    desk = rejected(start)
    desk.act("spool requeue", record="1", reason="customer made known")
    desk.act("sink pause", sink="billing", reason="their maintenance")
    assert [(act.who, act.what, act.why) for act in reading.audit(desk.spool.db)] == [
        ("uid 7", "spool requeue 1 at billing (1)", "customer made known"),
        ("uid 7", "sink pause billing", "their maintenance"),
    ]
    assert [act.at for act in reading.audit(desk.spool.db)] == [NOON + 120 * S, NOON + 180 * S]


ANSWERS = st.sampled_from([Answer(outcome="delivered", why="202"), LOST, REFUSED, TAKEN_BEFORE])
BULK = [
    *(
        ("spool resolve", {"outcome": o, "verdict": v})
        for o in ("ambiguous", "conflict")
        for v in ("delivered", "resend")
    ),
    *(("spool requeue", {"outcome": outcome}) for outcome in ("rejected", "conflict")),
    *(("spool drop", {"outcome": outcome, "reason": "x"}) for outcome in ("rejected", "ambiguous")),
]
DECISIONS = st.sampled_from(BULK)


@settings(max_examples=40, deadline=None)
@given(answers=st.lists(ANSWERS, max_size=8), decisions=st.lists(DECISIONS, max_size=6))
def test_no_act_makes_a_record_be_sent_again_that_the_sink_has_taken(
    tmp_path_factory: pytest.TempPathFactory,
    answers: list[Answer],
    decisions: list[tuple[str, dict[str, str]]],
) -> None:
    """Whatever was answered and decided: after `delivered` or `duplicate`, never again."""
    desk = Desk(tmp_path_factory.mktemp("desk"), *answers, terms=Terms(max_batch=1, dedupe_horizon=0))
    append(desk.spool, *(record(n) for n in range(3)))
    desk.drain()
    for name, asked in decisions:
        done = {seq: len(desk.sent(seq)) for seq in (1, 2, 3) if desk.state(seq) in ("delivered", "duplicate")}
        desk.act(name, sink="billing", **asked)
        for seq in done:
            with pytest.raises(AgentError):
                desk.act("spool requeue", record=str(seq), sink="billing")
            with pytest.raises(AgentError):
                desk.act("spool drop", record=str(seq), sink="billing", reason="x")
        desk.drain()
        assert {seq: len(desk.sent(seq)) for seq in done} == done
    desk.spool.close()


def account(desk: Desk) -> tuple[Fraction, Fraction]:
    """(Σ submitted + Σ remainders, Σ usage) of what is rendered and in force, in base units."""
    rows = list(
        desk.spool.db.execute("SELECT rounding, r.seq FROM item JOIN record AS r USING(seq) WHERE rounding NOTNULL")
    )
    rounded = [msgspec.json.decode(packed, type=Rounding) for packed, _ in rows]
    submitted = sum((Fraction(r.value) * r.per for r in rounded), Fraction(0))
    left = Fraction(*desk.outbox.remainder(desk.outbox.sinks()["billing"], "acme", "cpu"))
    used = sum(reading.named(desk.spool.db, str(seq)).record.quantity for _, seq in rows)
    return submitted + left, Fraction(used)


@settings(max_examples=40, deadline=None)
@given(
    quantities=st.lists(st.integers(1, 9999), min_size=1, max_size=6),
    refused=st.sets(st.integers(1, 6)),
    dropped=st.sets(st.integers(1, 6)),
    scale=st.integers(0, 3),
)
def test_submitted_and_remainders_are_all_usage_after_any_requeue_or_drop(
    tmp_path_factory: pytest.TempPathFactory, quantities: list[int], refused: set[int], dropped: set[int], scale: int
) -> None:
    """DESIGN §4: Σ submitted + Σ remainders = Σ usage, exactly, also when the unit changes in between."""
    items = dict.fromkeys(refused, ("rejected", "400"))
    desk = Desk(tmp_path_factory.mktemp("desk"), Answer(outcome="delivered", why="202", items=items))  # type: ignore[arg-type]
    append(desk.spool, *(record(n, quantity=quantity) for n, quantity in enumerate(quantities)))
    desk.drain(KIBI)
    assert account(desk)[0] == account(desk)[1]
    for seq in sorted(refused & dropped & set(range(1, len(quantities) + 1))):
        desk.act("spool drop", record=str(seq), reason="why not")
        assert account(desk)[0] == account(desk)[1]
    desk.act("spool requeue", sink="billing", outcome="rejected")
    assert account(desk)[0] == account(desk)[1]
    desk.drain(Route(measures={"cpu": Measure("cpu", "thousand", per=1000, scale=scale)}))
    assert account(desk)[0] == account(desk)[1]
    desk.spool.close()
