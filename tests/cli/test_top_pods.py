"""`top --pods`: what each pod uses now, from what is open, at a cost that the ledger's size does not set."""

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.cli import pods
from agent.model import Dimension
from agent.spool import glance
from agent.spool.ledger import opened
from tests.cli.cluster import ACME, BLUE, DIMENSIONS, Node
from tests.cli.conftest import Ask

WEB = {"namespace": "acme", "pod": "web-0"}
CORE = 1_000_000_000  # ns in each second


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    """Nothing runs on it yet."""
    made = Node(tmp_path, ACME, BLUE)
    yield made
    made.spool.close()


def look(node: Node, paces: pods.Paces | None = None) -> dict[str, pods.Line]:
    """What there is to see, by pod."""
    with opened(node.spool.directory) as db:
        return {line.pod: line for line in (paces or pods.Paces()).look(db)}


def test_a_pod_has_its_customer_rule_and_what_it_uses(node: Node, ask: Ask) -> None:
    """CPU in cores, memory as it stands, traffic of all its interfaces, each second; the busiest first."""
    web, idle = node.start("1", WEB, network=True), node.start("2", {"namespace": "x", "pod": "idle"})
    web.memory, idle.memory = 3 << 19, 0
    for _ in range(2):
        node.burn("1", 15 * CORE // 4)
        web.received += 15 * 2048
        node.run(15)
    lines = ask("top", "--pods").splitlines()
    assert "no agent runs" not in lines[0]
    assert lines[0].endswith("pods: 2")
    rule = ["customers[acme].match[0]", "namespace=acme"]
    assert lines[3].split() == ["acme", "acme/web-0", "0.250", "1.5", "MiB", "2.0", "KiB", "0", "B", *rule]
    assert lines[4].split() == ["unattributed", "x/idle", "0.000", "0", "B", "no", "rule", "matched"]
    (first, _) = json.loads(ask("top", "--pods", "--json"))["pods"]
    assert (first["uid"], first["cpu"], first["received"]) == ("1", CORE // 4, 2048)


def test_now_is_the_last_sweep_and_not_the_window(node: Node) -> None:
    """The first look knows the open window; each later one what moved between two sweeps."""
    paces = pods.Paces()
    node.start("1", WEB)
    node.burn("1", 30 * CORE)
    node.run(15)
    assert look(node, paces)["acme/web-0"].cpu == 2 * CORE
    node.run(15)
    assert look(node, paces)["acme/web-0"].cpu == 0
    assert look(node, paces)["acme/web-0"].cpu == 0  # nothing was swept since: as it was
    assert look(node)["acme/web-0"].cpu == CORE
    node.burn("1", 15 * CORE)
    node.run(30)
    assert look(node, paces)["acme/web-0"].cpu == CORE // 2


def test_one_meter_in_two_dimensions_is_one_usage(tmp_path: Path) -> None:
    """What is billed twice is used once."""
    node = Node(tmp_path, ACME, dimensions=(*DIMENSIONS, Dimension("more", "cpu.time")))
    node.start("1", WEB)
    node.burn("1", 15 * CORE)
    node.run(15)
    assert look(node)["acme/web-0"].cpu == CORE
    node.spool.close()


def test_what_waits_and_what_is_gone(node: Node) -> None:
    """A pod without metadata is there under its UID; one that ended is not, though its window is open."""
    node.start("1", WEB)
    node.start("2")
    node.run()
    node.end("1")
    node.run()
    (line,) = look(node).values()
    assert (line.pod, line.bearer, line.rule) == ("pod2", "unattributed", "waiting for the pod's metadata")
    node.introduce("2", WEB)
    node.run()
    (line,) = look(node).values()
    assert (line.pod, line.bearer) == ("acme/web-0", "acme")


def test_no_pod_is_said_to_be_none(node: Node, ask: Ask) -> None:
    """With where to look for those that were."""
    assert "No pod is metered now." in ask("top", "--pods", "--once")


def test_without_an_agent_there_is_no_now(node: Node, ask: Ask) -> None:
    """What an agent left when it stopped is not what pods use."""
    node.start("1", WEB)
    node.run()
    assert "pods: 1" in ask("top", "--pods")
    node.spool.close()
    said = ask("top", "--pods")
    assert "no agent runs" in said
    assert "acme/web-0" not in said


def test_the_ledger_is_not_read(node: Node) -> None:
    """However long it is: what was recorded may even be damaged."""
    node.start("1", WEB)
    node.burn("1", 15 * CORE)
    node.run(15, 9)
    node.spool.db.execute("UPDATE record SET body=x'00'")
    node.spool.db.execute("UPDATE evidence SET body=x'00'")
    with opened(node.spool.directory) as db:
        asked: list[str] = []
        db.trace_v2(1, lambda event: asked.append(event["sql"]))
        pods.Paces().look(db)
        list(glance.pods(db))
        db.trace_v2(0, None)
    assert asked
    assert not any("record" in sql or "evidence" in sql for sql in asked)


def test_five_hundred_pods_are_one_short_look(node: Node) -> None:
    """A tenth of a second, on a machine that does other things beside."""
    for number in range(500):
        node.start(f"{number}", {**WEB, "pod": f"web-{number}"}, network=True)
    node.run()
    paces = pods.Paces()
    took = []
    for _ in range(5):
        began = time.process_time()
        assert len(look(node, paces)) == 500
        took.append(time.process_time() - began)
    assert min(took) < 0.1
