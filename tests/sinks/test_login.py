"""Who we are: renewed before it ends, asked for once more after a 401, and never told to anybody."""

import asyncio
import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import pytest

from agent.credentials import Tls, Token
from agent.sinks import Answer
from agent.sinks.login import Basic, Bearer, Headers, Login, Several
from agent.sinks.meaning import DELIVERED
from agent.sinks.oauth2 import ClientCredentials
from agent.sinks.wire import Wire
from tests.sinks.double import LOST, Act, Upstream, reply, upstream


def grant(token: str, **more: object) -> Act:
    """A token."""
    return reply(200, json.dumps({"access_token": token, **more}).encode())


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """With an id and a secret."""
    (tmp_path / "id").write_text("admin\n")
    (tmp_path / "secret").write_text("hunter2\n")
    return tmp_path


def talk(
    login: Callable[[str], Login], tokens: list[Act], script: list[Act], sends: int = 1
) -> tuple[list[Answer], Upstream, Upstream]:
    """What came of so many submissions, what the token's server was asked, and what the back end was."""

    async def story() -> tuple[list[Answer], Upstream, Upstream]:
        async with upstream(*tokens) as granting, upstream(*script) as other:
            wire = Wire(
                "sinks[x]", other.url, {204: DELIVERED}, login=login(granting.url), tls=Tls(), timeout=10**9,
                concurrency=1, dated=None,
            )  # fmt: skip
            try:
                return [await wire.deliver(b"{}", "application/json") for _ in range(sends)], granting, other
            finally:
                await wire.close()

    return asyncio.run(story())


def oauth(files: Path, **more: Any) -> Callable[[str], Login]:
    """Client credentials, once the address is known."""

    def made(url: str) -> Login:
        client, secret = (
            Token(files / "id", "oauth2.client_id_file"),
            Token(files / "secret", "oauth2.client_secret_file"),
        )
        return ClientCredentials("sinks[x]", url, client, secret, tls=Tls(), timeout=10**9, **more)

    return made


def test_a_token_is_asked_for_once_and_used(files: Path) -> None:
    """As the RFC has it: a form, and the credentials as Basic."""
    answers, granting, other = talk(oauth(files), [grant("t1", expires_in=3600)], [reply(204)], sends=3)
    assert [answer.outcome for answer in answers] == ["delivered"] * 3
    (asked,) = granting.requests
    assert asked.headers["authorization"] == "Basic YWRtaW46aHVudGVyMg=="
    assert dict(parse_qsl(asked.body.decode())) == {"grant_type": "client_credentials"}
    assert {request.headers["authorization"] for request in other.requests} == {"Bearer t1"}


def test_others_want_json_and_the_credentials_in_it(files: Path) -> None:
    """Auth0, and those who stand on it; then they stand nowhere else."""
    login = oauth(files, form="json", place="body", asked=(("audience", "billing"),))
    _, granting, _ = talk(login, [grant("t1")], [reply(204)])
    (asked,) = granting.requests
    assert "authorization" not in asked.headers
    assert json.loads(asked.body) == {
        "audience": "billing", "client_id": "admin", "client_secret": "hunter2", "grant_type": "client_credentials",
    }  # fmt: skip


def test_it_is_renewed_ahead_of_its_end(files: Path) -> None:
    """A minute, or a tenth of its life: nothing is sent with a token that ends on its way."""
    times = iter([0.0, 3539.0, 3540.0, 3540.0])
    tokens = [grant("t1", expires_in=3600), grant("t2", expires_in=3600)]
    _, _, other = talk(oauth(files, clock=lambda: next(times)), tokens, [reply(204)], sends=3)
    assert [request.headers["authorization"] for request in other.requests] == ["Bearer t1", "Bearer t1", "Bearer t2"]


def test_it_is_asked_for_once_more_after_a_401(files: Path) -> None:
    """A token may end before its time; a second 401 is an answer."""
    answers, _, other = talk(oauth(files), [grant("t1"), grant("t2")], [reply(401), reply(204), reply(401)], sends=2)
    assert [answer.outcome for answer in answers] == ["delivered", "retry"]
    assert answers[1].blocked
    assert [request.headers["authorization"] for request in other.requests][:2] == ["Bearer t1", "Bearer t2"]


@pytest.mark.parametrize(
    ("act", "blocked", "why"),
    [
        (reply(401, b'{"error":"invalid_client hunter2"}'), True, "Mend oauth2"),
        (reply(400, b"bad"), True, "Mend oauth2"),
        (reply(503), False, "503"),
        (LOST, False, "no token"),
        (reply(200, b"<html>"), True, "answered no grant"),
        (grant("a b"), True, "answered no grant"),
    ],
)
def test_without_a_token_nothing_has_left(files: Path, act: Act, blocked: bool, why: str) -> None:
    """However the question fails, the submission is as it was."""
    (answer,), _, other = talk(oauth(files), [act], [reply(204)])
    assert (answer.outcome, answer.left, answer.blocked) == ("retry", False, blocked)
    assert why in answer.why
    assert "hunter2" not in answer.why
    assert other.requests == []


def test_names_and_passwords_and_headers_of_the_vendors_own(files: Path) -> None:
    """Several at once, each from its file."""

    def login(_: str) -> Login:
        basic = Basic(Token(files / "id"), Token(files / "secret"))
        return Several(basic, Bearer(files / "secret", "X-Tenant-Key", "secret_headers.X-Tenant-Key"))

    (answer,), _, other = talk(login, [reply(500)], [reply(500, b"no hunter2 here")])
    headers = other.requests[0].headers
    assert (headers["authorization"], headers["x-tenant-key"]) == ("Basic YWRtaW46aHVudGVyMg==", "hunter2")
    assert "hunter2" not in answer.why


def test_a_file_that_is_not_there_is_named(files: Path) -> None:
    """With its setting; nothing is sent without it."""
    (files / "secret").unlink()
    (answer,), _, other = talk(
        lambda _: Bearer(files / "secret", "X-Key", "secret_headers.X-Key"), [LOST], [reply(204)]
    )
    assert (answer.left, answer.blocked) == (False, True)
    assert answer.why.startswith("sinks[x].secret_headers.X-Key: ")
    assert other.requests == []


def test_a_refused_token_is_renewed_once_for_all_whom_it_failed(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As many requests as are under way meet the same 401, and the token server is asked once."""
    login = oauth(files)("http://127.0.0.1:9/token")
    assert isinstance(login, ClientCredentials)
    renewed = itertools.count(1)

    async def renew() -> None:
        await asyncio.sleep(0)
        login._held, login._until = [f"t{next(renewed)}"], float("inf")

    monkeypatch.setattr(login, "_renew", renew)

    async def story() -> list[Headers]:
        used = await login.headers()
        return await asyncio.gather(*(login.again(used) for _ in range(5)))

    assert asyncio.run(story()) == [{"Authorization": "Bearer t2"}] * 5
