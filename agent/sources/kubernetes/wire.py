"""One GET over a connection of its own, its body in pieces as they come. HTTP/1.1 by h11, TLS and streams by asyncio.

A watch lasts minutes and a list is rare, so that keeping connections would save nothing.
"""

import asyncio
import os
import socket
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import h11
from msgspec import Struct

from agent import __version__

CONNECT_SECONDS = 10.0
READ_BYTES = 64 * 1024
HEAD_BYTES = 64 * 1024
# A peer that is gone without a word is noticed by the kernel: 30 s idle, then three probes, 10 s apart.
_ALIVE = ((socket.TCP_KEEPIDLE, 30), (socket.TCP_KEEPINTVL, 10), (socket.TCP_KEEPCNT, 3))


class WireError(Exception):
    """No whole reply came: one line with the peer and why."""


class SilentError(WireError):
    """Nothing came for so long that the peer counts as gone. It may only have had nothing to say."""


class Peer(Struct, frozen=True):
    """Whom to call. No `context`: without TLS. `name` is what its certificate must name, if not the host."""

    host: str
    port: int
    context: ssl.SSLContext | None = None
    name: str | None = None

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Reply(Struct):
    """`headers` by lower-case name. `pieces` may be read once, as far as one likes; it raises WireError."""

    status: int
    headers: Mapping[str, str]
    pieces: AsyncIterator[bytes]


@asynccontextmanager
async def get(peer: Peer, target: str, headers: Mapping[str, str], *, silence: float) -> AsyncIterator[Reply]:
    """Ask, and close when the block is left. `silence`: seconds without a byte after which the peer counts as gone.

    Raises WireError.
    """
    reader, writer = await _connected(peer)
    try:
        connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=HEAD_BYTES)
        named = {"Host": str(peer), "User-Agent": f"metering-agent/{__version__}", "Connection": "close", **headers}
        request = connection.send(h11.Request(method="GET", target=target, headers=list(named.items())))
        writer.write((request or b"") + (connection.send(h11.EndOfMessage()) or b""))
        events = _events(peer, connection, reader, silence)
        async for event in events:
            if isinstance(event, h11.Response):
                fields = {name.decode("latin-1"): value.decode("latin-1") for name, value in event.headers}
                yield Reply(event.status_code, fields, _pieces(events))
                break
    finally:
        writer.transport.abort()  # nothing is owed to the peer, and a polite end of TLS could hang


async def _connected(peer: Peer) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    name = (peer.name or peer.host) if peer.context is not None else None
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            reader, writer = await asyncio.open_connection(
                peer.host, peer.port, ssl=peer.context, server_hostname=name, limit=READ_BYTES
            )
    except ssl.SSLCertVerificationError as error:
        why = f"{peer}: its certificate is not accepted: {error.verify_message}. Nothing was sent"
        raise WireError(why) from error
    except TimeoutError as error:
        raise WireError(f"{peer}: no connection within {CONNECT_SECONDS:g} s") from error
    except (OSError, ssl.CertificateError) as error:
        raise WireError(f"{peer}: no connection: {_said(error)}") from error
    plain = writer.get_extra_info("socket")
    plain.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in _ALIVE:
        plain.setsockopt(socket.IPPROTO_TCP, option, value)
    return reader, writer


async def _events(
    peer: Peer, connection: h11.Connection, reader: asyncio.StreamReader, silence: float
) -> AsyncIterator[h11.Event]:
    try:
        while True:
            event = connection.next_event()
            if event is h11.NEED_DATA:
                async with asyncio.timeout(silence):
                    connection.receive_data(await reader.read(READ_BYTES))
            elif isinstance(event, h11.EndOfMessage | h11.ConnectionClosed):
                return
            elif isinstance(event, h11.Event):
                yield event
    except TimeoutError as error:
        raise SilentError(f"{peer}: silent for {silence:g} s") from error
    except h11.RemoteProtocolError as error:
        raise WireError(f"{peer}: not whole, or no HTTP: {error}") from error
    except OSError as error:
        raise WireError(f"{peer}: broken off: {_said(error)}") from error


async def _pieces(events: AsyncIterator[h11.Event]) -> AsyncIterator[bytes]:
    async for event in events:
        if isinstance(event, h11.Data):
            yield bytes(event.data)


def _said(error: Exception) -> str:
    if isinstance(error, ssl.SSLError):
        return (error.reason or str(error)).replace("_", " ").lower()
    number = error.errno if isinstance(error, OSError) else None
    return os.strerror(number) if number is not None and number > 0 else str(error)  # those of names are negative
