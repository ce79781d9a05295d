"""Delivery over HTTP: a backlog through a drain and the CloudEvents sink to a receiver that answers after 20 ms.

The receiver is a process of its own. Beside the agent, a plain loop of httpx posts as many bytes from memory: it keeps
nothing, settles nothing, and forgets what it has sent when it is killed. And OpenTelemetry Collector exports as many
data points from its queue on disk, synced as the spool is, and as it is by default.
"""

import asyncio
import random
import tempfile
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from msgspec import Struct, structs

from bench import spool
from bench.collector import NotBuiltError
from bench.exporter import exported
from bench.fresh import Timed, fresh
from bench.process import reset_high_water, status
from bench.receiver import LATENCY_MS, receiving
from bench.scale import Scale
from bench.table import count, mib, ms, show

if TYPE_CHECKING:
    from agent.delivery.rendering import Route
    from agent.sinks import Sink
    from agent.spool.outbox import Outbox

CONTENT = "application/cloudevents-batch+json"
BODY = 430  # bytes of an event, for the loop that has none of its own
Result = TypeVar("Result")


class Work(Struct):
    """So many records from `data`, at most `batch` in each of `concurrency` requests under way.

    `rounds`: told in core-seconds with six decimals, so that a remainder is carried from record to record. `apart`:
    the plain loop has a client for each request under way, which is faster than one with many connections.
    """

    records: int
    batch: int
    concurrency: int
    data: str
    url: str = ""
    rounds: bool = False
    apart: bool = False


class Sent(Timed):
    """What it came to; times in seconds, sizes in bytes."""

    durability: str
    records: int = 0
    seconds: float = 0.0
    cpu: float = 0.0
    resident: int = 0  # once the first records are acknowledged
    last: int = 0  # once the last are
    most: int = 0


def deliver(work: Work) -> Sent:
    """Deliver all of the spool in `data` as the daemon does."""
    from agent.delivery.quantity import Measure
    from agent.delivery.rendering import Route
    from agent.sinks.cloudevents import CloudEventsSink

    measure = Measure("cpu_core_seconds", "core-second", per=10**9, scale=6)
    route = Route({"cpu_core_seconds": measure}) if work.rounds else Route()
    sink = CloudEventsSink(
        spool.SINK, "billing", work.url, max_batch=work.batch, concurrency=work.concurrency, timeout=30 * 10**9
    )
    return through(sink, route, Path(work.data))


def through(sink: "Sink", route: "Route", directory: Path) -> Sent:
    """Deliver all of the spool there through a sink, the spool in a thread of its own."""
    from agent.spool import Spool
    from agent.spool.outbox import Outbox

    store = Spool.open(directory / "data", run_dir=directory / "run", fingerprint={}, now=spool.NOON)
    outbox = Outbox(store)
    outbox.register(spool.SINK, sink.kind, "billing", b"{}", since=None)
    out = Sent(time.time(), 0, f"synchronous={store.db.pragma('synchronous')}")
    with ThreadPoolExecutor(1) as thread:
        cpu, began = time.process_time(), time.perf_counter()
        asyncio.run(_drain(sink, route, outbox, thread, out))
        out.seconds, out.cpu = time.perf_counter() - began, time.process_time() - cpu
    out.ended, out.last, out.most = time.time(), status("VmRSS"), status("VmHWM")
    store.close()
    return out


async def _drain(sink: "Sink", route: "Route", outbox: "Outbox", thread: ThreadPoolExecutor, out: Sent) -> None:
    from agent.clock import Moment
    from agent.delivery.drain import Drain, Turn

    async def on_thread(act: Callable[..., Result], *args: object) -> Result:
        return await asyncio.get_running_loop().run_in_executor(thread, act, *args)

    def told(_sink: str, turn: Turn) -> None:
        if not out.records:
            reset_high_water()
            out.resident = status("VmRSS")
        out.records += sum(settled.count for settled in turn.settled if settled.outcome == "delivered")

    drain = Drain(
        sink,
        route,
        outbox,
        on_thread,
        now=lambda: Moment(time.time_ns(), time.monotonic_ns()),
        chance=random.random,
        told=told,
    )
    drain.finish()
    await drain.run()
    await sink.close()


def post(work: Work) -> Sent:
    """The naive client: the same requests from memory, by httpx and nothing else."""
    import httpx  # noqa: F401 - what loading it costs is not measured

    out = Sent(time.time(), 0, "none")
    cpu, began = time.process_time(), time.perf_counter()
    asyncio.run(_post(work, out))
    out.seconds, out.cpu = time.perf_counter() - began, time.process_time() - cpu
    out.ended, out.last, out.most = time.time(), status("VmRSS"), status("VmHWM")
    return out


