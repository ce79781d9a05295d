"""`/metrics`, `/healthz` and `/readyz` over HTTP/1.1: h11 parses, asyncio carries, and nothing is logged per request.

Whoever reaches the port may be slow, broken or hostile: a request is at most 16 KiB and, answer included, 5 seconds;
64 clients are served at a time.
"""

import asyncio
import errno
import os
from asyncio import StreamReader, StreamWriter, Task
from collections.abc import Callable
from contextlib import suppress
from http import HTTPStatus

import h11
from msgspec import Struct

from agent.errors import CannotStartError
from agent.telemetry.facts import Telemetry

REQUEST_BYTES = 16 * 1024  # of the head, and of the body; h11 may overlook the last piece read
PIECE_BYTES = 4 * 1024
REQUEST_SECONDS = 5.0  # from the first wait for a request to the last byte of its answer
CONNECTIONS = 64
FAREWELL_SECONDS = 0.2  # for one too many to have sent its request: closing on unread bytes would reset the 503 away
TEXT = "text/plain; charset=utf-8"

Check = Callable[[], str | None]
"""None when all is well, else the reasons, one a line."""

_CURES = {
    errno.EADDRINUSE: "Another process has it, perhaps another agent: stop that, or choose another port",
    errno.EACCES: "Ports below 1024 need a privilege: choose a higher one",
    errno.EADDRNOTAVAIL: "Choose an address of this machine, such as 127.0.0.1",
}


class Answer(Struct, frozen=True):
    """One response. `content_type` may echo the client's Accept header."""

    status: HTTPStatus
    body: bytes
    content_type: str = TEXT


def bare(status: HTTPStatus) -> Answer:
    """The status and its phrase, no more."""
    return Answer(status, f"{status.phrase}\n".encode())


async def listen(host: str, port: int, telemetry: Telemetry, healthy: Check, ready: Check) -> "Listener":
    """Serve `telemetry` there; port 0 is any free one. Raises CannotStartError when the address cannot be bound."""
    listener = Listener(telemetry, healthy, ready)
    try:
        await listener.open(host, port)
    except (OSError, OverflowError, UnicodeError) as error:
        code = getattr(error, "errno", None) or 0
        reason = os.strerror(code) if code > 0 else error  # a resolver's codes are negative, and are no errno
        cure = _CURES.get(code, "Write it as host:port, such as 127.0.0.1:9108")
        raise CannotStartError(f"telemetry.listen: cannot listen on {host}:{port}: {reason}. {cure}.") from error
    return listener


