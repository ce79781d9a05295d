"""How these tests write a life of the agent: resources, readings, and the pure line run over them by hand."""

from collections.abc import Iterable, Mapping, Sequence

from agent.attribution import Attribution, Customer, Rules, revise
from agent.books import Books, Commit, Snapshot
from agent.model import NS_PER_S, Dimension, Meter, Reading, Resource, Sample, Sweep
from agent.record import UsageRecord
from agent.usage import Cursor, Measured, Track, measure

S = NS_PER_S
NOON = 1_800_000_000 * S  # billing time at boottime 0; a multiple of every window used here
MINUTE = 60 * S

CPU = Meter("cpu.time", "ns", "counter", "exact", "cpuacct.usage")
IO = Meter("io.read", "byte", "counter", "none", "io.stat rbytes")
MEMORY = Meter("memory", "byte·ms", "gauge", "none", "memory.current")
PIDS = Meter("pids", "pid·ms", "gauge", "bound", "pids.current")
PUSHED = Meter("remote.bytes", "byte", "counter", "none", "what the sender states")
METERS: Mapping[str, Meter] = {m.name: m for m in (CPU, IO, MEMORY, PIDS, PUSHED)}
CORES = 2


def group(name: str, parent: Resource | None = None, inode: int = 1, **labels: str) -> Resource:
    """A cgroup under `parent`, or an anchor. Without labels nobody but root could not have written its name."""
    anchor = name if parent is None else parent.anchor
    return Resource(f"{name}#{inode}", name, parent.key if parent is not None else None, anchor, labels)


def reading(resource: Resource, taken: int, *, gone: bool = False, **values: int) -> Reading:
    """`cpu=3` and the like; `cpu_request=…` is a level. One instant for all."""
    names = {"cpu": "cpu.time", "io": "io.read", "memory": "memory", "pids": "pids", "remote": "remote.bytes"}
    samples = []
    for name, value in values.items():
        meter, _, aspect = name.partition("_")
        kind = {"": "usage", "request": "request", "limit": "limit"}[aspect]
        samples.append(Sample(names[meter], resource.key, value, taken, kind))  # type: ignore[arg-type]
    return Reading(resource, tuple(samples), gone)


def swept(
    stamp: int,
    readings: Sequence[Reading],
    *,
    others: Iterable[str] = (),
    source: str = "cgroups",
    boot: str = "boot-1",
    falls: str = "reset",
) -> Sweep:
    """A sweep whose listing holds what was read and lives, and `others`."""
    listing = frozenset({r.resource.key for r in readings if not r.gone} | set(others))
    return Sweep(
        source=source,
        boot=boot,
        stamp=stamp,
        readings=list(readings),
        listing=listing,
        cores=CORES,
        falls=falls,  # type: ignore[arg-type]
    )


class Measuring:
    """`measure` over a sequence of sweeps."""

    def __init__(self, interval: int = 15 * S) -> None:
        self.tracks: dict[str, Track] = {}
        self.cursor: Cursor | None = None
        self.interval = interval

    def __call__(self, sweep: Sweep, *, from_zero: bool = False, anchor: int = NOON) -> Measured:
        out = measure(
            sweep, self.cursor, self.tracks, METERS, anchor=anchor, interval=self.interval, from_zero=from_zero
        )
        stamp = out.at - anchor
        self.cursor = Cursor(sweep.boot, stamp, out.at, sweep.listing, sweep.basis, sweep.scope)
        return out


def booked(measured: Measured, meter: str = "cpu.time") -> dict[str, int]:
    """Resource name → what this sweep booked to it."""
    found: dict[str, int] = {}
    for usage in measured.usages:
        if usage.meter == meter:
            found[usage.resource.name] = found.get(usage.resource.name, 0) + usage.quantity
    return found


def customer(id: str, **match: str) -> Customer:  # noqa: A002 - the field's name
    """A customer with one selector; `unit="a-*"`."""
    return Customer(id, (match,))


CPU_SECONDS = Dimension("cpu", "cpu.time")


class Line:
    """The pure line with everything in memory: sweeps in, records out, in the order in which they closed."""

    def __init__(
        self,
        *customers: Customer,
        dimensions: Sequence[Dimension] = (CPU_SECONDS,),
        window: int = MINUTE,
        interval: int = 15 * S,
        feeds: Iterable[str] = ("cgroups",),
        system: Sequence[Mapping[str, str]] = (),
        snapshot: Snapshot | None = None,
    ) -> None:
        rules = Rules(customers, system=tuple(system))
        self.attribution = Attribution(revise(None, rules, 0), rules)
        sources = dict.fromkeys(METERS, frozenset(feeds))
        self.books = Books(
            "test/node/epoch",
            METERS,
            sources,
            dimensions,
            self.attribution,
            window=window,
            interval=interval,
            snapshot=snapshot or Snapshot(),
        )
        self.records: list[UsageRecord] = []

    def sweep(
        self,
        sweep: Sweep,
        *,
        from_zero: bool = False,
        anchor: int = NOON,
        may_close: bool = True,
        doubtful: bool = False,
    ) -> Commit:
        commit = self.books.sweep(sweep, anchor=anchor, from_zero=from_zero, may_close=may_close, doubtful=doubtful)
        self.records += [closed.record for closed in commit.closed]
        return commit

    def cut(self, anchor: int = NOON) -> list[UsageRecord]:
        """A shutdown: the records of everything that was open."""
        records = [closed.record for closed in self.books.cut(anchor=anchor).closed]
        self.records += records
        return records

    def open(self, customer: str | None = None) -> int:
        """What open windows hold for a customer, or for nobody."""
        shares = (s for of in self.books.windows.shares.values() for s in of.values())
        return sum(s.quantity for s in shares if s.owner.customer == customer)

    def billed(self, customer: str | None) -> int:
        """What a customer's records, or nobody's, add up to."""
        return sum(r.quantity for r in self.records if r.customer == customer and r.kind != "gap")
