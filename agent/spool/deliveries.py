# ruff: noqa: S608 - the SQL is put together from fragments of our own
"""What became of each record at each sink: where it stands, what was sent, what was answered, how it was rounded.

Read beside the writer, as `ledger` is. The states of a record that is not settled follow from the sink's position.
"""

import sys
from collections.abc import Iterable, Iterator
from decimal import Context, Decimal

import msgspec
from msgspec import Struct

from agent.clock import ClockState, dated
from agent.errors import AgentError
from agent.spool.backlog import stuck
from agent.spool.ledger import Entry, Ledger, entry
from agent.spool.rounding import Rounding
from agent.spool.schema import BILLED, STUCK

# of record `r` at sink `s`, whose item is `i` if there is one; the order is that of what is known for sure
STATE = f"""CASE
  WHEN i.outcome IS NOT NULL THEN i.outcome
  WHEN i.submission IS NOT NULL THEN 'leaving'
  WHEN i.seq IS NOT NULL THEN 'owed'
  WHEN s.role='billing' AND r.kind NOT IN {BILLED} THEN 'not for it'
  WHEN r.seq <= s.began THEN 'before it began'
  WHEN r.seq > s.until THEN 'after it ended'
  WHEN EXISTS (SELECT 1 FROM held WHERE r.seq BETWEEN first AND last) THEN 'held'
  WHEN r.seq > s.position THEN 'owed'
  ELSE 'not for it' END"""
ITEM = "LEFT JOIN item AS i ON i.sink=s.number AND i.seq=r.seq"
DUE = ("owed", "leaving", "held")  # not settled
NEVER = ("not for it", "before it began", "after it ended")
STATES = (*DUE, "delivered", "duplicate", *STUCK, "dropped", *NEVER)
_EXACT = Context(prec=1000)  # of decimals: no sum of what is submitted is ever rounded


class Attempt(Struct, frozen=True):
    """One time that a record left, or was about to; what was answered and what that meant."""

    at: int
    ended: int
    outcome: str
    why: str


class Delivery(Struct, frozen=True):
    """What became of one record at one sink. `at` and `why`: when and how it ended, or why it is held.

    `names`: the submissions that it was part of, oldest first. `tainted`: since when it may have arrived. `due`: when
    it is to be sent again or, `sought`, looked for. `confirmed`: when the sink was seen to hold it
    as it was sent. `rounding` is None where the value is the quantity.
    """

    sink: str
    kind: str
    role: str
    state: str
    at: int | None = None
    why: str | None = None
    names: tuple[str, ...] = ()
    attempts: tuple[Attempt, ...] = ()
    tainted: int | None = None
    due: int | None = None
    sought: bool = False
    confirmed: int | None = None
    rounding: Rounding | None = None


def known(db: Ledger, sink: str) -> int:
    """A sink's number. Raises AgentError for one that this spool does not know."""
    numbers = dict[str, int](db.execute("SELECT id, number FROM sink ORDER BY id"))
    if sink not in numbers:
        raise AgentError(f"{sink}: no sink of this id is known to the spool. Known: {', '.join(numbers) or 'none'}.")
    return numbers[sink]


def standing(db: Ledger, sink: str | None, state: str | None) -> tuple[str, tuple[object, ...]]:
    """A condition on ledger rows `r`: in this state at this sink, or at any.

    Without a state: what the sink has not taken, and may still. Without either: no condition. Raises AgentError.
    """
    if state is not None and state not in STATES:
        raise AgentError(f"{state}: records do not stand so. One of: {', '.join(STATES)}.")
    if sink is None and state is None:
        return "1", ()
    at, values = ("1", ()) if sink is None else ("s.number=?", (known(db, sink),))
    wanted = (*DUE, *STUCK) if state is None else (state,)
    marks = ",".join("?" * len(wanted))
    return f"EXISTS (SELECT 1 FROM sink AS s {ITEM} WHERE {at} AND {STATE} IN ({marks}))", (*values, *wanted)


def states(db: Ledger, seq: int) -> dict[str, str]:
    """Where a record stands at each sink that is known here."""
    query = f"SELECT s.id, {STATE} FROM sink AS s JOIN record AS r {ITEM} WHERE r.seq=? ORDER BY s.id"
    return dict[str, str](db.execute(query, (seq,)))