class Listener:
    """A listening socket and the connections it accepted. Made by `listen`; `address` is host and port as bound."""

    address: tuple[str, int]

    def __init__(
        self, telemetry: Telemetry, healthy: Check, ready: Check, *, request_seconds: float = REQUEST_SECONDS
    ) -> None:
        self._telemetry, self._request_seconds = telemetry, request_seconds
        self._checks = {b"/healthz": healthy, b"/readyz": ready}
        self._server: asyncio.Server | None = None
        self._served: set[Task[None]] = set()
        self._turned_away: set[Task[None]] = set()

    async def open(self, host: str, port: int) -> None:
        """Bind and accept."""
        self._server = await asyncio.start_server(self._accept, host, port, limit=REQUEST_BYTES)
        self.address = self._server.sockets[0].getsockname()[:2]

    async def close(self) -> None:
        """Stop accepting and drop every connection; safe to call twice."""
        if self._server is not None:
            self._server.close()
        tasks = [*self._served, *self._turned_away]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _accept(self, reader: StreamReader, writer: StreamWriter) -> None:
        full = len(self._served) >= CONNECTIONS
        tasks, act = (self._turned_away, self._turn_away) if full else (self._served, self._serve)
        task = asyncio.create_task(act(reader, writer), name="telemetry connection")
        tasks.add(task)

        def forget(task: Task[None]) -> None:
            tasks.discard(task)
            writer.transport.abort()  # the answer is in the kernel by now, or the client did not want it

        task.add_done_callback(forget)

    async def _serve(self, reader: StreamReader, writer: StreamWriter) -> None:
        http = h11.Connection(h11.SERVER, max_incomplete_event_size=REQUEST_BYTES)
        writer.transport.set_write_buffer_limits(0)  # drain() then waits until the kernel has every byte
        with suppress(OSError):  # too slow (TimeoutError is one), or gone: the client's own loss, and no news
            more = True
            while more:
                async with asyncio.timeout(self._request_seconds):
                    more = await self._exchange(http, reader, writer)
                await asyncio.sleep(0)  # a pipeline of requests must not hold up a sweep

    async def _turn_away(self, reader: StreamReader, writer: StreamWriter) -> None:
        writer.write(_encode(h11.Connection(h11.SERVER), bare(HTTPStatus.SERVICE_UNAVAILABLE), close=True))
        with suppress(OSError):
            async with asyncio.timeout(FAREWELL_SECONDS):
                await reader.read(REQUEST_BYTES)

    async def _exchange(self, http: h11.Connection, reader: StreamReader, writer: StreamWriter) -> bool:
        """Read one request and answer it; whether another may follow."""
        try:
            request = await _read(http, reader)
        except h11.RemoteProtocolError as error:
            writer.write(_encode(http, Answer(HTTPStatus(error.error_status_hint), b""), close=True))
            await writer.drain()
            return False
        if request is None:
            return False
        close = http.their_state is not h11.DONE  # it asked to close, or to speak another protocol
        writer.write(_encode(http, self._answer(request), close=close, head=request.method == b"HEAD"))
        await writer.drain()
        if http.our_state is not h11.DONE or close:
            return False
        http.start_next_cycle()
        return True

    def _answer(self, request: h11.Request) -> Answer:
        path = request.target.partition(b"?")[0]
        check = self._checks.get(path)
        if check is None and path != b"/metrics":
            return bare(HTTPStatus.NOT_FOUND)
        if request.method not in (b"GET", b"HEAD"):
            return bare(HTTPStatus.METHOD_NOT_ALLOWED)
        try:
            if check is None:
                accept = b",".join(value for name, value in request.headers if name == b"accept")
                return Answer(HTTPStatus.OK, *self._telemetry.render(accept.decode("latin-1")))
            reasons = check()
        except Exception as error:  # noqa: BLE001 - a bug in a check is for the prober to see, not for the loop
            return Answer(HTTPStatus.INTERNAL_SERVER_ERROR, f"{type(error).__name__}\n".encode())
        if reasons is None:
            return Answer(HTTPStatus.OK, b"ok\n")
        return Answer(HTTPStatus.SERVICE_UNAVAILABLE, f"{reasons}\n".encode(errors="backslashreplace"))


async def _read(http: h11.Connection, reader: StreamReader) -> h11.Request | None:
    """The next whole request, its body dropped; None when the client has left. Raises h11.RemoteProtocolError."""
    request, body = None, 0
    while True:
        event = http.next_event()
        if event is h11.NEED_DATA:
            http.receive_data(await reader.read(PIECE_BYTES))
        elif isinstance(event, h11.Request):
            request = event
        elif isinstance(event, h11.Data):
            body += len(event.data)
            if body > REQUEST_BYTES:
                raise h11.RemoteProtocolError("too long", error_status_hint=HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
        elif isinstance(event, h11.EndOfMessage):
            return request
        else:
            return None


def _encode(http: h11.Connection, answer: Answer, *, close: bool, head: bool = False) -> bytes:
    """The response as bytes; of an answer to HEAD only its head."""
    length = b"%d" % len(answer.body)
    headers = [(b"content-type", answer.content_type.encode("latin-1")), (b"content-length", length)]
    if answer.status is HTTPStatus.METHOD_NOT_ALLOWED:
        headers.append((b"allow", b"GET, HEAD"))
    if close:
        headers.append((b"connection", b"close"))
    events = [
        h11.Response(status_code=answer.status, headers=headers, reason=answer.status.phrase),
        *([] if head or not answer.body else [h11.Data(data=answer.body)]),
        h11.EndOfMessage(),
    ]
    return b"".join(http.send(event) or b"" for event in events)
