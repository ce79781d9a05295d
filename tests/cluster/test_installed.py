"""What the chart installs is what it says, on a real cluster: rights, privileges, what a node keeps, commands."""

import re
from pathlib import Path
from typing import Any

import pytest

from tests.cluster import neighbours
from tests.cluster.books import look
from tests.cluster.cluster import Cluster
from tests.cluster.installed import ACCOUNT, NAMESPACE, RELEASE, Installed
from tests.cluster.waiting import until

pytestmark = [pytest.mark.real, pytest.mark.timeout(600)]

READS = {("namespaces", "[list watch]"), ("pods", "[list watch]")}


def rights(cluster: Cluster, account: str) -> set[tuple[str, str]]:
    """What `kubectl auth can-i --list` says of an account, each line as (what, verbs)."""
    said = cluster.kubectl("auth", "can-i", "--list", f"--as={account}", "--no-headers")
    lines = [re.sub(r" {2,}", "\t", line).split("\t") for line in said.splitlines() if line.strip()]
    return {(line[0].strip(), line[-1]) for line in lines}


def status(installed: Installed) -> dict[str, str]:
    """Of the agent's process, as the machine's kernel has it."""
    lines = Path(f"/proc/{installed.pid()}/status").read_text().splitlines()
    return dict(line.split(":\t", 1) for line in lines if ":\t" in line)


def test_its_account_may_do_what_it_needs_and_nothing_else(installed: Installed) -> None:
    """Beyond what everybody may do who has a token: list and watch pods and namespaces."""
    cluster = installed.cluster
    anybody = rights(cluster, f"system:serviceaccount:{neighbours.NOBODYS}:default")
    assert rights(cluster, ACCOUNT) - anybody == READS
    assert anybody - rights(cluster, ACCOUNT) == set()
    for asked in ("get secrets", "get nodes/proxy", "get nodes/stats", "create pods/exec", "update namespaces"):
        verb, what = asked.split()
        assert not _may(cluster, verb, what), asked


def _may(cluster: Cluster, verb: str, what: str) -> bool:
    resource, _, sub = what.partition("/")
    attributes = {"verb": verb, "resource": resource, "subresource": sub, "namespace": neighbours.ACME}
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SubjectAccessReview",
        "spec": {"user": ACCOUNT, "groups": ["system:authenticated"], "resourceAttributes": attributes},
    }
    answer: Any = cluster.api.post("/apis/authorization.k8s.io/v1/subjectaccessreviews", review)
    return bool(answer["status"]["allowed"])


def test_with_exactly_that_it_is_at_work(installed: Installed) -> None:
    """It knows the pods by name, and nothing that it asked for or read has failed."""
    assert installed.metric("metering_kubernetes_api_failing") == 0
    installed.swept()
    assert installed.metric('metering_sweeps_total{outcome="failure"') == 0
    assert f"{neighbours.ACME}/web-" in installed.cli("top", "--pods", "--once")


def test_it_is_uid_0_without_any_capability(installed: Installed) -> None:
    """A directory of the node is root's; nothing else of root is left to it."""
    found = status(installed)
    assert found["Uid"].split() == ["0"] * 4
    assert {int(found[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {0}
    assert found["NoNewPrivs"] == "1"
    assert found["Seccomp"] == "2"


def test_it_can_write_only_to_its_own_two_directories(installed: Installed) -> None:
    """By the mounts that its process sees; what lies below the node's own keeps its mode with this containerd."""
    mounts = [line.split() for line in Path(f"/proc/{installed.pid()}/mountinfo").read_text().splitlines()]
    writable = {fields[4] for fields in mounts if "rw" in fields[5].split(",")}
    every = {path for path in writable if path.startswith(("/proc", "/dev"))} | {
        "/sys/fs/cgroup"
    }  # container has these
    below = {path for path in writable if path.startswith(("/host/sys/fs/cgroup/", "/host/proc/"))}
    assert writable - every - below == {"/var/lib/metering-agent", "/run/metering-agent", "/etc/hosts"}


def test_helm_test_passes(installed: Installed) -> None:
    """The file is good, and an agent is ready."""
    said = installed.cluster.helm("test", RELEASE, "--namespace", NAMESPACE, "--timeout", "5m")
    assert said.count("Succeeded") >= 2


def test_a_changed_configuration_is_taken_up_without_a_restart(installed: Installed) -> None:
    """A customer more: the pod stays, and a namespace that was nobody's is theirs from then on."""
    before, uid = installed.metric("metering_config_generation"), installed.pod()["metadata"]["uid"]
    config = installed.values["config"]
    umbrella = {"id": "umbrella", "match": [{"namespace": neighbours.NOBODYS}]}
    installed.values["config"] = {**config, "customers": [*config["customers"], umbrella]}
    installed.install()
    # The kubelet looks at ConfigMaps each minute or so, and at once where the pod changes.
    installed.cluster.kubectl("annotate", "pod", "-n", NAMESPACE, installed.pod()["metadata"]["name"], "look=now")
    until(lambda: installed.metric("metering_config_generation") > before, "the file is reloaded", every=1)
    assert installed.pod()["metadata"]["uid"] == uid
    until(lambda: look(installed.data).by.get("umbrella"), "its pod is theirs")
    installed.cluster.remove(*(w for w in neighbours.LIVING if w["metadata"]["namespace"] == neighbours.NOBODYS))


def test_the_spool_survives_the_pod_and_the_upgrade(installed: Installed) -> None:
    """On the node, readable by root alone; the next agent goes on in the same epoch."""
    installed.closed(installed.swept())
    sources = {record["source"] for record in installed.delivered()}
    assert len(sources) == 1
    assert installed.data.stat().st_mode & 0o777 == 0o700
    assert (installed.data / "spool.db").stat().st_mode & 0o777 == 0o600
    epoch = next(iter(sources)).rpartition("/")[2]
    installed.delete_pod()
    booked = installed.swept()
    uid = str(installed.pod()["metadata"]["uid"])
    installed.values["podAnnotations"]["upgraded"] = "yes"
    installed.install()
    assert installed.pod()["metadata"]["uid"] != uid
    after = installed.swept()
    assert all(after.by[bearer] >= booked.by[bearer] for bearer in booked.by)
    installed.closed(after)
    assert {record["source"].rpartition("/")[2] for record in installed.delivered()} == {epoch}
