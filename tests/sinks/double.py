"""A back end on loopback that misbehaves by script. It imports nothing from the agent, and parses HTTP by itself.

Each request, on whichever connection, is met by the next act of the script; the last act is repeated for ever.
"""

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Coroutine[Any, Any, None]]


@dataclass(frozen=True)
class Request:
    """What arrived: the line, the headers by lower-case name, the body."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True)
class Act:
    """Write `says`; then go on, hang up, reset, or stay silent for ever."""

    says: bytes
    then: str = "go on"


def reply(status: int, body: bytes = b"", **headers: str) -> Act:
    """A whole reply."""
    named = {"Content-Length": str(len(body)), **{name.replace("_", "-"): value for name, value in headers.items()}}
    lines = "".join(f"{name}: {value}\r\n" for name, value in named.items())
    return Act(f"HTTP/1.1 {status} Said\r\n{lines}\r\n".encode() + body)


LOST = Act(b"", "hang up")  # took the request, and its answer never comes
SILENT = Act(b"", "stay silent")
RESET = Act(b"", "reset")
GARBAGE = Act(b"\x00\xff not HTTP at all\r\n\r\n", "hang up")
HALF_A_HEAD = Act(b"HTTP/1.1 204 No Con", "hang up")
HALF_A_BODY = Act(b"HTTP/1.1 202 Accepted\r\nContent-Length: 100\r\n\r\nabc", "hang up")


@dataclass
class Upstream:
    """What was asked of it, and over how many connections."""

    script: list[Act]
    port: int = 0
    requests: list[Request] = field(default_factory=list)
    connections: int = 0
    open: int = 0
    moved: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def url(self) -> str:
        """Where events are posted."""
        return f"http://127.0.0.1:{self.port}/api/v1/events"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, until either side ends it."""
        self.connections += 1
        self.open += 1
        try:
            while (request := await read_request(reader)) is not None:
                self.requests.append(request)
                self.moved.set()
                act = self.script.pop(0) if len(self.script) > 1 else self.script[0]
                writer.write(act.says)
                await writer.drain()
                if act.then == "stay silent":
                    await reader.read()
                if act.then == "reset":
                    writer.transport.abort()
                if act.then != "go on":
                    break
        except (ConnectionError, ssl.SSLError):
            pass
        finally:
            self.open -= 1
            self.moved.set()
            writer.close()

    async def until(self, so: Callable[[], bool]) -> None:
        """Wait for what requests and connections come to."""
        while not so():
            self.moved.clear()
            await self.moved.wait()


@asynccontextmanager
async def upstream(*script: Act, tls: ssl.SSLContext | None = None) -> AsyncIterator[Upstream]:
    """One that follows `script`, on a free port."""
    double = Upstream(list(script))
    async with listening(double.serve, tls) as double.port:
        yield double


@asynccontextmanager
async def listening(serve: Serve, tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """A free port of loopback, whose connections `serve` serves; they end with it."""
    served: set[asyncio.Task[None]] = set()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        served.add(task)
        try:
            await serve(reader, writer)
        except asyncio.CancelledError:
            writer.transport.abort()
        finally:
            served.discard(task)

    server = await asyncio.start_server(accept, "127.0.0.1", 0, ssl=tls)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in tuple(served):
            task.cancel()
        await asyncio.gather(*served, return_exceptions=True)


async def read_request(reader: asyncio.StreamReader) -> Request | None:
    """The next request of a connection; None when there is none."""
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    except asyncio.IncompleteReadError:
        return None
    method, target, _ = head[0].split(" ")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)}
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Request(method, target, headers, body)
