"""The listener answers scrapes and probes, and outlives every client: slow, garbled, half-closed, gone or too many."""

import asyncio
import logging
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.errors import CannotStartError
from agent.telemetry import Telemetry, listen
from agent.telemetry.listener import CONNECTIONS, REQUEST_BYTES, Check, Listener

PATIENCE = 0.1  # of the listeners that are to lose it, in seconds


def well() -> str | None:
    """A check without complaint."""
    return None


def telemetry() -> Telemetry:
    """Telemetry to which nothing has happened."""
    return Telemetry("1.2.3", boottime=lambda: 0, billing=lambda: 0)


@asynccontextmanager
async def listening(
    healthy: Check = well, ready: Check = well, request_seconds: float = 5.0
) -> AsyncIterator[tuple[str, int]]:
    """The address of a live listener; whatever reaches the loop's exception handler fails the test."""
    complaints: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    listener = Listener(telemetry(), healthy, ready, request_seconds=request_seconds)
    await listener.open("127.0.0.1", 0)
    try:
        yield listener.address
    finally:
        await listener.close()
    assert complaints == []


async def sent(address: tuple[str, int], request: bytes) -> bytes:
    """All that comes back for these bytes and the end of the client's side."""
    reader, writer = await asyncio.open_connection(*address)
    answer = b""
    try:
        writer.write(request)
        writer.write_eof()
        while part := await reader.read(65536):
            answer += part
    except OSError:
        pass  # reset: what had come until then is the answer
    finally:
        writer.transport.abort()
    return answer


def ask(request: bytes, **options: Any) -> bytes:
    """The answer of a fresh listener to one request."""

    async def run() -> bytes:
        async with listening(**options) as address:
            return await sent(address, request)

    return asyncio.run(run())


def get(path: str, *headers: str, method: str = "GET") -> bytes:
    """A request, as bytes."""
    return "\r\n".join([f"{method} {path} HTTP/1.1", "Host: x", *headers, "", ""]).encode("latin-1")


def status(answer: bytes) -> int:
    """The status of an answer."""
    return int(answer.split(b" ", 2)[1])


def test_metrics_are_shown_as_text() -> None:
    """A scrape without preferences gets the text format, and no word about the server."""
    head, _, body = ask(get("/metrics")).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK")
    assert b"content-type: text/plain; version=0.0.4; charset=utf-8" in head
    assert b"server" not in head.lower()
    assert b'metering_build_info{version="1.2.3"} 1.0' in body


def test_openmetrics_is_shown_to_whom_asks() -> None:
    """What Prometheus sends is negotiated to OpenMetrics, with its end mark."""
    accept = "Accept: application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5"
    answer = ask(get("/metrics?x=1", accept))
    assert b"content-type: application/openmetrics-text; version=1.0.0" in answer
    assert answer.endswith(b"# EOF\n")


def test_head_says_the_same_without_the_body() -> None:
    """HEAD gives the length that GET would have."""
    head, _, body = ask(get("/healthz", method="HEAD")).partition(b"\r\n\r\n")
    assert status(head) == 200
    assert b"content-length: 3" in head
    assert body == b""


