"""The process: the only place where all parts meet, and the order in which they start and stop (DESIGN §8).

One loop of named tasks; beside it one thread, the spool's, on which the whole line runs left of the disk. A task that
ends takes the process with it. Signals only set events.
"""

import asyncio
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import structlog
from apscheduler.schedulers.asyncio import AsyncIOScheduler
from apscheduler.triggers.interval import IntervalTrigger

from agent import __version__, clock, config, control, systemd
from agent.books import Commit
from agent.config import Cgroups, Config, FileSink
from agent.delivery.drain import drain_one, resume
from agent.errors import AgentError, CannotStartError, ConfigError, SinkError, SourceError, SpoolError, SpoolFullError
from agent.metering import Metering, Plan, Swept
from agent.model import NS_PER_S, Meter
from agent.sinks import Sink
from agent.sinks.file import FileSink as FileSinkImpl
from agent.sources import Source, Watched, cgroups, host, kernel
from agent.spool import Spool
from agent.spool.identity import fingerprint
from agent.spool.lock import Lock
from agent.spool.outbox import Outbox
from agent.telemetry import Listener, SpoolLevels, Telemetry, listen

KINDS: Mapping[str, tuple[Meter, ...]] = {"host": host.METERS, "cgroups": cgroups.METERS}
METERS = {meter.name: meter for meters in KINDS.values() for meter in meters}
READ_SECONDS = 1.0  # between two reads of watched counters
ANCHOR_WAIT = 60.0  # an agent that is being replaced has this long to let go of its anchors
CHANGE_SECONDS = 5.0  # how often the configuration's file is looked at
STALL = 3  # sample intervals without a commit after which we are not healthy

log = structlog.get_logger()
T = TypeVar("T")


def plan_of(cfg: Config) -> Plan:
    """The configuration as the line reads it."""
    feeds: dict[str, frozenset[str]] = {}
    for source in cfg.sources:
        for meter in KINDS[source.kind]:
            feeds[meter.name] = feeds.get(meter.name, frozenset()) | {source.id}
    return Plan(
        cluster=cfg.agent.cluster,
        node=cfg.agent.node,
        meters=METERS,
        feeds=feeds,
        dimensions=cfg.dimensions(),
        rules=cfg.rules(),
        window=cfg.agent.window,
        interval=cfg.agent.sample_interval,
        fresh_boot=cfg.agent.fresh_boot,
        hold=cfg.attribution.unattributed.hold,
        accept_after=cfg.agent.clock.accept_after,
    )


def build_source(section: config.Host | config.Cgroups, cfg: Config) -> Source:
    """A new source is one file, one section, and one line here."""
    wanted = frozenset(entry.meter for entry in cfg.meters)
    if isinstance(section, Cgroups):
        policies = "".join(entry.policy for entry in cfg.meters)
        aspects = frozenset(aspect for aspect in ("limit", "request") if aspect in policies)
        return cgroups.CgroupSource(
            section.id, str(section.root), section.include, section.closed(), wanted=wanted, aspects=aspects
        )
    return host.HostSource(section.id, str(section.root), wanted=wanted)


def build_sink(section: FileSink, epoch: str) -> Sink:
    """A new sink is one file, one section, and one line here."""
    return FileSinkImpl(section.id, section.role, Path(section.path), epoch)


