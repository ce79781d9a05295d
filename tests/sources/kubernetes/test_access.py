"""Who we are to the API server, and to whom we show it."""

import asyncio
import json
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trustme

from agent.credentials import Tls, Trust, UnusableError
from agent.errors import SourceError
from agent.sources.kubernetes.access import Access, AccessError, Credential, Identity
from agent.sources.kubernetes.identity import Kubeconfig, ServiceAccount
from tests.sources.kubernetes import double as d
from tests.sources.kubernetes.double import PODS, ApiServer

AUTHORITY = trustme.CA()


def tls(authority: trustme.CA = AUTHORITY, name: str = "127.0.0.1") -> ssl.SSLContext:
    """A server's side, with a certificate for `name`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name).configure_cert(context)
    return context


def account(server: ApiServer, directory: Path, token: str = "secret-1") -> ServiceAccount:
    """A pod's account at this server."""
    AUTHORITY.cert_pem.write_to_path(directory / "ca.crt")
    (directory / "token").write_text(token)
    where = {"KUBERNETES_SERVICE_HOST": "127.0.0.1", "KUBERNETES_SERVICE_PORT": str(server.port)}
    return ServiceAccount(where, directory)


async def listed(access: Access, silence: float = 5.0) -> bytes:
    """The pods, as they come."""
    async with access.get(PODS, accept="application/json", silence=silence) as pieces:
        return b"".join([piece async for piece in pieces])


async def refused(identity: Identity, silence: float = 5.0) -> str:
    """Why they do not come."""
    with pytest.raises(AccessError) as raised:
        await listed(Access(identity), silence)
    return str(raised.value)


# -- a service account -------------------------------------------------------------------------------------------------


def test_the_token_is_read_for_each_request(tmp_path: Path) -> None:
    """The kubelet renews it in its file long before it expires."""

    async def story() -> None:
        async with d.api_server(tls()) as server:
            access = Access(account(server, tmp_path))
            for token in ("secret-1", "secret-2"):
                (tmp_path / "token").write_text(f"{token}\n")
                server.tokens = {token}
                assert json.loads(await listed(access))["items"] == []
            assert access.requests == 2
            assert access.received > 100

    asyncio.run(story())


class Changing:
    """An identity whose credential is another when it is made anew."""

    def __init__(self, server: ApiServer, *tokens: str) -> None:
        self.server, self.tokens = server, list(tokens)

    async def credential(self, *, anew: bool = False) -> Credential:
        if anew and len(self.tokens) > 1:
            self.tokens.pop(0)
        return Credential(self.server.url, authorization=f"Bearer {self.tokens[0]}")


@pytest.mark.parametrize(
    ("tokens", "asked", "served"), [(("old", "new"), 2, True), (("old",), 1, False), (("a", "b", "new"), 2, False)]
)
def test_a_401_is_answered_once_with_a_credential_that_is_new(
    tokens: tuple[str, ...], asked: int, served: bool
) -> None:
    """Not with the same again, and not for ever."""

    async def story() -> None:
        async with d.api_server() as server:
            server.tokens = {"new"}
            identity = Changing(server, *tokens)
            if served:
                await listed(Access(identity))
            else:
                assert (await refused(identity)).startswith("401 Unauthorized. See that the token's file is renewed")
            assert len(server.requests) == asked

    asyncio.run(story())


@pytest.mark.parametrize(
    "context", [tls(trustme.CA()), tls(name="api.example")], ids=["another authority", "another name"]
)
def test_nobody_who_cannot_prove_his_name_hears_the_token(tmp_path: Path, context: ssl.SSLContext) -> None:
    """Not even a request."""

    async def story() -> None:
        async with d.api_server(context) as server:
            said = await refused(account(server, tmp_path))
            assert "its certificate is not accepted" in said
            assert "Nothing was sent" in said
            assert server.requests == []

    asyncio.run(story())


def test_a_refusal_names_what_is_missing_and_no_token(tmp_path: Path) -> None:
    """In the server's words, with the cure; its words may have ours in them."""

    async def story() -> None:
        async with d.api_server(tls()) as server:
            why = 'pods is forbidden: User "x" cannot list resource "pods"\nin API group "" (secret-1)'
            server.fault(PODS, d.status(403, "Forbidden", why), d.reply(418, b"<html>secret-1 is a teapot"))
            identity = account(server, tmp_path)
            assert await refused(identity) == (
                '403 pods is forbidden: User "x" cannot list resource "pods" in API group "" ([token]). Grant this '
                "account `list` and `watch` on pods with a ClusterRole; it needs nothing else of them"
            )
            assert await refused(identity) == "418 <html>[token] is a teapot"

    asyncio.run(story())


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda at: (at / "token").unlink(), "token_file: .*: No such file"),
        (lambda at: (at / "token").write_text(""), "token_file: .*: empty"),
        (lambda at: (at / "ca.crt").unlink(), "tls.ca_file: .*: No such file"),
        (lambda at: (at / "ca.crt").write_text("no PEM"), "tls: .*ca.crt"),
    ],
)
def test_a_file_that_cannot_be_used_is_named(tmp_path: Path, spoil: Callable[[Path], Any], said: str) -> None:
    """It may be there again for the next request."""

    async def story() -> None:
        async with d.api_server(tls()) as server:
            identity = account(server, tmp_path)
            spoil(tmp_path)
            with pytest.raises(AccessError, match=said):
                await listed(Access(identity))
            assert server.requests == []

    asyncio.run(story())


