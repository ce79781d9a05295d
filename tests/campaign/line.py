"""One machine whose true usage is known at every instant, and the real agent on it: spool, books, drains, sinks.

Time is our own: it goes on by ticks, and as far as a back end asks us to wait. The counters are a function of the boot
and the tick, so that a life goes on from whatever the spool has committed, as on a real kernel.
"""

import asyncio
import random
import shutil
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from msgspec import Struct, structs

from agent.attribution import Customer, Rules
from agent.delivery.drain import Drain, Turn
from agent.delivery.quantity import Measure
from agent.delivery.rendering import Rendered, Route
from agent.errors import SpoolFullError
from agent.metering import Metering, Plan
from agent.model import NS_PER_MS, NS_PER_S, Dimension, Meter, Reading, Resource, Sample, Sweep
from agent.sinks import Answer, Entry, Finding, Sink
from agent.sinks.cloudevents import CloudEventsSink
from agent.sinks.file import FileSink
from agent.spool import Spool
from agent.spool.outbox import Outbox, Settled, Standing, Submission

CPU = Meter("cpu.time", "ns", "counter", "none", "a function of boot and tick")
DIMENSIONS = (Dimension("cpu", CPU.name), Dimension("cpu_seconds", CPU.name))
MEASURES = {"cpu": Measure("cpu", "ns"), "cpu_seconds": Measure("cpu_seconds", "core-second", NS_PER_S, 3)}
CUSTOMERS = ("acme", "bolt", "cork")
SINCE = 1_795_000_000 * NS_PER_S  # wall clock at boottime 0 of the first boot
BEFORE = 2  # ticks of a boot before the first sweep
PATIENCE = 20.0  # real seconds for a backlog to be delivered once nothing is in its way
WAIT = 400 * NS_PER_S  # what the clock is moved by while something waits: more than the longest backoff

T = TypeVar("T")


class Scene(Struct, frozen=True):
    """A machine and its configuration. Times in ns.

    `boot` numbers its boots; `ticks` is how many sweeps the boot lives to see. `url`: the billing system, None without
    one; `files`: a copy as files.
    """

    data: Path
    run: Path
    out: Path
    seed: int
    url: str | None = None
    files: bool = False
    horizon: int | None = 32 * 86_400 * NS_PER_S
    batch: int = 3
    concurrency: int = 2
    boot: int = 1
    ticks: int = 12
    interval: int = NS_PER_S
    window: int = 4 * NS_PER_S
    machine: str = "m1"
    pause: float = 0.002  # real seconds between two sweeps, for what is under way
    route: Route = Route(MEASURES)
    reserve: int = 128 << 10
    max_bytes: int = 64 << 20

    @property
    def booted(self) -> int:
        """The wall clock at boottime 0."""
        return SINCE + (self.boot - 1) * 86_400 * NS_PER_S

    def rebooted(self) -> "Scene":
        """The machine after a boot: its counters begin anew, and its run directory is empty."""
        shutil.rmtree(self.run, ignore_errors=True)
        return structs.replace(self, boot=self.boot + 1)


def scene_in(where: Path, seed: int) -> Scene:
    """A machine in a directory."""
    return Scene(where / "data", where / "run", where / "out", seed)


def used(scene: Scene, customer: int, tick: int) -> int:
    """What a customer's group has used in this boot by a tick, in ns: uneven, and never less than before."""
    steady = 40_000_000 + (scene.seed * 31 + customer * 7_919 + scene.boot * 104_729) % 9_000_000
    return tick * steady + (tick * 7_919_111 + customer * 104_729 + scene.seed) % 1_000_003


class Groups:
    """The source: reads the counters as they are at tick `at`."""

    id = "groups"
    meters: tuple[Meter, ...] = (CPU,)

    def __init__(self, scene: Scene) -> None:
        self._scene, self.at = scene, 0

    def sweep(self) -> Sweep:
        boot, stamp = f"{self._scene.machine}-{self._scene.boot}", stamp_of(self._scene, self.at)
        readings = []
        for number, name in enumerate(CUSTOMERS):
            resource = Resource(f"{boot}/{name}", name, labels={"cgroup": name})
            sample = Sample(CPU.name, resource.key, used(self._scene, number, self.at), stamp)
            readings.append(Reading(resource, (sample,)))
        return Sweep(self.id, boot, stamp, readings, frozenset(r.resource.key for r in readings))

    def close(self) -> None: ...


def stamp_of(scene: Scene, tick: int) -> int:
    """Boottime of a tick's sweep."""
    return tick * scene.interval + 7 * NS_PER_MS


