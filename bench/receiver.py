"""A billing system that takes whatever it is posted, each request after the same time.

`python -m bench.receiver MS PORT MOST` is a process of its own. It writes its port to stdout, and what it took when
that is MOST requests, or when stdin ends.
"""

import asyncio
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import msgspec
from msgspec import Struct

LATENCY_MS = 20
REPLY = b"HTTP/1.1 204 No Content\r\n\r\n"


class Took(Struct):
    """Requests, and bytes of their bodies; `first` and `last`: the wall clock at the first one and the last reply."""

    requests: int = 0
    size: int = 0
    first: float = 0.0
    last: float = 0.0


class Receiver:
    """The other end of that process."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process
        assert process.stdout is not None
        self.port = int(process.stdout.readline())
        self.url = f"http://127.0.0.1:{self.port}/events"

    def took(self) -> Took:
        """End it; what it took."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        return self.took_all()

    def took_all(self) -> Took:
        """Wait until it took as many as it is to take; what it took."""
        assert self._process.stdout is not None
        return msgspec.json.decode(self._process.stdout.readline(), type=Took)


@contextmanager
def receiving(port: int = 0, most: int = sys.maxsize) -> Iterator[Receiver]:
    """A receiver for as long as this lasts, or until it took so many requests."""
    command = [sys.executable, "-m", "bench.receiver", str(LATENCY_MS), str(port), str(most)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield Receiver(process)
        finally:
            process.kill()


class _Connection(asyncio.Protocol):
    """One request after another, each with a Content-Length; nothing else is understood."""

    def __init__(self, took: Took, seconds: float, most: int, enough: asyncio.Event) -> None:
        self._took, self._seconds, self._most, self._enough = took, seconds, most, enough
        self._pending = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._pending += data
        head, found, rest = self._pending.partition(b"\r\n\r\n")
        if not found:
            return
        length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
        if len(rest) < length:
            return
        self._pending = rest[length:]
        self._took.first = self._took.first or time.time()
        self._took.size += length
        asyncio.get_running_loop().call_later(self._seconds, self._reply)

    def _reply(self) -> None:
        self._took.requests += 1
        self._took.last = time.time()
        with suppress(RuntimeError):  # it hung up
            self._transport.write(REPLY)
        if self._took.requests == self._most:
            self._enough.set()


async def serve(milliseconds: int, port: int, most: int) -> None:
    """Take requests until stdin ends, or there were enough."""
    took, loop, enough = Took(), asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(sys.stdin, enough.set)
    server = await loop.create_server(
        lambda: _Connection(took, milliseconds / 1000, most, enough), "127.0.0.1", port, backlog=1024
    )
    print(server.sockets[0].getsockname()[1], flush=True)
    await enough.wait()
    server.close()
    print(msgspec.json.encode(took).decode(), flush=True)


if __name__ == "__main__":
    asyncio.run(serve(*map(int, sys.argv[1:])))
