"""The process: the only place where all parts meet, and the order in which they start and stop (DESIGN §8).

One loop of named tasks; beside it one thread, the spool's, on which the whole line runs left of the disk. A task that
ends takes the process with it. Signals only set events.
"""

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from operator import attrgetter
from pathlib import Path
from typing import TypeVar

import structlog
from apscheduler.schedulers.asyncio import AsyncIOScheduler
from apscheduler.triggers.interval import IntervalTrigger

from agent import __version__, clock, config, control, systemd
from agent.config import Config, Host, SourceSection
from agent.drains import Drains
from agent.errors import AgentError, CannotStartError, ConfigError, SpoolError, SpoolUnusableError
from agent.kinds import KINDS, METERS, Remembered, build_sink, build_source, plan_of
from agent.metering import Metering
from agent.model import NS_PER_S
from agent.outlets import outlets
from agent.reporting import Reporter, log_to
from agent.sources import Source, kernel
from agent.spool import Spool
from agent.spool.acts import ACTS, Act
from agent.spool.identity import fingerprint
from agent.spool.lock import AnchorLocks
from agent.spool.outbox import Outbox
from agent.sweeps import Sweeps, either
from agent.telemetry import Listener, Telemetry, listen

ANCHOR_SECONDS = 60.0  # an agent that is being replaced has this long to let go of its anchors
RETRY_SECONDS = 5.0  # between two tries to open a spool that the disk refuses
ONE_SIGNAL = 1.0  # seconds in which a process and its group may be signalled by one act
CHANGE_SECONDS = 5.0  # how often the configuration's file is looked at
STALL_SWEEPS = 3  # sample intervals without a commit after which we are not healthy
NOT_YET = "no sweep has been committed yet"
RESTART_ONLY = (
    *(f"agent.{name}" for name in ("data_dir", "run_dir", "cluster", "node", "sample_interval")),
    *("telemetry.listen", "telemetry.customer_labels", "spool.max_bytes", "spool.reserve"),
)

log = structlog.get_logger()
T = TypeVar("T")


