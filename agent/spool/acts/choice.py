"""What acts are about and what they come to; how records and sinks are found for them."""

from collections.abc import Iterable, Mapping, Sequence

from msgspec import Struct

from agent.errors import AgentError
from agent.spool import ledger
from agent.spool.deliveries import known, states
from agent.spool.outbox import Outbox, Standing
from agent.spool.remainders import give_back


class Choice(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which records: one by its id or number, or all that have this outcome at the sink."""

    record: str | None = None
    sink: str | None = None
    outcome: str | None = None
    reason: str = ""


class OfSink(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which sink."""

    sink: str
    reason: str = ""


class Done(Struct, frozen=True):
    """`what` was done, for the trail; `told` to whoever did it."""

    what: str
    told: str


def sink_of(outbox: Outbox, sink: str) -> Standing:
    """The sink of this id. Raises AgentError."""
    known(outbox.spool.db, sink)
    return outbox.sinks()[sink]


def some(outbox: Outbox, wanted: Choice, among: Sequence[str]) -> tuple[Standing, list[int]]:
    """One record, or all of an outcome, at a sink; where one is found at a single sink, that need not be named."""
    if wanted.record is None:
        return all_of(outbox, wanted, among)
    entry = ledger.named(outbox.spool.db, wanted.record)
    if wanted.sink is not None:
        return sink_of(outbox, wanted.sink), [entry.seq]
    found = states(outbox.spool.db, entry.seq)
    at = [sink for sink, state in found.items() if state in among]
    if len(at) != 1:
        raise AgentError(f"record {entry.seq}: at which sink? Name it with --sink. {told_of(found)}")
    return sink_of(outbox, at[0]), [entry.seq]


def all_of(outbox: Outbox, wanted: Choice, among: Sequence[str], or_else: str = "") -> tuple[Standing, list[int]]:
    """All of one outcome at a sink. Raises AgentError where these are not named."""
    if wanted.sink is None or wanted.outcome not in among:
        beside = f"; {or_else}" if or_else else ""
        raise AgentError(f"--all needs --sink ID and --outcome, one of {', '.join(among)}{beside}.")
    sink = sink_of(outbox, wanted.sink)
    query = "SELECT seq FROM item WHERE sink=? AND outcome=? ORDER BY seq"
    return sink, [seq for (seq,) in outbox.spool.db.execute(query, (sink.number, wanted.outcome))]


def state_at(outbox: Outbox, sink: Standing, seq: int) -> str:
    """Where a record stands at a sink; of one that a damaged spool lost, what had become of it."""
    query = "SELECT outcome FROM item WHERE sink=? AND seq=?"
    return states(outbox.spool.db, seq).get(sink.id) or str(outbox.spool.db.execute(query, (sink.number, seq)).get)


def told_of(found: Mapping[str, str]) -> str:
    """Where a record stands, in words."""
    return f"It is: {', '.join(f'{state} at {sink}' for sink, state in found.items()) or 'at no sink'}."


def done(what: str, count: int) -> Done:
    """So many were decided upon."""
    return Done(f"{what} ({count})", f"{count} done." if count != 1 else "Done.")


def numbers(seqs: Sequence[int]) -> str:
    """1–4, 7."""
    return ", ".join(str(first) if first == last else f"{first}–{last}" for first, last in runs(seqs)) or "none"


def runs(seqs: Iterable[int]) -> list[tuple[int, int]]:
    """Rising numbers as (first, last) of those that follow each other."""
    found: list[tuple[int, int]] = []
    for seq in seqs:
        if found and found[-1][1] == seq - 1:
            found[-1] = found[-1][0], seq
        else:
            found.append((seq, seq))
    return found


def leave_past(outbox: Outbox, sink: Standing, seq: int, now: int) -> int | None:
    """Make a settled submission of this item alone, as of when it was settled, by which its past is found.

    Its id; None where the item was part of none.
    """
    db = outbox.spool.db
    db.execute(
        "INSERT INTO submission(sink, parent, name, first, last, prepared, attempts, tainted, due, settled)"
        " SELECT s.sink, s.id, printf('%.12s-%012d-%012d', s.name, i.seq, i.seq), i.seq, i.seq, prepared, attempts,"
        " tainted, due, coalesce(i.at, ?) FROM item AS i JOIN submission AS s ON s.id=i.submission"
        " WHERE i.sink=? AND i.seq=?",
        (now, sink.number, seq),
    )
    return db.last_insert_rowid() if db.changes() else None


def withdraw(outbox: Outbox, sink: Standing, seq: int, now: int) -> None:
    """Undo the rendering of what has surely not arrived, its rounding too (DESIGN §4), and leave its past behind."""
    db = outbox.spool.db
    give_back(outbox, sink, seq, now)
    leave_past(outbox, sink, seq, now)
    query = "UPDATE item SET submission=NULL, payload=NULL, rounding=NULL WHERE sink=? AND seq=?"
    db.execute(query, (sink.number, seq))
