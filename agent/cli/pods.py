"""`metering-agent top --pods`: what each pod uses now, whose it is and by which rule. From the spool's open windows.

What is open is as much as what lives: no ledger is read, however long.
"""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct

from agent.books import Row
from agent.cli.show import lines, moment, natural, table
from agent.cli.top import drawn, fixed, holder, running, sweeps
from agent.model import NS_PER_S
from agent.shares import Share
from agent.sources import kernel
from agent.spool import glance
from agent.spool.ledger import Ledger, opened
from agent.usage import Mark

if TYPE_CHECKING:
    from rich.console import Group

CPU, MEMORY, RECEIVED, SENT = "cpu.time", "memory.working_set", "network.receive_bytes", "network.transmit_bytes"


class Line(Struct):
    """One pod that lives. CPU in ns and traffic in bytes, each second; memory in bytes. None: not measured."""

    bearer: str
    pod: str
    uid: str
    cpu: int | None
    memory: int | None
    received: int | None
    sent: int | None
    rule: str


class Frame(Struct, frozen=True):
    """What there is to see at one instant."""

    at: int
    agent: int | None  # pid; None: no agent runs, 0: one does, elsewhere
    sweeps: dict[str, str]  # by source, how long ago
    pods: tuple[Line, ...]


class Paces:
    """How fast counters move: between the last two sweeps that were seen, or, at first sight, in the open window."""

    def __init__(self) -> None:
        self._seen: dict[tuple[str, str], tuple[Mark, int | None]] = {}  # by resource and meter: its mark, and the rate

    def look(self, db: Ledger) -> tuple[Line, ...]:
        """The pods as the last sweep left them, the busiest first."""
        fed = {dimension.name: dimension.meter for dimension in glance.dimensions(db)}
        before, self._seen = self._seen, {}
        found: dict[str, Line] = {}
        for row in glance.pods(db):
            resource, marks = row.track.resource, row.track.marks
            if not marks:  # it is gone, and its window is still open
                continue
            uid = resource.labels["pod_uid"]
            rates = {meter: self._rate(row, meter, fed, before) for meter in (CPU, RECEIVED, SENT) if meter in marks}
            level = marks[MEMORY].raw if MEMORY in marks else None
            line = found.setdefault(uid, Line("", f"pod{uid}", uid, None, None, None, None, ""))
            line.cpu, line.memory = _plus(line.cpu, rates.get(CPU)), _plus(line.memory, level)
            line.received, line.sent = _plus(line.received, rates.get(RECEIVED)), _plus(line.sent, rates.get(SENT))
            if "namespace" in resource.labels:
                line.pod = f"{resource.labels['namespace']}/{resource.labels['pod']}"
            if (share := _newest(row.shares)) is not None and (not line.rule or CPU in marks):
                line.bearer, line.rule = share.owner.customer or share.owner.kind, share.owner.rule
        return tuple(sorted(found.values(), key=lambda line: (-(line.cpu or 0), line.pod, line.uid)))

    def _rate(
        self, row: Row, meter: str, fed: dict[str, str], before: dict[tuple[str, str], tuple[Mark, int | None]]
    ) -> int | None:
        mark, key = row.track.marks[meter], (row.track.resource.key, meter)
        former, rate = before.get(key, (None, None))
        if former is None or former.identity != mark.identity:
            rate = _mean(share for share in row.shares if fed.get(share.dimension) == meter)
        elif mark.taken > former.taken:
            rate = max(0, mark.value - former.value) * NS_PER_S // (mark.taken - former.taken)
        self._seen[key] = mark, rate
        return rate


def _mean(shares: Iterator[Share]) -> int | None:
    """What one dimension moved in each second that it was observed; the most of several that one meter feeds."""
    sums: dict[str, tuple[int, int]] = {}
    for share in shares:
        moved, observed = sums.get(share.dimension, (0, 0))
        sums[share.dimension] = moved + share.moved, observed + sum(end - start for start, end in share.spans)
    return max((moved * NS_PER_S // observed for moved, observed in sums.values() if observed), default=None)


def _newest(shares: list[Share]) -> Share | None:
    seen = [share for share in shares if share.spans]
    return max(seen, key=lambda share: share.spans[-1][1], default=None)


def _plus(one: int | None, other: int | None) -> int | None:
    return one if other is None else other + (one or 0)


def frame(directory: Path, paces: Paces, now: int, boottime: int, boot: str) -> Frame:
    """One look at the spool in `directory`. `now`: wall clock, ns. Raises AgentError."""
    agent = holder(directory)
    with opened(directory) as db:
        found = paces.look(db) if agent is not None else ()  # of long ago is not of now
        return Frame(now, agent, sweeps(db, boottime, boot), found)


def look(directory: Path, paces: Paces) -> Frame:
    """One look now."""
    return frame(directory, paces, time.time_ns(), kernel.boottime(), kernel.boot_id())


# -- for people ------------------------------------------------------------------------------------------------------

COLUMNS = ("customer", "pod", "cores", "memory", "received/s", "sent/s", "rule")
RIGHT = (2, 3, 4, 5)


def head(seen: Frame) -> list[str]:
    """The agent and how many pods it meters, in words."""
    ago = ", ".join(f"{source} {ago}" for source, ago in seen.sweeps.items()) or "none"
    at = moment(seen.at // NS_PER_S * NS_PER_S)
    return [f"{at}  {running(seen.agent)}; last sweep: {ago}; pods: {len(seen.pods):,}"]


def cells(seen: Frame) -> list[list[str]]:
    """The cells of the table of pods."""
    return [
        [
            line.bearer,
            line.pod,
            "" if line.cpu is None else fixed(natural(line.cpu, "ns").split(" ")[0]),
            _size(line.memory),
            _size(line.received),
            _size(line.sent),
            line.rule,
        ]
        for line in seen.pods
    ]


def once(seen: Frame) -> None:
    """Print one frame."""
    lines([*head(seen), ""])
    table(COLUMNS, cells(seen), RIGHT)
    lines(_footnote(seen))


def draw(seen: Frame) -> "Group":
    """One frame for the terminal."""
    return drawn([*head(seen), *_footnote(seen)], [(COLUMNS, cells(seen), RIGHT)])


def _footnote(seen: Frame) -> list[str]:
    cure = "What pods used is in the records: `metering-agent explain pod NAMESPACE/NAME`."
    return [] if seen.pods else [f"No pod is metered now. {cure}"]


def _size(count: int | None) -> str:
    """Bytes with one decimal, rounded down: 1.5 MiB."""
    if count is None:
        return ""
    for unit, shift in (("GiB", 30), ("MiB", 20), ("KiB", 10)):
        if count >> shift:
            tenths = count * 10 >> shift
            return f"{tenths // 10:,}.{tenths % 10} {unit}"
    return f"{count:,} B"
