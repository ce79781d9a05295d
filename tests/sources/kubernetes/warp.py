"""An event loop whose time jumps to the next timer whenever nothing is under way: an hour takes as long as its work.

Sockets are real. Before a jump the loop waits a moment, for the kernel may still carry what was sent on loopback.
"""

import asyncio
import selectors
from collections.abc import Coroutine, Mapping
from typing import Any, TypeVar

MOMENT = 0.002  # seconds

_T = TypeVar("_T")


class _Selector(selectors.BaseSelector):
    def __init__(self) -> None:
        self._real = selectors.DefaultSelector()
        self.now = 1000.0

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        return self._real.register(fileobj, events, data)

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return self._real.unregister(fileobj)

    def modify(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        return self._real.modify(fileobj, events, data)

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        return self._real.get_map()

    def close(self) -> None:
        self._real.close()

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None or timeout <= 0:
            return self._real.select(timeout)
        found = self._real.select(MOMENT)
        if not found:
            self.now += timeout
        return found


class Loop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self.warped = _Selector()
        super().__init__(self.warped)

    def time(self) -> float:
        return self.warped.now


def now() -> int:
    """The running loop's time in ns: boottime, for what is under test."""
    return int(asyncio.get_running_loop().time() * 1_000_000_000)


def run(story: Coroutine[Any, Any, _T]) -> _T:
    """Run a story to its end in jumping time."""
    with asyncio.Runner(loop_factory=Loop) as runner:
        return runner.run(story)
