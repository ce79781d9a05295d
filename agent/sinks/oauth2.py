"""OAuth2 client credentials (RFC 6749 §4.4): a token that is asked for, kept until it nears its end, and renewed.

Vendors differ in where the credentials stand (in the body, or as Basic) and in what the body is (a form, or JSON).
"""

import asyncio
from collections.abc import Callable
from time import monotonic
from typing import Annotated, Literal
from urllib.parse import urlencode

import msgspec
from msgspec import Meta, Struct

from agent.credentials import Tls, Token
from agent.sinks import Answer
from agent.sinks.login import Basic, Headers, NoReplyError
from agent.sinks.meaning import asked_to_wait
from agent.sinks.wire import Wire

AHEAD = 60.0  # seconds before its end that a token is renewed, at most a tenth of its life
UNKNOWN_LIFE = 300.0  # of a token whose life is not told
HELD = 4  # tokens that a late answer may still repeat


class _Granted(Struct):
    access_token: Annotated[str, Meta(pattern=r"^[\x21-\x7e]+\Z")]
    expires_in: float | None = None


class ClientCredentials:
    """A bearer token from a token server. One request for it is under way at a time."""

    key, names = "oauth2", ("Authorization",)

    def __init__(
        self,
        name: str,
        token_url: str,
        client_id: Token,
        client_secret: Token,
        *,
        form: Literal["form", "json"] = "form",
        place: Literal["basic", "body"] = "basic",
        asked: tuple[tuple[str, str], ...] = (),
        tls: Tls,
        timeout: int,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        """`name` is the section of the configuration, `asked` what the request says beside the grant: audience, scope.

        Raises ValueError for an address that cannot be used.
        """
        self._id, self._secret = client_id, client_secret
        self._form, self._place, self._asked, self._clock = form, place, asked, clock
        login = Basic(client_id, client_secret, "oauth2")
        self._wire = Wire(name, token_url, {}, login=login, tls=tls, timeout=timeout, concurrency=1, dated=None)
        self._lock = asyncio.Lock()
        self._held: list[str] = []
        self._until = 0.0

    async def headers(self) -> Headers:
        """With the token in use, or a new one where that nears its end."""
        async with self._lock:
            if not self._held or self._clock() >= self._until:
                await self._renew()
            return self._told()

    async def again(self, refused: Headers, /) -> Headers:
        """With a new token, unless somebody has renewed it since."""
        async with self._lock:
            if refused == self._told():
                await self._renew()
            return self._told()

    def hide(self, said: str) -> str:
        """Without the secret and the tokens that were used of late."""
        said = self._secret.hide(said)
        for text in self._held:
            said = said.replace(text, "[token]")
        return said

    async def close(self) -> None:
        """Let go of the connection."""
        await self._wire.close()

    def _told(self) -> Headers:
        return {"Authorization": f"Bearer {self._held[-1]}"} if self._held else {}

    async def _renew(self) -> None:
        asked = {"grant_type": "client_credentials", **dict(self._asked)}
        client_id, secret = self._id.again(), self._secret.again()  # as the files stand now
        if self._place == "body":
            asked |= {"client_id": client_id, "client_secret": secret}
        json = self._form == "json"
        body = msgspec.json.encode(asked) if json else urlencode(asked).encode()
        content_type = "application/json" if json else "application/x-www-form-urlencoded"
        begun = self._clock()
        try:
            reply = await self._wire.exchange(
                "POST", self._wire.url, body, content_type, anonymous=self._place == "body"
            )
        except NoReplyError as error:  # whatever became of the question, no usage has left
            answer = error.answer
            raise NoReplyError(
                Answer(outcome="retry", why=f"no token: {answer.why}", left=False, blocked=answer.blocked)
            ) from error
        if reply.status != 200:
            refused = reply.status in (400, 401, 403)
            cure = ". Mend oauth2: token_url, client_id_file, client_secret_file" if refused else ""
            why = f"no token: {self.hide(self._wire.tell(reply))}{cure}"
            after = asked_to_wait(reply.headers)
            raise NoReplyError(Answer(outcome="retry", why=why, left=False, blocked=refused, after=after))
        try:
            granted = msgspec.json.decode(reply.body, type=_Granted)
        except ValueError as error:
            why = f"no token: {self._wire.url.host} answered no grant. Mend oauth2.token_url."
            raise NoReplyError(Answer(outcome="retry", why=why, left=False, blocked=True)) from error
        life = UNKNOWN_LIFE if granted.expires_in is None else granted.expires_in
        self._until = begun + life - min(AHEAD, life / 10)
        self._held = [*self._held, granted.access_token][-HELD:]
