"""What the API server answers to one GET of somebody. No credential is shown to a peer that has not proved its name."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Protocol
from urllib.parse import urlsplit

import msgspec
from msgspec import Struct, structs

from agent.address import is_loopback
from agent.credentials import Trust, UnusableError
from agent.sources.kubernetes import wire
from agent.sources.kubernetes.objects import Status

ERROR_BYTES = 64 * 1024


class AccessError(Exception):
    """The API server did not do what it was asked: one line. `retry_after`: seconds that it asks us to wait.

    `expired`: it no longer has what happened since the version we know. `ahead`: it does not have that version yet.
    """

    def __init__(self, why: str, *, expired: bool = False, ahead: bool = False, retry_after: int | None = None) -> None:
        super().__init__(why)
        self.expired, self.ahead, self.retry_after = expired, ahead, retry_after


class Credential(Struct, frozen=True):
    """Who we are at this moment. `authorization` is a whole header."""

    url: str
    tls: Trust | None = None  # None: without TLS
    authorization: str | None = None
    server_name: str | None = None


class Identity(Protocol):
    """Gives the credential of now."""

    async def credential(self, *, anew: bool = False) -> Credential:
        """As it stands; made `anew` where the last one was refused. Raises UnusableError."""


class Access:
    """The API server, as one identity. `requests` and `received` (bytes) count what was asked and what came."""

    def __init__(self, identity: Identity) -> None:
        self._identity = identity
        self.requests = self.received = 0

    @asynccontextmanager
    async def get(self, target: str, *, accept: str, silence: float) -> AsyncIterator[AsyncIterator[bytes]]:
        """The body of a 200, in pieces. `silence`: seconds without a byte after which it counts as broken off.

        A 401 is answered once, with a credential that is new. Raises AccessError, also from the pieces.
        """
        async with AsyncExitStack() as stack:
            try:
                credential = await self._identity.credential()
                reply = await self._ask(stack, credential, target, accept, silence)
                if reply.status == 401:
                    fresh = await self._identity.credential(anew=True)
                    if fresh != credential:
                        credential = fresh
                        reply = await self._ask(stack, credential, target, accept, silence)
                if reply.status != 200:
                    raise await self._refusal(reply, target, credential)
            except UnusableError as error:
                raise AccessError(f"{error}") from error
            except wire.WireError as error:
                raise AccessError(f"{error}") from error
            yield self._counted(reply.pieces)

    async def _ask(
        self, stack: AsyncExitStack, credential: Credential, target: str, accept: str, silence: float
    ) -> wire.Reply:
        headers = {"Accept": accept}
        if credential.authorization is not None:
            headers["Authorization"] = credential.authorization
        self.requests += 1
        url = urlsplit(credential.url)
        return await stack.enter_async_context(
            wire.get(_peer(credential), f"{url.path.rstrip('/')}{target}", headers, silence=silence)
        )

    async def _counted(self, pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        try:
            async for piece in pieces:
                self.received += len(piece)
                yield piece
        except wire.WireError as error:
            raise AccessError(f"{error}") from error

    async def _refusal(self, reply: wire.Reply, target: str, credential: Credential) -> AccessError:
        """What the server said instead, without our token."""
        body = bytearray()
        async for piece in reply.pieces:
            body += piece
            if len(body) > ERROR_BYTES:
                break
        try:
            status = msgspec.json.decode(body, type=Status)
        except msgspec.DecodeError:
            status = Status(bytes(body[:200]).decode(errors="replace"))
        said = status.message.replace((credential.authorization or " ").split(" ")[-1] or "\0", "[token]")
        status = structs.replace(status, code=reply.status, message=f"{said}{_cure(reply.status, target)}")
        return refusal(status, _seconds(reply.headers.get("retry-after", "")))


def refusal(status: Status, retry_after: int | None = None) -> AccessError:
    """The error that says what a Status does."""
    causes = status.details.causes if status.details else None
    return AccessError(
        " ".join(f"{status.code} {status.message}".split()),
        expired=status.code == 410 or status.reason in ("Expired", "Gone"),
        ahead=any(cause.reason == "ResourceVersionTooLarge" for cause in causes or ()),
        retry_after=retry_after,
    )


def _peer(credential: Credential) -> wire.Peer:
    """Whom to call. Raises UnusableError for one to whom anything would go in the clear."""
    url = urlsplit(credential.url)
    if url.scheme not in ("http", "https") or not url.hostname:
        raise UnusableError(f"{credential.url}: no address of an API server")
    if url.scheme == "https" and credential.tls is not None:
        return wire.Peer(url.hostname, url.port or 443, credential.tls.context(), credential.server_name)
    if not is_loopback(credential.url):
        raise UnusableError(f"{credential.url}: who we are would cross the network in the clear. Use https")
    return wire.Peer(url.hostname, url.port or 80)


def _cure(status: int, target: str) -> str:
    if status == 401:
        return ". See that the token's file is renewed, and that the account still exists"
    if status == 403:
        what = target.partition("?")[0].rpartition("/")[2]
        return f". Grant this account `list` and `watch` on {what} with a ClusterRole; it needs nothing else of them"
    return ""


def _seconds(header: str) -> int | None:
    """A Retry-After; the API server writes it in whole seconds."""
    return int(header) if header.isascii() and header.isdigit() and len(header) < 6 else None
