"""DESIGN §§6–7, ACCOUNTING §7: what each sink is owed, what was frozen for it, what became of it (L3, L8, L9, L10)."""

import json
from pathlib import Path

import pytest

from agent.record import record_id, with_seq
from agent.spool.outbox import Outbox
from agent.spool.remainders import close_out
from tests.spool.ledger import NOON, S, append, ledger, minutes, opened, record
from tests.spool.owed import (
    damage,
    due,
    freeze,
    numbers,
    outcomes,
    registered,
    settle,
    standing,
    unrouted,
    usage_only,
    verbatim,
)

# -- sinks -------------------------------------------------------------------------------------------------------------


def test_a_new_sink_starts_at_records_closed_after_it_was_added(outbox: Outbox) -> None:
    """DESIGN §7: unless `from` says otherwise."""
    append(outbox.spool, *minutes(range(2)), now=NOON)
    append(outbox.spool, *minutes(range(2, 4)), now=NOON + S)
    sinks = [registered(outbox, *wanted) for wanted in (("late", None), ("from", NOON + S), ("all", 0))]
    append(outbox.spool, record(5), now=NOON + 2 * S)
    assert [outbox.backlog(sink)[0] for sink in sinks] == [1, 3, 5]
    assert [sink.began for sink in sinks] == [4, 2, 0]


def test_registering_again_keeps_the_position(outbox: Outbox) -> None:
    """A restart is no new sink; its role and section may have changed."""
    append(outbox.spool, *minutes(range(2)))
    settle(outbox, freeze(outbox)[0])
    again = outbox.register("sink", "fake", "copy", b'{"x":1}', since=0)
    assert outbox.backlog(again) == (0, None)
    assert (again.role, again.section) == ("copy", b'{"x":1}')


def test_a_removed_sink_starts_anew_when_it_returns_and_keeps_what_it_had(outbox: Outbox) -> None:
    """DESIGN §7: an id is for ever, so that what became of its records stays written, and none is sent again."""
    append(outbox.spool, record(0))
    settle(outbox, freeze(outbox)[0])
    before = standing(outbox)
    outbox.remove(before)
    assert outbox.sinks() == {}
    append(outbox.spool, record(1))
    after = registered(outbox, since=None)
    assert after.number == before.number
    assert outbox.backlog(after)[0] == 0
    kept = outbox.spool.db.execute("SELECT outcome FROM item WHERE sink=?", (before.number,)).get
    assert kept == "delivered"


def test_a_retired_sink_is_owed_what_there_was_and_no_more(outbox: Outbox) -> None:
    """DESIGN §7: `drain`. Retiring twice does not move the end."""
    append(outbox.spool, *minutes(range(3)))
    outbox.retire(standing(outbox))
    append(outbox.spool, *minutes(range(3, 5)))
    outbox.retire(standing(outbox))
    assert outbox.backlog(standing(outbox))[0] == 3
    (submission,) = freeze(outbox)
    assert numbers(submission) == [1, 2, 3]
    settle(outbox, submission)
    assert (outbox.backlog(standing(outbox)), outbox.more(standing(outbox))) == ((0, None), False)


def test_a_retired_sink_that_returns_is_owed_what_it_was_and_what_comes(outbox: Outbox) -> None:
    """What closed while it was not configured is not its own; what it was owed still is, once."""
    append(outbox.spool, *minutes(range(4)))
    settle(outbox, freeze(outbox, max_batch=2)[0])
    outbox.retire(standing(outbox))
    append(outbox.spool, *minutes(range(4, 6)))
    back = registered(outbox)
    append(outbox.spool, record(7))
    assert back.until is None
    assert outbox.backlog(back)[0] == 3
    found = [freeze(outbox), freeze(outbox)]
    assert [numbers(submission) for (submission,) in found] == [[3, 4], [7]]
    assert not outbox.more(standing(outbox))


def test_what_waited_and_is_no_concern_of_the_sink_any_more_does_not_hold_up_the_rest(outbox: Outbox) -> None:
    """A billing sink that returns was owed windows with unattributed records among them: no busy loop over these."""
    append(outbox.spool, record(0, "unattributed"), record(1), record(2, "gap"))
    outbox.retire(standing(outbox))
    registered(outbox)
    append(outbox.spool, record(3))
    found = [*freeze(outbox, render=usage_only), *freeze(outbox, render=usage_only)]
    assert [numbers(submission) for submission in found] == [[2], [4]]
    assert not outbox.more(standing(outbox))
    assert outcomes(outbox) == {2: None, 4: None}


def test_a_sink_is_paused_until_it_is_resumed(outbox: Outbox) -> None:
    """DESIGN §7; the spool only remembers it."""
    outbox.pause(standing(outbox), paused=True)
    assert standing(outbox).paused
    assert registered(outbox).paused
    outbox.pause(standing(outbox), paused=False)
    assert not standing(outbox).paused


# -- freezing ----------------------------------------------------------------------------------------------------------


