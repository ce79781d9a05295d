"""HTTP/1.1 as a billing system speaks it: as little as is needed, by hand, so that it can also be spoken wrongly."""

import asyncio
import email.utils
import json
from dataclasses import dataclass
from http import HTTPStatus

MOST = 64 << 20  # bytes of a body


@dataclass(frozen=True)
class Head:
    """A request up to its body."""

    method: str
    path: str
    headers: dict[str, str]

    @property
    def length(self) -> int:
        """Bytes of its body."""
        return min(MOST, int(self.headers.get("content-length", "0")))


@dataclass(frozen=True)
class Reply:
    """What is written, `late` seconds from now, `gap` seconds between two bytes; `ends`: the connection with it."""

    text: bytes
    ends: bool = False
    late: float = 0.0
    gap: float = 0.0


async def next_head(reader: asyncio.StreamReader) -> Head:
    """The next request of a connection. Raises EOFError at its end, ValueError where it is no HTTP."""
    text = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    request, *lines = text.removesuffix("\r\n\r\n").split("\r\n")
    method, path, _ = request.split(" ")
    headers = (line.partition(":") for line in lines)
    return Head(method, path, {name.strip().lower(): value.strip() for name, _, value in headers})


async def write(writer: asyncio.StreamWriter, reply: Reply) -> None:
    """Say it, at its pace."""
    await asyncio.sleep(reply.late)
    if reply.gap:
        for byte in reply.text:
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(reply.gap)
    else:
        writer.write(reply.text)
        await writer.drain()


def answer(status: int, now: float, body: bytes = b"", headers: str = "") -> bytes:
    """A whole answer. `now` in seconds since 1970 is its Date; `headers` are lines of its own."""
    kind = "application/problem+json" if status >= 400 else "application/json"
    if body:
        headers += f"Content-Type: {kind}\r\n"
    if status != 204:  # which has none by definition (RFC 9110 §8.6)
        headers += f"Content-Length: {len(body)}\r\n"
    date = email.utils.formatdate(now, usegmt=True)
    return f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\nDate: {date}\r\n{headers}\r\n".encode() + body


def problem(status: int, why: str) -> bytes:
    """A refusal as `application/problem+json` (RFC 9457 §3), as OpenMeter answers."""
    return json.dumps({"type": "about:blank", "title": "refused", "status": status, "detail": why}).encode()
