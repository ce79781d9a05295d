"""Delivering without a daemon: a drain on a clock that stands, and a back end that answers as it is told."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from agent.clock import Moment
from agent.delivery.drain import Drain
from agent.delivery.rendering import Route
from agent.sinks import Answer, Entry, Finding, Sink, Terms
from agent.spool.outbox import Outbox, Submission

T = TypeVar("T")


class Billing:
    """Takes what it is sent, or answers as `answers` has it, one after the other. `taken`: (seq, bytes)."""

    kind = "billing"
    role = "billing"

    def __init__(self, sink_id: str = "billing", *answers: Answer, terms: Terms | None = None) -> None:
        self.id, self.terms = sink_id, terms or Terms(max_batch=100)
        self.answers, self.sent = list(answers), list[tuple[int, bytes]]()

    def render(self, entry: Entry) -> bytes:
        return f"{entry.id} {entry.customer} {entry.value} {entry.unit}".encode()

    async def stage(self, submission: Submission) -> None:
        raise NotImplementedError

    async def send(self, submission: Submission) -> Answer:
        self.sent += [(item.seq, item.payload) for item in submission.items]
        return self.answers.pop(0) if self.answers else Answer(outcome="delivered", why="202")

    async def ask(self) -> list[Finding]:
        return []

    async def close(self) -> None:
        pass


async def at_once(act: Callable[..., T], *args: object) -> T:
    """The spool's thread is this one."""
    return act(*args)


def drain(sink: Sink, outbox: Outbox, now: int, route: Route | None = None) -> None:
    """All that can be sent at this instant."""
    on_thread: Callable[..., Awaitable[T]] = at_once
    one = Drain(
        sink,
        route or Route(),
        outbox,
        on_thread,
        now=lambda: Moment(now, now),
        chance=lambda: 0.5,  # so that what failed is not sent again at the same instant
        told=lambda *_: None,
    )
    one.finish()
    asyncio.run(one.run())