@pytest.mark.parametrize(("path", "option"), [("/healthz", "healthy"), ("/readyz", "ready")])
def test_probes_say_why_not(path: str, option: str) -> None:
    """Each probe has its own check: 200 when it is silent, 503 with its reasons when not, 500 when it breaks."""

    def broken() -> str | None:
        raise LookupError("secret detail")

    def ill() -> str | None:
        return "spool: no commit for 40 s\nloop: late"

    assert status(ask(get(path))) == 200
    sick = ask(get(path), **{option: ill})
    assert status(sick) == 503
    assert sick.endswith(b"\r\n\r\nspool: no commit for 40 s\nloop: late\n")
    failed = ask(get(path), **{option: broken})
    assert status(failed) == 500
    assert failed.endswith(b"LookupError\n")
    other = "/readyz" if path == "/healthz" else "/healthz"
    assert status(ask(get(other), **{option: ill})) == 200


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        pytest.param(get("/"), 404, id="unknown path"),
        pytest.param(get("/metrics/"), 404, id="no prefix match"),
        pytest.param(get("/metrics", method="DELETE"), 405, id="wrong method"),
        pytest.param(get("/metrics", "Content-Length: 3", method="POST") + b"abc", 405, id="wrong method with body"),
        pytest.param(get("x:1", method="CONNECT"), 404, id="no proxy"),
        pytest.param(get("/metrics", "Upgrade: h2c", "Connection: upgrade"), 200, id="no upgrade"),
        pytest.param(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400, id="TLS"),
        pytest.param(b"hello\r\n\r\n", 400, id="garbage"),
        pytest.param(b"GET /metrics HTTP/1.1\r\n\r\n", 400, id="no host"),
        pytest.param(get("/metrics")[:-2], 400, id="cut short"),
        pytest.param(get("/metrics", "Transfer-Encoding: odd"), 501, id="unknown coding"),
        pytest.param(get("/metrics", "Content-Length: 1", "Content-Length: 2"), 400, id="two lengths"),
        pytest.param(get("/" + "a" * 2 * REQUEST_BYTES), 431, id="long head"),
        pytest.param(get("/", f"Content-Length: {REQUEST_BYTES + 1}") + bytes(REQUEST_BYTES + 1), 413, id="long body"),
    ],
)
def test_what_is_not_a_good_request_is_refused(request_: bytes, expected: int) -> None:
    """Each kind of wrong request has its own status."""
    answer = ask(request_)
    assert status(answer) == expected
    assert (b"allow: GET, HEAD" in answer) == (expected == 405)


def test_a_connection_serves_many_requests_also_when_they_come_at_once() -> None:
    """Keep-alive and pipelining work until the client asks to close; HTTP/1.0 closes by itself."""
    answer = ask(get("/healthz") + get("/nothing") + get("/readyz", "Connection: close") + get("/healthz"))
    assert [int(part[:3]) for part in answer.split(b"HTTP/1.1 ")[1:]] == [200, 404, 200]
    assert b"connection: close" in ask(b"GET /healthz HTTP/1.0\r\n\r\n").lower()


async def trickle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Half a request line, and no more."""
    writer.write(b"GET /metrics HT")


async def silence(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Connect, and say nothing."""


