"""The client of a kubelet: to whom it gives the token, what it makes of refusals, and what bounds it."""

import asyncio
import hashlib
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import trustme

from agent.errors import SourceError
from agent.sources.kubernetes.kubelet import Kubelet
from tests.sources.kubernetes.kubelet_double import KubeletDouble, serving

CLUSTER, STRANGER = trustme.CA(), trustme.CA()


class Place:
    """Files as a pod finds them, and a kubelet that shows `certificate`."""

    def __init__(self, home: Path, certificate: trustme.LeafCert | None = None) -> None:
        self.double = KubeletDouble()
        self.ca_file, self.token_file = home / "ca.crt", home / "token"
        CLUSTER.cert_pem.write_to_path(self.ca_file)
        self.token_file.write_text("good\n")
        self.certificate = certificate or CLUSTER.issue_cert("127.0.0.1")
        self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.certificate.configure_cert(self.tls)

    @property
    def pin(self) -> str:
        """The SHA-256 of what the kubelet shows."""
        der = ssl.PEM_cert_to_DER_cert(self.certificate.cert_chain_pems[0].bytes().decode())
        return hashlib.sha256(der).hexdigest()

    def run(self, act: Callable[[Kubelet], Awaitable[Any]], **settings: Any) -> Any:
        """Something done with a client of this kubelet."""

        async def main() -> Any:
            async with serving(self.double, self.tls):
                trust = {"ca_file": self.ca_file} if "pin" not in settings else {}
                kubelet = Kubelet(self.double.url, token_file=self.token_file, **{**trust, **settings})
                try:
                    return await asyncio.wait_for(act(kubelet), 20)
                finally:
                    await kubelet.close()
                    await kubelet.close()

        return asyncio.run(main())

    def fails(self, match: str, **settings: Any) -> SourceError:
        """Asking once fails, saying this."""

        async def ask(kubelet: Kubelet) -> SourceError:
            with pytest.raises(SourceError, match=match) as caught:
                await kubelet.summary()
            assert kubelet.stats.failures == 1
            assert kubelet.stats.failing == str(caught.value)
            assert "good" not in str(caught.value)
            return caught.value

        error: SourceError = self.run(ask, **settings)
        return error


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """A kubelet whose certificate the cluster's authority signed."""
    return Place(tmp_path)


async def twice(kubelet: Kubelet) -> None:
    """Ask two times."""
    await kubelet.summary()
    await kubelet.summary()


@pytest.mark.parametrize("how", ["whole", "chunked"])
def test_a_summary_over_a_connection_that_is_kept(place: Place, how: str) -> None:
    """One connection for all requests; each has the token."""
    place.double.how = how
    place.run(twice)
    assert place.double.asked == [("/stats/summary", "good")] * 2
    assert place.double.connections == 1


def test_without_network_only_cpu_and_memory_are_asked_for(place: Place) -> None:
    """It costs the node half."""
    place.run(lambda kubelet: kubelet.summary(network=False))
    assert place.double.asked == [("/stats/summary?only_cpu_and_memory=true", "good")]


def test_a_kept_connection_that_the_kubelet_has_closed_is_made_anew(place: Place) -> None:
    """It hangs up when it is restarted, or for no reason."""
    place.double.how = "leaves"
    place.run(twice)
    assert place.double.connections == 2


def test_the_token_is_read_from_its_file_each_time(place: Place) -> None:
    """A projected token lives an hour; the kubelet writes the next one into the file."""

    async def ask(kubelet: Kubelet) -> None:
        await kubelet.summary()
        place.token_file.write_text("next")
        place.double.tokens = {"next"}
        await kubelet.summary()

    place.run(ask)
    assert [token for _, token in place.double.asked] == ["good", "next"]


def test_a_token_that_changed_between_reading_and_401_is_read_again(place: Place) -> None:
    """Once, and only if it changed."""

    class Renewed(KubeletDouble):
        async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            place.token_file.write_text("next")  # while the first request is on its way
            await super().serve(reader, writer)

    place.double = Renewed(tokens={"next"})
    place.run(Kubelet.summary)
    assert [token for _, token in place.double.asked] == ["good", "next"]


def test_a_token_that_is_refused_for_good(place: Place) -> None:
    """Said with the cure, and asked once: the file has no other."""
    place.double.tokens = set()
    place.fails(r"401.*authentication\.webhook")
    assert len(place.double.asked) == 1


def test_a_role_that_is_missing_is_named_with_its_cure(place: Place) -> None:
    """The 403 names the subresource; never nodes/proxy."""
    place.double.how = "forbidden"
    error = place.fails(r"403.*`get` on nodes/stats")
    assert "proxy" not in str(error)