def deliveries(db: Ledger, of: Entry) -> list[Delivery]:
    """What became of a record at every sink that is known here, and at those that were removed."""
    query = (
        f"SELECT s.id, s.kind, s.role, {STATE}, s.number, i.submission, i.at, i.why, i.rounding"
        f" FROM sink AS s JOIN record AS r {ITEM} WHERE r.seq=? ORDER BY s.id"
    )
    removed = (
        "SELECT 'number ' || i.sink, 'removed', '', coalesce(i.outcome, 'leaving'), i.sink, i.submission, i.at, i.why,"
        " i.rounding FROM item AS i WHERE i.seq=? AND i.sink NOT IN (SELECT number FROM sink)"
    )
    rows = [*db.execute(query, (of.seq,)), *db.execute(removed, (of.seq,))]
    return [_delivery(db, of.seq, *row) for row in rows]


def _delivery(
    db: Ledger,
    seq: int,
    sink: str,
    kind: str,
    role: str,
    state: str,
    number: int,
    submission: int | None,
    at: int | None,
    why: str | None,
    rounding: bytes | None,
) -> Delivery:
    if state == "held":
        why = db.execute("SELECT reason FROM held WHERE ? BETWEEN first AND last", (seq,)).get
    tainted = due = None
    sought = False
    if state == "leaving":
        query = "SELECT tainted, due FROM submission WHERE id=? AND settled IS NULL"
        for open_ in db.execute(query, (submission,)):
            tainted, due = (None if at is None else _dated(db, at) for at in open_)
        sought = db.execute("SELECT 1 FROM doubt WHERE submission=?", (submission,)).get is not None
    names, attempts = _past(db, number, seq, submission, at)
    return Delivery(
        sink=sink,
        kind=kind,
        role=role,
        state=state,
        at=at,
        why=why,
        names=names,
        attempts=attempts,
        tainted=tainted,
        due=due,
        sought=sought,
        confirmed=db.execute("SELECT at FROM confirmed WHERE sink=? AND seq=?", (number, seq)).get,
        rounding=None if rounding is None else msgspec.json.decode(rounding, type=Rounding),
    )


def _dated(db: Ledger, elapsed: int) -> int:
    """A time of elapsed time, for people."""
    kept = db.execute("SELECT value FROM meta WHERE name='clock'").get
    return elapsed if kept is None else dated(elapsed, msgspec.json.decode(kept, type=ClockState))


def _past(
    db: Ledger, sink: int, seq: int, submission: int | None, at: int | None
) -> tuple[tuple[str, ...], tuple[Attempt, ...]]:
    """The names under which an item was sent or is to be, and the attempts that were made while it was part of them.

    A batch goes on without those of its items that are settled, so an attempt counts until the item left it. What a
    person did left a submission of this one item alone, by which its past is found after it went on.
    """
    query = (
        "WITH RECURSIVE chain(id, parent, until) AS ("
        " SELECT id, parent, CASE WHEN id=:submission THEN :at ELSE settled END FROM submission"
        "  WHERE id=:submission OR (sink=:sink AND first=:seq AND last=:seq AND settled IS NOT NULL)"
        " UNION SELECT s.id, s.parent, min(c.until, coalesce(s.settled, c.until))"
        "  FROM submission AS s JOIN chain AS c ON s.id=c.parent)"
        " SELECT DISTINCT s.name, s.id=:submission, a.id, a.at, a.ended, a.outcome, a.why FROM chain AS c"
        " JOIN submission AS s USING(id) LEFT JOIN attempt AS a ON a.submission=c.id AND a.ended<=c.until"
        " ORDER BY s.id, a.id"
    )
    until = sys.maxsize if at is None else at
    names, attempts = dict[str, None](), dict[int, Attempt]()
    for name, current, number, *attempt in db.execute(
        query, {"submission": submission, "at": until, "sink": sink, "seq": seq}
    ):
        if number is not None:
            attempts[number] = Attempt(*attempt)
        if number is not None or current:
            names[name] = None
    return tuple(names), tuple(attempts[number] for number in sorted(attempts))


