"""`once` on a node of Kubernetes: who its pods are is learnt while it waits."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from agent.cli.once import once
from agent.config import parse
from agent.kinds import KINDS
from agent.sources.kernel import boot_id
from tests.cli.test_health_pods import kubeconfig
from tests.sources.kubernetes import double as d
from tests.sources.kubernetes.double import NAMESPACES, PODS, ApiServer
from tests.sources.kubernetes.node import Node

CONFIG = """\
agent: {{node: node-a}}
sources: [{{kind: kubernetes, root: {0}, kubeconfig: {0}/kubeconfig}}]
meters: [{{meter: cpu.time}}, {{meter: alive.time}}]
customers: [{{id: acme, match: [{{namespace_labels: tenant=acme}}]}}]
"""


@contextmanager
def cluster(home: Path, *objects: tuple[str, d.Object]) -> Iterator[ApiServer]:
    """An API server on a thread of its own, and the kubeconfig that leads to it."""
    loop, ready, done = asyncio.new_event_loop(), threading.Event(), asyncio.Event()
    made: list[ApiServer] = []

    async def serve() -> None:
        async with d.api_server() as server:
            for path, thing in objects:
                server.put(path, thing)
            made.append(server)
            ready.set()
            await done.wait()

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()))
    thread.start()
    assert ready.wait(10)
    kubeconfig(home, made[0].url)
    try:
        yield made[0]
    finally:
        loop.call_soon_threadsafe(done.set)
        thread.join()
        loop.close()


def boot(home: Path) -> None:
    """The make-believe node runs in this boot."""
    file = home / "proc/sys/kernel/random/boot_id"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"{boot_id()}\n")


def test_metadata_is_followed_while_it_waits(tmp_path: Path) -> None:
    """The pod is its namespace's owner's by the second reading, under its name, by the rule; and no thread stays."""
    node, pod = Node(tmp_path), d.pod("web")
    node.pod(pod["metadata"]["uid"])
    boot(tmp_path)
    threads = threading.active_count()
    cfg = parse(CONFIG.format(tmp_path), "agent.yaml", KINDS, {})
    with cluster(tmp_path, (NAMESPACES, d.namespace("team-a", {"tenant": "acme"})), (PODS, pod)):
        read = once(cfg, 2)
    (alive,) = [line for line in read.usage if line.dimension == "alive_time"]
    assert (alive.bearer, alive.resource) == ("acme", "team-a/web")
    assert alive.rule == "customers[acme].match[0] namespace_labels=tenant=acme"
    assert threading.active_count() == threads


def test_without_an_api_server_it_waits_in_vain_and_says_for_what(tmp_path: Path) -> None:
    """The pod is there all the same, under its UID, and nobody's."""
    node, pod = Node(tmp_path), d.pod("web")
    node.pod(pod["metadata"]["uid"])
    boot(tmp_path)
    kubeconfig(tmp_path, "http://127.0.0.1:9")
    read = once(parse(CONFIG.format(tmp_path), "agent.yaml", KINDS, {}), 0.3)
    (alive,) = [line for line in read.usage if line.dimension == "alive_time"]
    assert (alive.bearer, alive.rule) == ("unattributed", "waiting for the pod's metadata")
