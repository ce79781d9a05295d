"""The recorded script: three lives of one machine, the same readings whenever and however often they are played.

Life 0 is a young boot, metered from zero and stopped in order. Life 1 is the same boot after an upgrade that brings a
customer who reaches back for usage so far unattributed; it ends without a word, as at a power cut. Life 2 is a new
boot. Groups are born, die, are born again under their old name; the anchor is read before its children, so that some
usage is in flight; a counter of the host falls; windows of 4 s close under way.

`play` goes on after whatever the spool has committed, as the agent does: what a kill took is read again.
"""

import secrets
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from msgspec import Struct

from agent.attribution import Customer, Rules
from agent.metering import Metering, Plan
from agent.model import NS_PER_MS, NS_PER_S, Dimension, Meter, Reading, Resource, Sample, Sweep
from agent.sinks import Answer
from agent.sinks.file import FileSink
from agent.spool import Spool
from agent.spool.outbox import Outbox, Submission
from tests.drained import drained

CPU = Meter("cpu.time", "ns", "counter", "exact", "scripted")
MEMORY = Meter("memory", "byte·ms", "gauge", "bound", "scripted")
NETWORK = Meter("network", "byte", "counter", "none", "scripted")
DIMENSIONS = (
    Dimension("cpu", CPU.name, group_by=("cgroup",)),
    Dimension("cpu_booked", CPU.name, policy="max(limit,usage)"),
    Dimension("memory", MEMORY.name),
    Dimension("network", NETWORK.name, customer="acme"),
)
T = TypeVar("T")
SINCE = 1_795_000_000 * NS_PER_S  # billing time at boottime 0 of the first boot
ACME = Customer("acme", ({"cgroup": "t/acme"}, {"cgroup": "t/acme/**"}))
BOLT = Customer("bolt", ({"cgroup": "t/bolt"},))
LATE = Customer("late", ({"cgroup": "t/late"},), since=SINCE, reattribute=True)


class Life(Struct, frozen=True):
    """One start of the agent and what it saw: a boot, the seconds of its sweeps, who is billed, how it ended."""

    boot: str
    booted: int  # wall clock at boottime 0
    seconds: tuple[int, ...]  # boottime of each sweep
    customers: tuple[Customer, ...]
    stopped: bool  # in order, with a cut; else as at a power cut


LIVES = (
    Life("one", SINCE, tuple(range(30, 37)), (ACME, BOLT), stopped=True),
    Life("one", SINCE, tuple(range(38, 45)), (ACME, BOLT, LATE), stopped=False),
    Life("two", SINCE + 60 * NS_PER_S, tuple(range(9, 17)), (ACME, BOLT, LATE), stopped=True),
)

# Who lives when: path → boottimes of birth and death by boot and incarnation; no death: to the end of its boot.
GROUPS: dict[tuple[str, str, int], tuple[int, int]] = {
    ("one", "t/acme", 1): (0, 99),
    ("one", "t/acme/short", 2): (33, 35),
    ("one", "t/acme/long", 3): (34, 42),
    ("one", "t/acme/missed", 8): (32, 37),  # dies between two lives: its last second is its parent's
    ("one", "t/bolt", 4): (0, 36),
    ("one", "t/bolt", 5): (39, 99),
    ("one", "t/late", 6): (31, 99),
    ("one", "t/nobody", 7): (0, 40),
    ("two", "t/acme", 11): (0, 99),
    ("two", "t/bolt", 12): (10, 14),
    ("two", "t/late", 13): (0, 99),
}


def used(boot: str, path: str, inode: int, until: int) -> int:
    """Nanoseconds of CPU that one incarnation had used by a boottime: uneven, and never the same twice."""
    born, dead = GROUPS[boot, path, inode]
    return sum((s * 7_919_111 + inode * 104_729_333) % 90_000_000 + 1 for s in range(born, min(until, dead)))


class Tree:
    """The groups: a source that plays what was recorded, at whatever second `at` says."""

    id = "tree"
    meters: tuple[Meter, ...] = (CPU, MEMORY)

    def __init__(self, boot: str) -> None:
        self.boot, self.at = boot, 0

    def sweep(self) -> Sweep:
        stamp = self.at * NS_PER_S + 7 * NS_PER_MS
        every = {key: span for key, span in GROUPS.items() if key[0] == self.boot}
        alive = [key for key, (born, dead) in every.items() if born <= self.at < dead]
        dying = [key for key, (_, dead) in every.items() if dead == self.at]
        total = sum(used(*key, self.at) for key in every)
        late = total - (3_000_000 if self.at % 3 == 0 else 0)  # the anchor is read a moment before its children
        readings = [self._reading("t", 0, max(late, 0), stamp)]
        for keys, gone in ((alive, False), (dying, True)):
            readings += [self._reading(k[1], k[2], self._own_and_below(k), stamp, gone=gone) for k in keys]
        listing = frozenset(r.resource.key for r in readings if not r.gone)
        return Sweep(self.id, self.boot, stamp, readings, listing, cores=2)

    def close(self) -> None: ...

    def _own_and_below(self, key: tuple[str, str, int]) -> int:
        boot, path, _ = key
        below = [k for k in GROUPS if k[0] == boot and k[1].startswith(f"{path}/")]
        return sum(used(*k, self.at) for k in (key, *below))

    def _reading(self, path: str, inode: int, value: int, stamp: int, *, gone: bool = False) -> Reading:
        above = path.rpartition("/")[0]
        inodes = [k[2] for k in GROUPS if k[:2] == (self.boot, above)]
        parent = None if path == "t" else f"{self.boot}/{above}#{inodes[0] if inodes else 0}"
        resource = Resource(f"{self.boot}/{path}#{inode}", path, parent, "t", {"cgroup": path})
        identity = f"{self.boot}/{inode}"
        samples = [
            Sample(CPU.name, identity, value, stamp),
            Sample(CPU.name, identity, 50_000, stamp, aspect="limit"),
            Sample(MEMORY.name, identity, 1000 + self.at * inode, stamp),
        ]
        return Reading(resource, tuple(samples), gone=gone)


