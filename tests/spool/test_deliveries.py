"""What became of each record at each sink, and the totals to lay beside the upstream's."""

from agent.sinks import Answer
from agent.spool import ledger as reading
from agent.spool.deliveries import deliveries, totals
from tests.spool.desk import KIBI, REFUSED, Start
from tests.spool.ledger import append, record


def test_totals_of_the_ledger_are_exact_and_by_what_became_of_them(start: Start) -> None:
    """Side by side with the upstream's: per customer and dimension, in base units and as submitted."""
    desk = start(Answer(outcome="delivered", why="202", items={2: ("rejected", "400")}))
    append(desk.spool, record(1, quantity=1000), record(2, quantity=7, customer="beta"))
    desk.drain(KIBI)
    append(desk.spool, record(3, quantity=1))
    found = {(t.customer, t.state): (t.records, t.quantity, t.submitted, t.unit) for t in totals(desk.spool.db)}
    assert found == {
        ("acme", "delivered"): (1, 5035, "4.9", "kibi"),
        ("acme", "rejected"): (1, 1000, "1.0", "kibi"),
        ("beta", "delivered"): (1, 7, "0.0", "kibi"),
        ("acme", "owed"): (1, 1, "0", "ns"),
    }


def test_a_record_that_was_sent_three_times_shows_each_time_and_answer(start: Start) -> None:
    """L12, in order; the batch that it was split from counts, and what became of its neighbours does not."""
    split = Answer(outcome="split", why="413", definite=True)
    desk = start(Answer(outcome="retry", why="503"), split, REFUSED, Answer(outcome="delivered", why="202"))
    append(desk.spool, record(1))
    for _ in range(4):
        desk.drain()
    first, second = (deliveries(desk.spool.db, reading.named(desk.spool.db, seq))[0] for seq in ("1", "2"))
    assert [a.why for a in first.attempts] == ["503", "413", "400: no such customer"]
    assert [a.why for a in second.attempts] == ["503", "413", "202"]
    assert len(first.names) == 2
    assert first.attempts[0].at < first.attempts[1].at


def test_an_attempt_after_an_item_was_settled_is_not_its_own(start: Start) -> None:
    """A batch goes on without those of its records that are settled."""
    partial = Answer(outcome="retry", why="503", items={1: ("rejected", "400")})
    desk = start(partial)
    append(desk.spool, record(1))
    desk.drain()
    desk.drain()
    first, second = (deliveries(desk.spool.db, reading.named(desk.spool.db, seq))[0] for seq in ("1", "2"))
    assert (first.state, second.state) == ("rejected", "delivered")
    assert [len(delivery.attempts) for delivery in (first, second)] == [1, 2]
