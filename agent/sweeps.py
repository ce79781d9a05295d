"""When sources are read: at each tick, and at once when something that was metered has died."""

import asyncio
import contextlib
import os
import time
from collections.abc import Callable, Collection

from agent.errors import SourceError, SpoolFullError
from agent.metering import Metering
from agent.model import NS_PER_S
from agent.reporting import Reporter
from agent.sources import Followed, Source, Watched, kernel
from agent.spool.thread import OnThread

IDLE_SECONDS = 1.0  # between two looks at watched sources when there are none to look at


class Sweeps:
    """Runs the line for every source. A source that fails costs only itself."""

    def __init__(
        self, metering: Metering, reporter: Reporter, on_thread: OnThread, committed: Callable[[], None]
    ) -> None:
        """`committed` is called when records were made."""
        self._metering, self._reporter, self._on_thread, self._committed = metering, reporter, on_thread, committed
        self.sources: dict[str, Source] = {}
        self.last = 0  # boottime of the last committed sweep; 0 before the first

    async def every_source(self) -> None:
        """One sweep of each. Raises SpoolError when the disk fails."""
        for source in list(self.sources.values()):
            await self._sweep(source)

    async def _sweep(self, source: Source) -> None:
        began = time.perf_counter()
        try:
            swept = await self._on_thread(self._metering.sweep, source)
        except (SourceError, OSError) as error:
            self._reporter.fails(f"source {source.id}", str(error))
            self._reporter.telemetry.swept(source.id, seconds=time.perf_counter() - began, stamp=None)
        except SpoolFullError as error:
            self._reporter.fails("spool space", str(error))
        else:
            self.last = swept.stamp
            self._reporter.recovers(f"source {source.id}")
            self._reporter.recovers("spool space")
            self._reporter.swept(swept)
            if isinstance(source, Followed):
                self._reporter.followed(source.id, source.asking)
            if swept.commit.closed:
                self._committed()

    async def between(self) -> None:
        """For ever: keep the latest counters of what lives, each second and whenever something came or went."""
        stirred, ears = asyncio.Event(), Ears(asyncio.get_running_loop())
        try:
            while True:
                watched = [source for source in self.sources.values() if isinstance(source, Watched)]
                ears.listen(watched, stirred.set)
                now = kernel.boottime()
                pauses = (source.next_read_within(now) / NS_PER_S for source in watched)
                await either(stirred, min(pauses, default=IDLE_SECONDS))
                for source in watched:
                    try:
                        died = await self._on_thread(source.read)
                    except (SourceError, OSError) as error:
                        self._reporter.fails(f"source {source.id}", str(error))
                    else:
                        if died:
                            await self._sweep(source)
        finally:
            ears.listen((), stirred.set)

    async def follow(self) -> None:
        """For ever: let those sources that learn over the network do so, each for as long as it is in use."""
        running: dict[Followed, asyncio.Task[None]] = {}
        try:
            while True:
                wanted = {source for source in self.sources.values() if isinstance(source, Followed)}
                for source in running.keys() - wanted:
                    running.pop(source).cancel()
                for source in wanted - running.keys():
                    running[source] = asyncio.create_task(source.follow(), name=f"follow {source.id}")
                done, _ = await asyncio.wait(
                    [*running.values(), asyncio.create_task(asyncio.sleep(IDLE_SECONDS))],
                    return_when=asyncio.FIRST_COMPLETED,
                )
                for task in done:
                    task.result()
        finally:
            for task in running.values():
                task.cancel()
            await asyncio.gather(*running.values(), return_exceptions=True)


class Ears:
    """Descriptors of watched sources that a loop listens to.

    Duplicates: a reload closes a source while it is listened to, and the next connection may be given its number.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._of: dict[Watched, int] = {}

    def listen(self, sources: Collection[Watched], heard: Callable[[], None]) -> None:
        """To these and to no others."""
        for source in self._of.keys() - set(sources):
            fd = self._of.pop(source)
            self._loop.remove_reader(fd)
            os.close(fd)
        for source in sources:
            if source not in self._of:
                fd = self._of[source] = os.dup(source.fileno())
                self._loop.add_reader(fd, heard)


async def either(event: asyncio.Event, seconds: float) -> bool:
    """Wait for `event` or for `seconds`; whether it was the event, which is cleared."""
    # Not wait_for: in Python 3.11 it forgets a cancellation that comes in the same turn as the event.
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
    happened = event.is_set()
    event.clear()
    return happened
