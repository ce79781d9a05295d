"""The spool alone: records appended a thousand at a time, a backlog opened after a crash, and drained to the file sink.

One process fills a spool while a sink is owed everything; its file is then evicted from the page cache, and another
process opens it, takes the first batch, and drains all of it.
"""

import asyncio
import os
import random
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from msgspec import Struct

from bench.fresh import Timed, fresh, traced
from bench.process import reset_high_water, status
from bench.scale import Scale
from bench.table import count, mib, ms, percentile, show

if TYPE_CHECKING:
    from agent.spool.outbox import Outbox
    from agent.windows import Closed

Result = TypeVar("Result")
BATCH = 1_000  # records of one commit
PER_WINDOW = 80  # records that close together on a node of 250 pods (ACCOUNTING §8)
WINDOW = 300 * 1_000_000_000
NOON = 6_000_000 * WINDOW
SINK = "files"


class Work(Struct):
    """How many records, and where the spool lies. `evidence`: each record brings that of one resource."""

    records: int
    data: str
    evidence: bool = False


class Filled(Timed):
    """What appending came to; times in seconds."""

    commits: list[float]
    cpu: float
    size: int
    synchronous: str


class Drained(Timed):
    """What opening and draining came to; times in seconds, sizes in bytes."""

    opened: float
    first: float  # until the first batch was delivered
    stock: float
    seconds: float
    cpu: float
    batches: int
    records: int
    resident: int  # once the first batch is delivered
    last: int  # once the last is
    most: int


def closed(first: int, records: int, *, evidence: bool) -> "Iterator[Closed]":
    """Records `first`, `first` + 1, … as they close: a window's eighty, then the next window's."""
    from agent.attribution import Owner
    from agent.model import Resource
    from agent.record import UsageRecord
    from agent.shares import Evidence, Share
    from agent.windows import Closed

    source, meter, dimension = "prod-eu/node-a/3f9c2a7be1d04f5c8a6e0b1c2d3e4f50", "cpu.time", "cpu_core_seconds"
    for number in range(first, first + records):
        start = NOON + number // PER_WINDOW * WINDOW
        customer, quantity = f"customer-{number % PER_WINDOW}", 300_000_000_000 + number
        group = {"namespace": f"{customer}-prod"}
        record = UsageRecord(
            kind="usage",
            source=source,
            meter=meter,
            policy="usage",
            dimension=dimension,
            customer=customer,
            group=group,
            start=start,
            end=start + WINDOW,
            quantity=quantity,
            base_unit="ns",
            basis="cgroup",
            covered=WINDOW,
        )
        parts: tuple[Evidence, ...] = ()
        if evidence:
            name = f"kubepods/pod{number % PER_WINDOW:08}"
            resource = Resource(f"cgroups/5b1f0c9e/{name}#{number}", name, None, "kubepods", {"cgroup": name})
            owner = Owner("usage", customer, "customers[0].match[0]")
            spans = [[start, start + WINDOW]]
            share = Share(dimension, start, start + WINDOW, owner, (), quantity, quantity, 0, 0, quantity, spans)
            parts = (Evidence(resource, share),)
        yield Closed(record, parts)


def fill(work: Work) -> Filled:
    """Append the records to a new spool whose one sink is owed them all."""
    from agent.spool import Spool
    from agent.spool.outbox import Outbox

    directory = Path(work.data)
    spool = Spool.open(directory / "data", run_dir=directory / "run", fingerprint={}, now=NOON)
    Outbox(spool).register(SINK, "file", "copy", b"{}", since=None)
    out = Filled(time.time(), 0, [], 0, 0, "")
    for first in range(0, work.records, BATCH):
        records = list(closed(first, BATCH, evidence=work.evidence))
        cpu, began = time.process_time(), time.perf_counter()
        spool.commit(None, now=records[-1].record.end, records=records)
        out.commits.append(time.perf_counter() - began)
        out.cpu += time.process_time() - cpu
    out.ended, out.size = time.time(), spool.bytes
    out.synchronous = f"{spool.db.pragma('journal_mode')}, synchronous={spool.db.pragma('synchronous')}"
    spool.close()
    return out


