"""What the chart asks of a cluster, in full: a reviewer reads this list, and a change of it fails."""

from typing import Any

import pytest

from tests.chart.programs import ALL_ON, Object, of, pod, render, trials, written
from tests.chart.test_objects import SUMMARY, VALUES

pytestmark = pytest.mark.real

READS = {("", "pods", "list"), ("", "pods", "watch"), ("", "namespaces", "list"), ("", "namespaces", "watch")}
OWN_NODE = {("", "nodes", "get")}
KUBELET = {("", "nodes/stats", "get")}
BY_NODE = [{"id": "acme", "match": [{"node_labels": "pool=acme"}]}]


def granted(objects: list[Object]) -> set[tuple[str, str, str]]:
    """(API group, resource, verb) of every role; a rule that is narrowed or widened in another way fails."""
    found = set()
    for role in (each for each in objects if each["kind"] in {"Role", "ClusterRole"}):
        for rule in role["rules"]:
            assert rule.keys() == {"apiGroups", "resources", "verbs"}
            found |= {(g, r, v) for g in rule["apiGroups"] for r in rule["resources"] for v in rule["verbs"]}
    return found


@pytest.mark.parametrize(
    ("config", "more"),
    [
        ({}, set()),
        ({"customers": BY_NODE}, OWN_NODE),
        ({"attribution": {"system": [{"node_labels": "pool=infra"}]}}, OWN_NODE),
        ({"attribution": {"customer_labels": {"node": "billing/customer"}}}, OWN_NODE),
        ({"sources": SUMMARY}, KUBELET),
        ({"sources": SUMMARY, "customers": BY_NODE}, OWN_NODE | KUBELET),
    ],
)
def test_rbac_grants_what_the_configuration_needs_and_nothing_else(
    config: dict[str, Any], more: set[tuple[str, str, str]]
) -> None:
    """No secrets, no writing, no wildcard, no nodes/proxy."""
    objects = render({**ALL_ON, "config": config})
    assert granted(objects) == READS | more
    bindings = [each for each in objects if each["kind"] in {"RoleBinding", "ClusterRoleBinding"}]
    assert [each["subjects"] for each in bindings] == [
        [{"kind": "ServiceAccount", "name": "metering-agent", "namespace": "metering"}]
    ]
    assert bindings[0]["roleRef"]["name"] == of(objects, "ClusterRole")["metadata"]["name"]


def test_only_the_agent_has_the_accounts_token() -> None:
    """Whoever starts another pod under this account, or the test, gets none."""
    objects = render(ALL_ON)
    assert of(objects, "ServiceAccount")["automountServiceAccountToken"] is False
    assert [test["spec"]["automountServiceAccountToken"] for test in trials(objects)] == [False, False]
    assert pod(objects)["automountServiceAccountToken"] is True
    assert pod(objects)["serviceAccountName"] == of(objects, "ServiceAccount")["metadata"]["name"]


