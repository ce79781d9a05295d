"""The kubelet of one node, asked for `/stats/summary` over TLS on a connection that is kept.

Never port 10255, which answers anybody; never a proxy's path, which needs the right to do everything; never a byte of
the token before the kubelet's certificate has proved to be the cluster authority's, or the one that is pinned. What
comes back is bounded in size and time, and no redirect is followed.
"""

import asyncio
import hashlib
import re
import ssl
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

import h11
from msgspec import Struct

from agent import __version__
from agent.credentials import Tls, Token, Trust, UnusableError
from agent.errors import SourceError
from agent.sources.kernel import boottime
from agent.sources.kubernetes.stats import Summary, decode

PATH = "/stats/summary"
ANSWER_BYTES = 32 << 20  # 244 pods are 0.95 MB
ANSWER_SECONDS = 10.0  # from the first byte sent to the last received, connecting included; 244 pods take 0.4
PIECE_BYTES = 64 * 1024
SAID_BYTES = 300  # of what it says beside a status
READ_ONLY_PORT = 10255
_EXAMPLE = "https://${NODE_IP}:10250"

_FORBIDDEN = re.compile(r"resource=(\S+?), subresource(?:\(s\))?=\[?([\w ,/]*)")


class Stats(Struct):
    """What asking came to so far, for telemetry."""

    requests: int = 0
    failures: int = 0
    bytes: int = 0
    last_heard: int = 0  # boottime, ns
    failing: str | None = None  # why the last request got no summary


class _Line(Struct):
    """One connection, and the TLS settings that it was made with."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    http: h11.Connection
    context: ssl.SSLContext


class Kubelet:
    """One kubelet. `pin` is the SHA-256 of its certificate (DER), in hex; without it `ca_file` has its authority."""

    def __init__(
        self,
        url: str,
        *,
        token_file: Path,
        ca_file: Path | None = None,
        pin: str | None = None,
        seconds: float = ANSWER_SECONDS,
        most: int = ANSWER_BYTES,
        clock: Callable[[], int] = boottime,
    ) -> None:
        """Open nothing yet. Raises ValueError for what cannot be asked safely."""
        self._host, self._port = _checked(url)
        self._pin = _digest(pin)
        if ca_file is None and self._pin is None:
            raise ValueError("kubelet: nothing says which certificate is the kubelet's. Give ca_file, or pin.")
        self._trust = Trust(Tls(ca_file=ca_file))
        self._pinned = _whatever() if self._pin is not None else None
        self._token = Token(token_file)
        self._seconds, self._most, self._clock = seconds, most, clock
        self._line: _Line | None = None
        self.stats = Stats()

    @property
    def place(self) -> str:
        """Who is asked, for people."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"kubelet {host}:{self._port}"

    async def summary(self, *, network: bool = True) -> Summary:
        """What all pods used, as it says now. Raises SourceError, with the cure where there is one.

        Without `network` it is asked for CPU and memory only, which costs the node half.
        """
        self.stats.requests += 1
        try:
            summary = decode(await self._ask(PATH if network else f"{PATH}?only_cpu_and_memory=true"))
        except SourceError as error:
            self.stats.failures += 1
            self.stats.failing = f"{self.place}: {error}"
            raise SourceError(self.stats.failing) from error
        self.stats.failing, self.stats.last_heard = None, self._clock()
        return summary

    async def close(self) -> None:
        """Let go of the connection; safe to call twice."""
        line, self._line = self._line, None
        if line is not None:
            line.writer.transport.abort()

    async def _ask(self, target: str) -> bytes:
        try:
            used = self._token.again()
            status, body = await self._exchange(target, used)
            if status == 401 and (fresh := self._token.again()) != used:
                status, body = await self._exchange(target, fresh)
        except UnusableError as error:
            raise SourceError(f"{error}. It is asked for nothing without it.") from error
        if status != 200:
            raise SourceError(self._refused(status, body))
        return body

    async def _exchange(self, target: str, token: str) -> tuple[int, bytes]:
        """Status and body. A kept connection that the kubelet has closed meanwhile is made anew, once."""
        try:
            async with asyncio.timeout(self._seconds):
                if (kept := await self._kept()) is not None:
                    with suppress(ConnectionError, h11.RemoteProtocolError):
                        return await self._over(kept, target, token)
                return await self._over(await self._connect(), target, token)
        except TimeoutError as error:  # an OSError too, so it stands first
            raise SourceError(f"no whole answer within {self._seconds:g} s") from error
        except ssl.SSLCertVerificationError as error:
            raise SourceError(f"its certificate is not accepted: {error.verify_message}. {_CERTIFICATE}") from error
        except (OSError, h11.RemoteProtocolError) as error:
            raise SourceError(f"no answer: {getattr(error, 'strerror', None) or error}") from error

    # -- the connection --------------------------------------------------------------------------------------------

    def _context(self) -> ssl.SSLContext:
        return self._pinned if self._pinned is not None else self._trust.context()

    async def _kept(self) -> _Line | None:
        """The last connection, if it is still good; it is the caller's now."""
        line, self._line = self._line, None
        if line is not None and (line.reader.at_eof() or line.context is not self._context()):
            line.writer.transport.abort()
            return None
        return line

    async def _connect(self) -> _Line:
        context = self._context()
        reader, writer = await asyncio.open_connection(self._host, self._port, ssl=context, server_hostname=self._host)
        if self._pin is not None:
            shown = hashlib.sha256(writer.get_extra_info("ssl_object").getpeercert(binary_form=True)).hexdigest()
            if shown != self._pin:
                writer.transport.abort()
                raise SourceError(
                    f"its certificate has the SHA-256 {shown}, and another one is pinned. "
                    "If it was renewed on purpose, correct kubelet.pin; it is told nothing until then."
                )
        return _Line(reader, writer, h11.Connection(h11.CLIENT), context)

    async def _over(self, line: _Line, target: str, token: str) -> tuple[int, bytes]:
        """One request over this connection, which is kept only if the answer came to its end."""
        try:
            answer = await self._read(line, target, token)
        except BaseException:
            line.writer.transport.abort()
            raise
        if line.http.our_state is h11.DONE and line.http.their_state is h11.DONE:
            line.http.start_next_cycle()
            self._line = line
        else:
            line.writer.transport.abort()
        return answer

    async def _read(self, line: _Line, target: str, token: str) -> tuple[int, bytes]:
        headers = [
            ("Host", f"{self._host}:{self._port}"),
            ("Authorization", f"Bearer {token}"),
            ("User-Agent", f"metering-agent/{__version__}"),
            ("Accept", "application/json"),
        ]
        http, writer = line.http, line.writer
        writer.write(http.send(h11.Request(method="GET", target=target, headers=headers)) or b"")
        http.send(h11.EndOfMessage())
        await writer.drain()
        status, body = 0, bytearray()
        while True:
            event = http.next_event()
            if event is h11.NEED_DATA:
                if not (piece := await line.reader.read(PIECE_BYTES)):
                    raise ConnectionResetError("it hung up before the end")
                self.stats.bytes += len(piece)
                http.receive_data(piece)
            elif isinstance(event, h11.Response):
                status = event.status_code
            elif isinstance(event, h11.Data):
                body += event.data
                if len(body) > self._most:
                    raise SourceError(f"an answer of more than {self._most} bytes, which no node's pods come to")
            elif isinstance(event, h11.EndOfMessage):
                return status, bytes(body)

    # -- what it said instead --------------------------------------------------------------------------------------

    def _refused(self, status: int, body: bytes) -> str:
        said = self._token.hide(body[:SAID_BYTES].decode("utf-8", "replace"))
        said = " ".join(part for part in said.split() if part.isprintable())
        match status:
            case 401:
                return (
                    "401: it does not accept the token. It needs authentication.webhook.enabled: true, and the token "
                    "an audience of the API server's."
                )
            case 403:
                found = _FORBIDDEN.search(said)
                missing = f"{found[1]}/{found[2].split()[0]}" if found and found[2].split() else "nodes/stats"
                return f"403: {said}. Give the agent's ClusterRole `get` on {missing} (and nothing wider)."
            case 404:
                return f"404: it has no {PATH}. Is kubelet.url a kubelet's address?"
        return f"{status}: {said}"


