"""When sinks are sent to: as records come, and again each interval for what failed. The right half of the line, run."""

import asyncio
import time
from collections.abc import Callable

from agent.delivery.drain import drain_one
from agent.errors import SinkError, SpoolFullError
from agent.metering import Metering
from agent.model import NS_PER_S
from agent.reporting import Reporter, Stock
from agent.sinks import Sink
from agent.spool.outbox import Outbox
from agent.sweeps import OnThread, either
from agent.telemetry import SpoolLevels


class Drains:
    """Drains every sink's outbox. A sink that fails costs only itself."""

    def __init__(self, metering: Metering, outbox: Outbox, reporter: Reporter, on_thread: OnThread) -> None:
        self._metering, self._outbox, self._reporter, self._on_thread = metering, outbox, reporter, on_thread
        self.sinks: dict[str, Sink] = {}
        self.records = asyncio.Event()  # set when there are new ones

    async def as_they_come(self, retention: Callable[[], tuple[int, int]]) -> None:
        """For ever: deliver, take stock, wait for more. `retention`: of records and of evidence, ns."""
        while True:
            await self.all(float("inf"))
            self._reporter.stock(await self._on_thread(self._take_stock, retention()))
            await either(self.records, self._metering.plan.interval / NS_PER_S)

    async def all(self, deadline: float) -> None:
        """Deliver what is owed until `deadline` (monotonic seconds)."""
        for sink in list(self.sinks.values()):
            while time.monotonic() < deadline and await self._one(sink):
                pass

    async def _one(self, sink: Sink) -> bool:
        """One submission; False when there is no more, or it did not work this time."""
        try:
            count = await self._on_thread(drain_one, sink, self._outbox, time.time_ns)
        except (SinkError, SpoolFullError) as error:
            self._reporter.fails(f"sink {sink.id}", str(error))
            self._reporter.telemetry.settled(sink.id, "retry")
            return False
        self._reporter.recovers(f"sink {sink.id}")
        if count:
            self._reporter.telemetry.settled(sink.id, "delivered", count)
        return count is not None

    def _take_stock(self, retention: tuple[int, int]) -> Stock:
        spool, now = self._outbox.spool, time.time_ns()
        spool.maintain(now, *retention, self._metering.plan.hold)
        backlogs = {sink: self._outbox.backlog(sink) for sink in self.sinks}
        levels = SpoolLevels(
            open_windows=self._metering.books.open_windows(),
            size=spool.bytes,
            free=spool.free,
            appended=spool.appended,
            undelivered=max((records for records, _ in backlogs.values()), default=0),
            oldest=min((oldest for _, oldest in backlogs.values() if oldest is not None), default=None),
            held=spool.held_unattributed,
        )
        return Stock(levels, backlogs)
