"""Every sink's drain, kept as the configuration says, and what is done besides: stock, retention, close-outs."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterable, Mapping

from agent.delivery.drain import Drain
from agent.kinds import build_sink
from agent.metering import Metering
from agent.model import NS_PER_S
from agent.outlets import Outlet
from agent.reporting import Reporter, SinkStock, Stock
from agent.sinks import Sink
from agent.spool.outbox import Outbox
from agent.spool.remainders import close_out
from agent.spool.thread import OnThread
from agent.sweeps import either
from agent.telemetry import SpoolLevels

LANDING = 0.25  # of the time to finish: nothing more is taken, and what is under way may end


class Drains:
    """Runs a drain for each sink. A sink that fails costs only itself."""

    def __init__(
        self,
        metering: Metering,
        outbox: Outbox,
        reporter: Reporter,
        on_thread: OnThread,
        tidy: Callable[[], Awaitable[None]],
        dated: Callable[[int], None],
    ) -> None:
        """`tidy` looks at the sinks anew, when one that was to end, or to change, is settled.

        `dated` hears the dates of answers, seconds of the epoch.
        """
        self._dated = dated
        self._metering, self._outbox, self._reporter, self._on_thread = metering, outbox, reporter, on_thread
        self._tidy = tidy
        self._outlets: Mapping[str, Outlet] = {}  # those that are paused, too
        self._running: dict[str, tuple[Outlet, Drain, asyncio.Task[None]]] = {}
        self.stirred = asyncio.Event()  # set when there are new records, or a person has acted

    # -- what runs -------------------------------------------------------------------------------------------------

    def build(self, outlets: Mapping[str, Outlet]) -> dict[str, Sink]:
        """The sinks of those outlets that do not run yet, or run otherwise. Raises AgentError where one cannot be."""
        running = {sink: outlet for sink, (outlet, *_) in self._running.items()}
        return {
            sink: build_sink(outlet.section, self._dated)
            for sink, outlet in outlets.items()
            if running.get(sink) != outlet and not outlet.paused
        }

    async def adopt(self, outlets: Mapping[str, Outlet], built: Mapping[str, Sink]) -> None:
        """Run exactly these, by id; `built` holds the sinks of what is new. The others are not disturbed."""
        run = {sink for sink, outlet in outlets.items() if not outlet.paused}
        stop = (self._running.keys() & built.keys()) | (self._running.keys() - run)
        await self._stop(stop, max((self._running[sink][0].patience for sink in stop), default=0.0))
        self._outlets = outlets
        for sink, made in built.items():
            drain = self._drain(made, outlets[sink])
            task = asyncio.create_task(drain.run(), name=f"drain {sink}")
            task.add_done_callback(lambda _: self.stirred.set())
            self._running[sink] = outlets[sink], drain, task

    def _drain(self, sink: Sink, outlet: Outlet) -> Drain:
        return Drain(
            sink,
            outlet.route,
            self._outbox,
            self._on_thread,
            now=self._metering.moment,
            chance=random.random,
            told=self._reporter.turned,
            freezes=outlet.freezes,
        )

    async def finish(self, seconds: float) -> None:
        """Deliver what can be within so many seconds, then stop."""
        drains = [(drain, task) for _, drain, task in self._running.values()]
        for drain, _ in drains:
            drain.finish()
        if drains:
            await asyncio.wait([task for _, task in drains], timeout=seconds * (1 - LANDING))
        await self._stop(list(self._running), seconds * LANDING)

    async def abandon(self) -> None:
        """Stop at once; what is under way may have left."""
        for *_, task in self._running.values():
            task.cancel()
        if self._running:
            await asyncio.wait([task for *_, task in self._running.values()])
        for _, drain, _ in self._running.values():
            await drain.sink.close()
        self._running.clear()

    async def _stop(self, sinks: Iterable[str], seconds: float) -> None:
        stopping = {sink: self._running[sink] for sink in sinks if sink in self._running}
        for _, drain, _ in stopping.values():
            drain.finish(taking=False)
        if stopping:
            await asyncio.wait([task for *_, task in stopping.values()], timeout=seconds)
        for sink, (_, drain, task) in stopping.items():
            if not task.done():
                task.cancel()
                await asyncio.wait([task])
                await drain.hold_back()
            await drain.sink.close()
            self._running.pop(sink, None)  # not before: whoever is stopped amid this must still find it
            if not task.cancelled():
                task.result()

    # -- what is done besides --------------------------------------------------------------------------------------

    async def as_they_come(self, retention: Callable[[], tuple[int, int]]) -> None:
        """For ever: stir the drains when there are records, take stock. `retention`: of records and evidence, ns."""
        while True:
            for *_, drain, task in self._running.values():
                if task.done() and not task.cancelled():
                    task.result()
                drain.stir()
            stock = await self._on_thread(self._take_stock, retention())
            self._reporter.stock(stock)
            if any(stands.ended for stands in stock.sinks.values()):
                await self._tidy()
            await either(self.stirred, self._metering.plan.interval / NS_PER_S)

    def _take_stock(self, retention: tuple[int, int]) -> Stock:
        spool, now = self._outbox.spool, self._metering.moment().billing  # no step of the wall clock ends a retention
        spool.maintain(now, *retention, self._metering.plan.hold)
        sinks = {}
        for sink, standing in self._outbox.sinks().items():
            records, oldest = self._outbox.backlog(standing)
            running = self._running.get(sink)
            outlet = self._outlets.get(sink)
            max_age = outlet.max_age if outlet is not None else None
            stuck = self._outbox.stuck(standing)
            ends = standing.until is not None and not records and not stuck
            waits = running is not None and not running[0].freezes and not self._outbox.has_open(standing)
            sinks[sink] = SinkStock(records, oldest, stuck, max_age, ends or waits)
            if outlet is not None and outlet.close_after is not None:
                close_out(self._outbox, standing, now - outlet.close_after)
        levels = SpoolLevels(
            open_windows=self._metering.books.open_windows(),
            size=spool.bytes,
            free=spool.free,
            appended=spool.appended,
            undelivered=max((stock.records for stock in sinks.values()), default=0),
            oldest=min((stock.oldest for stock in sinks.values() if stock.oldest is not None), default=None),
            held=spool.held_unattributed,
        )
        return Stock(levels, sinks)