def test_a_submission_holds_at_most_max_batch_records(outbox: Outbox) -> None:
    """DESIGN §7; and no more of them are made than were asked for."""
    append(outbox.spool, *minutes(range(7)))
    assert [numbers(one) for one in freeze(outbox, batches=2, max_batch=2)] == [[1, 2], [3, 4]]
    assert [numbers(one) for one in freeze(outbox, batches=5, max_batch=2)] == [[5, 6], [7]]
    assert freeze(outbox) == []


def test_a_submission_holds_at_most_max_bytes(outbox: Outbox) -> None:
    """A record that is larger by itself goes alone. What did not fit the last one is due at once, and not lost."""
    append(outbox.spool, *minutes(range(5)))
    size = len(b"told 1")
    found = freeze(outbox, batches=1, max_bytes=2 * size)
    assert [numbers(one) for one in found] == [[1, 2]]
    assert [numbers(one) for one in due(outbox, beside=(found[0].id,))] == [[3]]
    assert [numbers(one) for one in freeze(outbox, batches=2, max_bytes=size - 1)] == [[4], [5]]
    assert outbox.backlog(standing(outbox))[0] == 5


def test_what_was_frozen_is_read_back_as_it_was(outbox: Outbox) -> None:
    """L3: rendered once. A verbatim payload is the ledger's own line with its number, and lies there only once."""
    copy = registered(outbox, "copy")
    append(outbox.spool, *minutes(range(3)))
    first, second = freeze(outbox), freeze(outbox, "copy", render=verbatim)
    assert due(outbox) == first
    assert due(outbox, sink="copy") == second
    bodies = outbox.spool.db.execute("SELECT seq, body FROM record ORDER BY seq")
    assert [item.payload for item in second[0].items] == [with_seq(body, seq) for seq, body in bodies]
    query = "SELECT count(*) FROM item WHERE sink=? AND payload IS NOT NULL"
    assert outbox.spool.db.execute(query, (copy.number,)).get == 0


def test_a_submission_is_called_by_its_epoch_and_what_it_spans(tmp_path: Path) -> None:
    """ACCOUNTING §7: sequence numbers recur in another file; names must not."""
    names = []
    for place in ("one", "other"):
        outbox = Outbox(opened(tmp_path / place))
        registered(outbox)
        append(outbox.spool, *minutes(range(3)))
        (submission,) = freeze(outbox)
        assert submission.name == f"{outbox.spool.identity.epoch[:12]}-{1:012d}-{3:012d}"
        names.append(submission.name)
        outbox.spool.close()
    assert len(set(names)) == 2


def test_what_is_not_sent_is_settled_with_its_reason(outbox: Outbox) -> None:
    """L8: kept and counted, and a person can find it."""
    append(outbox.spool, *minutes(range(2)))
    assert freeze(outbox, render=unrouted) == []
    assert outcomes(outbox) == {1: "unrouted", 2: "unrouted"}
    assert outbox.stuck(standing(outbox)) == {"unrouted": 2}
    assert (outbox.backlog(standing(outbox))[0], outbox.more(standing(outbox))) == (0, False)


def test_records_that_do_not_concern_a_sink_are_passed_by(outbox: Outbox) -> None:
    """The position moves on, so that they are looked at once."""
    append(outbox.spool, *minutes(range(5), "unattributed"), record(6))
    assert freeze(outbox, render=usage_only, max_batch=3) == []
    assert standing(outbox).position == 3
    assert [numbers(one) for one in freeze(outbox, render=usage_only, max_batch=3)] == [[6]]
    assert not outbox.more(standing(outbox))


def test_the_id_of_what_was_frozen_finds_its_record(outbox: Outbox) -> None:
    """ACCOUNTING §6: the id index holds what has been frozen, once for all sinks."""
    registered(outbox, "other")
    append(outbox.spool, *minutes(range(3)))
    freeze(outbox)
    freeze(outbox, "other")
    known = {bytes(name): seq for name, seq in outbox.spool.db.execute("SELECT id, seq FROM known")}
    bodies = outbox.spool.db.execute("SELECT seq, body FROM record")
    assert known == {record_id(body).bytes: seq for seq, body in bodies}


def test_a_held_range_is_passed_by_and_is_no_work(outbox: Outbox) -> None:
    """DESIGN §6: the old backlog of a cloned spool waits for a person; nothing turns over it meanwhile."""
    append(outbox.spool, *minutes(range(4)))
    outbox.spool.db.execute("INSERT INTO held VALUES(2, 3, 'cloned', 0)")
    assert [numbers(one) for one in freeze(outbox)] == [[1, 4]]
    assert not outbox.more(standing(outbox))
    outbox.spool.db.execute("INSERT INTO held VALUES(5, 6, 'cloned', 0)")
    append(outbox.spool, *minutes(range(5, 7)))
    assert (freeze(outbox), outbox.more(standing(outbox))) == ([], False)
    assert set(outcomes(outbox)) == {1, 4}


def test_what_waited_and_is_held_is_not_sent(outbox: Outbox) -> None:
    """A sink that returns is owed no more of a held range than any other."""
    append(outbox.spool, *minutes(range(4)))
    outbox.retire(standing(outbox))
    registered(outbox)
    outbox.spool.db.execute("INSERT INTO held VALUES(2, 3, 'cloned', 0)")
    assert [numbers(one) for one in freeze(outbox)] == [[1, 4]]
    assert not outbox.more(standing(outbox))
    outbox.spool.db.execute("DELETE FROM held")
    assert [numbers(one) for one in freeze(outbox)] == [[2, 3]]


