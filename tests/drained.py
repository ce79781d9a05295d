"""One sink's drain, run to its end in this thread alone: nothing that a test kills or counts happens beside it."""

import asyncio
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, ParamSpec, TypeVar

from agent.clock import Moment
from agent.delivery.drain import Drain, Turn
from agent.delivery.rendering import Route
from agent.sinks import Sink
from agent.spool.outbox import Outbox
from agent.spool.thread import OnThread

P = ParamSpec("P")
T = TypeVar("T")


async def at_once(act: Callable[..., T], *args: object) -> T:
    """What runs calls on the spool's thread, where that is this one."""
    return act(*args)


class _Inline(ThreadPoolExecutor):
    """What `asyncio.to_thread` uses, without threads."""

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> "Future[T]":
        future: Future[T] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:  # noqa: BLE001 - handed on
            future.set_exception(error)
        return future


def run_inline(main: Coroutine[Any, Any, T]) -> T:
    """`asyncio.run`; calls that go to threads are made where they stand."""

    async def inside() -> T:
        asyncio.get_running_loop().set_default_executor(_Inline())
        return await main

    return asyncio.run(inside())


def drain_of(
    sink: Sink,
    outbox: Outbox,
    now: Callable[[], int],
    *,
    on_thread: OnThread = at_once,
    chance: float = 0.0,
    told: Callable[[str, Turn], None] = lambda _sink, _turn: None,
) -> Drain:
    """The drain of a sink that is told everything in base units; its clock is `now`."""
    return Drain(sink, Route(), outbox, on_thread, now=lambda: Moment(now(), now()), chance=lambda: chance, told=told)


def drained(sink: Sink, outbox: Outbox, now: Callable[[], int], *, on_thread: OnThread = at_once) -> int:
    """Deliver all that the sink is owed; how many records it took. What fails is tried again without a pause."""
    turns: list[Turn] = []
    drain = drain_of(sink, outbox, now, on_thread=on_thread, told=lambda _, turn: turns.append(turn))
    drain.finish()
    run_inline(drain.run())
    return sum(s.count for turn in turns for s in turn.settled if s.outcome == "delivered")
