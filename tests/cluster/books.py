"""The equality of the books, as exact integers: from one consistent look at the spool, whatever the agent is doing.

Σ booked + Δ in flight = Δ counter of the anchor (DESIGN, L1). `booked` is what is in records, and what is in windows
that are still open: an open window is a record in the making, and both are read in one transaction.
"""

import time
from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec
from msgspec import Struct

from agent.books import Row
from agent.spool import ledger

ANCHOR, DIMENSION, METER = "kubepods", "cpu", "cpu.time"
KINDS = ("system", "unattributed")  # what bears usage beside customers


class Books(Struct, frozen=True):
    """CPU time in ns. `counter` is the anchor's as the agent read it last, at `taken` (boottime).

    `by`: booked so far, by bearer. `pods`: the same by pod and bearer. `open`: what of `by` is in open windows; the
    oldest of them begins at `oldest_open` (billing time; far away if there is none), the newest ends at `at`.
    `records`: how many there are, of every dimension.
    """

    counter: int
    taken: int
    in_flight: int
    by: Mapping[str, int]
    pods: Mapping[str, Mapping[str, int]]
    open: Mapping[str, int]
    oldest_open: int
    at: int
    records: int

    def pod(self, uid: str) -> int:
        """All that was booked of a pod."""
        return sum(self.pods.get(uid, {}).values())

    @property
    def residual(self) -> int:
        """What was booked as unattributed beside all pods."""
        return self.by.get("unattributed", 0) - sum(of.get("unattributed", 0) for of in self.pods.values())


class Moved(Struct, frozen=True):
    """What happened between two looks; ns."""

    counter: int
    by: Mapping[str, int]
    in_flight: int
    residual: int  # of what is unattributed: what no pod's counter showed

    @property
    def customers(self) -> int:
        """Of all customers."""
        return sum(quantity for bearer, quantity in self.by.items() if bearer not in KINDS)

    @property
    def difference(self) -> int:
        """What the books miss (or, below zero, have too much)."""
        return self.counter - sum(self.by.values()) - self.in_flight


class _Record(Struct):
    kind: str
    customer: str | None = None
    dimension: str = ""
    quantity: str = "0"
    group: dict[str, str] = {}


_record, _row = msgspec.json.Decoder(_Record), msgspec.json.Decoder(Row)
_FAR = 1 << 63
# A pod's group outlives its last process by 1.4 s at least. If the machine lets the agent run so late that it has gone,
# what the pod used after its last reading is nobody's: at most what a sandbox uses to end.
LATE = 10_000_000  # ns


def boottime() -> int:
    """The clock of readings, ns."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def look(directory: Path) -> Books:
    """What the spool in `directory` holds now."""
    with ledger.opened(directory) as db, db:  # one transaction: what is read is of one commit
        records = [_record.decode(body) for (body,) in db.execute("SELECT body FROM record")]
        rows = [_row.decode(body) for (body,) in db.execute("SELECT body FROM resource")]
    by: dict[str, int] = {}
    pods: dict[str, dict[str, int]] = {}

    def book(bearer: str, uid: str | None, quantity: int) -> None:
        by[bearer] = by.get(bearer, 0) + quantity
        if uid is not None:
            pods.setdefault(uid, {})[bearer] = pods.get(uid, {}).get(bearer, 0) + quantity

    for record in records:
        if record.dimension == DIMENSION:
            book(record.customer or record.kind, record.group.get("pod_uid"), int(record.quantity))
    shares = [(row.track.resource, share) for row in rows for share in row.shares]
    opened: dict[str, int] = {}
    for resource, share in shares:
        if share.dimension == DIMENSION:
            bearer = share.owner.customer or share.owner.kind
            book(bearer, resource.labels.get("pod_uid"), share.quantity)
            opened[bearer] = opened.get(bearer, 0) + share.quantity
    mark = next((row.track.marks[METER] for row in rows if _is_anchor(row) and METER in row.track.marks), None)
    below = (row.track for row in rows if row.track.resource.anchor == ANCHOR)
    return Books(
        counter=0 if mark is None else mark.value,
        taken=0 if mark is None else mark.taken,
        in_flight=sum(track.in_flight.get(METER, 0) for track in below),
        by=by,
        pods=pods,
        open=opened,
        oldest_open=min((share.start for _, share in shares), default=_FAR),
        at=max((share.end for _, share in shares), default=0),
        records=len(records),
    )


def _is_anchor(row: Row) -> bool:
    return row.track.resource.name == ANCHOR


def between(before: Books, after: Books) -> Moved:
    """What happened from one look to a later one."""
    bearers = sorted({*before.by, *after.by})
    by = {bearer: after.by.get(bearer, 0) - before.by.get(bearer, 0) for bearer in bearers}
    in_flight, residual = after.in_flight - before.in_flight, after.residual - before.residual
    return Moved(after.counter - before.counter, by, in_flight, residual)


def all_booked(used: int, booked: int, residual: int) -> bool:
    """Whether a pod that is gone was booked what its own counter ended with; what came too late is in the residual."""
    return 0 <= used - booked <= min(LATE, residual)


def equality(moved: Moved) -> list[tuple[str, int]]:
    """The lines of the equality, in the order in which people add them up."""
    customers = [(f"booked to {bearer}", q) for bearer, q in moved.by.items() if bearer not in KINDS]
    others = [(f"booked as {kind}", moved.by.get(kind, 0)) for kind in KINDS]
    return [
        ("kubepods' own counter moved", moved.counter),
        *customers,
        *others,
        ("  of that beside all pods", moved.residual),
        ("Δ in flight", moved.in_flight),
        ("difference", moved.difference),
    ]


def printed(lines: Iterable[tuple[str, int]]) -> str:
    """Exact integers in a column."""
    return "\n".join(f"  {what:32} {ns:>20,} ns" for what, ns in lines)
