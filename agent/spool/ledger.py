"""Reading the ledger beside the writer, of this or another process: what was recorded, why, and where it went.

Nothing here writes, and nothing here needs the agent to run. Functions take the connection that `opened` gives.
"""

import uuid
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import apsw
import msgspec
from msgspec import Struct

from agent.errors import AgentError, CannotStartError, SpoolError
from agent.record import UsageRecord
from agent.spool.outbox import BILLED
from agent.spool.store import reader
from agent.windows import Evidence

Ledger = apsw.Connection
State = Literal["sent", "leaving", "owed", "held", "not for it", "before it began"]


class Entry(Struct, frozen=True):
    """One record as it lies in the ledger. `closed` is billing time; `sound`: its bytes have the CRC they had."""

    seq: int
    n: int
    closed: int
    sound: bool
    id: str
    record: UsageRecord
    body: bytes


class Delivery(Struct, frozen=True):
    """What became of one record at one sink. `name` and `at` are those of the submission that took it."""

    sink: str
    kind: str
    role: str
    state: State
    name: str | None = None
    at: int | None = None
    why: str | None = None  # of held


@contextmanager
def opened(directory: Path) -> Iterator[Ledger]:
    """A read-only connection to the spool in `directory`. Raises CannotStartError; SpoolError while it is read."""
    try:
        db = reader(directory)
    except (OSError, apsw.Error) as error:
        cure = "Run this as the agent's user, or name its data directory with --data-dir."
        raise CannotStartError(f"{directory}: the spool cannot be read: {error}. {cure}") from error
    try:
        yield db
    except apsw.Error as error:
        raise SpoolError(f"{directory}: the spool cannot be read: {error}. Is it an agent's data directory?") from error
    finally:
        db.close()


_COLUMNS = "SELECT seq, n, closed, crc, body FROM record AS r"


def entries(
    db: Ledger,
    *,
    kind: str | None = None,
    customer: str | None = None,
    sink: str | None = None,
    since: int | None = None,
    held: bool = False,
    limit: int | None = None,
) -> list[Entry]:
    """Records that fit every condition, the newest `limit` of them, oldest first.

    `since`: closed then or later. `sink`: still owed to it. `held`: waiting for a person. Raises AgentError for a
    sink that this spool does not know.
    """
    where, values = ["1"], list[object]()
    if kind is not None:
        where.append("kind=?")
        values.append(kind)
    if customer is not None:  # the body is canonical JSON: this finds every record of theirs, and a few others
        where.append("instr(body, ?)")
        values.append(b'"customer":' + msgspec.json.encode(customer))
    if since is not None:
        where.append("closed>=?")
        values.append(since)
    if sink is not None:
        position, role = _standing(db, sink)
        where.append("seq > ?")
        values.append(position)
        if role == "billing":
            where.append(f"kind IN {BILLED}")
    if held:
        where.append("EXISTS (SELECT 1 FROM held WHERE r.seq BETWEEN first AND last)")
    rows = db.execute(f"{_COLUMNS} WHERE {' AND '.join(where)} ORDER BY seq DESC", tuple(values))
    found: list[Entry] = []
    for entry in _entries(rows):
        if limit is not None and len(found) == limit:
            break
        if customer is None or entry.record.customer == customer:
            found.append(entry)
    return found[::-1]


def _standing(db: Ledger, sink: str) -> tuple[int, str]:
    """A sink's position and role."""
    known = {id_: (position, role) for id_, position, role in db.execute("SELECT id, position, role FROM sink")}
    if sink not in known:
        raise AgentError(f"{sink}: no sink of this id is known to the spool. Known: {', '.join(known) or 'none'}.")
    return known[sink]


def entry(db: Ledger, seq: int) -> Entry | None:
    """The record with this sequence number."""
    if seq >> 63:
        return None  # more than SQLite can hold
    return next(_entries(db.execute(f"{_COLUMNS} WHERE seq=?", (seq,))), None)


def between(db: Ledger, first: int, last: int) -> list[Entry]:
    """The records of a range of sequence numbers, both ends included."""
    return list(_entries(db.execute(f"{_COLUMNS} WHERE seq BETWEEN ? AND ? ORDER BY seq", (first, last))))


