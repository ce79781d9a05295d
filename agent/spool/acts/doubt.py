# ruff: noqa: S608 - the SQL is put together from fragments of our own
"""What may have arrived, or is held because it may: a person says that it has, or has it sent (again) (L10)."""

from collections.abc import Iterable
from typing import Literal

from agent.clock import Moment
from agent.errors import AgentError
from agent.spool import ledger
from agent.spool.acts.choice import Choice, Done, all_of, done, leave_past, numbers, sink_of, told_of
from agent.spool.deliveries import ITEM, STATE, states
from agent.spool.outbox import Outbox, Standing

DOUBTFUL = ("ambiguous", "conflict")


class Resolve(Choice, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a person knows, or takes upon them, of what may have arrived."""

    verdict: Literal["delivered", "resend"]


def resolve(outbox: Outbox, wanted: Resolve, now: Moment) -> Done:
    """Settle what is ambiguous, conflicting or held as delivered, or send it (again)."""
    db = outbox.spool.db
    if wanted.record is None:
        if wanted.outcome == "held" and wanted.sink is None:
            count = _release(outbox, 1, outbox.last(), wanted, now)
            return done(f"{_how(wanted)} all that was held", count)
        sink, seqs = all_of(outbox, wanted, DOUBTFUL, "`--outcome held` goes without --sink")
        _decide(outbox, sink, seqs, wanted, now)
        return done(f"{_how(wanted)} {numbers(seqs)} at {sink.id}", len(seqs))
    entry = ledger.named(db, wanted.record)
    found = states(db, entry.seq)
    doubtful = [s for s, state in found.items() if state in DOUBTFUL and wanted.sink in (None, s)]
    held = wanted.sink is None and _ranges(outbox, entry.seq, entry.seq) != []
    if len(doubtful) > 1:
        raise AgentError(f"record {entry.seq} is in doubt at {' and '.join(doubtful)}. Name one with --sink.")
    if not doubtful and not held:
        cure = "It is held for every sink alike: leave out --sink." if "held" in found.values() else told_of(found)
        raise AgentError(f"record {entry.seq}: nothing is in doubt{_where(wanted.sink)}. {cure}")
    for id_ in doubtful:
        _decide(outbox, sink_of(outbox, id_), [entry.seq], wanted, now)
    released = _release(outbox, entry.seq, entry.seq, wanted, now) if held else 0
    return done(f"{_how(wanted)} {entry.seq} at {doubtful[0] if doubtful else 'every sink'}", len(doubtful) + released)


def _how(wanted: Resolve) -> str:
    return "as delivered" if wanted.verdict == "delivered" else "by sending again"


def _decide(outbox: Outbox, sink: Standing, seqs: Iterable[int], wanted: Resolve, now: Moment) -> None:
    db = outbox.spool.db
    if wanted.verdict == "delivered":
        query = "UPDATE item SET outcome='delivered', at=?, why=? WHERE sink=? AND seq=?"
        db.executemany(query, [(now.billing, _by_hand(wanted.reason), sink.number, seq) for seq in seqs])
        return
    for seq in seqs:
        again = _again(outbox, sink, seq, now)
        query = "UPDATE item SET submission=?, outcome=NULL, at=NULL, why=NULL WHERE sink=? AND seq=?"
        db.execute(query, (again, sink.number, seq))


def _again(outbox: Outbox, sink: Standing, seq: int, now: Moment) -> int | None:
    """A submission of one item as it was frozen; None where a damaged spool lost its bytes: it is rendered anew.

    Tainted from now: the horizon begins anew, and should the sink know the record after all, that is an arrival.
    """
    db = outbox.spool.db
    query = (
        "SELECT i.submission, i.payload NOTNULL, r.seq NOTNULL FROM item AS i LEFT JOIN record AS r USING(seq)"
        " WHERE sink=? AND seq=?"
    )
    ((submission, payload, recorded),) = db.execute(query, (sink.number, seq))
    if not payload and not recorded:
        raise AgentError(f"record {seq}: its bytes are lost, so it cannot be sent to {sink.id}.")
    if not payload and submission is None:
        return None
    past = leave_past(outbox, sink, seq, now.billing)
    db.execute(
        "INSERT INTO submission(sink, parent, name, first, last, prepared, attempts, tainted, due)"
        " VALUES(:sink, :past, coalesce((SELECT name FROM submission WHERE id=:past),"
        " printf('%.12s-%012d-%012d', :epoch, :seq, :seq)), :seq, :seq, :now, 0, :elapsed, :elapsed)",
        {"sink": sink.number, "past": past, "epoch": outbox.spool.identity.epoch, "seq": seq}
        | {"now": now.billing, "elapsed": now.elapsed},
    )
    return db.last_insert_rowid()


def _release(outbox: Outbox, first: int, last: int, wanted: Resolve, now: Moment) -> int:
    """Take a range out of what is held: at each sink that is owed its records they wait, or are delivered."""
    db = outbox.spool.db
    taken = wanted.verdict == "delivered"
    settled = ("delivered", now.billing, _by_hand(wanted.reason)) if taken else (None, None, None)
    count = 0
    for rowid, low, high, reason, at in _ranges(outbox, first, last):
        db.execute(
            "INSERT INTO item(sink, seq, outcome, at, why) SELECT s.number, r.seq, ?, ?, ? FROM sink AS s"
            f" JOIN record AS r {ITEM} WHERE r.seq BETWEEN ? AND ? AND {STATE}='held'",
            (*settled, max(low, first), min(high, last)),
        )
        count += db.changes()
        db.execute("DELETE FROM held WHERE rowid=?", (rowid,))
        left = [(low, first - 1, reason, at), (last + 1, high, reason, at)]
        db.executemany("INSERT INTO held VALUES(?,?,?,?)", [row for row in left if row[0] <= row[1]])
    return count


def _ranges(outbox: Outbox, first: int, last: int) -> list[tuple[int, int, int, str, int]]:
    query = "SELECT rowid, first, last, reason, at FROM held WHERE first<=? AND last>=?"
    return list(outbox.spool.db.execute(query, (last, first)))


def _by_hand(reason: str) -> str:
    return f"settled by a person{f': {reason}' if reason else ''}"


def _where(sink: str | None) -> str:
    return f" at {sink}" if sink else ""
