"""Reading the ledger beside the writer, of this or another process: what was recorded, and why.

Nothing here writes, and nothing here needs the agent to run. Functions take the connection that `opened` gives. What
became of the records at each sink is in `deliveries`.
"""

import uuid
import zlib
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import apsw
import msgspec
from msgspec import Struct

from agent.errors import AgentError, CannotStartError, SpoolError
from agent.record import UsageRecord
from agent.shares import Evidence
from agent.spool.erasure import is_erased, left_of
from agent.spool.store import reader

Ledger = apsw.Connection

_parts = msgspec.json.Decoder(list[msgspec.Raw])
_part = msgspec.json.Decoder(Evidence)


class Entry(Struct, frozen=True):
    """One record as it lies in the ledger. `closed` is billing time; `sound`: its bytes have the CRC they had.

    `erased`: SHA-256, in hex, of what it said; `record` then holds no more than its kind and start.
    """

    seq: int
    n: int
    closed: int
    sound: bool
    id: str
    record: UsageRecord
    body: bytes
    erased: str | None = None


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


_COLUMNS = "SELECT seq, n, closed, crc, body, kind, start FROM record AS r"


def entries(
    db: Ledger,
    *,
    kind: str | None = None,
    customer: str | None = None,
    since: int | None = None,
    held: bool = False,
    where: tuple[str, tuple[object, ...]] = ("1", ()),
    limit: int | None = None,
) -> list[Entry]:
    """Records that fit every condition, the newest `limit` of them, oldest first.

    `since`: closed then or later. `held`: waiting for a person. `where`: SQL about the row `r` with its values, as
    `deliveries.standing` gives it.
    """
    found: list[Entry] = []
    for entry in _fitting(db, kind, customer, since, where, held=held, order="DESC"):
        if limit is not None and len(found) == limit:
            break
        found.append(entry)
    return found[::-1]


def each(
    db: Ledger,
    *,
    customer: str | None = None,
    since: int | None = None,
    held: bool = False,
    where: tuple[str, tuple[object, ...]] = ("1", ()),
) -> Iterator[Entry]:
    """The same, one by one from the oldest on, however many there are."""
    return _fitting(db, None, customer, since, where, held=held, order="ASC")


def _fitting(
    db: Ledger,
    kind: str | None,
    customer: str | None,
    since: int | None,
    where: tuple[str, tuple[object, ...]],
    *,
    held: bool,
    order: str,
) -> Iterator[Entry]:
    conditions, values = [where[0]], list(where[1])
    if kind is not None:
        conditions.append("kind=?")
        values.append(kind)
    if customer is not None:  # the body is canonical JSON: this finds every record of theirs, and a few others
        conditions.append("instr(body, ?)")
        values.append(b'"customer":' + msgspec.json.encode(customer))
    if since is not None:
        conditions.append("closed>=?")
        values.append(since)
    if held:
        conditions.append("EXISTS (SELECT 1 FROM held WHERE r.seq BETWEEN first AND last)")
    rows = db.execute(f"{_COLUMNS} WHERE {' AND '.join(conditions)} ORDER BY seq {order}", tuple(values))
    return (entry for entry in _entries(rows) if customer is None or entry.record.customer == customer)


def entry(db: Ledger, seq: int) -> Entry | None:
    """The record with this sequence number."""
    if seq >> 63:
        return None  # more than SQLite can hold
    return next(_entries(db.execute(f"{_COLUMNS} WHERE seq=?", (seq,))), None)


def between(db: Ledger, first: int, last: int) -> list[Entry]:
    """The records of a range of sequence numbers, both ends included."""
    return list(_entries(db.execute(f"{_COLUMNS} WHERE seq BETWEEN ? AND ? ORDER BY seq", (first, last))))


def find(db: Ledger, id: uuid.UUID) -> Entry | None:  # noqa: A002 - the record's own word
    """The record with this id: by the index if it was ever frozen for a sink, else by looking through the others."""
    seq = db.execute("SELECT seq FROM known WHERE id=?", (id.bytes,)).get
    if isinstance(seq, int):
        return entry(db, seq)
    name = b'"id":' + msgspec.json.encode(str(id))
    return next(_entries(db.execute(f"{_COLUMNS} WHERE instr(body, ?) ORDER BY seq DESC LIMIT 1", (name,))), None)


def names_record(name: str) -> bool:
    """Whether this can be a record's id or number."""
    return name.isdecimal() or _uuid(name) is not None


def named(db: Ledger, name: str) -> Entry:
    """The record with this id or sequence number. Raises AgentError."""
    if not names_record(name):
        raise AgentError(f"{name}: neither a record's id nor its number. `metering-agent spool ls` lists both.")
    id_ = _uuid(name)
    found = entry(db, int(name)) if id_ is None else find(db, id_)
    if found is None:
        raise AgentError(f"{name}: no such record in this spool. Records past `spool.retention` are gone.")
    return found