def find(db: Ledger, id: uuid.UUID) -> Entry | None:  # noqa: A002 - the record's own word
    """The record with this id: by the index if it was delivered, else by looking through the others."""
    seq = db.execute("SELECT seq FROM delivered WHERE id=?", (id.bytes,)).get
    if seq is not None:
        return entry(db, seq)
    name = b'"id":' + msgspec.json.encode(str(id))
    return next(_entries(db.execute(f"{_COLUMNS} WHERE instr(body, ?) ORDER BY seq DESC LIMIT 1", (name,))), None)


def deltas(db: Ledger, of: Entry) -> list[Entry]:
    """All records of the same key, n = 0, 1, 2…: their sum is what the key came to."""
    query = f"{_COLUMNS} WHERE start=? AND key=? ORDER BY n"
    return list(_entries(db.execute(query, (of.record.start, of.record.key()))))


def evidence(db: Ledger, seq: int) -> tuple[Evidence, ...] | None:
    """The readings behind a record; None where none are kept."""
    body = db.execute("SELECT body FROM evidence WHERE seq=?", (seq,)).get
    return None if body is None else _evidence(body)


def of_resource(db: Ledger, name: str, limit: int) -> list[tuple[Entry, Evidence]]:
    """The newest `limit` records that a resource is part of, oldest first, each with its part. By name or key."""
    found: list[tuple[Entry, Evidence]] = []
    rows = db.execute(
        "SELECT seq, n, closed, crc, r.body, e.body FROM record AS r JOIN evidence AS e USING(seq) ORDER BY seq DESC"
    )
    needle = msgspec.json.encode(name).strip(b'"')
    for *row, packed in rows:
        if needle not in zlib.decompress(packed):  # most are not of this resource: do not decode them
            continue
        parts = [part for part in _evidence(packed) if name in (part.resource.name, part.resource.key)]
        found += [(_entry(row), part) for part in parts]
        if len(found) >= limit:
            break
    return found[::-1]


def deliveries(db: Ledger, of: Entry) -> list[Delivery]:
    """What became of a record at every sink that is known here."""
    sinks: Sequence[tuple[str, str, str, int]] = list(
        db.execute("SELECT id, kind, role, position FROM sink ORDER BY id")
    )
    return [_delivery(db, of, *sink) for sink in sinks]


def _delivery(db: Ledger, of: Entry, sink: str, kind: str, role: str, position: int) -> Delivery:
    if role == "billing" and of.record.kind not in BILLED:
        return Delivery(sink, kind, role, "not for it")
    for (why,) in db.execute("SELECT reason FROM held WHERE ? BETWEEN first AND last", (of.seq,)):
        return Delivery(sink, kind, role, "held", why=why)
    query = "SELECT name, delivered FROM submission WHERE sink=? AND ? BETWEEN first AND last ORDER BY id DESC"
    for name, delivered in db.execute(query, (sink, of.seq)):
        return Delivery(sink, kind, role, "leaving" if delivered is None else "sent", name, delivered)
    return Delivery(sink, kind, role, "owed" if of.seq > position else "before it began")


class Sent(Struct, frozen=True):
    """One submission that arrived: records `first` to `last`, under `name`."""

    id: int
    sink: str
    first: int
    last: int
    name: str


def sent(db: Ledger, after: int) -> list[Sent]:
    """Submissions that were delivered, beyond the one with id `after`."""
    query = "SELECT id, sink, first, last, name FROM submission WHERE id>? AND delivered IS NOT NULL ORDER BY id"
    return [Sent(*row) for row in db.execute(query, (after,))]


def last_sent(db: Ledger) -> int:
    """The id of the newest submission; 0 if there is none."""
    return int(db.execute("SELECT coalesce(max(id), 0) FROM submission").get or 0)


def _entries(rows: Iterable[Sequence[object]]) -> Iterator[Entry]:
    return (_entry(row) for row in rows)


def _entry(row: Sequence[object]) -> Entry:
    seq, n, closed, crc, body = row
    assert isinstance(body, bytes)
    return msgspec.convert(
        {
            "seq": seq,
            "n": n,
            "closed": closed,
            "sound": zlib.crc32(body) == crc,
            "id": msgspec.json.decode(body)["id"],
            "record": UsageRecord.parse(body),
            "body": body,
        },
        Entry,
    )


def _evidence(packed: bytes) -> tuple[Evidence, ...]:
    return msgspec.json.decode(zlib.decompress(packed), type=tuple[Evidence, ...])
