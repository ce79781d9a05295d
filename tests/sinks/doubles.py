"""What doubles of back ends over HTTP have in common, and two ways to reach one: a real socket, or in no time.

A double imports nothing from the agent. Its `answer` gets a request; None is an answer that is lost.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from decimal import Decimal
from typing import Protocol
from unittest import mock

import httpx

from tests.sinks.double import Request, read_request

Totals = dict[tuple[str, str], Decimal]


@dataclass(frozen=True)
class Said:
    """A whole answer."""

    status: int
    body: bytes = b""


class UnreachedError(Exception):
    """No connection was made."""


class Double(Protocol):
    """A back end. `faults`: what befalls the next requests that bring usage, in order; then it behaves."""

    faults: deque[str]

    def totals(self) -> Totals:
        """What it bills, by customer and dimension as they were told."""


class OverHttp(Double, Protocol):
    """One that is reached over HTTP."""

    async def answer(self, request: Request) -> Said | None:
        """Raises UnreachedError."""


class _Tunnel(httpx.AsyncBaseTransport):
    """A connection to a double in this very process."""

    def __init__(self, double: OverHttp) -> None:
        self._double = double

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        headers = {name.lower(): value for name, value in request.headers.items()}
        asked = Request(request.method, request.url.raw_path.decode(), headers, await request.aread())
        try:
            said = await self._double.answer(asked)
        except UnreachedError as error:
            raise httpx.ConnectError("refused") from error
        if said is None:
            raise httpx.ReadError("reset")
        return httpx.Response(said.status, content=said.body)


@contextmanager
def tunnelled(double: OverHttp) -> Iterator[None]:
    """Every connection of a sink leads to this double, and takes no time."""
    with mock.patch.object(httpx, "AsyncHTTPTransport", side_effect=lambda **_: _Tunnel(double)):
        yield


@asynccontextmanager
async def served(double: OverHttp, delay: Callable[[], float] = lambda: 0.0) -> AsyncIterator[str]:
    """The address of a real socket behind which it is. `delay`: seconds before each answer."""
    serving: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        serving.add(task)
        try:
            while (asked := await read_request(reader)) is not None:
                if wait := delay():
                    await asyncio.sleep(wait)
                said = await double.answer(asked)
                if said is None:
                    break
                head = f"HTTP/1.1 {said.status} Said\r\nContent-Length: {len(said.body)}\r\n\r\n"
                writer.write(head.encode() + said.body)
                await writer.drain()
        except (ConnectionError, UnreachedError, asyncio.CancelledError):
            pass
        finally:
            serving.discard(task)
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for task in tuple(serving):
            task.cancel()
        await asyncio.gather(*serving, return_exceptions=True)
