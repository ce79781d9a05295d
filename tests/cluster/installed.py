"""The agent as a platform team installs it: its image, its chart, real Helm; and what it shows and delivers there."""

import json
import os
import signal
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from tests.cluster import agent_image, workloads
from tests.cluster.books import Books, boottime, look
from tests.cluster.cluster import Cluster
from tests.cluster.node import ROOT
from tests.cluster.waiting import until
from tests.cluster.witness import pods

CHART = ROOT / "helm/metering-agent"
NAMESPACE, RELEASE = "metering", "metering-agent"
ACCOUNT = f"system:serviceaccount:{NAMESPACE}:{RELEASE}"
DATA = "/var/lib/metering-agent"  # on the node
PRIVILEGED = {"pod-security.kubernetes.io/enforce": "privileged"}  # for its host paths, as the chart's README says
KEYS = ["namespace", "pod", "pod_uid", "owner"]
POD_LABEL = "billing-customer"

# acme owns namespaces by name, globex by a label of theirs, initech its pods in a namespace that allows it.
CONFIG: Mapping[str, Any] = {
    "agent": {"cluster": "proof", "window": "10s", "sample_interval": "2s", "shutdown_budget": "5s"},
    "sources": [{"kind": "kubernetes", "root": "/host", "metadata_wait": "10s"}],
    "meters": [
        {"meter": "cpu.time", "dimension": "cpu", "group_by": KEYS},
        {"meter": "cpu.time", "dimension": "cpu_requested", "policy": "request", "group_by": KEYS},
        {"meter": "network.receive_bytes", "dimension": "received", "group_by": KEYS},
        {"meter": "network.transmit_bytes", "dimension": "sent", "group_by": KEYS},
    ],
    "customers": [
        {"id": "acme", "match": [{"namespace": "acme-*"}]},
        {"id": "globex", "match": [{"namespace_labels": "tenant=globex"}]},
        {"id": "initech"},
    ],
    "attribution": {
        "customer_labels": {"namespace": "billing/customer"},
        "pod_labels": {"keys": [POD_LABEL]},
        "system": [{"namespace": "kube-*"}, {"namespace": NAMESPACE}],
    },
    "sinks": [{"id": "files", "kind": "file", "path": f"{DATA}/out", "role": "copy"}],
    "spool": {"retention": "1d", "evidence_retention": "1d"},  # 90 days of such short windows want a larger one
}


class Installed:
    """The agent of a cluster of one node. `values`: the chart's, in force with the next `install`."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.values: dict[str, Any] = {
            "image": {"pullPolicy": "Never"},
            "machineId": "",  # the machine that runs the tests may have none
            "config": dict(CONFIG),
        }
        self.data = cluster.node.directory / DATA.lstrip("/")

    def install(self) -> None:
        """Install it or upgrade it, and wait until it is ready and has swept once."""
        image = agent_image.image()
        self.cluster.load(image)
        self.values["podAnnotations"] = {**self.values.get("podAnnotations", {}), "image": image.parent.name}
        self.cluster.apply(workloads.namespace(NAMESPACE, PRIVILEGED))
        file = self.cluster.node.directory / "values.json"
        file.write_text(json.dumps(self.values))
        began = boottime()
        options = ("--install", "--namespace", NAMESPACE, "--values", str(file), "--wait", "--timeout", "10m")
        self.cluster.helm("upgrade", RELEASE, str(CHART), *options)
        self.swept(since=began)

    def uninstall(self) -> None:
        """Remove it; what it measured is cut and delivered first, and its spool stays on the node."""
        self.cluster.helm("uninstall", RELEASE, "--namespace", NAMESPACE, "--wait", "--timeout", "10m")
        until(lambda: not self._pods(), "the agent's pod is gone")

    # ------------------------------------------------------------------------------------------------- its pod

    def pod(self) -> Any:
        """The agent's pod, once one is ready."""

        def ready() -> Any:
            found = [pod for pod in self._pods() if "deletionTimestamp" not in pod["metadata"]]
            conditions = found[0]["status"].get("conditions", []) if found else []
            return found[0] if {"Ready"} & {c["type"] for c in conditions if c["status"] == "True"} else None

        return until(ready, "the agent's pod is ready")

    def _pods(self) -> list[Any]:
        path, selector = f"/api/v1/namespaces/{NAMESPACE}/pods", "app.kubernetes.io/component=agent"
        return list(self.cluster.api.get(path, labelSelector=selector)["items"])

    def pid(self) -> int:
        """The agent's process, as the machine has it."""
        group = self.group()
        return until(lambda: self.pid_in(group), "the agent runs")

    def group(self) -> Path:
        """The control group of its pod."""
        return pods(self.cluster.node.groups)[self.pod()["metadata"]["uid"]]

    def pid_in(self, group: Path) -> int:
        """The agent's process in the group of a pod; 0 while there is none."""
        for procs in group.glob("*/cgroup.procs"):
            with suppress(OSError):  # a container that ends
                for pid in map(int, procs.read_text().split()):
                    if b"metering-agent" in Path(f"/proc/{pid}/cmdline").read_bytes():
                        return pid
        return 0

    def kill(self) -> None:
        """SIGKILL; the kubelet starts it again in the same pod."""
        os.kill(self.pid(), signal.SIGKILL)

    def delete_pod(self) -> None:
        """As a person deletes it: it is given time to end, and the DaemonSet makes another."""
        old = self.pod()["metadata"]
        self.cluster.kubectl("delete", "pod", "-n", NAMESPACE, old["name"], "--wait")
        until(lambda: self.pod()["metadata"]["uid"] != old["uid"], "another pod is there")

    def cli(self, *argv: str) -> str:
        """What a command of the agent says in its pod."""
        exec_ = ("exec", "-n", NAMESPACE, str(self.pod()["metadata"]["name"]), "--")
        return self.cluster.kubectl(*exec_, "metering-agent", *argv)

    def metric(self, name: str) -> float:
        """A number of /metrics, summed over its labels; `name` may end in some of them: `name{source="x"`."""
        server = self.cluster.server(f"http://{self.pod()['status']['podIP']}:9108")
        try:
            lines = server.ask("GET", "/metrics").decode().splitlines()
        finally:
            server.close()
        assert any(line.startswith(name.partition("{")[0]) for line in lines), f"no metric is called {name}"
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name))

    # ------------------------------------------------------------------------------------------------- its work

    def swept(self, *, since: int | None = None) -> Books:
        """What is in its books after the first sweep that began after `since` (boottime, ns; default: now)."""
        began = boottime() if since is None else since

        def books() -> Books | None:
            if not (self.data / "spool.db").exists():
                return None
            found = look(self.data)
            return found if found.taken > began else None

        found = until(books, "a sweep is committed", every=0.2)
        assert found is not None
        return found

    def booked(self, *uids: str) -> Books:
        """What is in its books once these pods' groups are gone and their last readings are in it."""
        until(lambda: not set(uids) & set(pods(self.cluster.node.groups)), "their groups are gone")
        return self.swept()

    def closed(self, books: Books) -> Books:
        """What is in its books once all that was open in `books` is in records, and delivered."""

        def passed() -> Books | None:
            now = look(self.data)
            return now if now.oldest_open >= books.at else None

        found = until(passed, "its windows are closed", every=0.5)
        assert found is not None
        until(lambda: sum(1 for _ in self.delivered()) >= found.records, "its records are delivered", every=0.5)
        return found

    def delivered(self) -> Iterator[Any]:
        """Every record in the files that the sink has written on the node."""
        for file in sorted((self.data / "out").glob("*.ndjson")):
            yield from map(json.loads, file.read_text().splitlines())
