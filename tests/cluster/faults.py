"""`python -m tests.cluster.faults`: what breaks on a node, and no nanosecond of its pods is lost or billed twice."""

import os
import signal
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from tests.cluster import neighbours, workloads
from tests.cluster.books import Moved, all_booked, between
from tests.cluster.cluster import standing
from tests.cluster.components import COMPONENTS
from tests.cluster.installed import Installed
from tests.cluster.waiting import until
from tests.cluster.witness import Witness
from tests.faults.report import publish, table

DOWN = 5  # s that a component is gone


@dataclass(frozen=True, slots=True)
class Struck:
    """What one fault came to. `used`: what a pod that lived through it used by its own counter; `billed`: to whom."""

    moved: Moved
    used: int
    billed: Mapping[str, int]

    @property
    def whole(self) -> bool:
        """Whether nothing is missing."""
        booked = sum(self.billed.values())
        return self.moved.difference == 0 and all_booked(self.used, booked, self.moved.residual)


def component(name: str) -> Callable[[Installed], None]:
    """It is killed, and started again some time later."""

    def act(installed: Installed) -> None:
        cluster = installed.cluster
        cluster.kill(name)
        began = cluster.node.groups.cpu_ns("kubepods")
        until(lambda: cluster.node.groups.cpu_ns("kubepods") > began + DOWN * 100_000_000, "pods go on without it")
        cluster.start(name)
        until(cluster.ready, "the node is Ready")

    return act


def killed(installed: Installed) -> None:
    """The agent, by SIGKILL; the kubelet starts it in the same pod."""
    pid = installed.pid()
    installed.kill()
    until(lambda: installed.pid() != pid, "it was started again")


def killed_without_api(installed: Installed) -> None:
    """The same while nobody can tell it what the pods are: it remembers."""
    cluster, pid = installed.cluster, installed.pid()
    group = installed.group()
    cluster.kill("kube-apiserver")
    os.kill(pid, signal.SIGKILL)
    until(lambda: installed.pid_in(group) not in (0, pid), "it was started again")
    installed.swept()
    cluster.start("kube-apiserver")
    until(cluster.ready, "the node is Ready")


def deleted(installed: Installed) -> None:
    """Its pod, as a drained node's pods are: it is told to end, and another comes."""
    installed.delete_pod()


def upgraded(installed: Installed) -> None:
    """The chart, so that the pod is another one."""
    annotations = installed.values.setdefault("podAnnotations", {})
    annotations["upgrade"] = str(int(annotations.get("upgrade", "0")) + 1)
    installed.install()


def relabelled(installed: Installed) -> None:
    """The namespace of the pod, which is another customer's from now on."""
    installed.cluster.apply(_namespace("globex"))


FAULTS: Mapping[str, Callable[[Installed], None]] = {
    "kubelet killed": component("kubelet"),
    "containerd killed": component("containerd"),
    "API server killed": component("kube-apiserver"),
    "agent killed -9": killed,
    "agent's pod deleted": deleted,  # the kubelet starts what dies a second time in its pod only after a while
    "agent killed -9, no API server": killed_without_api,
    "chart upgraded": upgraded,
    "namespace relabelled": relabelled,
}
WHERE = "struck"


def _namespace(customer: str) -> workloads.Object:
    return workloads.namespace(WHERE, {"billing/customer": customer})


def strike(installed: Installed, name: str) -> Struck:
    """Let a fault happen while a pod lives, end the pod, and see what was booked."""
    cluster = installed.cluster
    cluster.apply(_namespace("acme"))
    pod = workloads.pod(WHERE, "through", workloads.container("steady", workloads.steady(0.1)))
    with Witness(cluster.node.groups) as witness:
        before = installed.swept()
        cluster.apply(pod)
        uid = str(cluster.in_phase(WHERE, "through", "Running")["metadata"]["uid"])
        installed.swept()
        try:
            FAULTS[name](installed)
        finally:
            for each in COMPONENTS:
                if cluster.node.pid(each) is None:
                    cluster.start(each)
        installed.swept()
        cluster.remove(pod)
        after = installed.booked(uid)
    return Struck(between(before, after), witness.last[uid], after.pods.get(uid, {}))


def row(struck: Struck) -> dict[str, object]:
    """Of the table of faults."""
    moved = struck.moved
    return {
        "kubepods' counter, ns": f"{moved.counter:,}",
        "Σ customers": f"{moved.customers:,}",
        "system": f"{moved.by.get('system', 0):,}",
        "unattributed": f"{moved.by.get('unattributed', 0):,}",
        "of that no pod's": f"{moved.residual:,}",
        "Δ in flight": f"{moved.in_flight:,}",
        "difference": f"{moved.difference:,}",
        "the pod's own counter": f"{struck.used:,}",
        "billed": ", ".join(f"{bearer} {ns:,}" for bearer, ns in sorted(struck.billed.items())),
    }


def main() -> int:
    """0 if nothing is missing after any fault."""
    cluster = standing()
    if cluster.node.pid() is None:
        print("no cluster is up: make cluster", file=sys.stderr)
        return 1
    installed = Installed(cluster)
    installed.install()
    cluster.apply(*neighbours.NAMESPACES, *neighbours.LIVING)
    rows, wrong = {}, 0
    for name in FAULTS:
        print(f"{name} …", flush=True)
        struck = strike(installed, name)
        rows[name] = row(struck)
        wrong += not struck.whole
    publish("faults on the node", table(rows, "fault"))
    cluster.remove(*neighbours.LIVING)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