def _uuid(name: str) -> uuid.UUID | None:
    try:
        return uuid.UUID(name) if len(name) == 36 else None
    except ValueError:
        return None


def deltas(db: Ledger, of: Entry) -> list[Entry]:
    """All records of the same key, n = 0, 1, 2…: their sum is what the key came to."""
    query = f"{_COLUMNS} WHERE (start, key) = (SELECT start, key FROM record WHERE seq=?) ORDER BY n"  # noqa: S608
    return list(_entries(db.execute(query, (of.seq,))))


def evidence(db: Ledger, seq: int) -> tuple[Evidence, ...] | None:
    """The readings behind a record; None where none are kept."""
    body = db.execute("SELECT body FROM evidence WHERE seq=?", (seq,)).get
    return None if body is None else _evidence(body)


def of_resource(db: Ledger, name: str, limit: int) -> list[tuple[Entry, Evidence]]:
    """The newest `limit` records that a resource is part of, oldest first, each with its part. By name or key."""
    found: list[tuple[Entry, Evidence]] = []
    for entry, evidence in mentioning(db, {msgspec.json.encode(name).strip(b'"')}):
        found += [(entry, part) for part in evidence if name in (part.resource.name, part.resource.key)]
        if len(found) >= limit:
            break
    return found[::-1]


def mentioning(db: Ledger, words: Collection[bytes]) -> Iterator[tuple[Entry, tuple[Evidence, ...]]]:
    """Records that have one of `words` in their body or evidence, the newest first, with those parts of the evidence.

    All of the ledger is read, and of what does not fit nothing is decoded. Words may be added on the way.
    """
    rows: Iterable[tuple[Any, ...]] = db.execute(
        "SELECT seq, n, closed, crc, r.body, kind, start, e.body FROM record AS r LEFT JOIN evidence AS e USING(seq)"
        " ORDER BY seq DESC"
    )
    for *row, packed in rows:
        body, proof = row[4], zlib.decompress(packed) if packed is not None else b"[]"
        if any(word in proof or word in body for word in words):
            parts = [raw for part in _parts.decode(proof) if any(word in (raw := bytes(part)) for word in words)]
            yield _entry(row), tuple(_part.decode(part) for part in parts)


class Act(Struct, frozen=True):
    """What somebody did to this spool."""

    at: int
    who: str
    what: str
    why: str


def audit(db: Ledger) -> list[Act]:
    """The trail of what was done by hand, oldest first."""
    return [Act(*row) for row in db.execute("SELECT at, who, what, why FROM audit ORDER BY id")]


class Sent(Struct, frozen=True):
    """One submission that arrived, or part of it: records `first` to `last`, under `name`."""

    id: int
    sink: str
    first: int
    last: int
    name: str


def sent(db: Ledger, after: int) -> list[Sent]:
    """Submissions that were delivered, beyond the one with id `after`."""
    query = (
        "SELECT s.id, k.id, first, last, name FROM submission AS s JOIN sink AS k ON k.number=s.sink WHERE s.id>?"
        " AND settled IS NOT NULL AND EXISTS (SELECT 1 FROM item WHERE item.sink=s.sink AND seq BETWEEN first AND last"
        " AND submission=s.id AND outcome IN ('delivered', 'duplicate')) ORDER BY s.id"
    )
    return [Sent(*row) for row in db.execute(query, (after,))]


def last_sent(db: Ledger) -> int:
    """The id of the newest submission; 0 if there is none."""
    newest = db.execute("SELECT coalesce(max(id), 0) FROM submission").get
    return newest if isinstance(newest, int) else 0


def _entries(rows: Iterable[Sequence[object]]) -> Iterator[Entry]:
    return (_entry(row) for row in rows)


def _entry(row: Sequence[object]) -> Entry:
    seq, n, closed, crc, body, kind, start = row
    assert isinstance(body, bytes)
    erased = left_of(body) if is_erased(body) else None
    return msgspec.convert(
        {
            "seq": seq,
            "n": n,
            "closed": closed,
            "sound": zlib.crc32(body) == crc,
            "id": msgspec.json.decode(body)["id"],
            "record": UsageRecord.parse(body) if erased is None else _blank(kind, start),
            "body": body,
            "erased": None if erased is None else erased.erased,
        },
        Entry,
    )


def _blank(kind: object, start: object) -> UsageRecord:
    """What the columns beside an erased body still say."""
    nothing: dict[str, object] = dict.fromkeys(("source", "meter", "policy", "dimension", "base_unit", "basis"), "")
    numbers = {"start": start, "end": start, "quantity": 0, "covered": 0}
    return msgspec.convert({**nothing, **numbers, "kind": kind, "customer": None, "group": {}}, UsageRecord)


def _evidence(packed: bytes) -> tuple[Evidence, ...]:
    return msgspec.json.decode(zlib.decompress(packed), type=tuple[Evidence, ...])
