"""The commands that look at pods, on a real node and before a real API server, with an account of the least rights."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.cluster import workloads
from tests.cluster.addresses import API, NODE
from tests.cluster.cluster import Cluster

pytestmark = [pytest.mark.real, pytest.mark.timeout(1200)]

TEAM, ACCOUNT = "team-cli", "looker"
CONFIG = """\
agent: {{node: {node}, data_dir: {home}/data, run_dir: {home}/run}}
sources: [{{kind: kubernetes, kubeconfig: {home}/kubeconfig}}]
meters: [{{meter: cpu.time}}, {{meter: memory.working_set}}, {{meter: network.receive_bytes, dimension: received}}]
customers: [{{id: acme, match: [{{namespace_labels: tenant=cli}}]}}]
attribution: {{pod_labels: {{keys: [payer]}}}}
sinks: [{{id: files, kind: file, path: {home}/out}}]
"""
RIGHTS = {"apiGroups": [""], "resources": ["pods", "namespaces"], "verbs": ["list", "watch"]}


def rbac(kind: str, **more: Any) -> dict[str, Any]:
    """An object of RBAC."""
    return {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": kind, "metadata": {"name": TEAM}, **more}


ROLE_OF_ALL = rbac("ClusterRole", rules=[RIGHTS])
BINDING = rbac(
    "ClusterRoleBinding",
    roleRef={"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": TEAM},
    subjects=[{"kind": "ServiceAccount", "name": ACCOUNT, "namespace": TEAM}],
)


class Agent:
    """The program inside of the node, as an account that may do what the README says and nothing else."""

    def __init__(self, cluster: Cluster, home: Path) -> None:
        self.cluster, self.config = cluster, home / "agent.yaml"
        token = cluster.kubectl("create", "token", ACCOUNT, "-n", TEAM).strip()
        server = {"server": API, "certificate-authority": f"{cluster.node.etc}/ca.crt"}
        whole = {
            "current-context": "c",
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
            "clusters": [{"name": "c", "cluster": server}],
            "users": [{"name": "u", "user": {"token": token}}],
        }
        (home / "kubeconfig").write_text(json.dumps({"apiVersion": "v1", "kind": "Config", **whole}))
        self.config.write_text(CONFIG.format(node=NODE, home=home))
        self.config.chmod(0o600)

    def ask(self, *argv: str) -> Any:
        """What a command says to programs."""
        command = [sys.executable, "-m", "agent", *argv, "--config", str(self.config), "--json"]
        done = subprocess.run(self.cluster.node.inside(*command), capture_output=True, text=True, check=False)
        assert done.returncode in (0, 1), done.stderr
        return json.loads(done.stdout)


@pytest.fixture(scope="module")
def agent(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Agent:
    """A namespace with a pod that works and one that claims another's money, and the account."""
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": ACCOUNT, "namespace": TEAM}}
    cluster.apply(workloads.namespace(TEAM, {"tenant": "cli"}), account, ROLE_OF_ALL, BINDING)
    busy = workloads.container("busy", workloads.steady(0.1))
    cluster.apply(workloads.pod(TEAM, "busy", busy), workloads.pod(TEAM, "claims", busy, labels={"payer": "acme"}))
    for name in ("busy", "claims"):
        cluster.in_phase(TEAM, name, "Running")
    return Agent(cluster, tmp_path_factory.mktemp("commands"))


def test_doctor_is_content_with_the_least_rights_and_names_each_that_is_missing(agent: Agent) -> None:
    """Asked of the real API server: all granted; then, without the binding, each verb by its name."""
    checks = {check["what"]: check for check in agent.ask("doctor")["checks"]}
    rights = ("list pods", "watch pods", "list namespaces", "watch namespaces")
    assert {checks[right]["result"] for right in rights} == {"ok"}
    assert checks["watch its node"]["found"].startswith("not granted")
    assert checks["pods of kubernetes"]["result"] == checks["processes of pods"]["result"] == "ok"
    agent.cluster.remove(BINDING)
    try:
        refused = {check["what"]: check for check in agent.ask("doctor")["checks"]}
        for right in rights:
            assert refused[right]["result"] == "fails"
            assert f"the verb {right.replace(' ', ' on ')} in a ClusterRole" in refused[right]["cure"]
    finally:
        agent.cluster.apply(BINDING)


def test_once_learns_whose_the_pods_are(agent: Agent) -> None:
    """Within the seconds that it waits, and the books close."""
    read = agent.ask("once", "--seconds", "4")
    used = {line["resource"]: line for line in read["usage"] if line["dimension"] == "cpu_time"}
    assert used[f"{TEAM}/busy"]["bearer"] == "acme"
    assert all(int(b["moved"]) == int(b["booked"]) + int(b["in_flight"]) for b in read["books"])


def test_simulate_reads_what_kubectl_writes(agent: Agent, tmp_path: Path) -> None:
    """Either way of writing it, as it comes; and it says what the agent itself would do."""
    said = []
    for form in ("json", "yaml"):
        file = tmp_path / f"pods.{form}"
        file.write_text(agent.cluster.kubectl("get", "pods,namespaces,nodes", "-A", "-o", form))
        said.append(agent.ask("simulate", "--pods", str(file))["pods"])
    assert said[0] == said[1]
    fates = {fate["pod"]: fate for fate in said[0]}
    assert (fates[f"{TEAM}/busy"]["to"], fates[f"{TEAM}/busy"]["refused"]) == ("acme", [])
    assert (fates[f"{TEAM}/claims"]["to"], fates[f"{TEAM}/claims"]["refused"]) == ("acme", ["payer=acme"])