def plan_of(scene: Scene) -> Plan:
    """What the line is told."""
    return Plan(
        cluster="campaign",
        node="node",
        meters={CPU.name: CPU},
        feeds={CPU.name: frozenset({Groups.id})},
        dimensions=DIMENSIONS,
        rules=Rules(tuple(Customer(name, ({"cgroup": name},)) for name in CUSTOMERS)),
        window=scene.window,
        interval=scene.interval,
        fresh_boot=600 * max(NS_PER_S, scene.interval),
        hold=72 * 3600 * NS_PER_S,
        accept_after=24 * 3600 * NS_PER_S,
    )


class ToldOutbox(Outbox):
    """An outbox that says what is about to be committed."""

    def __init__(self, spool: Spool, tell: Callable[[str], None]) -> None:
        super().__init__(spool)
        self._tell = tell
        self._acts: set[str] = set()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        self._acts.clear()
        with super().transaction():
            yield
            self._tell(next((f"{act} commit" for act in ("acknowledge", "freeze", "leaving") if act in self._acts), ""))
        self._tell("between")

    def freeze(
        self,
        sink: Standing,
        render: Callable[[int, str, bytes], Rendered],
        *,
        batches: int,
        max_batch: int,
        max_bytes: int,
        now: int,
    ) -> list[Submission]:
        frozen = super().freeze(sink, render, batches=batches, max_batch=max_batch, max_bytes=max_bytes, now=now)
        if frozen:
            self._acts.add("freeze")
        return frozen

    def leaving(self, submissions: object, now: int) -> None:
        leaving = list(submissions)  # type: ignore[call-overload]
        if leaving:
            self._acts.add("leaving")
        super().leaving(leaving, now)

    def settle(self, submission: Submission, outcomes: Mapping[int, tuple[Settled, str]], now: int) -> None:
        self._acts.add("acknowledge")
        super().settle(submission, outcomes, now)


class ToldSink:
    """Any sink, saying what is about to happen."""

    def __init__(self, sink: Sink, tell: Callable[[str], None]) -> None:
        self.id, self.kind, self.role, self.terms = sink.id, sink.kind, sink.role, sink.terms
        self._sink, self._tell = sink, tell

    def render(self, entry: Entry) -> bytes:
        return self._sink.render(entry)

    async def stage(self, submission: Submission) -> None:
        self._tell("stage")
        await self._sink.stage(submission)

    async def send(self, submission: Submission) -> Answer:
        self._tell("send")
        answer = await self._sink.send(submission)
        self._tell("answered")
        return answer

    async def ask(self) -> list[Finding]:
        return await self._sink.ask()

    async def close(self) -> None:
        await self._sink.close()


def silent(_: str) -> None:
    """For those who do not listen."""