async def _post(work: Work, out: Sent) -> None:
    import httpx

    body = b"x" * (BODY * work.batch)
    left = iter(range(work.records // work.batch))
    limits = httpx.Limits(max_connections=work.concurrency, max_keepalive_connections=work.concurrency)

    async def worker(client: httpx.AsyncClient) -> None:
        for _ in left:
            reply = await client.post(work.url, content=body, headers={"Content-Type": CONTENT})
            if not out.records:
                reset_high_water()
                out.resident = status("VmRSS")
            out.records += work.batch if reply.is_success else 0

    async with AsyncExitStack() as stack:
        clients = [
            await stack.enter_async_context(httpx.AsyncClient(limits=limits, timeout=30, trust_env=False, verify=False))
            for _ in range(work.concurrency if work.apart else 1)
        ]
        await asyncio.gather(*(worker(clients[n % len(clients)]) for n in range(work.concurrency)))


def run(scale: Scale, data: Path) -> None:
    """Print the tables."""
    print(f"each request is answered after {LATENCY_MS} ms; synchronous=2 is FULL")
    print("httpx with one client and the Collector get a tenth of the records")
    for records, batch, concurrency, budget in (
        (scale.records // 50, 1, 32, "≥ 1,000 /s"),
        (scale.records // 5, 100, 8, "≥ 10,000 /s"),
    ):
        work = Work(max(spool.BATCH, records), batch, concurrency, "")
        tenth = structs.replace(work, records=work.records // 10)  # for who would take too long, to send or to be fed
        columns = {
            "agent": _agent(work, data),
            "in core-seconds": _agent(structs.replace(work, rounds=True), data),
            "httpx, one client": _measured(post, tenth),
            "httpx, one each": _measured(post, structs.replace(work, apart=True)),
        }
        try:
            columns["Collector, synced"] = _collector(tenth, scale, data, synced=True)
            columns["Collector"] = _collector(tenth, scale, data, synced=False)
        except NotBuiltError as error:
            print(f"without OpenTelemetry Collector: {error}")
        table(f"{count(work.records)} records, batch {batch}, {concurrency} under way", columns, budget)
    whole = _agent(Work(scale.records, 1_000, 8, ""), data)
    table(f"{count(scale.records)} records, batch 1,000, 8 under way", {"agent": whole}, "")


def _agent(work: Work, data: Path) -> Sent:
    """What the agent comes to with a spool that owes its one sink so many records."""
    with tempfile.TemporaryDirectory(dir=data) as directory:
        fresh(spool.fill, spool.Work(work.records, directory))
        return _measured(deliver, structs.replace(work, data=directory))


def _collector(work: Work, scale: Scale, data: Path, *, synced: bool) -> Sent:
    requests = work.records // work.batch
    with tempfile.TemporaryDirectory(dir=data) as directory:
        began = time.time()
        out = exported(requests, work.batch, work.concurrency, Path(directory), synced=synced, build=scale.build)
        durability = "fsync" if synced else "no fsync"
        records = requests * work.batch
        return Sent(began, time.time(), durability, records, out.seconds, out.cpu, out.resident, out.last, out.most)


def _measured(measure: Callable[[Work], Sent], work: Work) -> Sent:
    """The same beside a receiver of its own, which has seen as many requests as were needed and no more."""
    with receiving() as receiver:
        sent = fresh(measure, structs.replace(work, url=receiver.url))
        took = receiver.took()
    if (sent.records, took.requests) != (work.records, -(-work.records // work.batch)):
        raise RuntimeError(f"{work.records} records, {sent.records} acknowledged in {took.requests} requests")
    return sent


def table(head: str, columns: Mapping[str, Sent], budget: str) -> None:
    """Print what each column came to beside its budget."""
    rows: list[tuple[str, Callable[[Sent], str], str]] = [
        ("durability", lambda s: s.durability, ""),
        ("acknowledged", lambda s: f"{count(s.records / s.seconds)} /s", budget),
        ("CPU per 1,000 records", lambda s: ms(s.cpu / s.records * 1000), ""),
        ("resident after the first", lambda s: mib(s.resident), ""),
        ("resident after the last", lambda s: mib(s.last), "flat" if not budget else ""),
        ("resident, most after the first", lambda s: mib(s.most), "flat" if not budget else ""),
    ]
    print()
    show([head, *columns, "budget"], [[what, *map(figure, columns.values()), goal] for what, figure, goal in rows])