def sent_between(db: Ledger, sink: str, start: int, end: int) -> Iterator[tuple[Entry, str, str | None]]:
    """Records that a sink is concerned with, whose windows began in this span, ns, and that still say what they said.

    Each with its state and, where it was rounded, the value that was frozen. Raises AgentError.
    """
    rows = db.execute(
        f"SELECT r.seq, {STATE} AS state, i.rounding FROM sink AS s JOIN record AS r {ITEM}"
        f" WHERE s.number=? AND r.start>=? AND r.start<? AND state NOT IN {NEVER} ORDER BY r.seq",
        (known(db, sink), start, end),
    )
    for seq, state, rounding in rows:
        found = entry(db, seq)
        if found is not None and found.erased is None:
            rounded = None if rounding is None else msgspec.json.decode(rounding, type=Rounding)
            yield found, state, None if rounded is None else rounded.value


class SinkState(Struct, frozen=True):
    """How one sink stands. `owed`: records that it has still to take; `oldest`: when the first of them closed.

    `stuck`: records that wait for a person, by outcome. `last`: what it answered last.
    """

    sink: str
    kind: str
    role: str
    state: str
    owed: int
    oldest: int | None
    stuck: dict[str, int]
    last: Attempt | None


def sink_states(db: Ledger) -> list[SinkState]:
    """Every sink that is known here."""
    rows = list(db.execute("SELECT number, id, kind, role, paused, until FROM sink ORDER BY id"))
    return [_sink_state(db, *row) for row in rows]


def _sink_state(db: Ledger, number: int, sink: str, kind: str, role: str, paused: int, until: int | None) -> SinkState:
    counts = (
        f"SELECT {STATE} AS state, count(*), min(r.closed) FROM sink AS s JOIN record AS r {ITEM}"
        f" WHERE s.number=? GROUP BY state HAVING state IN {DUE}"
    )
    found = {state: (count, oldest) for state, count, oldest in db.execute(counts, (number,))}
    due = [found[state] for state in ("owed", "leaving") if state in found]
    held = {"held": found["held"][0]} if "held" in found else {}
    last = (
        "SELECT a.at, a.ended, a.outcome, a.why FROM attempt AS a JOIN submission AS s ON s.id=a.submission"
        " WHERE s.sink=? ORDER BY a.id DESC LIMIT 1"
    )
    return SinkState(
        sink=sink,
        kind=kind,
        role=role,
        state="paused" if paused else "draining" if until is not None else "delivering",
        owed=sum(count for count, _ in due),
        oldest=min((oldest for _, oldest in due), default=None),
        stuck=held | stuck(db, number),
        last=next((Attempt(*row) for row in db.execute(last, (number,))), None),
    )


class Total(Struct, frozen=True):
    """What came to one end: `quantity` in base units, and `submitted` in `unit`, the sink's, as far as it was rendered.

    An erased record counts, and has no customer, dimension or quantity any more.
    """

    sink: str
    customer: str | None
    dimension: str
    state: str
    unit: str
    records: int
    quantity: int
    submitted: str


class _Used(Struct):
    customer: str | None = None
    dimension: str = "erased"
    quantity: str = "0"
    base_unit: str = ""


def totals(db: Ledger) -> list[Total]:
    """The ledger's side of the account: per sink, customer, dimension, state and unit, exactly."""
    sums: dict[tuple[str, str | None, str, str, str], tuple[int, int, Decimal]] = {}
    rows: Iterable[tuple[str, str, bytes | None, int, bytes]] = db.execute(
        f"SELECT s.id, {STATE} AS state, i.rounding, i.submission IS NOT NULL, r.body FROM sink AS s JOIN record AS r"
        f" {ITEM} WHERE state NOT IN {NEVER}"
    )
    used_of = msgspec.json.Decoder(_Used)
    for sink, state, rounding, rendered, body in rows:
        used = used_of.decode(body)
        unit, value = used.base_unit, used.quantity if rendered else "0"
        if rounding is not None:
            rounded = msgspec.json.decode(rounding, type=Rounding)
            unit, value = rounded.unit, rounded.value
        key = (sink, used.customer, used.dimension, state, unit)
        records, quantity, submitted = sums.get(key, (0, 0, Decimal(0)))
        sums[key] = (records + 1, quantity + int(used.quantity), _EXACT.add(submitted, Decimal(value)))
    ordered = sorted(sums, key=lambda key: (key[0], key[1] or "", *key[2:]))
    return [Total(*key, *sums[key][:2], format(sums[key][2], "f")) for key in ordered]