def drain(work: Work) -> Drained:
    """Open the spool, deliver the first batch, drain all of it; as in the daemon, the spool has its thread."""
    from agent.spool import Spool
    from agent.spool.outbox import Outbox

    directory = Path(work.data)
    began = time.perf_counter()
    spool = Spool.open(directory / "data", run_dir=directory / "run", fingerprint={}, now=NOON)
    opened = time.perf_counter() - began
    outbox = Outbox(spool)
    standing = outbox.register(SINK, "file", "copy", b"{}", since=None)
    stocked = time.perf_counter()
    outbox.backlog(standing)
    stock = time.perf_counter() - stocked
    out = Drained(time.time(), 0, opened, 0, stock, 0, 0, 0, 0, 0, 0, 0)
    with ThreadPoolExecutor(1) as thread:
        cpu, started = time.process_time(), time.perf_counter()
        asyncio.run(_deliver(outbox, directory / "out", thread, out))
        out.seconds, out.cpu = time.perf_counter() - started, time.process_time() - cpu
    out.first += started - began
    out.ended, out.last, out.most = time.time(), status("VmRSS"), status("VmHWM")
    out.batches = int(str(spool.db.execute("SELECT count(*) FROM submission").get))
    spool.close()
    return out


async def _deliver(outbox: "Outbox", path: Path, thread: ThreadPoolExecutor, out: Drained) -> None:
    """Everything that is owed, counted as it is settled."""
    from agent.clock import Moment
    from agent.delivery.drain import Drain, Turn
    from agent.delivery.rendering import Route
    from agent.sinks.file import FileSink

    began = time.perf_counter()

    async def on_thread(act: Callable[..., Result], *args: object) -> Result:
        return await asyncio.get_running_loop().run_in_executor(thread, act, *args)

    def told(_sink: str, turn: Turn) -> None:
        if not out.records:
            out.first = time.perf_counter() - began
            reset_high_water()
            out.resident = status("VmRSS")
        out.records += sum(settled.count for settled in turn.settled if settled.outcome == "delivered")

    drain = Drain(
        FileSink(SINK, "copy", path),
        Route(),
        outbox,
        on_thread,
        now=lambda: Moment(time.time_ns(), time.monotonic_ns()),
        chance=random.random,
        told=told,
    )
    drain.finish()
    await drain.run()


def evict(directory: Path) -> None:
    """Take the files of `directory` out of the page cache, as after a reboot."""
    os.sync()
    for path in directory.iterdir():
        fd = os.open(path, os.O_RDONLY)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(fd)


def run(scale: Scale, data: Path) -> None:
    """Print the table."""
    work = Work(scale.records, str(data / "spool"))
    filled = fresh(fill, work)
    explained = fresh(fill, Work(scale.records // 10, str(data / "explained"), evidence=True))
    evict(data / "spool/data")
    drained = fresh(drain, work)
    short = Work(scale.traced, str(data / "traced"))
    traced_fill, appending = traced(fill, short, data / "strace")
    _, draining = traced(drain, short, data / "strace")
    rate, slow = scale.records / sum(filled.commits), scale.records // 10 / sum(explained.commits)
    batches = drained.batches / drained.seconds
    backlog = f"a backlog of {count(scale.records)}"
    print(
        f"durability: {filled.synchronous} (2 is FULL); fsync, fdatasync counted by strace in short runs of their own"
    )
    size = f"{count(filled.size / scale.records)} bytes each on disk"
    show(
        [f"{count(scale.records)} records, {size}", "measured", "budget"],
        [
            [f"append, {BATCH:,} records in a commit", f"{count(rate)} /s", "≥ 50,000 /s"],
            ["  CPU for each record", f"{filled.cpu / scale.records * 1e6:.1f} µs", ""],
            ["  commit, p50", ms(percentile(filled.commits, 0.5)), ""],
            ["  commit, p99", ms(percentile(filled.commits, 0.99)), ""],
            ["  fsyncs per commit", _per(appending, len(traced_fill.commits)), ""],
            ["  fsyncs per second", _per(appending, len(traced_fill.commits), rate / BATCH), ""],
            ["append, each record with one resource's evidence", f"{count(slow)} /s", ""],
            [f"open {backlog}, file not cached", f"{drained.opened:.2f} s", ""],
            ["  and deliver its first batch", f"{drained.first:.2f} s", "< 3 s"],
            [f"take stock of {backlog}", f"{drained.stock:.2f} s", ""],
            ["drain to the file sink", f"{count(drained.records / drained.seconds)} /s", "≥ 50,000 /s"],
            ["  CPU for each record", f"{drained.cpu / drained.records * 1e6:.1f} µs", ""],
            ["  fsyncs per submission", _per(draining, -(-scale.traced // (drained.records // drained.batches))), ""],
            ["  submissions per second", f"{batches:.1f}", ""],
            ["  resident after the first batch", mib(drained.resident), ""],
            ["  resident after the last", mib(drained.last), "flat"],
            ["  resident, most, within a batch", mib(drained.most), "flat"],
        ],
    )


def _per(syncs: int | None, units: int, factor: float = 1) -> str:
    return "not counted" if syncs is None else f"{syncs / units * factor:.2f}"
