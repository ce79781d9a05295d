"""`metering-agent top`: who uses how much now and today, and how delivery fares. From the spool and nothing else."""

import os
import select
import shutil
import sys
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from msgspec import Struct

from agent.cli.show import clean, lines, moment, natural, table
from agent.errors import AgentError
from agent.model import NS_PER_S
from agent.sources import kernel
from agent.spool import glance
from agent.spool.glance import Outflow, Used
from agent.spool.ledger import Ledger, opened

if TYPE_CHECKING:
    from rich.console import Group

_Frame = TypeVar("_Frame")

HOUR = 3_600 * NS_PER_S  # no window is longer
DAY = 24 * HOUR
REFRESH_SECONDS = 2.0
WINDOWS = 3  # a rate is the mean over so many windows
READ = 200_000  # records that one look reads at most: beyond that, today begins later
LEAST = 1_000  # records that a first look reads in any case, for the rates just after midnight


class Line(Struct, frozen=True):
    """One customer and dimension, in base units. `rate`: in each second of the last windows, rounded down."""

    customer: str
    dimension: str
    base_unit: str
    rate: int
    total: int  # today


class Frame(Struct, frozen=True):
    """What there is to see at one instant. `start`: of the first window in `total`; `end`: of the last that closed."""

    at: int
    agent: int | None  # pid; None: no agent runs, 0: one does, elsewhere
    sweeps: dict[str, str]  # by source, how long ago
    size: int
    free: int
    start: int
    end: int | None
    lines: tuple[Line, ...]
    sinks: tuple[Outflow, ...]


