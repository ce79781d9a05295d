"""A billing system that takes whatever it is posted, each request after the same time: `python -m bench.receiver MS`.

It runs in a process of its own, writes its port to stdout, and when stdin ends, what it took.
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
        said, _ = self._process.communicate()
        return msgspec.json.decode(said, type=Took)


@contextmanager
def receiving(port: int = 0) -> Iterator[Receiver]:
    """A receiver for as long as this lasts."""
    command = [sys.executable, "-m", "bench.receiver", str(LATENCY_MS), str(port)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield Receiver(process)
        finally:
            process.kill()


class _Connection(asyncio.Protocol):
    """One request after another, each with a Content-Length; nothing else is understood."""

    def __init__(self, took: Took, seconds: float) -> None:
        self._took, self._seconds = took, seconds
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


async def serve(milliseconds: int, port: int) -> None:
    """Take requests until stdin ends."""
    took, loop = Took(), asyncio.get_running_loop()
    server = await loop.create_server(lambda: _Connection(took, milliseconds / 1000), "127.0.0.1", port, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.read)
    server.close()
    print(msgspec.json.encode(took).decode(), flush=True)


if __name__ == "__main__":
    asyncio.run(serve(*map(int, sys.argv[1:])))
