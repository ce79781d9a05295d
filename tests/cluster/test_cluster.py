"""The cluster is what it says: a real node whose counters can be believed, and that goes without a trace."""

import os
import signal
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from tests.cluster import agent_image, machine, workloads
from tests.cluster.cluster import Cluster
from tests.cluster.hierarchies import Groups, abandoned
from tests.cluster.node import ROOT
from tests.cluster.programs import missing
from tests.cluster.waiting import until
from tests.cluster.witness import Churn, Witness, pods
from tests.conftest import require

pytestmark = [pytest.mark.real, pytest.mark.timeout(1200)]

NS = 1_000_000_000
TEAM = "team-a"
SANDBOX = 200_000_000  # ns: more than runc and the pause process use in a pod, even on a busy machine


@pytest.fixture(autouse=True, scope="module")
def team(cluster: Cluster) -> None:
    """A namespace to make pods in."""
    cluster.apply(workloads.namespace(TEAM, {"tenant": "acme"}))


def phase(cluster: Cluster, name: str) -> str:
    """What the API server says of a pod in TEAM."""
    return str(cluster.api.get(f"/api/v1/namespaces/{TEAM}/pods/{name}")["status"]["phase"])


def uid(cluster: Cluster, name: str) -> str:
    """The identity of a pod in TEAM."""
    return str(cluster.api.get(f"/api/v1/namespaces/{TEAM}/pods/{name}")["metadata"]["uid"])


def test_a_pods_group_has_what_it_burned(cluster: Cluster) -> None:
    """Its own counter, to the nanosecond of what the process says, and beyond that only its sandbox."""
    with Witness(cluster.node.groups) as witness:
        cluster.apply(workloads.burner(TEAM, "burner", 0.3))
        until(lambda: phase(cluster, "burner") == "Succeeded", "the pod is finished")
        said = float(cluster.kubectl("logs", "-n", TEAM, "burner").partition("=")[2])
        identity = uid(cluster, "burner")
        until(lambda: identity not in pods(cluster.node.groups), "its group is gone")
    assert 0.3 <= said < 0.31
    assert said * NS <= witness.last[identity] < said * NS + SANDBOX


def test_churn_is_in_the_anchor_to_the_nanosecond(cluster: Cluster) -> None:
    """What kubepods counted is what its pods counted, those that lived for a moment included."""
    churn = Churn(cluster.api, TEAM, burn=0.2, every=1.5)
    with Witness(cluster.node.groups) as witness:
        before = witness.kubepods()
        known = dict(witness.last)
        churn.run(9)
        until(lambda: churn.tidy() == 0, "the churn is finished")
        until(lambda: not set(churn.made) & set(pods(cluster.node.groups)), "its groups are gone")
        moved = witness.kubepods() - before
    pods_moved = sum(used - known.get(identity, 0) for identity, used in witness.last.items())
    assert len(churn.made) >= 4
    assert all(witness.last[identity] >= 0.2 * NS for identity in churn.made)
    assert abs(moved - pods_moved) < 0.01 * moved  # the anchor was read a moment before and after its pods


@pytest.mark.parametrize("name", ["kubelet", "containerd", "kube-apiserver"])
def test_a_component_is_killed_and_comes_back(cluster: Cluster, name: str) -> None:
    """The pods live on meanwhile, and the node is Ready again."""
    steady = workloads.container("steady", workloads.steady(0.02))
    cluster.apply(workloads.pod(TEAM, "survivor", steady))
    until(lambda: phase(cluster, "survivor") == "Running", "the pod runs")
    group = f"kubepods/besteffort/pod{uid(cluster, 'survivor')}"
    cluster.kill(name)
    assert cluster.node.pid(name) is None
    used = cluster.node.groups.cpu_ns(group)
    until(lambda: cluster.node.groups.cpu_ns(group) > used, "the pod goes on without it")
    cluster.start(name)
    until(cluster.ready, "the node is Ready")
    assert cluster.node.groups.cpu_ns(group) > used
    cluster.apply(workloads.burner(TEAM, f"after-{name}", 0.1))
    until(lambda: phase(cluster, f"after-{name}") == "Succeeded", "new pods run")