@pytest.mark.parametrize("values", VALUES.values(), ids=VALUES)
def test_no_container_has_a_capability_a_shell_to_escalate_with_or_a_place_to_write(values: dict[str, Any]) -> None:
    """Everything that Pod Security's level `restricted` asks of a container, and a read-only root."""
    objects = render(values)
    for spec in (pod(objects), *(test["spec"] for test in trials(objects))):
        assert not {"hostPID", "hostNetwork", "hostIPC", "hostUsers", "initContainers"} & spec.keys()
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in spec["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "privileged": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert not any("hostPort" in port for port in container.get("ports", []))


def violations(spec: Object) -> set[str]:
    """Which controls of Pod Security's level `restricted` the pod does not meet, of those not asserted above."""
    found = set()
    for volume in spec.get("volumes", []):
        kind = (volume.keys() - {"name"}).pop()
        if kind not in {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "projected", "secret"}:
            found.add(kind)
    context = spec["securityContext"]
    if not context.get("runAsNonRoot") or not context.get("runAsUser"):
        found.add("root")
    if context.get("seLinuxOptions", {}).get("type") not in {None, "container_t"}:
        found.add("seLinux")
    return found


def test_the_namespace_must_be_privileged_for_the_sake_of_host_paths_only() -> None:
    """With the directories prepared, that is all that is left; the test's pod would do anywhere."""
    assert violations(pod(render())) == {"hostPath", "root"}
    assert violations(pod(render({"runAsUser": 65532}))) == {"hostPath"}
    assert [violations(test["spec"]) for test in trials(render())] == [set(), set()]


@pytest.mark.parametrize(
    ("config", "paths"),
    [
        ({}, {"/proc", "/sys/fs/cgroup"}),
        ({"meters": [{"meter": "io.read_bytes"}]}, {"/proc", "/sys/fs/cgroup", "/sys/dev/block", "/sys/devices"}),
        ({"sources": SUMMARY}, set()),
    ],
)
def test_of_the_node_it_sees_what_its_sources_read_and_cannot_write_there(
    config: dict[str, Any], paths: set[str]
) -> None:
    """Recursively read-only: on cgroup v1 each hierarchy is a mount of its own below the mount."""
    spec = pod(render({"config": config}))
    volumes = {each["name"]: each["hostPath"] for each in spec["volumes"] if "hostPath" in each}
    mounts = {each["name"]: each for each in spec["containers"][0]["volumeMounts"]}
    writable = {"/var/lib/metering-agent", "/run/metering-agent"}
    assert {each["path"] for each in volumes.values()} == paths | writable | {"/etc/machine-id"}
    for name, volume in volumes.items():
        mount = mounts[name]
        if volume["path"] in writable:
            assert not mount.get("readOnly")
        else:
            assert mount["readOnly"] is True
            assert volume["type"] in {"Directory", "File"}
        if volume["path"] in paths:
            assert mount["mountPath"] == f"/host{volume['path']}"
            assert mount["recursiveReadOnly"] == "IfPossible"
            assert "mountPropagation" not in mount


def test_another_user_gets_directories_only_where_root_has_prepared_them() -> None:
    """What a kubelet makes is root's, and the agent could not write there: better an event that says so."""
    for uid in (65532, 1000660000):
        spec = pod(render({"runAsUser": uid}))
        assert spec["securityContext"]["runAsUser"] == spec["securityContext"]["fsGroup"] == uid
        kinds = {each["name"]: each.get("hostPath", {}).get("type") for each in spec["volumes"]}
        assert kinds["data"] == kinds["run"] == "Directory"


def test_secrets_are_files_that_are_mounted_and_are_in_no_object() -> None:
    """The chart takes the names of Secrets that exist, never what is in them."""
    token = {"id": "openmeter", "kind": "cloudevents", "token_file": "/run/secrets/openmeter/token"}
    objects = render({**ALL_ON, "secrets": ["openmeter"], "config": {"sinks": [token]}})
    assert not [each for each in objects if each["kind"] == "Secret"]
    volume = next(each for each in pod(objects)["volumes"] if each["name"] == "secret-openmeter")
    assert volume["secret"] == {"secretName": "openmeter", "defaultMode": 0o400}
    mounts = {each["name"]: each["mountPath"] for each in pod(objects)["containers"][0]["volumeMounts"]}
    assert token["token_file"].startswith(mounts["secret-openmeter"] + "/")
    for each in (each for each in objects if each["kind"] == "ConfigMap"):
        assert not {"token", "password", "secret"} & {word.strip(" -:") for word in str(each["data"]).split()}
    assert "token_file: /run/secrets/openmeter/token" in written(objects)
    plain = [each["name"] for each in pod(objects)["containers"][0]["env"] if "valueFrom" not in each]
    assert plain == []


def test_only_telemetry_can_be_reached() -> None:
    """From anywhere, or from where the values say."""
    policy = of(render(), "NetworkPolicy")["spec"]
    assert policy["podSelector"]["matchLabels"] == of(render(), "DaemonSet")["spec"]["selector"]["matchLabels"]
    assert policy["policyTypes"] == ["Ingress"]
    assert policy["ingress"] == [{"ports": [{"port": "telemetry"}]}]
    closed = of(render(VALUES["closed network"]), "NetworkPolicy")["spec"]
    assert closed["policyTypes"] == ["Ingress", "Egress"]
    assert closed["egress"] == VALUES["closed network"]["networkPolicy"]["egress"]
