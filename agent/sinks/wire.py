"""HTTP as every sink speaks it: connections, a request and its reply, and what it means when there is none (law L10).

Each attempt under way has a connection of its own: one httpx client with many gives a third of the throughput
(ACCOUNTING §7). They are kept last in, first out, so that few stay warm. Nothing here retries, follows a redirect or
reads a proxy from the environment; the one repetition is after a 401, with a token that has changed.

What fails before a connection stands left nothing. What fails later may have arrived, and is ambiguous.
"""

import asyncio
import os
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from types import MappingProxyType

import httpx
from msgspec import Struct

from agent import __version__
from agent.address import is_loopback
from agent.credentials import Tls, Token, Trust, UnusableError
from agent.model import NS_PER_S
from agent.sinks import Answer
from agent.sinks.meaning import Meaning, Reply, http_date, judge

CONNECT_SECONDS = 10.0  # for the name and the connection, and once more for TLS
IDLE_SECONDS = 4.0  # a connection idle for longer is made anew: many servers hang up after 5, perhaps on a request
BODY_BYTES = 64 * 1024  # of a reply; the rest is not read
_TRUSTS_NOBODY = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # for http: else httpx loads its own authorities each time


class NoReplyError(Exception):
    """Nothing whole came back; `answer` says what that means for a submission."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.why)
        self.answer = answer


class _Line(Struct):
    """One connection, and the TLS settings that it was made with."""

    transport: httpx.AsyncHTTPTransport
    context: ssl.SSLContext


class Wire:
    """Speaks to one address. At most `concurrency` connections are kept."""

    def __init__(
        self,
        name: str,
        url: str,
        statuses: Mapping[int, Meaning],
        *,
        token_file: Path | None,
        tls: Tls,
        timeout: int,
        concurrency: int,
        dated: Callable[[int], None] | None,
    ) -> None:
        """Open nothing yet. Raises ValueError for an address that cannot be used.

        `name` is the section of the configuration, `statuses` what a status means beyond the common ones, `timeout`
        how long a whole reply may take, ns. `dated` is told the Date of each reply as it comes, seconds of the epoch.
        """
        self.name, self.url = name, _checked(name, url, token_file, tls)
        self._statuses, self._keep, self._dated = statuses, concurrency, dated
        self._token = None if token_file is None else Token(token_file)
        self._trust = Trust(tls)
        self._free: list[_Line] = []
        self._seconds = timeout / NS_PER_S
        connect = min(CONNECT_SECONDS, self._seconds / 3)  # twice that is less than the whole: it ends first
        self._extensions = {"timeout": {"connect": connect, "read": None, "write": None, "pool": None}}

    async def deliver(self, body: bytes, content_type: str) -> Answer:
        """Post what was frozen, and say what came of it. Never raises for what a network or a back end can do."""
        try:
            reply = await self.exchange("POST", self.url, body, content_type)
        except NoReplyError as error:
            return error.answer
        return judge(reply, self._statuses, self._hide)

    async def exchange(
        self,
        method: str,
        url: httpx.URL,
        body: bytes = b"",
        content_type: str | None = None,
        most: int = BODY_BYTES,
        more: Mapping[str, str] = MappingProxyType({}),
    ) -> Reply:
        """One request and its reply, with up to `most` bytes of its body. Raises NoReplyError. `more` are headers."""
        headers = {"User-Agent": f"metering-agent/{__version__}", **more}
        if content_type is not None:
            headers["Content-Type"] = content_type
        try:
            if self._token is None:
                return await self._attempt(httpx.Request(method, url, headers=headers, content=body), most)
            used = self._token.text()
            headers["Authorization"] = f"Bearer {used}"
            reply = await self._attempt(httpx.Request(method, url, headers=headers, content=body), most)
            if reply.status == 401 and (fresh := self._token.again()) != used:
                headers["Authorization"] = f"Bearer {fresh}"
                reply = await self._attempt(httpx.Request(method, url, headers=headers, content=body), most)
        except UnusableError as error:  # before anything left, or after a 401
            why = f"{self.name}.{error}. Mend the file; nothing is sent without it."
            raise NoReplyError(Answer(outcome="retry", why=why, left=False, blocked=True)) from error
        return reply

    def tell(self, reply: Reply) -> str:
        """A reply for people, in one line, without our token."""
        return reply.tell(self._hide)

    async def close(self) -> None:
        """Let go of every connection; one that is under way is let go when it is done."""
        self._keep = 0
        while self._free:
            await self._free.pop().transport.aclose()

    def _hide(self, said: str) -> str:
        return said if self._token is None else self._token.hide(said)

    # -- connections -----------------------------------------------------------------------------------------------

    async def _attempt(self, request: httpx.Request, most: int) -> Reply:
        request.extensions = self._extensions
        try:
            async with self._line() as transport, asyncio.timeout(self._seconds):
                response = await transport.handle_async_request(request)
                if self._dated is not None and (at := http_date(response.headers.get("date", ""))) is not None:
                    self._dated(at)
                try:
                    body = await _read(response.stream, most)
                finally:
                    await response.aclose()
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            raise NoReplyError(self._unreached(error)) from error
        except TimeoutError as error:  # an OSError too, so it stands first
            why = f"{self.url.host}: no whole answer within {self._seconds:g} s"
            raise NoReplyError(Answer(outcome="ambiguous", why=why)) from error
        except (httpx.TransportError, OSError) as error:
            raise NoReplyError(self._broken_off(error)) from error
        return Reply(response.status_code, response.headers, body)

    @asynccontextmanager
    async def _line(self) -> AsyncIterator[httpx.AsyncHTTPTransport]:
        """A connection for one attempt; kept for the next one only if the attempt came to its end."""
        line = await self._take()
        try:
            yield line.transport
        except BaseException:
            await line.transport.aclose()
            raise
        if len(self._free) < self._keep:
            self._free.append(line)
        else:
            await line.transport.aclose()

    async def _take(self) -> _Line:
        context = _TRUSTS_NOBODY if self.url.scheme == "http" else self._trust.context()
        while self._free:
            line = self._free.pop()
            if line.context is context:
                return line
            await line.transport.aclose()  # it was made with files that have changed since
        limits = httpx.Limits(max_connections=1, keepalive_expiry=IDLE_SECONDS)
        return _Line(httpx.AsyncHTTPTransport(verify=context, trust_env=False, limits=limits), context)

    # -- what failed -----------------------------------------------------------------------------------------------

    def _unreached(self, error: Exception) -> Answer:
        """No connection: nothing left."""
        place = self.url.netloc.decode()
        for cause in _causes(error):
            if isinstance(cause, ssl.SSLCertVerificationError):
                why = f"{place}: its certificate is not accepted: {cause.verify_message}. {_cure(cause.verify_code)}"
                return Answer(outcome="retry", why=why, left=False, blocked=True)
            if isinstance(cause, ssl.SSLError):
                return self._no_tls(place, cause, left=False)
            if isinstance(cause, socket.gaierror):
                why = f"{place}: no address for this name: {cause.strerror}. Mend {self.name}.url or DNS."
                return Answer(outcome="retry", why=why, left=False)
        slow = isinstance(error, httpx.ConnectTimeout)
        why = f"{place}: no connection{' in time' if slow else f': {_said(error)}'}"
        return Answer(outcome="retry", why=why, left=False)

    def _broken_off(self, error: Exception) -> Answer:
        """Something may have left.

        Only a server that refuses our certificate surely took nothing: with TLS 1.3 that reaches us after we began to
        send, yet it is settled before the server reads what we sent (RFC 8446 §4.4.2.4).
        """
        place = self.url.netloc.decode()
        for cause in _causes(error):
            if isinstance(cause, ssl.SSLError) and _refuses_our_certificate(cause):
                return self._no_tls(place, cause, left=True)
        return Answer(outcome="ambiguous", why=f"{place}: broken off: {_said(error)}")

    def _no_tls(self, place: str, error: ssl.SSLError, *, left: bool) -> Answer:
        why = f"{place}: no TLS connection: {(error.reason or str(error)).replace('_', ' ').lower()}"
        if not (refused := _refuses_our_certificate(error)):
            return Answer(outcome="retry", why=why, left=left)
        why += f". Give it a client certificate that it accepts: {self.name}.tls.cert_file and key_file."
        return Answer(outcome="retry", why=why, left=left, definite=refused, blocked=True)


def _checked(name: str, url: str, token_file: Path | None, tls: Tls) -> httpx.URL:
    """The address. Raises ValueError for one that would give away a credential, or cannot be spoken to."""
    try:
        address = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise ValueError(f"{name}.url: {error}. Write it as https://billing.example/path.") from error
    if address.scheme not in ("http", "https") or not address.host:
        raise ValueError(f"{name}.url: no address of the web. Write it as https://billing.example/path.")
    if address.userinfo:
        raise ValueError(f"{name}.url: holds a password. Put a bearer token into token_file.")
    if address.scheme == "http" and token_file is not None and not is_loopback(url):
        raise ValueError(f"{name}.url: the token would cross the network in the clear. Use https.")
    if address.scheme == "http" and tls:
        raise ValueError(f"{name}.tls: of no use with http. Use https, or remove it.")
    return address


async def _read(stream: object, most: int) -> bytes:
    """A body, up to `most` bytes."""
    assert isinstance(stream, httpx.AsyncByteStream)
    pieces, size = [], 0
    async for piece in stream:
        pieces.append(piece)
        size += len(piece)
        if size > most:
            break
    return b"".join(pieces)[:most]


def _causes(error: BaseException) -> Iterator[BaseException]:
    """An error and what led to it: httpx and what it stands on each wrap the one below."""
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__


def _said(error: Exception) -> str:
    """The plainest words for it: the system's own, if it has any."""
    for cause in _causes(error):
        if isinstance(cause, OSError) and not isinstance(cause, ssl.SSLError) and cause.errno:
            return os.strerror(cause.errno)
    return str(error) or type(error).__name__


def _refuses_our_certificate(error: ssl.SSLError) -> bool:
    """Whether this is the server's alert about a client's certificate."""
    reason = error.reason or ""
    return "_ALERT_" in reason and ("CERTIFICATE" in reason or "UNKNOWN_CA" in reason)


def _cure(code: int) -> str:
    """What helps when a server's certificate is not accepted, by OpenSSL's X509_V_ERR_ number."""
    match code:
        case 9:
            return "It is not valid yet: check this machine's clock, else the server's certificate."
        case 10:
            return "It has expired: renew the server's certificate (or check this machine's clock)."
        case 18 | 19 | 20 | 21:
            return "Its authority is not trusted here: give that authority's certificate as tls.ca_file."
        case 62 | 63 | 64:
            return "It is for another name: correct the url, or have the certificate name it."
        case _:
            return "Have the server's certificate mended, or give its authority as tls.ca_file."