def test_outside_of_a_pod_there_is_no_service_account() -> None:
    """Said at once, with the cure."""
    with pytest.raises(SourceError, match=r"this process runs in no pod. Give sources\[\].kubeconfig"):
        ServiceAccount({})


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (d.Fault(b""), "broken off|not whole"),
        (d.Fault(b"HTTP/1.1 200 OK\r\nContent-Le"), "not whole"),
        (d.streamed(b"{"), "not whole"),
        (d.Fault(b"\x00\x01\r\n\r\n"), "no HTTP"),
        (d.Fault(b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 100_000), "no HTTP"),
        (d.streamed(b"{", then="stay silent"), "silent for 0.05 s"),
        (d.Fault(b"", "stay silent"), "silent for 0.05 s"),
    ],
    ids=["nothing", "half a head", "half a body", "no HTTP", "an endless head", "half a body, silence", "silence"],
)
def test_a_reply_that_is_not_whole_is_an_error(fault: d.Fault, said: str) -> None:
    """And never a short list."""

    async def story() -> None:
        async with d.api_server() as server:
            server.fault(PODS, fault)
            with pytest.raises(AccessError, match=said):
                await listed(Access(Changing(server, "t")), 0.05)

    asyncio.run(story())


# -- a kubeconfig ------------------------------------------------------------------------------------------------------


def kubeconfig(directory: Path, url: str, user: dict[str, Any], **cluster: Any) -> Kubeconfig:
    """One with a single context."""
    AUTHORITY.cert_pem.write_to_path(directory / "ca.crt")
    config = {
        "clusters": [{"name": "c", "cluster": {"server": url, "certificate-authority": "ca.crt", **cluster}}],
        "users": [{"name": "u", "user": user}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "x",
    }
    (directory / "config").write_text(json.dumps(config))
    return Kubeconfig(directory / "config")


def plugin(directory: Path, expires: str | None = None) -> dict[str, Any]:
    """A user whose credential a program makes: token-1, then token-2 and so on."""
    status = '{"token": "token-\'$n\'"' + (f', "expirationTimestamp": "{expires}"' if expires else "") + "}"
    given = f'{{"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": {status}}}'
    program = directory / "plugin"
    program.write_text(f"#!/bin/sh\necho x >>{directory}/runs\nn=$(wc -l <{directory}/runs)\necho '{given}'\n")
    program.chmod(0o700)
    return {"exec": {"apiVersion": "client.authentication.k8s.io/v1", "command": str(program)}}


def test_a_plugins_credential_is_kept_until_it_is_refused_or_has_expired(tmp_path: Path) -> None:
    """The `kubernetes` package runs it; we say when."""

    async def story() -> None:
        async with d.api_server(tls()) as server:
            server.tokens = {"token-1"}
            access = Access(kubeconfig(tmp_path, server.url, plugin(tmp_path)))
            await listed(access)
            await listed(access)
            assert [r.headers["authorization"] for r in server.requests] == ["Bearer token-1"] * 2
            server.tokens = {"token-2"}
            await listed(access)
            server.tokens = None
            expired = Access(kubeconfig(tmp_path, server.url, plugin(tmp_path, "2020-01-01T00:00:00Z")))
            await listed(expired)
            await listed(expired)
            first, second = (r.headers["authorization"] for r in server.requests[-2:])
            assert first != second

    asyncio.run(story())


@pytest.mark.parametrize(
    ("user", "cluster", "said"),
    [
        ({"token": "t"}, {"insecure-skip-tls-verify": True}, "insecure-skip-tls-verify would show us to anybody"),
        ({"token": "t"}, {"proxy-url": "http://proxy.example"}, "proxy-url is not supported"),
        ({}, {"server": "https://api.example"}, "gives no credential"),
        (
            {"exec": {"apiVersion": "v1", "command": "/no/such/program"}},
            {"server": "https://api.example"},
            "no credential",
        ),
        ({"token": "t"}, {"certificate-authority": "missing.crt"}, "missing.crt"),
    ],
)
def test_a_kubeconfig_that_cannot_be_used_says_why(
    tmp_path: Path, user: dict[str, Any], cluster: dict[str, Any], said: str
) -> None:
    """Before anything is sent."""
    with pytest.raises(UnusableError, match=said) as raised:
        asyncio.run(kubeconfig(tmp_path, "https://127.0.0.1:1", user, **cluster).credential())
    assert str(raised.value).startswith(f"kubeconfig: {tmp_path}/config: ")


@pytest.mark.parametrize("text", [None, "", "{", "[]", '{"contexts": 7}'])
def test_a_file_that_is_no_kubeconfig_is_named(tmp_path: Path, text: str | None) -> None:
    """Missing, empty, no YAML, or something else."""
    if text is not None:
        (tmp_path / "config").write_text(text)
    with pytest.raises(UnusableError, match=r"^kubeconfig: "):
        asyncio.run(Kubeconfig(tmp_path / "config").credential())


def test_a_proxy_of_the_environment_is_not_the_kubeconfigs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not used, and not complained about."""
    monkeypatch.setenv("https_proxy", "http://proxy.example")
    credential = asyncio.run(kubeconfig(tmp_path, "https://127.0.0.1:1", {"token": "t"}).credential())
    assert credential.authorization == "Bearer t"


def test_without_tls_only_loopback_is_spoken_to() -> None:
    """And nothing at all is sent to anybody else."""

    async def ask(url: str, trust: Trust | None) -> str:
        class Elsewhere:
            async def credential(self, *, anew: bool = False) -> Credential:
                return Credential(url, trust, "Bearer secret")

        return await refused(Elsewhere())

    assert "in the clear" in asyncio.run(ask("http://api.example:6443", None))
    assert "in the clear" in asyncio.run(ask("https://api.example:6443", None))
    assert "no address" in asyncio.run(ask("ftp://127.0.0.1", Trust(Tls())))
