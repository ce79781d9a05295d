"""Who we are to a back end, as headers of a request: a token, a name and a password, or whatever is renewed by asking.

What is renewed before it expires and once after a 401 (OAuth2, a session) is a `Login` like the plain ones.
"""

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from agent.credentials import Token, UnusableError
from agent.sinks import Answer

Headers = Mapping[str, str]


class NoReplyError(Exception):
    """Nothing whole came back; `answer` says what that means for a submission."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.why)
        self.answer = answer


class Login(Protocol):
    """Headers that say who we are. Getting them raises UnusableError for a file, NoReplyError for a server."""

    @property
    def key(self) -> str:
        """The setting to mend when they are refused."""

    @property
    def names(self) -> tuple[str, ...]:
        """Of the headers."""

    async def headers(self) -> Headers:
        """Those in use."""

    async def again(self, refused: Headers, /) -> Headers:
        """Those to try after a 401 to `refused`; the same if there are no others."""

    def hide(self, said: str) -> str:
        """What somebody said, without the secrets in them."""

    async def close(self) -> None:
        """Let go of connections."""


class Bearer:
    """A token in a file: `Authorization: Bearer`, or as the whole value of a header of the vendor's own."""

    key = "token_file or tls.cert_file"

    def __init__(self, path: Path, header: str | None = None, setting: str = "token_file") -> None:
        self._token, self._header = Token(path, setting), header
        self.names = (header or "Authorization",)

    async def headers(self) -> Headers:
        """As the file was last read."""
        return self._told(self._token.text())

    async def again(self, _refused: Headers, /) -> Headers:
        """As it stands in the file now."""
        return self._told(self._token.again())

    def hide(self, said: str) -> str:
        """Without the tokens that were used of late."""
        return self._token.hide(said)

    async def close(self) -> None:
        """There are none."""

    def _told(self, token: str) -> Headers:
        return {"Authorization": f"Bearer {token}"} if self._header is None else {self._header: token}


class Basic:
    """A name and a password, each in a file (RFC 7617)."""

    names = ("Authorization",)

    def __init__(self, name: Token, password: Token, key: str = "basic") -> None:
        self._name, self._password, self.key = name, password, key

    async def headers(self) -> Headers:
        """As the files were last read."""
        return self._told(self._name.text(), self._password.text())

    async def again(self, _refused: Headers, /) -> Headers:
        """As they stand in the files now."""
        return self._told(self._name.again(), self._password.again())

    def hide(self, said: str) -> str:
        """Without the passwords that were used of late."""
        return self._password.hide(said)

    async def close(self) -> None:
        """There are none."""

    @staticmethod
    def _told(name: str, password: str) -> Headers:
        if ":" in name:  # it would end there
            raise UnusableError("basic: a colon in the name, which Basic does not allow")
        return {"Authorization": f"Basic {base64.b64encode(f'{name}:{password}'.encode()).decode()}"}


class Several:
    """More than one at once, such as a password and the key of a tenant."""

    def __init__(self, *logins: Login) -> None:
        self._logins = logins
        self.key = " or ".join(login.key for login in logins)
        self.names = tuple(name for login in logins for name in login.names)

    async def headers(self) -> Headers:
        """All of them."""
        return {name: value for login in self._logins for name, value in (await login.headers()).items()}

    async def again(self, refused: Headers, /) -> Headers:
        """All of them, read or asked for again."""
        return {name: value for login in self._logins for name, value in (await login.again(refused)).items()}

    def hide(self, said: str) -> str:
        """Without the secrets of any."""
        for login in self._logins:
            said = login.hide(said)
        return said

    async def close(self) -> None:
        """Of each."""
        for login in self._logins:
            await login.close()
