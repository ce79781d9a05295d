"""A node's sweeps: hundreds of real cgroups, eight meters, CPU read each second, accelerated.

The clocks are injected, so that a bench of seconds covers hours: between two sweeps the tenants use something (not
measured), CPU counters are read fifteen times, then the source is swept and committed, and what closes is drained to
the file sink. What costs CPU is summed and divided by the real time that it stands for. That is what the work costs
with warm caches; so the agent itself then meters the same groups in real time, timers and cold caches included.
"""

import asyncio
import random
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from msgspec import Struct

from bench import tenants
from bench.fresh import Timed, fresh, traced
from bench.process import alive, cpu_ns, started, status
from bench.scale import Scale
from bench.table import count, mib, ms, percentile, show

if TYPE_CHECKING:
    from agent.sinks import Sink
    from agent.sources import Watched
    from agent.spool.outbox import Outbox

SECONDS = 15  # between two sweeps
SWEEPS = 20  # in a window of 5 min
SETTLED = 3  # sweeps before anything is measured: the first ones open every window
S = 1_000_000_000
T = TypeVar("T")
BUDGETS = {250: ("≤ 0.2 %", "≤ 60 MiB"), 500: ("≤ 0.4 %", "≤ 80 MiB")}


class Work(Struct):
    """What one process is to sweep, and for how many windows."""

    anchor: str
    groups: int
    leader: int
    done: int
    windows: int
    data: str
    pods: bool = False  # the groups are pods' (`pod_name`), of which everything is known


class Swept(Timed):
    """What it came to. Times in seconds of wall clock, `cpu` in seconds for `covered` seconds of metering."""

    reads: list[float]
    sweeps: list[float]
    closings: list[float]
    drains: list[float]
    cpu_reads: float
    cpu_sweeps: float
    cpu_drains: float
    covered: int
    records: int
    overruns: int
    resident: int  # after the first window
    most: int
    synchronous: str


class Clock:
    """Both clocks, moved by hand; a sweep falls 3 ms after each edge of a window, as timers do."""

    def __init__(self) -> None:
        window = SECONDS * SWEEPS * S
        self._wall = time.time_ns() // window * window + 3_000_000
        self._boot = time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000 * 1_000_000
        self.elapsed = 0

    def boottime(self) -> int:
        """CLOCK_BOOTTIME, ns."""
        return self._boot + self.elapsed

    def now(self) -> tuple[int, int]:
        """(wall, boottime), ns."""
        return self._wall + self.elapsed, self.boottime()