async def no_reading(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Ask for more than the kernel buffers, and do not read while the limit passes."""
    writer.transport.pause_reading()  # type: ignore[attr-defined]
    writer.write(get("/readyz"))
    await asyncio.sleep(2 * PATIENCE)  # the one thing under test here is that time passes
    writer.transport.resume_reading()  # type: ignore[attr-defined]


async def idling(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Get an answer, and hold the connection."""
    writer.write(get("/healthz"))


@pytest.mark.parametrize("behave", [trickle, silence, no_reading, idling])
def test_a_slow_client_is_dropped(
    behave: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
) -> None:
    """Whoever does not send a request, or does not take its answer, within the limit loses the connection."""
    flood = "x" * 32_000_000  # more than the kernel buffers

    async def run() -> bytes:
        async with listening(ready=lambda: flood, request_seconds=PATIENCE) as address:
            reader, writer = await asyncio.open_connection(*address)
            await behave(reader, writer)
            answer = b""
            try:
                while part := await reader.read(1_000_000):
                    answer += part
            except OSError:
                pass
            finally:
                writer.transport.abort()
            return answer

    assert len(asyncio.run(run())) < len(flood)


def test_a_client_that_resets_harms_nobody(caplog: pytest.LogCaptureFixture) -> None:
    """Connections reset in mid-request cost nothing, and not one line is logged about any request."""

    async def run() -> bytes:
        async with listening() as address:
            for cut in (b"", b"GET", get("/metrics"), get("/metrics") * 3):
                _, writer = await asyncio.open_connection(*address)
                writer.write(cut)
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                writer.transport.abort()
            return await sent(address, get("/healthz"))

    with caplog.at_level(logging.DEBUG):
        assert status(asyncio.run(run())) == 200
    assert [record for record in caplog.records if record.name != "asyncio" or record.levelno > logging.DEBUG] == []


def test_one_client_too_many_is_turned_away_until_another_leaves() -> None:
    """64 idle clients fill the listener; the next gets 503, and 200 once there is room."""

    async def run() -> tuple[int, int]:
        async with listening() as address:
            held = [await asyncio.open_connection(*address) for _ in range(CONNECTIONS)]
            for reader, writer in held:
                writer.write(get("/healthz"))
                assert await reader.readuntil(b"ok\n")
            refused = status(await sent(address, get("/healthz")))
            held[0][1].write(get("/healthz", "Connection: close"))
            await held[0][0].read()
            welcome = status(await sent(address, get("/healthz")))
            for _, writer in held:
                writer.transport.abort()
            return refused, welcome

    assert asyncio.run(run()) == (503, 200)


def test_closing_drops_every_client_and_may_be_repeated() -> None:
    """After close nothing is held, and nothing answers."""

    async def run() -> bytes:
        listener = await listen("127.0.0.1", 0, telemetry(), well, well)
        reader, writer = await asyncio.open_connection(*listener.address)
        writer.write(get("/healthz"))
        await reader.readuntil(b"ok\n")
        await listener.close()
        await listener.close()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection(*listener.address)
        try:
            return await reader.read()
        finally:
            writer.transport.abort()

    assert asyncio.run(run()) == b""


@pytest.mark.parametrize(
    ("host", "port", "cure"),
    [
        pytest.param("127.0.0.1", None, "Address already in use. Another process has it", id="taken"),
        pytest.param("192.0.2.1", 0, "Choose an address of this machine", id="not ours"),
        pytest.param("127.0.0.1", 65536, "Write it as host:port", id="no port"),
        pytest.param("no such host", 0, "Write it as host:port", id="no host"),
        pytest.param("a" * 64 + ".example", 0, "Write it as host:port", id="no name"),
    ],
)
def test_an_address_that_cannot_be_had_names_the_key_and_the_cure(host: str, port: int | None, cure: str) -> None:
    """Starting fails with one line that a person can act on."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1] if port is None else port
        with pytest.raises(CannotStartError, match=f"^telemetry.listen: cannot listen on {host}:{port}: .*{cure}"):
            asyncio.run(listen(host, port, telemetry(), well, well))


MANGLED = st.builds(
    lambda request, at, junk: request[: at % len(request)] + junk + request[at % len(request) :],
    st.sampled_from([get("/metrics"), get("/healthz", "Content-Length: 2") + b"xx", get("/", method="HEAD")]),
    st.integers(0, 200),
    st.binary(max_size=40)
    | st.sampled_from([b"\r\n\r\n", b"Transfer-Encoding: chunked\r\n", b"Content-Length: 9\r\n"]),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(MANGLED | st.binary(max_size=200), min_size=1, max_size=3))
def test_no_bytes_stop_the_listener(pieces: list[bytes]) -> None:
    """Whatever is sent, the answer is HTTP or nothing, and the next client is served."""

    async def run() -> tuple[bytes, bytes]:
        async with listening() as address:
            return await sent(address, b"".join(pieces)), await sent(address, get("/healthz"))

    answer, after = asyncio.run(run())
    assert answer == b"" or answer.startswith(b"HTTP/1.1 ")
    assert status(after) == 200


@settings(max_examples=150, deadline=None)
@given(
    st.text(st.characters(max_codepoint=255)).map(lambda text: "application/openmetrics-text;version=" + text)
    | st.text(st.characters(max_codepoint=255)).map(lambda text: "text/plain; version=1.0.0." + text)
    | st.text(st.characters(max_codepoint=255))
)
def test_no_accept_header_stops_a_scrape(accept: str) -> None:
    """Every preference, however odd, is answered with an exposition."""
    body, content_type = telemetry().render(accept)
    assert b"metering_build_info" in body
    assert content_type.startswith(("text/plain", "application/openmetrics-text"))
