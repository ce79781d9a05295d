"""helm takes the chart, and Kubernetes takes what helm makes of it."""

from typing import Any

import kubernetes_validate
import pytest

from agent import __version__
from tests.chart.programs import ALL_ON, CHART, KUBERNETES, RELEASE, helm, of, pod, program, render, trials

pytestmark = pytest.mark.real

SUMMARY = [{"kind": "kubernetes", "root": "/host", "basis": "summary"}]
VALUES: dict[str, dict[str, Any]] = {
    "defaults": {},
    "all on": dict(ALL_ON),
    "not root": {"runAsUser": 65532, "seLinuxOptions": {"type": "spc_t"}, "secrets": ["openmeter"]},
    "summary": {"config": {"sources": SUMMARY}},
    "closed network": {
        "networkPolicy": {
            "ingressFrom": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}],
            "egress": [{"ports": [{"port": 443, "protocol": "TCP"}]}],
        }
    },
    "bare": {
        "affinity": {"nodeAffinity": None},
        "networkPolicy": {"enabled": False},
        "nodeSelector": {"kubernetes.io/os": None},
        "priorityClassName": "",
        "rbac": {"create": False},
        "resources": {"limits": None, "requests": None},
        "serviceAccount": {"create": False, "name": "own"},
        "tolerations": [],
    },
    "dressed": {
        "image": {"digest": "sha256:" + 64 * "0", "pullPolicy": "Never"},
        "imagePullSecrets": [{"name": "mirror"}],
        "podAnnotations": {"a": "b"},
        "podLabels": {"team": "platform"},
        "serviceAccount": {"annotations": {"a": "b"}},
        "updateStrategy": {"maxUnavailable": 3},
        "config": {"meters": [{"meter": "io.read_bytes"}]},
    },
}
# No part of Kubernetes: their schemas come with the operator that reads them.
FOREIGN = {"monitoring.coreos.com/v1"}


@pytest.mark.parametrize("version", ["helm", "helm3"])
@pytest.mark.parametrize("values", VALUES.values(), ids=VALUES)
def test_helm_has_nothing_to_say_against_the_chart(
    values: dict[str, Any], version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Linted strictly, by the version of today and the one before."""
    monkeypatch.setenv("HELM", program(version))
    done = helm("lint", "--strict", str(CHART), values=values)
    assert done.returncode == 0, done.stdout
    assert "[WARNING]" not in done.stdout


@pytest.mark.parametrize("values", VALUES.values(), ids=VALUES)
def test_every_object_is_one_that_kubernetes_knows(values: dict[str, Any]) -> None:
    """By the schemas of the release that the tests run, unknown fields refused."""
    for each in render(values):
        assert each["metadata"]["labels"]["app.kubernetes.io/name"] == "metering-agent"
        if each["apiVersion"] not in FOREIGN:
            kubernetes_validate.validate(each, KUBERNETES, strict=True)


def test_a_namespace_is_named_in_every_object_that_lives_in_one() -> None:
    """`helm template | kubectl apply` puts everything into one place, too."""
    for each in render(ALL_ON):
        cluster_wide = each["kind"].startswith(("ClusterRole", "ValidatingAdmissionPolicy"))
        assert ("namespace" in each["metadata"]) != cluster_wide, each["kind"]


def test_chart_image_and_agent_have_one_version() -> None:
    """Who installs a chart gets the agent that was released with it."""
    objects = render()
    assert of(objects, "DaemonSet")["metadata"]["labels"]["helm.sh/chart"] == f"metering-agent-{__version__}"
    for spec in (pod(objects), *(test["spec"] for test in trials(objects))):
        assert {each["image"] for each in spec["containers"]} == {f"metering-agent:{__version__}"}
    assert pod(render(VALUES["dressed"]))["containers"][0]["image"] == "metering-agent@sha256:" + 64 * "0"


def test_an_update_never_runs_two_agents_on_a_node() -> None:
    """The second would wait for the first one's locks, and the first for nothing."""
    update = of(render(), "DaemonSet")["spec"]["updateStrategy"]
    assert update["type"] == "RollingUpdate"
    assert update["rollingUpdate"]["maxSurge"] == 0


def test_every_node_is_metered_but_those_that_are_none() -> None:
    """No taint keeps it away; virtual nodes have no cgroups."""
    spec = pod(render())
    assert spec["tolerations"] == [{"operator": "Exists"}]
    assert spec["priorityClassName"] == "system-node-critical"
    quota = of(render(), "ResourceQuota")["spec"]["scopeSelector"]["matchExpressions"][0]
    assert quota["values"] == [spec["priorityClassName"]]
    assert not [each for each in render(namespace="kube-system") if each["kind"] == "ResourceQuota"]


def test_the_node_keeps_what_is_owed_when_the_pod_goes() -> None:
    """Spool and run directory are the node's, where agent.yaml says that they are."""
    values = {"config": {"agent": {"data_dir": "/srv/usage", "run_dir": "/run/usage"}}}
    spec = pod(render(values))
    mounts = {each["name"]: each["mountPath"] for each in spec["containers"][0]["volumeMounts"]}
    volumes = {each["name"]: each for each in spec["volumes"]}
    for name, path in (("data", "/srv/usage"), ("run", "/run/usage")):
        assert mounts[name] == path
        assert volumes[name]["hostPath"] == {"path": path, "type": "DirectoryOrCreate"}


def test_the_test_asks_an_agent_that_is_ready_and_checks_the_file() -> None:
    """Through the Service, whose port is that of the file; let in by the policy."""
    objects = render({"config": {"telemetry": {"listen": "[${POD_IP}]:9999"}}, **VALUES["closed network"]})
    checking, asking = trials(objects)
    for test in (checking, asking):
        assert test["metadata"]["annotations"]["helm.sh/hook"] == "test"
        assert len(test["spec"]["containers"]) == 1  # `helm test --logs` knows no other
    assert checking["spec"]["containers"][0]["args"] == ["check"]
    asked = asking["spec"]["containers"][0]["command"][-1]
    compile(asked, "test", "exec")
    assert "METERING_AGENT_SERVICE_HOST" in asked
    assert ":9999/readyz" in asked
    assert of(objects, "Service")["spec"]["ports"][0]["port"] == 9999
    assert pod(objects)["containers"][0]["ports"] == [{"name": "telemetry", "containerPort": 9999}]
    source = of(objects, "NetworkPolicy", RELEASE)["spec"]["ingress"][0]["from"][0]
    assert source["podSelector"]["matchLabels"] == asking["metadata"]["labels"]
    served = of(objects, "Service")["spec"]["selector"]
    assert served.items() <= of(objects, "DaemonSet")["spec"]["template"]["metadata"]["labels"].items()
    assert not served.items() <= asking["metadata"]["labels"].items()
