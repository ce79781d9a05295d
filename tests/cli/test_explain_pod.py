"""`explain pod`: every incarnation of a name, from the ledger, with the pod long gone."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.cluster import ACME, BLUE, Node
from tests.cli.conftest import Ask

FIRST, SECOND = "11111111-1111-4111-8111-111111111111", "22222222-2222-4222-8222-222222222222"
WEB = {"namespace": "acme", "pod": "web-0", "owner": "StatefulSet/web"}
DB = {"namespace": "x", "pod": "db-0", "namespace_label.tenant": "blue"}


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    """Nothing runs on it yet."""
    made = Node(tmp_path, ACME, BLUE)
    yield made
    made.spool.close()


def test_a_pod_tells_its_counters_owner_and_what_is_read_besides(node: Node, ask: Ask) -> None:
    """Each reading from where to where, for whom, by which rule; the network of it too; and it need not exist."""
    pod = node.start(FIRST, WEB, network=True)
    for _ in range(8):
        node.burn(FIRST, 1_000)
        pod.received += 10
        node.run()
    node.end(FIRST)
    node.run(60)
    told = ask("explain", "pod", "acme/web-0")
    assert told == ask("explain", "pod", FIRST).replace(f"Pod {FIRST}", "Pod acme/web-0")
    assert f"UID {FIRST}: recorded from 2027-01-15T08:00:00Z" in told
    assert "labels   namespace=acme owner=StatefulSet/web pod=web-0" in told
    rows = [line.split() for line in told.splitlines()]
    cpu, received = next(row for row in rows if row[:1] == ["cpu"]), next(row for row in rows if row[:1] == ["eth0"])
    assert cpu[1:7] == ["acme", "2", "0", "→", "8,000", "ns"]
    assert cpu[7:] == ["0.000008000", "core-seconds", "customers[acme].match[0]", "namespace=acme"]
    assert received[1:9] == ["received", "acme", "2", "0", "→", "80", "byte", "80"]
    assert "counter cpu.time went from 4,000 to 8,000 ns: +4,000" in told
    assert "Its part of the newest 7 records:" in told
    assert told == ask("explain", "acme/web-0")  # what kind of name it is need not be said


def test_incarnations_of_one_name_are_told_apart(node: Node, ask: Ask) -> None:
    """Another UID is another pod, whatever it is called; a UID names one of them."""
    node.start(FIRST, WEB)
    node.burn(FIRST, 500)
    node.run()
    node.end(FIRST)
    node.start(SECOND, WEB)
    node.run()
    node.burn(SECOND, 70)
    node.run(15, 8)
    told = json.loads(ask("explain", "pod", "acme/web-0", "--json"))
    assert [one["uid"] for one in told["incarnations"]] == [FIRST, SECOND]
    cpu = [next(s for s in one["sums"] if s["dimension"] == "cpu") for one in told["incarnations"]]
    assert [(s["quantity"], s["first"], s["last"]) for s in cpu] == [("500", "0", "500"), ("70", "0", "70")]
    assert "2 of this name, one after another" in ask("explain", "pod", "acme/web-0")
    (one,) = json.loads(ask("explain", "pod", SECOND, "--json"))["incarnations"]
    assert one == told["incarnations"][1]


@pytest.mark.parametrize("name", ["x/db-0", FIRST])
def test_what_waited_for_metadata_is_told_with_where_it_went(node: Node, ask: Ask, name: str) -> None:
    """Unattributed at first, moved to its owner later; the sums are what is left."""
    node.start(FIRST, network=True)
    node.burn(FIRST, 500)
    node.pods[FIRST].sent += 9
    node.run(15, 5)
    node.introduce(FIRST, DB)
    node.burn(FIRST, 30)
    node.run(15, 8)
    (one,) = json.loads(ask("explain", "pod", name, "--json"))["incarnations"]
    cpu = {s["bearer"]: (s["quantity"], s["records"]) for s in one["sums"] if s["dimension"] == "cpu"}
    assert cpu == {"unattributed": ("0", 2), "blue": ("530", 2)}
    assert {s["beside"] for s in one["sums"]} == {"", "eth0"}
    assert one["labels"]["namespace_label.tenant"] == "blue"
    told = ask("explain", "pod", name)
    assert "waited   for its metadata when records 1, 2, 3 closed, as unattributed; moved to blue since" in told
    assert "waiting for the pod's metadata" in told


@pytest.mark.parametrize("name", ["x/db-0", FIRST])
def test_a_pod_that_died_before_anything_was_known_of_it_is_found_by_name(node: Node, ask: Ask, name: str) -> None:
    """A job of 0.3 s while the API server is slow: no reading of it ever bore its name."""
    node.start(FIRST)
    node.burn(FIRST, 300)
    node.end(FIRST)
    node.run(15, 5)
    node.introduce(FIRST, DB)
    node.run()
    (one,) = json.loads(ask("explain", "pod", name, "--json"))["incarnations"]
    cpu = {s["bearer"]: s["quantity"] for s in one["sums"] if s["dimension"] == "cpu"}
    assert cpu == {"unattributed": "0", "blue": "300"}
    assert one["moved"][0]["metadata"]["resource"] == "x/db-0"


def test_what_still_waits_is_said_to(node: Node, ask: Ask) -> None:
    """By its UID, which is all there is; as the spool calls it or as Kubernetes does."""
    node.start(FIRST)
    node.burn(FIRST, 300)
    node.run(15, 5)
    assert "nothing of it has been moved" in ask("explain", "pod", FIRST)
    assert "nothing of it has been moved" in ask("explain", "pod", f"pod{FIRST}")


def test_without_evidence_what_is_the_pods_alone_is_told(node: Node, ask: Ask) -> None:
    """Past `spool.evidence_retention` the unattributed record still names it."""
    node.start(FIRST, {"namespace": "nobodys", "pod": "p"})
    node.burn(FIRST, 300)
    node.run(15, 5)
    node.spool.db.execute("DELETE FROM evidence")
    told = ask("explain", "pod", "nobodys/p")
    assert "not kept" in told
    assert "Its readings are not kept." in told


@pytest.mark.parametrize("name", ["acme/none", SECOND])
def test_a_pod_without_records_is_an_error_with_a_cure(node: Node, ask: Ask, name: str) -> None:
    """Neighbours whose names begin alike are no answer."""
    node.start(FIRST, {**WEB, "pod": "none-of-it"})
    node.burn(FIRST, 300)
    node.run(15, 5)
    assert "nothing was recorded of this pod" in ask("explain", "pod", name, code=1)


def test_half_a_name_is_an_error(node: Node, ask: Ask) -> None:
    """A namespace belongs to it."""
    assert "Write NAMESPACE/NAME" in ask("explain", "pod", "web-0", code=1)