class Daemon:
    """One run of the agent."""

    def __init__(
        self,
        load: Callable[[], Config],
        path: Path | None = None,
        *,
        build: Callable[[SourceSection, Config, Remembered], Source] = build_source,
        lock_anchors: bool = True,
    ) -> None:
        """`load` reads the configuration, again at each reload; `path` is the file to watch, if there is one.

        `build` and `lock_anchors` are the quick start's, which may meter a cgroup that is delegated to a user.
        """
        self._load, self._path, self._build_source, self._lock_anchors = load, path, build, lock_anchors
        self.config = load()
        self._generation = 1
        self._dates = clock.Dates()
        self._thread = ThreadPoolExecutor(1, "spool")
        self._stopping, self._reload, self._adopting = asyncio.Event(), asyncio.Event(), asyncio.Lock()
        self._broken: Exception | None = None
        self._asked_at: float | None = None  # monotonic seconds of the first signal to stop
        self.address: tuple[str, int] | None = None  # of telemetry
        # Until the spool is open: the wall clock's word, and no sweep.
        self._billing: Callable[[], int] = time.time_ns
        self._swept: Callable[[], int] = int  # boottime of the last committed sweep; 0 before the first
        self.reporter = Reporter(
            Telemetry(
                __version__,
                boottime=kernel.boottime,
                billing=lambda: self._billing(),  # noqa: PLW0108 - it is bound anew when the spool opens
                customer_labels=self.config.telemetry.customer_labels,
            )
        )
        run_dir = Path(self.config.agent.run_dir)
        self._anchors = AnchorLocks(run_dir, ANCHOR_SECONDS, self._waiting_for_an_anchor)

    def stop(self) -> None:
        """Ask for an orderly stop."""
        self._stopping.set()

    async def run(self) -> int:
        """Start, meter until told to stop, stop in order; the exit code. Raises AgentError when it cannot start."""
        loop = asyncio.get_running_loop()
        for name in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(name, self._asked_to_stop)
        loop.add_signal_handler(signal.SIGHUP, self._reload.set)
        async with contextlib.AsyncExitStack() as stack:
            # Closed in reverse: telemetry outlives the spool, so that a final scrape still sees the end.
            stack.callback(self._thread.shutdown)
            listener = await self._listen()
            if listener is not None:
                stack.push_async_callback(listener.close)
            await self._open_patiently()
            stack.push_async_callback(self._on_thread, self._close)
            stack.push_async_callback(self.drains.abandon)
            await self._adopt_sinks(self.config)
            self._notice()
            server = await control.serve(self.spool.directory, self._answers())
            stack.callback(server.close)
            await self._work()
            code = await self._flush()
        log.info("stopped", code=code)
        return code

    # -- starting --------------------------------------------------------------------------------------------------

    async def _open_patiently(self) -> None:
        """Open everything. A disk that fails now may work later: stay up, not ready, and try again (ACCOUNTING §7)."""
        while True:
            try:
                await self._on_thread(self._open)
            except SpoolUnusableError as error:
                self.reporter.fails("spool", str(error))
                systemd.notify(f"EXTEND_TIMEOUT_USEC={int(RETRY_SECONDS * 2e6)}", f"STATUS={error}")
                if await either(self._stopping, RETRY_SECONDS):
                    raise
            else:
                break
        self.reporter.recovers("spool")
        log.info("started", version=__version__, source=self.metering.books.source)
        if self.spool.restored:
            log.error("new epoch", reason=self.spool.restored, cure="see `metering-agent spool ls --held`")

    def _open(self) -> None:
        cfg = self.config
        run_dir = Path(cfg.agent.run_dir)
        self.spool = Spool.open(
            Path(cfg.agent.data_dir),
            run_dir=run_dir,
            fingerprint=fingerprint(),
            now=time.time_ns(),
            max_bytes=cfg.spool.max_bytes,
            reserve=cfg.spool.reserve,
            once_locked=lambda: self._hold_anchors(cfg),
        )
        self.outbox = Outbox(self.spool)
        try:
            self.metering = Metering(
                self.spool, plan_of(cfg), run_dir, boot=kernel.boot_id(), synchronised=self._clock_confirmed
            )
            self.drains = Drains(
                self.metering,
                self.outbox,
                self.reporter,
                self._on_thread,
                lambda: self._adopt_sinks(self.config),
                lambda date: self._dates.note(date, kernel.boottime()),
            )
            self.sweeps = Sweeps(self.metering, self.reporter, self._on_thread, self.drains.stirred.set)
            self._billing = lambda: self.metering.clock.at(kernel.boottime())
            self._swept = lambda: self.sweeps.last
            self._build_sources(cfg)
        except AgentError:
            self.spool.close()
            self._anchors.close()
            raise

    def _waiting_for_an_anchor(self) -> None:
        systemd.notify("EXTEND_TIMEOUT_USEC=5000000")
        if self._stopping.is_set():
            raise CannotStartError("asked to stop before it had started")

    def _clock_confirmed(self) -> bool:
        """Whether the wall clock is disciplined, or is what sinks' clocks say (ACCOUNTING §4)."""
        return clock.synchronised() or self._dates.agree(*clock.now())

    def _hold_anchors(self, cfg: Config) -> None:
        """One agent per anchor of a kernel: no other may book the same counters."""
        if self._lock_anchors:
            self._anchors.hold(a for section in cfg.sources if not isinstance(section, Host) for a in section.closed())

    def _build_sources(self, cfg: Config) -> None:
        for source in self.sweeps.sources.values():
            source.close()
        self.sweeps.sources = {
            section.id: self._build_source(section, cfg, self.spool.remembered) for section in cfg.sources
        }

    async def _adopt_sinks(self, cfg: Config) -> None:
        """Run the sinks of `cfg`, and those that still have something to settle; one call after the other."""
        async with self._adopting:  # else two of them may each run a drain for one sink
            wanted, alarms = await self._on_thread(outlets, cfg, self.outbox, METERS, self._billing())
            await self.drains.adopt(wanted, self.drains.build(wanted))
        ids = {"sources": list(self.sweeps.sources), "sinks": list(wanted)}
        self.reporter.telemetry.configured(self._generation, window=cfg.agent.window, lateness=0, **ids)
        for sink, why in alarms.items():
            log.error("sink goes on by its last configuration", sink=sink, why=why)

    def _notice(self) -> None:
        for notice in self.config.notices:
            log.warning("configuration", notice=notice)

    async def _listen(self) -> Listener | None:
        if self.config.telemetry.listen is None:
            return None
        listener = await listen(
            *self.config.telemetry.listen,
            self.reporter.telemetry,
            self._unhealthy,
            lambda: None if self._swept() else NOT_YET,
        )
        self.address = listener.address
        log.info("telemetry", address="{}:{}".format(*listener.address))
        return listener

    def _scheduler(self) -> AsyncIOScheduler:
        """A sweep at each multiple of the sample interval, so that one falls on every window's edge.

        A late run is never skipped and two never overlap; quantities come from the sweeps' own stamps anyway.
        """
        seconds = self.config.agent.sample_interval // NS_PER_S
        now = int(time.time())
        start = datetime.fromtimestamp(now - now % seconds, UTC)
        scheduler = AsyncIOScheduler(timezone=UTC)
        trigger = IntervalTrigger(seconds=seconds, start_date=start, timezone=UTC)
        scheduler.add_job(self._tick, trigger, misfire_grace_time=None, coalesce=True, max_instances=1)
        return scheduler

    # -- working and stopping --------------------------------------------------------------------------------------

    async def _work(self) -> None:
        """Meter and deliver until asked to stop, or until something breaks."""
        await self._tick()
        systemd.notify("READY=1", f"STATUS=metering {', '.join(self.sweeps.sources)}")
        scheduler = self._scheduler()
        scheduler.start()
        tasks = {
            "reads": self.sweeps.between,
            "follows": self.sweeps.follow,
            "drains": self._drain_on,
            "reloads": self._reload_on,
            "watchdog": self._watch,
        }
        try:
            async with asyncio.TaskGroup() as group:
                running = [group.create_task(work(), name=name) for name, work in tasks.items()]
                await self._stopping.wait()
                for task in running:
                    task.cancel()
        except* SpoolError as errors:
            self._broken = errors.exceptions[0]
        finally:
            scheduler.shutdown(wait=False)

    async def _flush(self) -> int:
        """Stop in order: a last sweep, a cut, then sending as far as the budget goes. The exit code."""
        systemd.notify("STOPPING=1", "STATUS=flushing")
        deadline = time.monotonic() + self.config.agent.shutdown_budget / NS_PER_S
        try:
            if self._broken is not None:
                raise self._broken
            await self.sweeps.every_source()
            self.reporter.recorded(await self._on_thread(self.metering.cut))
            await self.drains.finish(max(0.0, deadline - time.monotonic()))
        except SpoolError as error:
            log.critical("stopping without a flush: counters and spool hold everything", error=str(error))
            return 1
        return 0

    def _close(self) -> None:
        for source in self.sweeps.sources.values():
            source.close()
        self.spool.close()
        self._anchors.close()

    def _asked_to_stop(self) -> None:
        if self._asked_at is not None and time.monotonic() - self._asked_at > ONE_SIGNAL:
            os._exit(1)  # a second signal leaves at once: what is uncommitted, the counters still hold
        self._asked_at = self._asked_at or time.monotonic()
        self._stopping.set()

    # -- asked by people -------------------------------------------------------------------------------------------

    def _answers(self) -> Mapping[str, control.Answer]:
        """What can be asked for on the control socket."""

        async def accept(_who: str, _arguments: Mapping[str, object]) -> object:
            return await self._on_thread(self.metering.accept_clock)

        def answer(act: Act) -> control.Answer:
            async def done(who: str, arguments: Mapping[str, object]) -> object:
                said = await self._on_thread(act, self.outbox, self.metering.moment, who, arguments)
                await self._adopt_sinks(self.config)  # one may have ended
                self.drains.stirred.set()
                return said

            return done

        return {"clock accept": accept} | {name: answer(act) for name, act in ACTS.items()}

    # -- measuring -------------------------------------------------------------------------------------------------

    async def _tick(self) -> None:
        """The scheduler's job. It would swallow what this raises."""
        try:
            await self.sweeps.every_source()
        except Exception as error:
            self._broken = error
            self._stopping.set()
            if not isinstance(error, SpoolError):
                raise

    async def _drain_on(self) -> None:
        await self.drains.as_they_come(lambda: (self.config.spool.retention, self.config.spool.evidence_retention))

    # -- configuration ---------------------------------------------------------------------------------------------

    async def _reload_on(self) -> None:
        """Adopt the file on SIGHUP or when it changed; a bad one changes nothing."""
        seen = config.stamp(self._path)
        while True:
            asked = await either(self._reload, CHANGE_SECONDS)
            if not asked and config.stamp(self._path) == seen:
                continue
            seen = config.stamp(self._path)
            try:
                fresh = self._load()
                fixed = [key for key in RESTART_ONLY if attrgetter(key)(fresh) != attrgetter(key)(self.config)]
                if fixed:
                    cure = "a change takes effect only at a restart. Restart, or put it back."
                    raise ConfigError([f"{self._path}: {key}: {cure}" for key in fixed])
                for section in fresh.sinks:
                    build_sink(section)  # one that cannot be made is refused before anything has changed
                await self.sweeps.every_source()  # what happened until now is judged by the old rules
                await self._on_thread(self._adopt, fresh)
            except SpoolError:
                raise
            except AgentError as error:
                self.reporter.telemetry.refused()
                log.warning("configuration refused; the last good one goes on", problems=str(error))
                continue
            self._generation += 1
            await self._adopt_sinks(fresh)
            self._notice()
            log.info("configuration adopted", generation=self._generation)

    def _adopt(self, fresh: Config) -> None:
        self._hold_anchors(fresh)
        self.metering.adopt(plan_of(fresh), just_swept=True)
        self.config = fresh
        self._build_sources(fresh)

    # -- health ----------------------------------------------------------------------------------------------------

    def _unhealthy(self) -> str | None:
        limit = STALL_SWEEPS * max(self.config.agent.sample_interval, 10 * NS_PER_S)
        if self._swept() and kernel.boottime() - self._swept() > limit:
            return "no sweep was committed lately; failing: " + (", ".join(sorted(self.reporter.failing)) or "the loop")
        return None

    async def _watch(self) -> None:
        """Tell the service manager that the loop and the spool's thread are alive."""
        while True:
            await self._on_thread(int)
            systemd.notify("WATCHDOG=1")
            await asyncio.sleep(systemd.watchdog_seconds() or ANCHOR_SECONDS)

    def _on_thread(self, act: Callable[..., T], *args: object) -> Awaitable[T]:
        return asyncio.get_running_loop().run_in_executor(self._thread, act, *args)


def main(path: Path, environ: Mapping[str, str]) -> int:
    """Run from a file until stopped; the exit code of DESIGN §8."""
    log_to(sys.stderr)

    async def live() -> int:
        return await Daemon(lambda: config.load(path, KINDS, environ), path).run()

    try:
        return asyncio.run(live())
    except AgentError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), os.environ))