@pytest.mark.parametrize("text", ["", "two words", "schlüssel"])
def test_a_token_file_that_holds_none_sends_nothing(place: Place, text: str) -> None:
    """Nothing is asked without it."""
    place.token_file.write_text(text)
    place.fails("token_file")
    assert place.double.connections == 0


def test_a_stranger_is_told_nothing(tmp_path: Path) -> None:
    """Its certificate is another authority's: no byte of the token leaves."""
    place = Place(tmp_path, STRANGER.issue_cert("127.0.0.1"))
    place.fails(r"certificate is not accepted.*kubelet\.pin")
    assert place.double.asked == []


def test_another_nodes_certificate_is_not_this_ones(tmp_path: Path) -> None:
    """The name is verified, not the authority alone."""
    place = Place(tmp_path, CLUSTER.issue_cert("node-b"))
    place.fails("certificate is not accepted")
    assert place.double.asked == []


def test_a_pinned_certificate_needs_no_authority(tmp_path: Path) -> None:
    """A kubelet that signed its own, as kubeadm leaves it."""
    place = Place(tmp_path, STRANGER.issue_cert("whatever"))
    place.run(twice, pin=place.pin)
    assert len(place.double.asked) == 2


def test_a_pin_may_be_written_as_openssl_writes_it(place: Place) -> None:
    """With colons and capitals."""
    pin = ":".join(place.pin[i : i + 2] for i in range(0, 64, 2)).upper()
    place.run(twice, pin=pin)


def test_a_certificate_that_is_not_the_pinned_one_is_told_nothing(place: Place) -> None:
    """Though the cluster's authority signed it."""
    place.fails("another one is pinned", pin="0" * 64)
    assert place.double.asked == []


def test_an_authority_that_is_replaced_on_disk_is_taken_up(tmp_path: Path) -> None:
    """A cluster's authority is rotated: the file changes, and so does whom we trust."""
    place = Place(tmp_path, STRANGER.issue_cert("127.0.0.1"))

    async def ask(kubelet: Kubelet) -> None:
        with pytest.raises(SourceError):
            await kubelet.summary()
        STRANGER.cert_pem.write_to_path(place.ca_file)
        await kubelet.summary()

    place.run(ask)


@pytest.mark.parametrize(
    ("how", "match"),
    [
        ("silent", "no whole answer within"),
        ("slow", "no whole answer within"),
        ("truncated", "hung up before the end"),
        ("garbage", "no answer"),
        ("hangs up", "hung up before the end"),
        ("huge", "more than 100000 bytes"),
        ("redirect", "302"),
    ],
)
def test_what_is_no_answer(place: Place, how: str, match: str) -> None:
    """Bounded in size and time, and no redirect is followed."""
    place.double.how = how
    place.fails(match, seconds=0.5, most=100_000)
    assert len(place.double.asked) == 1


def test_nobody_there(place: Place) -> None:
    """The kubelet is down."""

    async def ask(_: Kubelet) -> None:
        with pytest.raises(SourceError, match=r"kubelet 127\.0\.0\.1:1: no answer"):
            await Kubelet("https://127.0.0.1:1", token_file=place.token_file, ca_file=place.ca_file).summary()

    place.run(ask)


def test_after_a_failure_it_is_asked_again_over_a_new_connection(place: Place) -> None:
    """And what failed is no longer said."""

    async def ask(kubelet: Kubelet) -> None:
        place.double.how = "truncated"
        with pytest.raises(SourceError):
            await kubelet.summary()
        place.double.how = "whole"
        await kubelet.summary()
        assert kubelet.stats.failing is None
        assert (kubelet.stats.requests, kubelet.stats.failures) == (2, 1)

    place.run(ask)


@pytest.mark.parametrize(
    ("url", "match"),
    [
        ("http://127.0.0.1:10250", "over TLS only"),
        ("http://127.0.0.1:10255", "10255"),
        ("https://127.0.0.1:10255", "10255"),
        ("https://127.0.0.1/api/v1/nodes/node-a/proxy", "nodes/proxy"),
        ("https://:word@127.0.0.1:10250", "password"),
        ("127.0.0.1:10250", "https://"),
        ("https://127.0.0.1:port", "https://"),
    ],
)
def test_addresses_that_are_refused(tmp_path: Path, url: str, match: str) -> None:
    """Before anything is opened."""
    with pytest.raises(ValueError, match=match):
        Kubelet(url, token_file=tmp_path / "token", ca_file=tmp_path / "ca.crt")


def test_somebody_must_vouch_for_the_certificate(tmp_path: Path) -> None:
    """Neither an authority nor a pin: the machine's own list of authorities is not asked."""
    with pytest.raises(ValueError, match="ca_file, or pin"):
        Kubelet("https://127.0.0.1:10250", token_file=tmp_path / "token")
    with pytest.raises(ValueError, match="64 hex digits"):
        Kubelet("https://127.0.0.1:10250", token_file=tmp_path / "token", pin="abc")