_CERTIFICATE = (
    "Give the authority that signed it as kubelet.ca_file (serverTLSBootstrap: true lets the cluster's sign it), "
    "or its SHA-256 as kubelet.pin."
)


def _checked(url: str) -> tuple[str, int]:
    """Host and port. Raises ValueError for an address where a token would be given away, or more asked than needed."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port or 443
    except ValueError as error:
        raise ValueError(f"kubelet.url: {error}. Write it as {_EXAMPLE}.") from error
    if port == READ_ONLY_PORT:
        raise ValueError("kubelet.url: port 10255 tells anybody everything, unverified. Use https and port 10250.")
    if parts.scheme != "https" or not host:
        raise ValueError(f"kubelet.url: the token goes over TLS only. Write it as {_EXAMPLE}.")
    if parts.username is not None or parts.password is not None:
        raise ValueError("kubelet.url: holds a password. The kubelet takes the token of token_file.")
    if parts.path not in ("", "/") or parts.query or parts.fragment:
        raise ValueError(
            "kubelet.url: only the kubelet's own address. Through the API server's proxy the agent would need "
            "nodes/proxy, which lets it run commands in every pod."
        )
    return host, port


def _digest(pin: str | None) -> str | None:
    if pin is None:
        return None
    digest = pin.lower().removeprefix("sha256:").replace(":", "")
    if not re.fullmatch("[0-9a-f]{64}", digest):
        raise ValueError(
            "kubelet.pin: no SHA-256, which has 64 hex digits. "
            "openssl x509 -in /var/lib/kubelet/pki/kubelet.crt -outform der | sha256sum"
        )
    return digest


def _whatever() -> ssl.SSLContext:
    """TLS with whom it may be: the certificate is compared with the pinned one before anything is said."""
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context