@pytest.mark.parametrize("body", [b'{"id":"x"}', b"\xff\x00 no JSON", b""])
@pytest.mark.parametrize("last", [False, True])
def test_a_record_whose_bytes_fail_their_crc_is_quarantined_and_blocks_nothing(
    outbox: Outbox, body: bytes, *, last: bool
) -> None:
    """L9: one poison record never blocks its batch, nor the end of a sink; it is kept, once, with the reason."""
    registered(outbox, "other")
    bad = 3 if last else 2
    append(outbox.spool, *minutes(range(3)))
    damage(outbox, bad, body)
    good = [seq for seq in (1, 2, 3) if seq != bad]
    for sink in ("sink", "other"):
        (submission,) = freeze(outbox, sink)
        assert numbers(submission) == good
        settle(outbox, submission)
        assert outcomes(outbox, sink)[bad] == "rejected"
        assert (outbox.backlog(standing(outbox, sink))[0], outbox.more(standing(outbox, sink))) == (0, False)
    kept = list(outbox.spool.db.execute("SELECT at, reason, body FROM quarantine"))
    assert kept == [(NOON, f"record {bad}: CRC does not match its bytes", body)]


def test_a_record_that_waits_and_fails_its_crc_waits_no_longer(outbox: Outbox) -> None:
    """As before, for one that a person sent again."""
    append(outbox.spool, *minutes(range(2)))
    outbox.retire(standing(outbox))
    registered(outbox)
    damage(outbox, 1)
    assert [numbers(one) for one in freeze(outbox)] == [[2]]
    assert outcomes(outbox) == {1: "rejected", 2: None}
    assert not outbox.more(standing(outbox))


# -- stock -------------------------------------------------------------------------------------------------------------


def test_the_backlog_counts_what_was_frozen_what_waits_and_what_lies_beyond(outbox: Outbox) -> None:
    """And when the oldest of them closed; what waits for a person is another number."""
    for number in range(4):
        append(outbox.spool, record(number), now=NOON + number * S)
    assert outbox.backlog(standing(outbox)) == (4, NOON)
    one, two = freeze(outbox, batches=2, max_batch=1)
    assert outbox.backlog(standing(outbox)) == (4, NOON)
    settle(outbox, one)
    assert outbox.backlog(standing(outbox)) == (3, NOON + S)
    settle(outbox, two, outcome="ambiguous")
    assert outbox.backlog(standing(outbox)) == (2, NOON + 2 * S)
    assert outbox.stuck(standing(outbox)) == {"ambiguous": 1}
    outbox.retire(standing(outbox))
    registered(outbox)
    assert outbox.backlog(standing(outbox)) == (2, NOON + 2 * S)
    settle(outbox, freeze(outbox)[0])
    assert outbox.backlog(standing(outbox)) == (0, None)


def test_remainders_are_exact_at_any_size(outbox: Outbox) -> None:
    """Beyond 64 bits, signed, one per customer and dimension."""
    one = standing(outbox)
    outbox.leave(one, "acme", "memory", -(10**40), 10**30, NOON)
    assert outbox.remainder(one, "acme", "memory") == (-(10**40), 10**30)
    assert outbox.remainder(one, "acme", "cpu") == (0, 1)
    assert outbox.remainder(registered(outbox, "other"), "acme", "memory") == (0, 1)


def test_what_rounding_left_of_silent_customers_goes_to_the_rounding_account(outbox: Outbox) -> None:
    """ACCOUNTING §7: it stays in the law's sum; those who used something since keep theirs."""
    one = standing(outbox)
    outbox.leave(one, "", "cpu", 1, 6, NOON)
    outbox.leave(one, "silent", "cpu", 1, 4, NOON)
    outbox.leave(one, "gone", "cpu", -1, 2, NOON)
    outbox.leave(one, "busy", "cpu", 1, 3, NOON + 2 * S)
    close_out(outbox, one, NOON + S)
    value, grain = outbox.remainder(one, "", "cpu")
    assert value * 12 == grain * (2 + 3 - 6)
    assert [outbox.remainder(one, customer, "cpu") for customer in ("silent", "gone", "busy")] == [
        (0, 1),
        (0, 1),
        (1, 3),
    ]


def test_late_usage_is_the_next_n_of_its_key(tmp_path: Path) -> None:
    """L7: deltas 0, 1, 2 with ids of their own, also after a restart."""
    spool = opened(tmp_path)
    append(spool, record(0, quantity=5), record(0, quantity=6))
    spool.close()
    spool = opened(tmp_path)
    append(spool, record(1), record(0, quantity=7))
    assert [(n, q) for _, n, _, q in ledger(spool)] == [(0, 5), (1, 6), (0, 1), (2, 7)]
    ids = [json.loads(body)["id"] for (body,) in spool.db.execute("SELECT body FROM record")]
    assert len(set(ids)) == 4
    spool.close()