class Nic:
    """A second source, whose counter falls once."""

    id = "nic"
    meters: tuple[Meter, ...] = (NETWORK,)

    def __init__(self, boot: str) -> None:
        self.boot, self.at = boot, 0

    def sweep(self) -> Sweep:
        stamp = self.at * NS_PER_S + 8 * NS_PER_MS
        value = self.at * 1013 - (30_000 if self.at > 41 else 0)
        resource = Resource(f"{self.boot}/eth0", "eth0")
        reading = Reading(resource, (Sample(NETWORK.name, f"{self.boot}/2", value, stamp),))
        return Sweep(self.id, self.boot, stamp, [reading], frozenset({resource.key}), basis="host")

    def close(self) -> None: ...


class Told(FileSink):
    """A file sink that says what is about to happen, in its directory and in the spool."""

    def __init__(self, id: str, role: str, path: Path, tell: Callable[[str], None]) -> None:  # noqa: A002
        super().__init__(id, role, path)
        self._tell = tell

    async def stage(self, submission: Submission) -> None:
        self._tell("temp write")
        await super().stage(submission)

    async def send(self, submission: Submission) -> Answer:
        self._tell("rename")
        return await super().send(submission)

    async def on_thread(self, act: Callable[..., T], *args: object) -> T:
        """A commit of the drain: of what came back, of one submission that is to leave, or of what is frozen anew."""
        back = args[0]
        self._tell("leaving commit" if isinstance(back, Submission) else "settle commit" if back else "freeze commit")
        return act(*args)


def plan_of(life: Life) -> Plan:
    """What the line is told in a life."""
    return Plan(
        cluster="test",
        node="node",
        meters={m.name: m for m in (CPU, MEMORY, NETWORK)},
        feeds={CPU.name: frozenset({"tree"}), MEMORY.name: frozenset({"tree"}), NETWORK.name: frozenset({"nic"})},
        dimensions=DIMENSIONS,
        rules=Rules(life.customers),
        window=4 * NS_PER_S,
        interval=NS_PER_S,
        fresh_boot=600 * NS_PER_S,
        hold=72 * 3600 * NS_PER_S,
        accept_after=24 * 3600 * NS_PER_S,
    )


def play(where: Path, number: int, tell: Callable[[str], None]) -> None:
    """Live life `number` in `where`, from wherever the spool says to its end. `tell` is called with each phase."""
    life = LIVES[number]
    secrets.token_hex = lambda nbytes=None: "e9" * 16  # the epoch, so that two plays can be compared byte by byte
    tell("open")
    spool = Spool.open(where / "data", run_dir=where / "run", fingerprint={}, now=life.booted, reserve=128 << 10)
    if spool.restored:
        raise AssertionError(f"a kill alone must never begin an epoch: {spool.restored}")
    tree, nic = Tree(life.boot), Nic(life.boot)
    cursors = spool.snapshot().cursors
    done = {name: c.stamp // NS_PER_S if c.boot == life.boot else 0 for name, c in cursors.items()}
    due = [(s, source) for s in life.seconds for source in (tree, nic) if s > done.get(source.id, 0)]
    at = due[0][0] if due else life.seconds[-1]

    def now() -> tuple[int, int]:
        return life.booted + at * NS_PER_S, at * NS_PER_S

    tell("adopt commit")
    metering = Metering(spool, plan_of(life), where / "run", now=now, synchronised=lambda: True, boot=life.boot)
    outbox = Outbox(spool)
    tell("register commit")
    sinks = [Told("files", "billing", where / "out", tell), Told("audit", "copy", where / "audit", tell)]
    for sink in sinks:
        outbox.register(sink.id, sink.kind, sink.role, b"{}", since=0)

    def drain() -> None:
        for sink in sinks:
            drained(sink, outbox, lambda: now()[0], on_thread=sink.on_thread)

    drain()
    for at, source in due:
        source.at = at
        tell("sweep commit")
        metering.sweep(source)
        if source is nic:
            drain()
    if life.stopped:
        tell("cut commit")
        metering.cut()
        drain()
        tell("close")
        spool.close()
