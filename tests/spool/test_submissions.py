"""DESIGN §7: what was frozen leaves, comes back and is settled item by item, as it was frozen (L3, L9, L10)."""

from agent.clock import Moment
from agent.spool.outbox import Outbox
from tests.spool.ledger import NOON, S, append, minutes, record
from tests.spool.owed import due, freeze, numbers, outcomes, registered, settle, standing


def test_submissions_come_in_the_order_in_which_they_are_due(outbox: Outbox) -> None:
    """Oldest first, none before its time, none that is under way."""
    append(outbox.spool, *minutes(range(4)))
    one, two, three, four = freeze(outbox, batches=4, max_batch=1)
    outbox.postpone(one, NOON + 5 * S, None)
    outbox.postpone(three, NOON + 2 * S, NOON)
    assert [s.id for s in due(outbox)] == [two.id, four.id]
    assert [s.id for s in due(outbox, NOON + 2 * S)] == [two.id, four.id, three.id]
    assert [s.id for s in due(outbox, NOON + 9 * S, beside=(two.id, three.id))] == [four.id, one.id]
    assert [s.id for s in outbox.due(standing(outbox), NOON, 1, {two.id})] == [four.id]
    assert due(outbox, NOON + 2 * S)[2].tainted == NOON


def test_the_next_due_is_known_beside_what_is_under_way(outbox: Outbox) -> None:
    """So that the loop sleeps as long as it may."""
    append(outbox.spool, *minutes(range(2)))
    one, two = freeze(outbox, batches=2, max_batch=1)
    assert outbox.next_due(standing(outbox), ()) == NOON
    outbox.postpone(two, NOON + S, None)
    assert outbox.next_due(standing(outbox), (one.id,)) == NOON + S
    settle(outbox, one)
    assert outbox.next_due(standing(outbox), (two.id,)) is None
    assert outbox.has_open(standing(outbox))
    settle(outbox, two)
    assert not outbox.has_open(standing(outbox))


def test_an_attempt_is_noted_before_it_leaves(outbox: Outbox) -> None:
    """L10: a crash right after leaves a submission that may have arrived since then; the first time stays."""
    append(outbox.spool, record())
    freeze(outbox)
    outbox.leaving(due(outbox), NOON + S)
    outbox.leaving(due(outbox), NOON + 2 * S)
    (one,) = due(outbox)
    assert (one.attempts, one.tainted) == (2, NOON + S)
    outbox.postpone(one, NOON, None)
    assert [(s.attempts, s.tainted) for s in due(outbox)] == [(2, None)]


def test_what_came_of_an_attempt_is_kept(outbox: Outbox) -> None:
    """L12: when it began, when it ended, what was said."""
    append(outbox.spool, record())
    (one,) = freeze(outbox)
    outbox.attempted(one, NOON, NOON + S, "retry", "503")
    outbox.attempted(one, NOON + 2 * S, NOON + 3 * S, "delivered", "200")
    kept = list(outbox.spool.db.execute("SELECT submission, at, ended, outcome, why FROM attempt ORDER BY id"))
    assert kept == [(one.id, NOON, NOON + S, "retry", "503"), (one.id, NOON + 2 * S, NOON + 3 * S, "delivered", "200")]


def test_a_submission_is_settled_item_by_item(outbox: Outbox) -> None:
    """L9: what is left goes on as it was frozen, and it ends with its last item."""
    append(outbox.spool, *minutes(range(3)))
    (one,) = freeze(outbox)
    settle(outbox, one, 2, outcome="rejected")
    (rest,) = due(outbox)
    assert rest.items == (one.items[0], one.items[2])
    settle(outbox, rest)
    assert due(outbox) == []
    assert outcomes(outbox) == {1: "delivered", 2: "rejected", 3: "delivered"}


def test_settling_one_submission_leaves_those_that_lie_between_alone(outbox: Outbox) -> None:
    """What waited and what came meanwhile may interleave by number."""
    append(outbox.spool, *minutes(range(2)))
    outbox.retire(standing(outbox))
    append(outbox.spool, record(2))
    registered(outbox)
    db, number = outbox.spool.db, standing(outbox).number
    db.execute("INSERT INTO item(sink, seq) VALUES(?, 3)", (number,))
    db.execute("DELETE FROM item WHERE seq=2")
    (wide,) = freeze(outbox)
    db.execute("INSERT INTO item(sink, seq) VALUES(?, 2)", (number,))
    (between,) = freeze(outbox)
    assert (numbers(wide), numbers(between)) == ([1, 3], [2])
    settle(outbox, wide)
    assert outcomes(outbox) == {1: "delivered", 2: None, 3: "delivered"}
    assert due(outbox) == [between]


def test_what_is_settled_at_one_sink_is_open_at_another(outbox: Outbox) -> None:
    """Each drains at its own pace."""
    registered(outbox, "other")
    append(outbox.spool, *minutes(range(3)))
    (one,), (other,) = freeze(outbox), freeze(outbox, "other")
    settle(outbox, one)
    assert due(outbox, sink="other") == [other]
    assert [outbox.backlog(standing(outbox, sink))[0] for sink in ("sink", "other")] == [0, 3]


def test_parts_of_a_split_are_as_they_were_frozen_with_their_past(outbox: Outbox) -> None:
    """L3, L10: the same bytes, the same first tainted attempt, names of their own."""
    append(outbox.spool, *minutes(range(4)))
    (one,) = freeze(outbox)
    outbox.leaving([one], NOON)
    settle(outbox, one, 2, outcome="rejected")
    outbox.split(one, [(1, 3), (4,)], NOON - S, Moment(NOON + S, NOON + S))
    first, second = due(outbox, NOON + S)
    assert [*first.items, *second.items] == [item for item in one.items if item.seq != 2]
    assert [(s.attempts, s.tainted, s.prepared) for s in (first, second)] == [(1, NOON - S, NOON)] * 2
    assert len({one.name, first.name, second.name}) == 3
    assert first.name.startswith(outbox.spool.identity.epoch[:12])
    settle(outbox, first)
    settle(outbox, second)
    assert not outbox.has_open(standing(outbox))