class Line:
    """The agent on that machine, as the daemon puts it together. `said`: what it said of faults, counted."""

    def __init__(
        self, scene: Scene, tell: Callable[[str], None] = silent, turned: Callable[[str, Turn], None] = lambda *_: None
    ) -> None:
        """`tell` is called with each phase, `turned` with every turn that settled something."""
        self.scene, self._tell, self._turned = scene, tell, turned
        self.said: Counter[str] = Counter()
        self.waited = 0  # ns that the clock was moved beyond the ticks
        self.drift = 0  # ns that the wall clock is wrong by
        tell("open")
        self.spool = Spool.open(
            scene.data,
            run_dir=scene.run,
            fingerprint={"machine_id": scene.machine},
            now=scene.booted,
            reserve=scene.reserve,
            max_bytes=scene.max_bytes,
        )
        self.groups = Groups(scene)
        self.groups.at = max(BEFORE, committed(self.spool, scene))
        self.metering = Metering(
            self.spool, plan_of(scene), scene.run, now=self.now, synchronised=lambda: False, boot=self.groups.sweep().boot
        )
        tell("register commit")
        self.outbox = ToldOutbox(self.spool, tell)
        self.routes: dict[str, tuple[Sink, Route]] = {}
        self.drains: dict[str, tuple[Drain, asyncio.Task[None]]] = {}
        for sink, route in sinks_of(scene):
            self.outbox.register(sink.id, sink.kind, sink.role, b"{}", since=0)
            self.routes[sink.id] = sink, route
        tell("between")

    def now(self) -> tuple[int, int]:
        """(wall, boottime)."""
        boottime = stamp_of(self.scene, self.groups.at) + self.waited
        return self.scene.booted + boottime + self.drift, boottime

    # -- working ---------------------------------------------------------------------------------------------------

    async def play(self, each: Callable[[int], Awaitable[None] | None] = lambda _: None) -> None:
        """Live to the boot's last tick, cut, and deliver everything. `each` is called with each tick, before it."""
        await self.sweeps(each)
        self.tell_cut()
        await self.settle()

    async def sweeps(
        self, each: Callable[[int], Awaitable[None] | None] = lambda _: None, until: int | None = None
    ) -> None:
        """Sweep to a tick, or the boot's last, while what there is is delivered."""
        self.start()
        last = self.scene.ticks + BEFORE if until is None else until
        for tick in range(committed(self.spool, self.scene) + 1 or BEFORE, last + 1):
            if tick < BEFORE:
                continue
            if (awaited := each(tick)) is not None:
                await awaited
            self.sweep(tick)
            await self.deliver()

    def sweep(self, tick: int) -> None:
        """As the daemon does: on a full disk the counters hold the usage until the next one."""
        self.groups.at = tick
        self._tell("sweep commit")
        try:
            self.metering.sweep(self.groups)
        except SpoolFullError:
            self.said["full"] += 1
        self._tell("between")

    async def deliver(self) -> None:
        """Let the drains work for a moment."""
        for drain, _ in self.drains.values():
            drain.stir()
        await asyncio.sleep(self.scene.pause)
        for _, task in self.drains.values():
            if task.done():
                task.result()

    def tell_cut(self) -> None:
        """End the open windows, as an orderly stop does."""
        self._tell("cut commit")
        self.metering.cut()
        self._tell("between")

    async def settle(self, seconds: float = PATIENCE) -> bool:
        """Deliver until nothing is owed, moving the clock while something waits; whether it came to that."""
        deadline = time.monotonic() + seconds
        self.start()
        while any(self.outbox.backlog(self.outbox.sinks()[sink])[0] for sink in self.drains):
            if time.monotonic() > deadline:
                return False
            await self.deliver()
            self.waited += WAIT
        return True

    # -- starting and ending ---------------------------------------------------------------------------------------

    def start(self) -> None:
        """Run a drain for each sink that has none."""
        for sink, route in self.routes.values():
            if sink.id not in self.drains:
                drain = self._drain(sink, route)
                self.drains[sink.id] = drain, asyncio.create_task(drain.run())

    def _drain(self, sink: Sink, route: Route) -> Drain:
        return Drain(
            ToldSink(sink, self._tell),
            route,
            self.outbox,
            inline,
            billing=lambda: self.metering.clock.at(self.now()[1]),
            monotonic=lambda: self.now()[1],
            chance=random.Random(self.scene.seed).random,
            told=self._hear,
        )

    def _hear(self, sink: str, turn: Turn) -> None:
        if turn.full:
            self.said["full"] += 1
        self.said.update(settled.outcome for settled in turn.settled)
        self._turned(sink, turn)

    async def stop(self) -> None:
        """Let go of connections and of the file."""
        for drain, task in self.drains.values():
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await drain.sink.close()
        self.drains.clear()
        self._tell("close")
        self.spool.close()


async def inline(act: Callable[..., T], *args: object) -> T:
    """The spool's thread is this one: strace then counts the calls of one thread."""
    return act(*args)


def committed(spool: Spool, scene: Scene) -> int:
    """The last tick of this boot that is in the spool; -1: none."""
    cursor = spool.snapshot().cursors.get(Groups.id)
    if cursor is None or cursor.boot != f"{scene.machine}-{scene.boot}":
        return -1
    return cursor.stamp // scene.interval


def sinks_of(scene: Scene) -> Iterator[tuple[Sink, Route]]:
    """What a scene delivers to."""
    if scene.url is not None:
        sink = CloudEventsSink(
            "events",
            "billing",
            url=scene.url,
            max_batch=scene.batch,
            concurrency=scene.concurrency,
            dedupe_horizon=scene.horizon,
            timeout=5 * NS_PER_S,
        )
        yield sink, scene.route
    if scene.files:
        yield FileSink("files", "copy" if scene.url else "billing", scene.out), Route()


def live(
    scene: Scene,
    tell: Callable[[str], None] = silent,
    each: Callable[[int], Awaitable[None] | None] = lambda _: None,
    turned: Callable[[str, Turn], None] = lambda *_: None,
) -> Line:
    """One whole life, to its orderly end. Returns the line, closed."""

    async def whole() -> Line:
        line = Line(scene, tell, turned)
        try:
            await line.play(each)
        finally:
            await line.stop()
        return line

    return asyncio.run(whole())
