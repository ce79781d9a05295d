"""Certificates against a real TLS server: whom we trust, who we are, and what changes while we run."""

import asyncio
import datetime as dt
import socket
import ssl
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import trustme

from agent.credentials import Tls
from agent.model import NS_PER_S
from agent.sinks import Answer
from agent.sinks.meaning import DELIVERED
from agent.sinks.wire import Wire
from tests.sinks.double import Upstream, reply, upstream

pytestmark = pytest.mark.real

OURS = trustme.CA()  # signs the server's certificate
CLIENTS = trustme.CA()  # signs ours
STRANGER = trustme.CA()
HOST = "127.0.0.1"
Story = Callable[[Wire, Upstream], Coroutine[Any, Any, Any]]


def server(certificate: trustme.LeafCert | None = None) -> ssl.SSLContext:
    """A server's settings, with a certificate of our authority unless another is given."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    (certificate or OURS.issue_cert(HOST)).configure_cert(context)
    return context


def asks_for_a_certificate() -> ssl.SSLContext:
    """One that lets only its clients in."""
    context = server()
    context.verify_mode = ssl.CERT_REQUIRED
    CLIENTS.configure_trust(context)
    return context


def wire(port: int, tls: Tls) -> Wire:
    """A wire to that port."""
    return Wire(
        "sinks[x]",
        f"https://{HOST}:{port}/",
        {204: DELIVERED},
        token_file=None,
        tls=tls,
        timeout=10 * NS_PER_S,
        concurrency=1,
        dated=None,
    )


def talk(context: ssl.SSLContext, story: Story, tls: Tls) -> Any:
    """What a story between a wire and a server with these settings comes to."""

    async def run() -> Any:
        async with upstream(reply(204), tls=context) as other:
            line = wire(other.port, tls)
            try:
                return await story(line, other)
            finally:
                await line.close()

    return asyncio.run(run())


@contextmanager
def one_handshake(context: ssl.SSLContext) -> Iterator[int]:
    """A port whose server shakes hands once and, refusing, says why before it hangs up; asyncio's would just go."""
    with socket.create_server((HOST, 0)) as listening, ThreadPoolExecutor() as beside:
        done = beside.submit(_refuse, listening, context)
        yield listening.getsockname()[1]
        done.result()


def _refuse(listening: socket.socket, context: ssl.SSLContext) -> None:
    accepted, _ = listening.accept()
    with context.wrap_socket(accepted, server_side=True, do_handshake_on_connect=False) as line:
        with pytest.raises(ssl.SSLError):
            line.do_handshake()
        socket.socket.shutdown(line, socket.SHUT_WR)
        while socket.socket.recv(line, 4096):  # closing on unread bytes would reset the alert away
            pass


def answered(context: ssl.SSLContext, tls: Tls) -> Answer:
    """What one delivery is answered, when nothing may have been taken unless it was delivered."""

    async def story(line: Wire, other: Upstream) -> Answer:
        answer = await line.deliver(b"[]", "text/plain")
        assert len(other.requests) == (answer.outcome == "delivered")
        return answer

    answer = talk(context, story, tls)
    assert isinstance(answer, Answer)
    return answer


@pytest.fixture
def ca_file(tmp_path: Path) -> Path:
    """The authority of the server's certificate."""
    path = tmp_path / "ca.pem"
    OURS.cert_pem.write_to_path(str(path))
    return path


def identity(folder: Path, certificate: trustme.LeafCert) -> tuple[Path, Path]:
    """A certificate and its key as files, each put in place whole."""
    paths = folder / "client.pem", folder / "client.key"
    pems = b"".join(pem.bytes() for pem in certificate.cert_chain_pems), certificate.private_key_pem.bytes()
    for path, pem in zip(paths, pems, strict=True):
        fresh = path.with_suffix(".new")
        fresh.write_bytes(pem)
        fresh.rename(path)
    return paths


def test_a_server_of_the_authority_that_was_given_is_trusted(ca_file: Path) -> None:
    """A private authority is enough."""
    assert answered(server(), Tls(ca_file)).outcome == "delivered"


def test_without_it_the_server_is_not_trusted() -> None:
    """Nothing left, and the cure names the setting."""
    answer = answered(server(), Tls())
    assert (answer.outcome, answer.left, answer.blocked) == ("retry", False, True)
    assert "its certificate is not accepted: unable to get local issuer certificate" in answer.why
    assert answer.why.endswith("give that authority's certificate as tls.ca_file.")


def test_an_expired_certificate_is_called_expired(ca_file: Path) -> None:
    """Not merely bad: somebody must renew it."""
    past = dt.datetime(2020, 1, 1, tzinfo=dt.UTC), dt.datetime(2020, 2, 1, tzinfo=dt.UTC)
    old = OURS.issue_cert(HOST, not_before=past[0], not_after=past[1])
    answer = answered(server(old), Tls(ca_file))
    assert (answer.outcome, answer.left, answer.blocked) == ("retry", False, True)
    assert "certificate has expired. It has expired: renew the server's certificate" in answer.why


