"""A kubelet on loopback for what a real one will not do on demand. It imports nothing of the agent.

What it answers is written down in kubernetes/kubernetes, pkg/kubelet/server: 401 `Unauthorized` without a token that
the API server knows (server.go, InstallAuthFilter); 403 with "Forbidden (user=…, verb=…, resource=…,
subresource(s)=[…])" (the same); 200 with `application/json` (stats/handler.go).
"""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

FORBIDDEN = "Forbidden (user=system:serviceaccount:metering:agent, verb=get, resource=nodes, subresource(s)=[stats])"


@dataclass
class KubeletDouble:
    """Answers `body` to whoever bears one of `tokens`, in the way that `how` says.

    `how`: "whole", "chunked" (no length), "forbidden", "redirect", "slow" (a byte a time, never done), "silent",
    "truncated" (hangs up half way), "huge", "garbage", "hangs up" (before the answer), "leaves" (after it).
    """

    body: bytes = b'{"node":{},"pods":[]}'
    tokens: set[str] = field(default_factory=lambda: {"good"})
    how: str = "whole"
    port: int = 0
    connections: int = 0
    asked: list[tuple[str, str]] = field(default_factory=list)  # target, token
    lines: list[asyncio.StreamWriter] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, until either side ends it."""
        self.connections += 1
        try:
            while await self._answer(reader, writer):
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError, ssl.SSLError):
            pass
        finally:
            writer.transport.abort()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)}
        token = headers.get("authorization", "").removeprefix("Bearer ")
        self.asked.append((head[0].split(" ")[1], token))
        if self.how == "hangs up":
            return False
        if self.how == "silent":
            await reader.read()
            return False
        if token not in self.tokens:
            writer.write(_reply("401 Unauthorized", b"Unauthorized"))
            return True
        return await self._whole(writer)

    async def _whole(self, writer: asyncio.StreamWriter) -> bool:
        json = "Content-Type: application/json\r\n"
        match self.how:
            case "forbidden":
                writer.write(_reply("403 Forbidden", FORBIDDEN.encode()))
            case "redirect":
                writer.write(_reply("302 Found", b"", f"Location: https://127.0.0.1:{self.port}/elsewhere\r\n"))
            case "chunked":
                half = len(self.body) // 2
                pieces = (self.body[:half], self.body[half:])
                chunks = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces)
                writer.write(f"HTTP/1.1 200 OK\r\n{json}Transfer-Encoding: chunked\r\n\r\n".encode() + chunks)
                writer.write(b"0\r\n\r\n")
            case "slow":
                writer.write(f"HTTP/1.1 200 OK\r\n{json}Content-Length: 1000000\r\n\r\n".encode())
                while True:
                    writer.write(b" ")
                    await writer.drain()
                    await asyncio.sleep(0.01)
            case "truncated":
                writer.write(f"HTTP/1.1 200 OK\r\n{json}Content-Length: 1000000\r\n\r\n".encode() + self.body)
                await writer.drain()
                return False
            case "huge":
                writer.write(f"HTTP/1.1 200 OK\r\n{json}Transfer-Encoding: chunked\r\n\r\n".encode())
                while True:
                    writer.write(b"10000\r\n" + b" " * 0x10000 + b"\r\n")
                    await writer.drain()
            case "garbage":
                writer.write(b"\x00\xff no HTTP at all\r\n\r\n")
            case "leaves":
                writer.write(_reply("200 OK", self.body, json))
                await writer.drain()
                return False
            case _:
                writer.write(_reply("200 OK", self.body, json))
        return True


def _reply(status: str, body: bytes, headers: str = "") -> bytes:
    return f"HTTP/1.1 {status}\r\n{headers}Content-Length: {len(body)}\r\n\r\n".encode() + body


@asynccontextmanager
async def serving(double: KubeletDouble, tls: ssl.SSLContext) -> AsyncIterator[KubeletDouble]:
    """The double on a free port, until the block is left."""
    served: set[asyncio.Task[None]] = set()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        served.add(task)
        try:
            await double.serve(reader, writer)
        except asyncio.CancelledError:
            writer.transport.abort()
        finally:
            served.discard(task)

    server = await asyncio.start_server(accept, "127.0.0.1", 0, ssl=tls)
    double.port = server.sockets[0].getsockname()[1]
    try:
        yield double
    finally:
        server.close()
        for task in tuple(served):
            task.cancel()
        await asyncio.gather(*served, return_exceptions=True)
