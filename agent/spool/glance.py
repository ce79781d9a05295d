"""What the spool says at a glance, for `top` and `doctor`: read beside the writer, at a cost that no backlog sets.

No query here reads the whole ledger, of records or of items: newest first, so many and no more. The planner knows
nothing of how many are settled, so it is told by which index to go.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec
from msgspec import Struct

from agent.books import Row
from agent.clock import ClockState
from agent.model import Dimension
from agent.record import nanoseconds
from agent.spool.backlog import backlog, stuck
from agent.spool.ledger import Ledger
from agent.spool.opening import FILE
from agent.usage import Cursor

ANSWERS = 200  # attempts that are looked back at, of all sinks together
SMALL = ("meta", "cursor", "listing", "resource", "sink", "held")  # what measuring stands on


class Used(Struct, frozen=True):
    """What one record adds, times in ns: as much of it as a total needs."""

    seq: int
    closed: int
    kind: str
    customer: str | None
    dimension: str
    start: int
    end: int
    quantity: int
    base_unit: str


class _Body(Struct):
    customer: str | None = None
    dimension: str = ""  # an erased body has none
    start: str = ""
    end: str = ""
    quantity: str = "0"
    base_unit: str = ""


_body = msgspec.json.Decoder(_Body)
_row = msgspec.json.Decoder(Row)


def newest(db: Ledger, beyond: int, limit: int) -> Iterator[Used]:
    """Records beyond a number, the newest first, at most so many. What is erased is left out."""
    query = "SELECT seq, closed, kind, body FROM record WHERE seq>? ORDER BY seq DESC LIMIT ?"
    rows: Iterable[tuple[int, int, str, bytes]] = db.execute(query, (beyond, limit))
    for seq, closed, kind, body in rows:
        said = _body.decode(body)
        if said.dimension:
            start, end = nanoseconds(said.start), nanoseconds(said.end)
            yield Used(seq, closed, kind, said.customer, said.dimension, start, end, int(said.quantity), said.base_unit)


def last(db: Ledger) -> int:
    """The newest record's number; 0 before the first."""
    return _number(db, "SELECT coalesce(max(seq), 0) FROM record")


class Outflow(Struct, frozen=True):
    """How one sink fares. `owed`: records it has still to take; `oldest`: when the first of them closed.

    `stuck`: records that wait for a person, by outcome. `answers`: what it answered lately, by outcome; `at` and
    `why`: the last of them. `retries`: attempts so far at what it has not taken yet.
    """

    sink: str
    role: str
    state: str
    owed: int
    oldest: int | None
    stuck: dict[str, int]
    answers: dict[str, int]
    retries: int
    at: int | None
    why: str | None


def outflows(db: Ledger) -> list[Outflow]:
    """Every sink that is known here, by id."""
    lately: dict[int, list[tuple[str, int, str]]] = {}
    query = (
        "SELECT s.sink, a.outcome, a.ended, a.why FROM attempt AS a JOIN submission AS s ON s.id=a.submission"
        " ORDER BY a.id DESC LIMIT ?"
    )
    for sink, *answer in db.execute(query, (ANSWERS,)):
        lately.setdefault(sink, []).append((answer[0], answer[1], answer[2]))
    end = last(db)
    rows = list(db.execute("SELECT number, id, role, paused, position, until FROM sink ORDER BY id"))
    return [_outflow(db, lately.get(row[0], []), end, *row) for row in rows]


def _outflow(
    db: Ledger,
    answers: list[tuple[str, int, str]],
    end: int,
    number: int,
    sink: str,
    role: str,
    paused: int,
    position: int,
    until: int | None,
) -> Outflow:
    owed, oldest = backlog(db, number, position, end if until is None else until)
    retries = "SELECT coalesce(max(attempts), 0) FROM submission AS s WHERE sink=? AND settled IS NULL"
    outcomes = [outcome for outcome, _, _ in answers]
    return Outflow(
        sink=sink,
        role=role,
        state="paused" if paused else "draining" if until is not None else "delivering",
        owed=owed,
        oldest=oldest,
        stuck=stuck(db, number),
        answers={outcome: outcomes.count(outcome) for outcome in dict.fromkeys(outcomes)},
        retries=_number(db, retries, number),
        at=answers[0][1] if answers else None,
        why=f"{answers[0][0]}: {answers[0][2]}" if answers else None,
    )


def cursors(db: Ledger) -> dict[str, Cursor]:
    """How far each source is booked, by its id; without the listing."""
    rows: Iterable[tuple[str, bytes]] = db.execute("SELECT source, body FROM cursor ORDER BY source")
    return {source: msgspec.json.decode(body, type=Cursor) for source, body in rows}


def pods(db: Ledger) -> Iterator[Row]:
    """Everything that is read of pods and lives, or has an open window: its marks and its shares."""
    rows: Iterable[tuple[bytes]] = db.execute("SELECT body FROM resource WHERE instr(body, ?)", (b'"pod_uid":',))
    return (_row.decode(body) for (body,) in rows)


def dimensions(db: Ledger) -> tuple[Dimension, ...]:
    """What the agent that wrote last was measuring."""
    kept = db.execute("SELECT value FROM meta WHERE name='plan'").get
    return () if kept is None else msgspec.json.decode(kept, type=tuple[tuple[Dimension, ...], int])[0]


def clock_state(db: Ledger) -> ClockState | None:
    """The anchor of billing time; None before the first sweep."""
    kept = db.execute("SELECT value FROM meta WHERE name='clock'").get
    return None if kept is None else msgspec.json.decode(kept, type=ClockState)


def held(db: Ledger) -> int:
    """How many records wait for a person's decision, all sinks alike."""
    return _number(db, "SELECT coalesce(sum(last - first + 1), 0) FROM held")


def unsound(db: Ledger) -> str | None:
    """What is wrong with the tables that measuring stands on; None if nothing is. `spool fsck` reads all of it."""
    said = [f"{table}: {db.execute(f'PRAGMA quick_check({table})').get}" for table in SMALL]
    return next((text for text in said if not text.endswith(": ok")), None)


def size(directory: Path) -> int:
    """Bytes of the file and its WAL. Raises OSError."""
    names = [name for name in (FILE, f"{FILE}-wal") if (directory / name).exists()]
    return sum((directory / name).stat().st_size for name in names)


def holder(directory: Path) -> int | None:
    """The process that runs on this directory; None if there is none. Takes no lock, which would disturb a start.

    0 where its number means nothing here, as inside another container. Raises OSError.
    """
    try:
        inode = (directory / "lock").stat().st_ino
    except FileNotFoundError:
        return None
    for line in Path("/proc/locks").read_text().splitlines():
        fields = line.split()
        if fields[1] == "FLOCK" and fields[5].rpartition(":")[2] == str(inode):
            return max(0, int(fields[4]))
    return None


def _number(db: Ledger, query: str, *values: int) -> int:
    found = db.execute(query, values).get
    return found if isinstance(found, int) else 0