def test_a_certificate_of_tomorrow_points_at_the_clock(ca_file: Path) -> None:
    """The likelier cause is this machine's own clock."""
    future = dt.datetime(2090, 1, 1, tzinfo=dt.UTC), dt.datetime(2090, 2, 1, tzinfo=dt.UTC)
    young = OURS.issue_cert(HOST, not_before=future[0], not_after=future[1])
    assert "check this machine's clock" in answered(server(young), Tls(ca_file)).why


def test_a_certificate_for_another_name_is_refused(ca_file: Path) -> None:
    """An authority's word for one host is none for another."""
    answer = answered(server(OURS.issue_cert("billing.example")), Tls(ca_file))
    assert (answer.outcome, answer.left) == ("retry", False)
    assert answer.why.endswith("It is for another name: correct the url, or have the certificate name it.")


def test_old_versions_of_tls_are_not_spoken(ca_file: Path) -> None:
    """1.2 at least."""
    context = server()
    context.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match=r"TLSv1_1 is deprecated"):
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    answer = answered(context, Tls(ca_file))
    assert (answer.outcome, answer.left) == ("retry", False)
    assert "no TLS connection: " in answer.why


def test_a_client_certificate_lets_us_in(ca_file: Path, tmp_path: Path) -> None:
    """With its key in a file of its own."""
    cert, key = identity(tmp_path, CLIENTS.issue_cert("agent.example"))
    assert answered(asks_for_a_certificate(), Tls(ca_file, cert, key)).outcome == "delivered"


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["1.2", "1.3"])
@pytest.mark.parametrize("shown", [None, STRANGER], ids=["none", "a stranger's"])
def test_a_server_that_refuses_our_certificate_took_nothing(
    ca_file: Path, tmp_path: Path, version: ssl.TLSVersion, shown: trustme.CA | None
) -> None:
    """Its alert says so. With TLS 1.3 that comes after we began to send, and is a definite refusal all the same."""
    context = asks_for_a_certificate()
    context.minimum_version = context.maximum_version = version
    files = () if shown is None else identity(tmp_path, shown.issue_cert("agent.example"))
    with one_handshake(context) as port:
        answer = asyncio.run(wire(port, Tls(ca_file, *files)).deliver(b"[]", "text/plain"))
    assert (answer.outcome, answer.definite or not answer.left) == ("retry", True)
    if version is ssl.TLSVersion.TLSv1_3 or shown is not None:  # else 1.2 calls it a mere failure
        assert (answer.definite, answer.blocked) == (True, True)
        assert answer.why.endswith("Give it a client certificate that it accepts: sinks[x].tls.cert_file and key_file.")


def test_a_server_that_hangs_up_after_the_handshake_may_have_taken_it(ca_file: Path) -> None:
    """Without its alert nobody knows."""
    context = asks_for_a_certificate()
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    assert answered(context, Tls(ca_file)).outcome == "ambiguous"


def test_a_rotated_certificate_is_shown_from_the_next_attempt_on(ca_file: Path, tmp_path: Path) -> None:
    """By a connection of its own; while nothing changes, one connection serves."""
    cert, key = identity(tmp_path, CLIENTS.issue_cert("agent.example"))

    async def story(line: Wire, other: Upstream) -> list[tuple[str, int]]:
        found: list[tuple[str, int]] = []
        for rotates in (False, False, True, False):
            if rotates:
                identity(tmp_path, CLIENTS.issue_cert("agent.example"))
            found.append(((await line.deliver(b"", "text/plain")).outcome, other.connections))
        return found

    connections = [1, 1, 2, 2]
    assert talk(asks_for_a_certificate(), story, Tls(ca_file, cert, key)) == [("delivered", n) for n in connections]


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda ca, cert, key: ca.unlink(), "tls.ca_file: {ca}: No such file or directory"),
        (lambda ca, cert, key: cert.write_text("no PEM"), "tls: {ca}, {cert}, {key}: "),
        (lambda ca, cert, key: (key.parent.parent / "client.key").replace(key), "key values mismatch"),
    ],
    ids=["no authority", "no certificate", "another's key"],
)
def test_files_that_cannot_be_used_are_named_and_nothing_is_sent(
    tmp_path: Path, spoil: Callable[[Path, Path, Path], object], said: str
) -> None:
    """Nothing is sent by a certificate that is half rotated: the next attempt looks again."""
    identity(tmp_path, STRANGER.issue_cert("a.example"))
    folder = tmp_path / "tls"
    folder.mkdir()
    ca = folder / "ca.pem"
    OURS.cert_pem.write_to_path(str(ca))
    cert, key = identity(folder, CLIENTS.issue_cert("agent.example"))
    spoil(ca, cert, key)
    answer = answered(asks_for_a_certificate(), Tls(ca, cert, key))
    assert (answer.outcome, answer.left, answer.blocked) == ("retry", False, True)
    assert answer.why.startswith("sinks[x].tls")
    assert said.format(ca=ca, cert=cert, key=key) in answer.why.replace("_", " ").lower() + answer.why
    assert "PRIVATE" not in answer.why
