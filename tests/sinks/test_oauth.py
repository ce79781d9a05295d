"""Client credentials: one token for all, renewed once where it is refused; whatever goes wrong, no usage has left."""

import asyncio
import json
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest

from agent.credentials import Tls
from agent.model import NS_PER_S
from agent.sinks import Answer
from agent.sinks.oauth import ClientCredentials, Form
from agent.sinks.wire import NoReplyError
from tests.sinks.double import LOST, RESET, SILENT, Act, Upstream, reply, upstream

SECRET = "s3cret"


def granted(token: str, **more: object) -> Act:
    """A whole answer with a token."""
    return reply(200, json.dumps({"access_token": token, **more}).encode())


def talk(
    tmp_path: Path,
    script: list[Act],
    story: Callable[[ClientCredentials, Upstream], Coroutine[Any, Any, Any]],
    form: Form = "form",
) -> Any:
    """What a story with one token server comes to."""

    async def whole() -> Any:
        (tmp_path / "id").write_text("me\n")
        (tmp_path / "secret").write_text(f"{SECRET}\n")
        async with upstream(*script) as server:
            grant = ClientCredentials(
                "sinks[x]",
                server.url,
                tmp_path / "id",
                tmp_path / "secret",
                parameters={"audience": "api"},
                form=form,
                tls=Tls(),
                timeout=NS_PER_S,
            )
            try:
                return await story(grant, server)
            finally:
                await grant.close()

    return asyncio.run(whole())


@pytest.mark.parametrize("form", ["json", "form"])
def test_the_request_is_as_the_server_wants_it(tmp_path: Path, form: Form) -> None:
    """By the RFC as a form; by Auth0 as JSON."""

    async def story(grant: ClientCredentials, server: Upstream) -> None:
        assert await grant.text() == "t"
        (request,) = server.requests
        wanted = {"audience": "api", "grant_type": "client_credentials", "client_id": "me", "client_secret": SECRET}
        if form == "json":
            assert json.loads(request.body) == wanted
        else:
            assert parse_qs(request.body.decode()) == {name: [value] for name, value in wanted.items()}
        assert request.headers["content-type"].startswith("application/json" if form == "json" else "application/x-www")

    talk(tmp_path, [granted("t")], story, form)


def test_one_token_takes_the_place_of_a_refused_one_for_all(tmp_path: Path) -> None:
    """However many requests were refused with it."""

    async def story(grant: ClientCredentials, server: Upstream) -> None:
        assert await grant.text() == "old"
        assert await asyncio.gather(*(grant.again("old") for _ in range(9))) == ["new"] * 9
        assert len(server.requests) == 2

    talk(tmp_path, [granted("old"), granted("new")], story)


@pytest.mark.parametrize("act", [LOST, RESET, SILENT, reply(503), reply(429), reply(200, b"<html>")])
def test_a_token_server_that_fails_makes_nothing_ambiguous(tmp_path: Path, act: Act) -> None:
    """L10: nothing of a submission has left."""

    async def story(grant: ClientCredentials, _: Upstream) -> Answer:
        with pytest.raises(NoReplyError) as raised:
            await grant.text()
        return raised.value.answer

    answer = talk(tmp_path, [act], story)
    assert (answer.outcome, answer.left, answer.blocked) == ("retry", False, False)


def test_a_refusal_names_the_files_and_hides_the_secret(tmp_path: Path) -> None:
    """Also where the server says it back."""

    async def story(grant: ClientCredentials, _: Upstream) -> Answer:
        with pytest.raises(NoReplyError) as raised:
            await grant.text()
        return raised.value.answer

    answer = talk(tmp_path, [reply(401, f"{SECRET} is wrong".encode())], story)
    assert answer.blocked
    assert "sinks[x].client_id_file or client_secret_file" in answer.why
    assert SECRET not in answer.why


def test_a_secret_is_not_sent_in_the_clear(tmp_path: Path) -> None:
    """Refused before anything is opened."""
    with pytest.raises(ValueError, match="in the clear"):
        ClientCredentials(
            "sinks[x]",
            "http://auth.example/token",
            tmp_path / "id",
            tmp_path / "secret",
            parameters={},
            form="json",
            tls=Tls(),
            timeout=NS_PER_S,
        )