class Daemon:
    """One run of the agent."""

    def __init__(self, load: Callable[[], Config], path: Path | None = None) -> None:
        """`load` reads the configuration, again at each reload; `path` is the file to watch, if there is one."""
        self._load, self._path = load, path
        self.config = load()
        self.config_generation = 1
        self._thread = ThreadPoolExecutor(1, "spool")
        self._stop, self._reload, self._records = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._locks: dict[str, Lock] = {}
        self.sources: dict[str, Source] = {}
        self.sinks: dict[str, Sink] = {}
        self._failing: set[str] = set()  # what has failed and was logged; recovery is logged once too
        self._swept_at = 0  # boottime of the last commit
        self._ready = False
        self._appended = 0
        self.address: tuple[str, int] | None = None

    # -- life ------------------------------------------------------------------------------------------------------

    async def run(self) -> int:
        """Start, meter until told to stop, stop in order; the exit code."""
        loop = asyncio.get_running_loop()
        self._open()
        for name in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(name, self._asked_to_stop)
        loop.add_signal_handler(signal.SIGHUP, self._reload.set)
        answers = {"clock accept": lambda: self._on_thread(self.metering.accept_clock)}
        server = await control.serve(self.spool.directory, answers)
        listener = await self._listen()
        scheduler = self._schedule()
        code = 0
        try:
            await self._work()
        except SpoolError as error:
            log.error("spool failed", error=str(error))
            code = 1
        # The order: nothing new is measured, what was measured is committed, what is committed is sent as far as the
        # budget goes; the file closes after its last user, and telemetry last, so that a final scrape still sees it.
        systemd.notify("STOPPING=1", "STATUS=flushing")
        scheduler.shutdown(wait=False)
        deadline = time.monotonic() + self.config.agent.shutdown_budget / NS_PER_S
        if code == 0:
            code = await self._flush(deadline)
        server.close()
        await self._on_thread(self._close)
        self._thread.shutdown()
        if listener is not None:
            await listener.close()
        log.info("stopped", code=code)
        return code

    def _open(self) -> None:
        cfg = self.config
        run_dir, data_dir = Path(cfg.agent.run_dir), Path(cfg.agent.data_dir)
        boot = kernel.boot_id("/")
        self.spool = Spool.open(
            data_dir,
            run_dir=run_dir,
            fingerprint=fingerprint(),
            now=time.time_ns(),
            max_bytes=cfg.spool.max_bytes,
            reserve=cfg.spool.reserve,
        )
        if self.spool.restored:
            log.error("new epoch", reason=self.spool.restored, cure="look at `metering-agent spool ls --held`")
        self._lock_anchors(cfg)
        self.metering = Metering(self.spool, plan_of(cfg), run_dir, boot=boot)
        self.outbox = Outbox(self.spool)
        self.telemetry = Telemetry(
            __version__,
            boottime=lambda: time.clock_gettime_ns(time.CLOCK_BOOTTIME),
            billing=lambda: self.metering.clock.at(time.clock_gettime_ns(time.CLOCK_BOOTTIME)),
            customer_labels=cfg.telemetry.customer_labels,
        )
        self._build(cfg)
        for notice in cfg.notices:
            log.warning("configuration", notice=notice)
        log.info("started", version=__version__, epoch=self.spool.identity.epoch, source=self.metering.books.source)

    def _lock_anchors(self, cfg: Config) -> None:
        """One agent per anchor of a kernel: no other may book the same counters."""
        wanted = {a for section in cfg.sources if isinstance(section, Cgroups) for a in section.closed()}
        for anchor in sorted(wanted - self._locks.keys()):
            systemd.notify(f"EXTEND_TIMEOUT_USEC={int(ANCHOR_WAIT * 2e6)}", f"STATUS=waiting for {anchor}")
            path = Path(cfg.agent.run_dir) / f"anchor-{anchor.replace('/', '-')}.lock"
            cure = "Stop the other agent, or give the two different anchors."
            self._locks[anchor] = Lock(path, f"sources: anchor {anchor}", cure, wait=ANCHOR_WAIT)
        for anchor in self._locks.keys() - wanted:
            self._locks.pop(anchor).close()

    def _build(self, cfg: Config) -> None:
        """Make sources and sinks what the configuration says."""
        for source in self.sources.values():
            source.close()
        self.sources = {section.id: build_source(section, cfg) for section in cfg.sources}
        self.sinks = {section.id: build_sink(section, self.spool.identity.epoch) for section in cfg.sinks}
        for section in cfg.sinks:
            self.outbox.register(section.id, section.kind, section.role, since=section.since)
        for gone in self.outbox.sinks().keys() - self.sinks.keys():
            owed, _ = self.outbox.backlog(gone)
            if owed:
                log.error("sink removed with a backlog", sink=gone, records=owed, cure="they stay until it returns")
            else:
                self.outbox.remove(gone)
        now = clock.now()[0]
        for sink in self.sinks.values():
            self._attempt(f"sink {sink.id}", lambda sink=sink: resume(sink, self.outbox, now))  # type: ignore[misc]
        self.telemetry.configured(
            self.config_generation, window=cfg.agent.window, lateness=0, sources=list(self.sources), sinks=list(self.sinks)
        )

    async def _listen(self) -> Listener | None:
        if self.config.telemetry.listen is None:
            return None
        host_name, port = self.config.telemetry.listen
        listener = await listen(host_name, port, self.telemetry, self._unhealthy, self._unready)
        self.address = listener.address
        log.info("telemetry", address="{}:{}".format(*listener.address))
        return listener

    def _schedule(self) -> AsyncIOScheduler:
        """A sweep of every source at each multiple of the sample interval, so that one falls on each window's edge.

        A late run is never skipped, and two never overlap; quantities come from the sweeps' own stamps anyway.
        """
        seconds = self.config.agent.sample_interval / NS_PER_S
        start = (time.time() // seconds) * seconds  # noqa: RUF100 - a schedule, not a quantity
        from datetime import UTC, datetime  # the scheduler's own type, needed nowhere else

        scheduler = AsyncIOScheduler(timezone=UTC)
        trigger = IntervalTrigger(seconds=max(1, int(seconds)), start_date=datetime.fromtimestamp(start, UTC), timezone=UTC)
        scheduler.add_job(self._sweep_all, trigger, id="sweep", misfire_grace_time=None, coalesce=True, max_instances=1)
        scheduler.start()
        return scheduler

    async def _work(self) -> None:
        await self._sweep_all()
        systemd.notify("READY=1", f"STATUS=metering {', '.join(self.sources)}")
        tasks = {"reads": self._read_on, "reloads": self._reload_on, "drains": self._drain_on, "watchdog": self._watchdog}
        async with asyncio.TaskGroup() as group:
            running = [group.create_task(work(), name=name) for name, work in tasks.items()]
            await self._stop.wait()
            for task in running:
                task.cancel()

    async def _flush(self, deadline: float) -> int:
        try:
            await self._sweep_all()
            commit = await self._on_thread(self.metering.cut)
            self._report(commit)
            for sink in self.sinks.values():
                while time.monotonic() < deadline and await self._drain(sink):
                    pass
        except SpoolError as error:
            log.error("could not flush; the counters and the spool still hold everything", error=str(error))
            return 1
        return 0

    def _close(self) -> None:
        for closing in (*self.sources.values(), self.spool, *self._locks.values()):
            closing.close()

    def stop(self) -> None:
        """Ask for an orderly stop."""
        self._stop.set()

    def _asked_to_stop(self) -> None:
        if self._stop.is_set():
            os._exit(1)  # a second signal leaves at once: whatever is uncommitted, the counters still hold
        self._stop.set()

    # -- measuring -------------------------------------------------------------------------------------------------

    async def _sweep_all(self) -> None:
        for source in list(self.sources.values()):
            await self._sweep(source)

    async def _sweep(self, source: Source) -> None:
        began = time.perf_counter()
        try:
            swept = await self._on_thread(self.metering.sweep, source)
        except (SourceError, OSError) as error:
            self._fails(f"source {source.id}", str(error))
            self.telemetry.swept(source.id, seconds=time.perf_counter() - began, stamp=None)
        except SpoolFullError as error:
            self._fails("spool space", str(error))
        else:
            self._recovers(f"source {source.id}")
            self._recovers("spool space")
            self._ready = True
            self._swept_at = swept.stamp
            self._tell(swept)
            self._report(swept.commit)

    def _tell(self, swept: Swept) -> None:
        """Facts of one sweep, for telemetry."""
        told = self.telemetry
        told.clock_observed(swept.verdict, swept.offset)
        told.swept(swept.source, seconds=swept.seconds, stamp=swept.stamp)
        told.committed(swept.source, swept.stamp)
        for reason in swept.commit.anomalies:
            told.anomaly(swept.source, reason)
        for reason, count in swept.conflicts.items():
            told.anomaly(swept.source, reason, count)
        for gap in swept.commit.gaps:
            told.gap(swept.source, gap.reason)
        for balance in swept.commit.balances:
            told.balanced(balance, swept.commit.unattributed.get(balance.anchor, 0))
            if balance.overrun:
                log.error("books overrun", anchor=balance.anchor, meter=balance.meter, by=balance.overrun)

    def _report(self, commit: Commit) -> None:
        """Records that a commit made: count them, and wake the sinks."""
        for closed in commit.closed:
            record = closed.record
            self.telemetry.recorded(
                record.kind, customer=record.customer, dimension=record.dimension, quantity=record.quantity
            )
        if commit.closed:
            self._records.set()

    async def _read_on(self) -> None:
        """Between sweeps: keep the last counters of what lives, and sweep at once when something died."""
        loop = asyncio.get_running_loop()
        stirred = asyncio.Event()
        listened: dict[int, Source] = {}
        while True:
            watched: dict[int, Watched] = {s.fileno(): s for s in self.sources.values() if isinstance(s, Watched)}
            for fd in listened.keys() - watched.keys():
                loop.remove_reader(fd)
            for fd in watched.keys() - listened.keys():
                loop.add_reader(fd, stirred.set)
            listened = dict(watched)
            now = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
            wait = min((s.next_read_within(now) / NS_PER_S for s in watched.values()), default=READ_SECONDS)
            try:
                await asyncio.wait_for(stirred.wait(), wait)
            except TimeoutError:
                pass
            stirred.clear()
            for source in watched.values():
                try:
                    died = await self._on_thread(source.read)
                except (SourceError, OSError) as error:
                    self._fails(f"source {source.id}", str(error))
                    continue
                if died:
                    await self._sweep(source)

    # -- delivering ------------------------------------------------------------------------------------------------

    async def _drain_on(self) -> None:
        while True:
            for sink in list(self.sinks.values()):
                while await self._drain(sink):
                    pass
            await self._on_thread(self._take_stock)
            self._records.clear()
            try:  # also without news: what failed is tried again, and levels are taken
                await asyncio.wait_for(self._records.wait(), self.config.agent.sample_interval / NS_PER_S)
            except TimeoutError:
                pass

    async def _drain(self, sink: Sink) -> bool:
        """One batch; False when there is no more, or it did not work this time."""
        try:
            count = await self._on_thread(drain_one, sink, self.outbox, lambda: clock.now()[0])
        except (SinkError, SpoolFullError) as error:
            self._fails(f"sink {sink.id}", str(error))
            self.telemetry.settled(sink.id, "retry")
            return False
        self._recovers(f"sink {sink.id}")
        if count:
            self.telemetry.settled(sink.id, "delivered", count)
        return count is not None

    def _take_stock(self) -> None:
        self.spool.maintain(clock.now()[0], self.config.spool.retention, self.config.spool.evidence_retention)
        backlogs = {sink: self.outbox.backlog(sink) for sink in self.sinks}
        for sink, (records, oldest) in backlogs.items():
            self.telemetry.backlog(sink, records, oldest)
        oldest_of_all = min((oldest for _, oldest in backlogs.values() if oldest is not None), default=None)
        self.telemetry.spool(
            SpoolLevels(
                open_windows=self.metering.books.open_windows(),
                size=self.spool.bytes,
                free=self.spool.free,
                appended=self.spool.appended,
                undelivered=max((records for records, _ in backlogs.values()), default=0),
                oldest=oldest_of_all,
                held=self.spool.held_unattributed(clock.now()[0] - self.metering.plan.hold),
            )
        )

    # -- configuration ---------------------------------------------------------------------------------------------

    async def _reload_on(self) -> None:
        seen = self._stamp()
        while True:
            try:
                await asyncio.wait_for(self._reload.wait(), CHANGE_SECONDS)
            except TimeoutError:
                if self._stamp() == seen:
                    continue
            self._reload.clear()
            seen = self._stamp()
            systemd.notify("STATUS=reloading")
            await self._reload_once()
            systemd.notify(f"STATUS=metering {', '.join(self.sources)}")

    def _stamp(self) -> tuple[int, int]:
        try:
            status = os.stat(self._path) if self._path is not None else None
        except OSError:
            return (0, 0)
        return (status.st_mtime_ns, status.st_ino) if status is not None else (0, 0)

    async def _reload_once(self) -> None:
        """Adopt the file as it is now; a bad one changes nothing."""
        try:
            fresh = self._load()
            fixed = ("data_dir", "run_dir", "cluster", "node", "sample_interval")
            for name in fixed:
                if getattr(fresh.agent, name) != getattr(self.config.agent, name):
                    raise ConfigError([f"agent.{name}: it takes effect only at a restart. Restart, or put it back."])
        except ConfigError as error:
            self.telemetry.refused()
            log.error("configuration refused, the last good one goes on", problems=error.problems)
            return
        await self._sweep_all()  # what happened until now is judged by the old rules
        self.config_generation += 1
        await self._on_thread(self._adopt, fresh)
        log.info("configuration adopted", generation=self.config_generation)

    def _adopt(self, fresh: Config) -> None:
        self._lock_anchors(fresh)
        self.metering.adopt(plan_of(fresh))
        self.config = fresh
        self._build(fresh)

    # -- health ----------------------------------------------------------------------------------------------------

    def _unhealthy(self) -> str | None:
        limit = STALL * max(self.config.agent.sample_interval, 10 * NS_PER_S)
        if self._swept_at and time.clock_gettime_ns(time.CLOCK_BOOTTIME) - self._swept_at > limit:
            return "no sweep has been committed for too long: " + (", ".join(sorted(self._failing)) or "the loop is late")
        return None

    def _unready(self) -> str | None:
        return None if self._ready else "no sweep has been committed yet"

    async def _watchdog(self) -> None:
        """The loop and the spool's thread are alive when this is sent."""
        every = systemd.watchdog_seconds()
        while True:
            await self._on_thread(lambda: None)
            systemd.notify("WATCHDOG=1")
            await asyncio.sleep(every or 60)

    def _fails(self, what: str, why: str) -> None:
        if what not in self._failing:
            self._failing.add(what)
            log.error("failing", what=what, why=why)

    def _recovers(self, what: str) -> None:
        if what in self._failing:
            self._failing.discard(what)
            log.info("recovered", what=what)

    def _attempt(self, what: str, act: Callable[[], object]) -> None:
        try:
            act()
        except AgentError as error:
            self._fails(what, str(error))

    def _on_thread(self, act: Callable[..., T], *args: object) -> Awaitable[T]:
        return asyncio.get_running_loop().run_in_executor(self._thread, act, *args)


def main(path: Path, environ: Mapping[str, str]) -> int:
    """Run from a file until stopped; the exit code of DESIGN §8."""
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso"),
            structlog.processors.LogfmtRenderer(key_order=["timestamp", "level", "event"]),
        ],
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )

    async def live() -> int:
        return await Daemon(lambda: config.load(path, KINDS, environ), path).run()

    try:
        return asyncio.run(live())
    except AgentError as error:
        print(error, file=sys.stderr)
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), os.environ))