def configuration(work: Work) -> str:
    """Ten groups for each customer, every meter of the source, and a file sink."""
    from agent.sources.cgroups import METERS

    customers = "\n".join(
        f'  - {{id: c{n}, match: [{{cgroup: "{work.anchor}/t{n:02}-*"}}]}}' for n in range(-(-work.groups // 10))
    )
    source = f'kind: cgroups, include: ["{work.anchor}/*"]'
    if work.pods:
        source = f"kind: kubernetes, anchors: [{work.anchor}], network: false"
        spaces = (f"c{n:02}" for n in range(-(-work.groups // 10)))
        customers = "\n".join(f"  - {{id: {space}, match: [{{namespace: {space}}}]}}" for space in spaces)
    meters = "\n".join(f"  - {{meter: {meter.name}}}" for meter in METERS)
    return f"""\
telemetry: {{listen: "127.0.0.1:0"}}
agent: {{cluster: bench, node: node, data_dir: {work.data}/data, run_dir: {work.data}/run}}
sources:
  - {{{source}}}
meters:
{meters}
customers:
{customers}
sinks:
  - {{id: files, kind: file, path: {work.data}/out}}
"""


def measure(work: Work) -> Swept:
    """Meter the groups for `windows` windows."""
    from agent import config, kinds
    from agent.metering import Metering
    from agent.sources import kernel
    from agent.sources.cgroups import METERS
    from agent.spool import Spool
    from agent.spool.outbox import Outbox

    clock, directory = Clock(), Path(work.data)
    cfg = config.parse(configuration(work), "bench", kinds.KINDS, {})
    spool = Spool.open(directory / "data", run_dir=directory / "run", fingerprint={}, now=clock.now()[0])
    outbox, sink, loop = Outbox(spool), kinds.build_sink(cfg.sinks[0]), asyncio.Runner()
    outbox.register(sink.id, sink.kind, sink.role, b"{}", since=None)
    metering = Metering(
        spool, kinds.plan_of(cfg), directory / "run", now=clock.now, synchronised=lambda: True, boot=kernel.boot_id()
    )
    source = _source(work, clock, frozenset(meter.name for meter in METERS))
    out = Swept(0, 0, [], [], [], [], 0, 0, 0, 0, 0, 0, 0, 0, "")
    for number in range(-SETTLED, work.windows * SWEEPS):
        if number == 0:
            out = Swept(time.time(), 0, [], [], [], [], 0, 0, 0, 0, 0, 0, 0, 0, "")
        if number == SWEEPS:
            out.resident = status("VmRSS")
        tenants.stir(work.leader, work.done, work.groups)
        cpu = time.process_time()
        for _ in range(SECONDS):
            clock.elapsed += S
            began = time.perf_counter()
            source.read()
            out.reads.append(time.perf_counter() - began)
        out.cpu_reads += time.process_time() - cpu
        cpu, began = time.process_time(), time.perf_counter()
        swept = metering.sweep(source)
        (out.closings if swept.commit.closed else out.sweeps).append(time.perf_counter() - began)
        out.cpu_sweeps += time.process_time() - cpu
        out.overruns += sum(balance.overrun != 0 for balance in swept.commit.balances)
        out.records += len(swept.commit.closed)
        cpu, began = time.process_time(), time.perf_counter()
        loop.run(_deliver(sink, outbox, clock))
        if swept.commit.closed:
            out.drains.append(time.perf_counter() - began)
        out.cpu_drains += time.process_time() - cpu
    out.ended, out.covered = time.time(), work.windows * SWEEPS * SECONDS
    out.resident = out.resident or status("VmRSS")
    out.most = status("VmHWM")
    out.synchronous = f"{spool.db.pragma('journal_mode')}, synchronous={spool.db.pragma('synchronous')}"
    loop.close()
    source.close()
    spool.close()
    return out


def _source(work: Work, clock: Clock, wanted: frozenset[str]) -> "Watched":
    from agent.sources.cgroups import CgroupSource
    from agent.sources.kubernetes.pods import PodSource

    if not work.pods:
        return CgroupSource("cgroups", "/", [f"{work.anchor}/*"], [work.anchor], clock=clock.boottime, wanted=wanted)
    from tests.sources.kubernetes.node import Known, facts

    known = Known()
    for number in range(work.groups):
        customer = number % -(-work.groups // 10)
        uid = pod_name(customer, number).removeprefix("pod")
        known.tell(uid, facts(uid, f"c{customer:02}/pod-{number}"))
    return PodSource(
        "kubernetes", "/", known, anchors=(work.anchor,), network=False, clock=clock.boottime, wanted=wanted
    )


def pod_name(customer: int, number: int) -> str:
    """What the kubelet would call the group of a pod."""
    return f"pod{customer:08x}-0000-4000-8000-{number:012x}"


async def _deliver(sink: "Sink", outbox: "Outbox", clock: Clock) -> None:
    """All that the sink is owed now."""
    from agent.clock import Moment
    from agent.delivery.drain import Drain
    from agent.delivery.rendering import Route

    async def at_once(act: Callable[..., T], *args: object) -> T:
        return act(*args)

    drain = Drain(
        sink,
        Route(),
        outbox,
        at_once,
        now=lambda: Moment(clock.now()[0], time.monotonic_ns()),
        chance=random.random,
        told=lambda *_: None,
    )
    drain.finish()
    await drain.run()


def watch(work: Work, seconds: int) -> tuple[float, int]:
    """The agent itself for a while of real time, whose first quarter is not counted: its share of a core, its size."""
    directory = Path(work.data)
    directory.mkdir()
    config = directory / "agent.yaml"
    config.write_text(configuration(work))
    with ExitStack() as stack:
        command = [sys.executable, "-m", "agent", "run", "--config", str(config)]
        process = started(command, directory / "log", stack)
        time.sleep(seconds / 4)
        cpu, began = cpu_ns(alive(process)), time.perf_counter()
        for _ in range(3):  # each quarter is at least one sweep long, unless this is tiny
            tenants.stir(work.leader, work.done, work.groups)
            time.sleep(seconds / 4)
        share = (cpu_ns(alive(process)) - cpu) / 1e9 / (time.perf_counter() - began)
        return share, status("VmHWM", process.pid)


def run(scale: Scale, data: Path) -> None:
    """Print the table."""
    if reason := tenants.unable():
        print(f"not run: {reason}")
        return
    columns: list[list[str]] = []
    synchronous = ""
    for groups in scale.groups:
        with tenants.Tenants(groups, data) as living:
            work = Work(living.anchor, groups, living.leader, living.done, scale.windows, str(data / f"{groups}"))
            swept = fresh(measure, work, inherit=[living.done])
            work.windows, work.data = 1, str(data / f"{groups}-traced")
            again, syncs = traced(measure, work, data / "strace", inherit=[living.done])
            work.data = str(data / f"{groups}-watched")
            real = watch(work, scale.seconds)
        columns += [_figures(swept, again, syncs, real), _budgets(groups)]
        synchronous = swept.synchronous
    print(f"durability: {synchronous} (2 is FULL); fsync, fdatasync counted by strace in a short run of its own")
    head = ["8 meters, a sweep each 15 s, CPU each second"]
    for groups in scale.groups:
        head += [f"{groups} groups", "budget"]
    show(head, list(zip(_NAMES, *columns, strict=True)))


_NAMES = (
    "the agent in real time, share of one core",
    "  resident, most",
    "accelerated, share of one core",
    "  CPU for 15 s: 15 reads of the CPU counters",
    "  CPU for 15 s: the sweep and its commit",
    "  CPU for 15 s: draining to the file sink",
    "one read of the CPU counters, p50",
    "one read of the CPU counters, max",
    "sweep, p50",
    "sweep, p99",
    "sweep, max",
    "sweep that closes a window, p50",
    "sweep that closes a window, max",
    "draining a window, max",
    "records in a window",
    "resident after the first window",
    "resident, most",
    "fsyncs per sweep, draining included",
    "fsyncs per second",
    "sweeps whose books overran",
)


def _budgets(groups: int) -> list[str]:
    core, memory = BUDGETS.get(groups, ("", ""))
    budgets = dict.fromkeys(_NAMES, "")
    budgets["the agent in real time, share of one core"] = budgets["accelerated, share of one core"] = core
    budgets["  resident, most"] = budgets["resident, most"] = memory
    for name in ("sweep, max", "sweep that closes a window, max"):
        budgets[name] = "≤ 50 ms"
    budgets["fsyncs per sweep, draining included"] = "≤ 1"
    budgets["sweeps whose books overran"] = "0"
    return list(budgets.values())


def accelerated(groups: int, swept: Swept, again: Swept, syncs: int | None) -> tuple[list[str], list[str], list[str]]:
    """Names, figures and budgets of what was accelerated, without the agent in real time."""
    rows = [*zip(_NAMES, _figures(swept, again, syncs, (0.0, 0)), _budgets(groups), strict=True)][2:]
    return [row[0] for row in rows], [row[1] for row in rows], [row[2] for row in rows]


def _figures(swept: Swept, again: Swept, syncs: int | None, real: tuple[float, int]) -> list[str]:
    share = (swept.cpu_reads + swept.cpu_sweeps + swept.cpu_drains) / swept.covered
    part = SECONDS / swept.covered
    sweeps = again.covered // SECONDS
    return [
        f"{real[0]:.3%}",
        mib(real[1]),
        f"{share:.3%}",
        ms(swept.cpu_reads * part),
        ms(swept.cpu_sweeps * part),
        ms(swept.cpu_drains * part),
        ms(percentile(swept.reads, 0.5)),
        ms(max(swept.reads)),
        ms(percentile(swept.sweeps, 0.5)),
        ms(percentile(swept.sweeps, 0.99)),
        ms(max(swept.sweeps)),
        ms(percentile(swept.closings, 0.5)),
        ms(max(swept.closings)),
        ms(max(swept.drains)),
        count(swept.records / len(swept.closings)),
        mib(swept.resident),
        mib(swept.most),
        "not counted" if syncs is None else f"{syncs / sweeps:.2f}",
        "not counted" if syncs is None else f"{syncs / again.covered:.3f}",
        count(swept.overruns),
    ]