@pytest.mark.parametrize("program", ["helm", "helm3"])
def test_helm_installs_a_chart_from_a_folder(cluster: Cluster, program: str, tmp_path: Path) -> None:
    """Without a repository of charts, by either version."""
    chart = tmp_path / "chart"
    (chart / "templates").mkdir(parents=True)
    (chart / "Chart.yaml").write_text("{apiVersion: v2, name: little, version: 1.0.0}\n")
    kept = (
        "{apiVersion: v1, kind: ConfigMap, metadata: {name: {{ .Release.Name }}}, data: {says: '{{ .Values.says }}'}}\n"
    )
    (chart / "templates/kept.yaml").write_text(kept)
    cluster.helm("install", program, str(chart), "-n", TEAM, "--set", "says=hello", "--wait", program=program)
    made = cluster.api.get(f"/api/v1/namespaces/{TEAM}/configmaps/{program}")
    assert made["data"] == {"says": "hello"}
    cluster.helm("uninstall", program, "-n", TEAM, "--wait", program=program)


def test_the_agents_image_needs_nothing_but_itself(cluster: Cluster) -> None:
    """It runs on a root that cannot be written to, without a capability; there is no shell in it to be misused."""
    made = agent_image.image()
    cluster.load(made)
    locked = {"readOnlyRootFilesystem": True, "allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    main = workloads.container("main", (agent_image.PROGRAM, "meters"), image=agent_image.NAME, securityContext=locked)
    cluster.apply(workloads.pod(TEAM, "agent", main, restartPolicy="Never"))
    cluster.in_phase(TEAM, "agent", "Succeeded")
    assert "cpuacct.usage" in cluster.kubectl("logs", "-n", TEAM, "agent")
    with tarfile.open(made) as archive:
        paths = list[Path]()
        for layer in ("0.tar", "1.tar", "2.tar"):
            with tarfile.open(fileobj=archive.extractfile(layer)) as files:
                paths += map(Path, files.getnames())
    programs = {path.name for path in paths if path.parent.name in ("bin", "sbin")}
    assert programs >= {"metering-agent", "python3.11"}
    assert not programs & {"sh", "bash", "dash", "busybox", "apt", "dpkg", "pip", "pip3"}


def test_a_cluster_goes_without_a_trace(tmp_path: Path) -> None:
    """Mounts, devices, kernel settings, directories, groups: as before; its namespaces: empty."""
    require(not missing(), missing())
    tag = f"{os.getpid()}-second"
    before = machine.state(tag)
    cluster = Cluster(tmp_path / "second", tag, bound=True)
    try:
        cluster.up()
        first = cluster.node.pid()
        assert first is not None
        spaces = machine.namespaces(first) - machine.namespaces(os.getpid())
        assert len(spaces) == len(machine.NAMESPACES)
        cluster.apply(workloads.deployment("default", "web", 2, workloads.container("web", workloads.PAUSE)))
        until(lambda: len(pods(cluster.node.groups)) == 2, "pods have groups")
        assert machine.state(tag)["groups"] > before["groups"]
    finally:
        cluster.down()
    until(lambda: not machine.inhabitants(spaces), "no process is left in its namespaces", 30)
    assert machine.state(tag) == before
    assert not cluster.node.directory.exists()


def test_a_killed_test_run_leaves_no_cluster(tmp_path: Path) -> None:
    """Its processes die with it, and what the kernel keeps is removed by whoever comes next."""
    require(not missing(), missing())
    script = (
        "import os, sys, pathlib, tests.cluster.node as node\n"
        "n = node.Node(pathlib.Path(sys.argv[1]), f'{os.getpid()}', bound=True)\n"
        "n.boot(); n.start('etcd'); print(n.pid(), flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "killed")]
    run = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert run.stdout is not None
    spaces = machine.namespaces(int(run.stdout.readline())) - machine.namespaces(os.getpid())
    assert machine.inhabitants(spaces)
    run.send_signal(signal.SIGKILL)
    run.communicate()
    until(lambda: not machine.inhabitants(spaces), "no process is left", 30)
    assert f"{run.pid}" in abandoned()
    for tag in abandoned():
        Groups(tag).remove()
    assert f"{run.pid}" not in abandoned()
