"""`doctor` on a node of Kubernetes: what it finds of the pods, and whether those who know of them answer."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from agent.cli.health import Check, pods
from agent.config import Config, parse
from agent.kinds import KINDS
from tests.cli.ready import found
from tests.sources.kubernetes import double as d
from tests.sources.kubernetes import kubelet_double as k
from tests.sources.kubernetes.double import NAMESPACES, NODES, PODS, ApiServer
from tests.sources.kubernetes.node import Node, uid
from tests.sources.kubernetes.test_kubelet import Place

CONFIG = """\
agent: {{node: node-a}}
sources: [{{kind: kubernetes, root: {0}, kubeconfig: {0}/kubeconfig{1}}}]
meters: [{{meter: cpu.time}}, {{meter: memory.working_set}}, {{meter: network.receive_bytes}}]
customers: [{{id: acme, match: [{2}]}}]
"""


def configured(home: Path, more: str = "", match: str = "{namespace: acme}") -> Config:
    """A node whose file system is at `home`."""
    return parse(CONFIG.format(home, more, match), "agent.yaml", KINDS, {})


def kubeconfig(home: Path, url: str) -> None:
    """One that asks this server as nobody."""
    here = {"contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}], "current-context": "c"}
    whole = {**here, "clusters": [{"name": "c", "cluster": {"server": url}}], "users": [{"name": "u", "user": {}}]}
    (home / "kubeconfig").write_text(json.dumps({"apiVersion": "v1", "kind": "Config", **whole}))


def asked(home: Path, cfg: Config, before: Callable[[ApiServer], None] = lambda _: None) -> dict[str, Check]:
    """What an API server of one pod is found to be."""

    async def told() -> list[Check]:
        async with d.api_server() as server:
            server.put(NAMESPACES, d.namespace("team-a"))
            server.put(PODS, d.pod("web"))
            server.put(NODES, d.node("node-a", {}))
            before(server)
            kubeconfig(home, server.url)
            return await pods.asked(cfg)

    return found(asyncio.run(told()))


def forbidden(path: str, times: int) -> Callable[[ApiServer], None]:
    """A server on which our account has no right to a collection."""
    refusal = d.status(403, "Forbidden", f"{path.rpartition('/')[2]} is forbidden")
    return lambda server: server.fault(path, *[refusal] * times)


@pytest.mark.parametrize(("driver", "anchor"), [("cgroupfs", "kubepods"), ("systemd", "kubepods.slice")])
def test_the_kubelets_driver_is_told_with_its_pods(tmp_path: Path, driver: str, anchor: str) -> None:
    """By the name of what holds them; containers are no pods, but are followed too."""
    node = Node(tmp_path, driver=driver)
    node.container(node.pod(uid(1)), 1)
    node.pod(uid(2), "guaranteed")
    node.process(7, node.path(uid(1)), 5, {"eth0": (0, 0)})
    checks, followed = pods.node(configured(tmp_path))
    by = found(checks)
    assert by["pods of kubernetes"].found == f"{anchor} (driver {driver}): 2 pods"
    assert by[f"anchor {anchor}"].result == "ok"
    assert by["processes of pods"].found.startswith("1 of 2 pods")
    assert by["memory.working_set"].found == "2 of 2 metered groups have the files of controller memory"
    assert {check.result for check in checks} == {"ok"}
    assert followed == 6  # the anchor, two classes, two pods, a container


def test_a_node_that_is_not_mounted_fails(tmp_path: Path) -> None:
    """Nothing would be measured, and it says what to mount."""
    Node(tmp_path)
    (tmp_path / "sys/fs/cgroup/cpuacct/kubepods").rename(tmp_path / "sys/fs/cgroup/cpuacct/elsewhere")
    check = found(pods.node(configured(tmp_path))[0])["pods of kubernetes"]
    assert (check.need, check.result) == ("required", "fails")
    assert "--cgroup-root" in check.cure


def test_a_containers_own_proc_is_told(tmp_path: Path) -> None:
    """Where no process of any pod is seen there is no network to read."""
    node = Node(tmp_path)
    node.pod(uid(1))
    check = found(pods.node(configured(tmp_path))[0])["processes of pods"]
    assert (check.need, check.result) == ("required", "fails")
    assert "Mount the node's own /proc" in check.cure
    assert "processes of pods" not in found(pods.node(configured(tmp_path, ", network: false"))[0])


def test_every_right_that_is_needed_is_asked_for(tmp_path: Path) -> None:
    """List and watch of pods and namespaces; the node only where a rule looks at its labels."""
    checks = asked(tmp_path, configured(tmp_path))
    assert {what: check.result for what, check in checks.items()} == dict.fromkeys(
        ["list pods", "watch pods", "list namespaces", "watch namespaces", "list its node", "watch its node"], "ok"
    )
    assert checks["list pods"].found == "1 of node-a"
    assert (checks["watch its node"].need, checks["watch pods"].need) == ("informative", "required")
    assert asked(tmp_path, configured(tmp_path, match="{node_labels: a=b}"))["watch its node"].need == "required"


@pytest.mark.parametrize(("path", "what"), [(PODS, "pods"), (NAMESPACES, "namespaces")])
def test_a_right_that_is_missing_is_named_with_its_cure(tmp_path: Path, path: str, what: str) -> None:
    """The verb and the resource, for whoever writes the role."""
    checks = asked(tmp_path, configured(tmp_path), forbidden(path, 2))
    for verb in ("list", "watch"):
        check = checks[f"{verb} {what}"]
        assert (check.need, check.result) == ("required", "fails")
        assert check.found.startswith("403 ")
        assert f"the verb {verb} on {what}" in check.cure


def test_the_nodes_labels_are_missed_only_where_they_are_asked_for(tmp_path: Path) -> None:
    """The least right is the best."""
    check = asked(tmp_path, configured(tmp_path), forbidden(NODES, 2))["watch its node"]
    assert (check.need, check.result) == ("informative", "ok")
    wanting = configured(tmp_path, match="{node_labels: a=b}")
    checks = asked(tmp_path, wanting, forbidden(NODES, 2))
    assert {checks[what].result for what in ("list its node", "watch its node")} == {"fails"}


def test_a_server_that_is_not_there_is_one_finding(tmp_path: Path) -> None:
    """Not six."""
    kubeconfig(tmp_path, "http://127.0.0.1:9")
    checks = asyncio.run(pods.asked(configured(tmp_path)))
    assert [(check.what, check.result) for check in checks] == [("reachable", "fails")]
    (tmp_path / "kubeconfig").unlink()
    (check,) = asyncio.run(pods.asked(configured(tmp_path)))
    assert "kubeconfig" in check.found


def test_a_node_by_another_name_is_told(tmp_path: Path) -> None:
    """`agent.node` is what the API server selects pods by."""
    checks = asked(tmp_path, configured(tmp_path), lambda server: server.objects[PODS].clear())
    assert "kubectl get nodes" in checks["pods of this node"].cure


@pytest.mark.parametrize(("how", "result"), [("whole", "ok"), ("forbidden", "fails"), ("garbage", "fails")])
def test_the_kubelet_is_asked_where_it_is_what_is_read(tmp_path: Path, how: str, result: str) -> None:
    """For the very summary, with the account's own token; otherwise it is left alone."""
    place = Place(tmp_path)
    place.double.how = how

    async def told() -> list[Check]:
        async with k.serving(place.double, place.tls):
            kubelet = f"{{url: '{place.double.url}', ca_file: {place.ca_file}, token_file: {place.token_file}}}"
            kubeconfig(tmp_path, "http://127.0.0.1:9")
            await pods.asked(configured(tmp_path))
            assert place.double.asked == []
            return await pods.asked(configured(tmp_path, f", basis: summary, kubelet: {kubelet}"))

    check = found(asyncio.run(told()))["stats/summary"]
    assert (check.need, check.result) == ("required", result)
    assert ("nodes/stats" in check.cure) is (result == "fails")