class Tally:
    """Rates and today's totals, kept up to date by what is new: a look reads no record twice."""

    def __init__(self) -> None:
        self._begin(-1)

    def _begin(self, day: int) -> None:
        self._day, self._seen = day, 0
        self._totals: dict[tuple[str, str, str], int] = {}
        self._recent: list[Used] = []
        self.since = day * DAY
        self.until: int | None = None

    def look(self, db: Ledger, now: int) -> None:
        """Take in what was recorded since the last look. `now`: ns; the day is that of UTC."""
        last = glance.last(db)
        if last < self._seen or now // DAY != self._day:  # another spool, or another day
            self._begin(now // DAY)
        fresh: list[Used] = []
        for used in glance.newest(db, self._seen, READ):
            if not self._seen and used.closed < self._day * DAY and len(fresh) >= LEAST:
                break
            fresh.append(used)
        if len(fresh) == READ:
            self.since = fresh[-1].start
        self._seen = last
        for used in fresh:
            if used.start >= self._day * DAY:
                self._totals[_key(used)] = self._totals.get(_key(used), 0) + used.quantity
        self._recent = _last_windows([*fresh, *self._recent])
        self.until = max((used.end for used in self._recent), default=None)

    def lines(self) -> Iterator[Line]:
        """By customer and dimension. What is a gap has no quantity, and is left out."""
        used = dict.fromkeys(self._totals, 0)
        for one in self._recent:
            used[_key(one)] = used.get(_key(one), 0) + one.quantity
        spanned = (self.until or 0) - min((one.start for one in self._recent), default=0)
        for key in sorted(used):
            who, dimension, base = key
            if who != "gap":
                rate = used[key] * NS_PER_S // spanned if spanned else 0
                yield Line(who, dimension, base, rate, self._totals.get(key, 0))


def _key(used: Used) -> tuple[str, str, str]:
    return used.customer or used.kind, used.dimension, used.base_unit


def _last_windows(found: list[Used]) -> list[Used]:
    """Those of the last windows. How long a window is, the records say: the longest of them is one."""
    until = max((used.end for used in found if used.kind != "gap"), default=0)
    newest = [used for used in found if used.kind != "gap" and until - used.end < WINDOWS * HOUR]
    length = max((used.end - used.start for used in newest), default=0)
    return [used for used in newest if used.start >= until - WINDOWS * length]


def frame(directory: Path, tally: Tally, now: int, boottime: int, boot: str) -> Frame:
    """One look at the spool in `directory`. `now`: wall clock, ns. Raises AgentError."""
    with opened(directory) as db:
        tally.look(db, now)
        ago, sinks = sweeps(db, boottime, boot), tuple(glance.outflows(db))
    try:
        size, free = glance.size(directory), shutil.disk_usage(directory).free
    except OSError as error:
        raise AgentError(f"{directory}: {error.strerror}. Is the disk there?") from error
    return Frame(
        at=now,
        agent=holder(directory),
        sweeps=ago,
        size=size,
        free=free,
        start=tally.since,
        end=tally.until,
        lines=tuple(tally.lines()),
        sinks=sinks,
    )


def look(directory: Path, tally: Tally) -> Frame:
    """One look now."""
    return frame(directory, tally, time.time_ns(), kernel.boottime(), kernel.boot_id())


def sweeps(db: Ledger, boottime: int, boot: str) -> dict[str, str]:
    """How long ago each source was last read."""
    return {
        source: _ago(boottime - cursor.stamp) if cursor.boot == boot else "not in this boot"
        for source, cursor in glance.cursors(db).items()
    }


def holder(directory: Path) -> int | None:
    """The process of the agent that runs on this directory, as `glance.holder`. Raises AgentError."""
    try:
        return glance.holder(directory)
    except OSError as error:
        raise AgentError(f"{directory}: {error.strerror}. Is the disk there?") from error


def _ago(ns: int) -> str:
    whole = max(0, ns) // NS_PER_S
    for name, seconds in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if whole >= 2 * seconds:
            return f"{whole // seconds} {name}"
    return f"{whole} s"


# -- for people ------------------------------------------------------------------------------------------------------

DELIVERY = ("sink", "role", "state", "owed", "oldest", "for a person", "answers", "last answer")
USAGE = ("customer", "dimension", "each second", "today", "unit")


def running(agent: int | None) -> str:
    """Whether an agent runs, in words."""
    return {None: "no agent runs", 0: "an agent runs"}.get(agent, f"agent {agent} runs")


def head(seen: Frame) -> list[str]:
    """The agent and its spool, in words."""
    sweeps = ", ".join(f"{source} {ago}" for source, ago in seen.sweeps.items()) or "none"
    windows = f"windows until {moment(seen.end)}" if seen.end is not None else "no window closed yet"
    spool = f"spool {_mebibytes(seen.size)}, disk free {_mebibytes(seen.free)}"
    return [
        f"{moment(seen.at // NS_PER_S * NS_PER_S)}  {running(seen.agent)}; last sweep: {sweeps}; {windows}; {spool}"
    ]


def delivery(seen: Frame) -> list[list[str]]:
    """The cells of the table of sinks."""
    return [
        [
            sink.sink,
            sink.role,
            f"{sink.state}, attempt {sink.retries + 1}" if sink.retries else sink.state,
            f"{sink.owed:,}",
            _ago(seen.at - sink.oldest) if sink.oldest is not None else "",
            _counts(sink.stuck),
            _counts(sink.answers),
            f"{_ago(seen.at - sink.at)} ago, {sink.why}" if sink.at is not None else "",
        ]
        for sink in seen.sinks
    ]


def usage(seen: Frame) -> list[list[str]]:
    """The cells of the table of customers."""
    rows = []
    for line in seen.lines:
        rate, unit = natural(line.rate, line.base_unit).split(" ", 1)
        total, _ = natural(line.total, line.base_unit).split(" ", 1)
        rows.append([line.customer, line.dimension, fixed(rate), total, unit])
    return rows


def fixed(number: str) -> str:
    """No more than three decimals."""
    whole, _, fraction = number.partition(".")
    return f"{whole}.{fraction[:3]}" if fraction else whole


def once(seen: Frame) -> None:
    """Print one frame."""
    lines([*head(seen), ""])
    table(DELIVERY, delivery(seen), right=(3, 4))
    lines([""] if seen.sinks else ["No sink.", ""])
    table(USAGE, usage(seen), right=(2, 3))
    lines(_footnote(seen))


def watch(
    take: Callable[[], _Frame], tell: Callable[[_Frame], None], paint: "Callable[[_Frame], Group]", *, once: bool
) -> None:
    """Show frames as they are taken, one on the other; or one, and that is all."""
    if once:
        tell(take())
    else:
        live(lambda: paint(take()))


def live(draw: "Callable[[], Group]") -> None:
    """Redraw every two seconds until q or Ctrl-C."""
    from rich.console import Console
    from rich.live import Live

    console = Console(highlight=False)
    try:
        with _keys() as pressed, Live(console=console, screen=True, auto_refresh=False) as screen:
            while True:
                screen.update(draw(), refresh=True)
                if pressed(REFRESH_SECONDS) in (b"q", b"Q"):
                    return
    except KeyboardInterrupt:
        return


def draw(seen: Frame) -> "Group":
    """One frame for the terminal."""
    tables = [(DELIVERY, delivery(seen), (3, 4)), (USAGE, usage(seen), (2, 3))]
    return drawn([*head(seen), *_footnote(seen)], tables)


def drawn(said: list[str], tables: Sequence[tuple[Sequence[str], list[list[str]], Collection[int]]]) -> "Group":
    """Lines, and below them tables: their columns, cells, and which columns stand flush right."""
    from rich import box
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    made = []
    for columns, rows, right in tables:
        made.append(Table(box=box.SIMPLE_HEAD))
        for number, name in enumerate(columns):
            made[-1].add_column(name, justify="right" if number in right else "left", no_wrap=True, overflow="ellipsis")
        for row in rows:
            made[-1].add_row(*(Text(clean(cell)) for cell in row))
    return Group(*(Text(clean(line)) for line in said), *made, Text("q: leave"))


def _footnote(seen: Frame) -> list[str]:
    if not seen.lines:
        return ["Nothing was recorded today."]
    return [f"Today's totals begin at {moment(seen.start)}: more than {READ:,} records."] if seen.start % DAY else []


@contextmanager
def _keys() -> Iterator[Callable[[float], bytes]]:
    """Waits so many seconds for a key. The terminal is as it was afterwards."""
    if not sys.stdin.isatty():
        yield _no_key
        return
    import termios
    import tty

    terminal = sys.stdin.fileno()
    before = termios.tcgetattr(terminal)
    tty.setcbreak(terminal)
    try:
        yield lambda seconds: os.read(terminal, 1) if select.select([terminal], [], [], seconds)[0] else b""
    finally:
        termios.tcsetattr(terminal, termios.TCSADRAIN, before)


def _no_key(seconds: float) -> bytes:
    time.sleep(seconds)
    return b""


def _counts(found: dict[str, int]) -> str:
    return ", ".join(f"{count:,} {outcome}" for outcome, count in found.items())


def _mebibytes(size: int) -> str:
    return f"{size >> 20:,} MiB"
