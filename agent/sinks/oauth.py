"""OAuth2 client credentials (RFC 6749 §4.4): a bearer token that is asked for, and anew before it expires.

Id and secret lie in files, which are read each time. What is asked of the token's server carries no usage: whatever
becomes of that, nothing of a submission has left.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal
from urllib.parse import urlencode

import msgspec
from msgspec import Struct, structs

from agent.credentials import HELD, Tls, Token
from agent.sinks import Answer
from agent.sinks.meaning import Reply, asked_to_wait
from agent.sinks.wire import NoReplyError, Wire, checked

AHEAD = 60.0  # seconds before its end at which a token is asked for anew; or a tenth of its life, if that is less
NO_TERM = 300.0  # seconds that one is used which does not say how long it lasts

Form = Literal["json", "form"]
"""How the request is written: `form` by the RFC; `json` by Auth0, and those who stand on it."""


class _Granted(Struct):
    access_token: str
    expires_in: float = NO_TERM


class ClientCredentials:
    """Tokens of one server, which is asked once for all who wait. A `Bearer`."""

    def __init__(
        self,
        name: str,
        token_url: str,
        client_id_file: Path,
        client_secret_file: Path,
        *,
        parameters: Mapping[str, str],
        form: Form,
        tls: Tls,
        timeout: int,
        clock: Callable[[], float] = lambda: asyncio.get_running_loop().time(),
    ) -> None:
        """Open nothing yet. Raises ValueError for an address that would give the secret away.

        `name` is the section of the configuration; `parameters` go along, such as audience and scope; `timeout` in ns,
        `clock` in seconds.
        """
        checked(f"{name}.token", token_url, tls, secret=True)
        self._wire = Wire(f"{name}.token", token_url, {}, tls=tls, timeout=timeout, concurrency=1, dated=None)
        self._id = Token(client_id_file, "client_id_file")
        self._secret = Token(client_secret_file, "client_secret_file")
        self._name, self._parameters, self._form, self._clock = name, parameters, form, clock
        self._lock = asyncio.Lock()
        self._tokens: deque[str] = deque(maxlen=HELD)
        self._renew_at = 0.0

    async def text(self) -> str:
        """The token to use now. Raises UnusableError, or NoReplyError of which nothing left."""
        async with self._lock:
            if not self._tokens or self._clock() >= self._renew_at:
                await self._fetch()
            return self._tokens[-1]

    async def again(self, refused: str) -> str:
        """The one to use in place of one that was refused. Raises as `text` does."""
        async with self._lock:
            if self._tokens[-1] == refused:
                await self._fetch()
            return self._tokens[-1]

    def hide(self, said: str) -> str:
        """What somebody said, without the secret and the tokens that were used of late."""
        for text in self._tokens:
            said = said.replace(text, "[token]")
        return self._secret.hide(said)

    async def close(self) -> None:
        """Let go of the connection."""
        await self._wire.close()

    async def _fetch(self) -> None:
        asked = {
            **self._parameters,
            "grant_type": "client_credentials",
            "client_id": self._id.again(),
            "client_secret": self._secret.again(),
        }
        if self._form == "json":
            body, content_type = msgspec.json.encode(asked), "application/json"
        else:
            body, content_type = urlencode(asked).encode(), "application/x-www-form-urlencoded"
        try:
            reply = await self._wire.exchange("POST", self._wire.url, body, content_type)
        except NoReplyError as error:
            answer = structs.replace(error.answer, outcome="retry", left=False, why=f"no token: {error.answer.why}")
            raise NoReplyError(answer) from error
        try:
            granted = _granted(reply)
        except ValueError as error:
            wrong = reply.status in (400, 401, 403)
            cure = f" Mend {self._name}.client_id_file or client_secret_file; everything is kept." if wrong else ""
            said = "not a token" if reply.status == 200 else reply.tell(self.hide)  # which might show one
            why = f"no token from {self._wire.url.host}: {said}.{cure}"
            after = asked_to_wait(reply.headers)
            raise NoReplyError(Answer(outcome="retry", why=why, left=False, blocked=wrong, after=after)) from error
        self._tokens.append(granted.access_token)
        self._renew_at = self._clock() + granted.expires_in - min(AHEAD, granted.expires_in / 10)


def _granted(reply: Reply) -> _Granted:
    """The token of a reply. Raises ValueError where there is none."""
    if reply.status != 200:
        raise ValueError(reply.status)
    return msgspec.json.decode(reply.body, type=_Granted)
