"""What the installed agent books of real pods, each held against its own control group as another reader saw it.

All kinds of pods live at once beside two minutes of churn; then they are gone, and each test looks at one law.
"""

import time
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import pytest

from tests.cluster import headline, workloads
from tests.cluster.addresses import NODE
from tests.cluster.books import DIMENSION, Books, all_booked
from tests.cluster.cluster import Cluster
from tests.cluster.headline import Run
from tests.cluster.installed import POD_LABEL, Installed
from tests.cluster.neighbours import ACME, GLOBEX, SHARED
from tests.cluster.waiting import until
from tests.cluster.workloads import Object, container, steady
from tests.faults.report import publish

pytestmark = [pytest.mark.real, pytest.mark.timeout(1200)]

NS = 1_000_000_000
CHURN = 120  # s
MOVING = "relabelled"
TENTH = {"cpu": "100m", "memory": "32Mi"}


@dataclass
class Lived:
    """What was there. `uids`: of each pod by a name of ours; of a static pod its hash.

    `delivered`: the books when `records` were all there was.
    """

    installed: Installed
    run: Run
    uids: dict[str, str] = field(default_factory=dict)
    delivered: Books = field(init=False)
    records: list[Any] = field(default_factory=list)
    refused: tuple[float, float] = 0, 0  # claims of pods that were refused, before and after

    @property
    def books(self) -> Books:
        """At the end."""
        return self.run.after

    def of(self, name: str, dimension: str) -> list[Any]:
        """The delivered records of a pod."""
        return [r for r in self.records if r["dimension"] == dimension and r["group"].get("pod_uid") == self.uids[name]]

    def used(self, name: str) -> int:
        """By the pod's own counter."""
        return self.run.witness.last[self.uids[name]]

    def billed(self, name: str) -> dict[str, int]:
        """What was booked of the pod, by bearer: all of what its own counter ended with."""
        billed = dict(self.books.pods[self.uids[name]])
        booked, residual = sum(billed.values()), self.run.moved.residual
        assert all_booked(self.used(name), booked, residual), f"used {self.used(name)}, {billed}, no pod's {residual}"
        return billed


def crashing(where: str) -> Object:
    """Its container burns and fails, again and again."""
    return workloads.crasher(where, "crash", 0.2, after=0.2)


def mixed(where: str) -> Object:
    """An init container that ends, a sidecar that stays, and the main one."""
    first, proxy = container("first", ("burn", "0.3")), container("proxy", steady(0.02), sidecar=True)
    return workloads.pod(where, "mixed", container("main", steady(0.02)), initContainers=[first, proxy])


def sized(where: str) -> Object:
    """It can be resized in place."""
    return workloads.pod(where, "sized", container("main", workloads.PAUSE, requests=TENTH, limits=TENTH))


def twin(where: str) -> Object:
    """One of those that have the same name."""
    return workloads.pod(where, "twin", container("main", steady(0.1)))


def on_host(where: str) -> Object:
    """It is in the node's network."""
    return workloads.pod(where, "hostnet", container("main", steady(0.02)), hostNetwork=True)


def spoof(where: str, name: str, claims: str) -> Object:
    """It says that another customer pays for it."""
    return workloads.pod(where, name, container("main", steady(0.05)), labels={POD_LABEL: claims})


def rolling(where: str, version: str) -> Object:
    """Another version is another pod."""
    return workloads.deployment(where, "api", 1, container("main", steady(0.05)), labels={"version": version})


def static(where: str) -> Object:
    """The kubelet's own."""
    return workloads.pod(where, "static", container("main", steady(0.05)))


@pytest.fixture(scope="module")
def lived(installed: Installed) -> Lived:
    """All of them lived, changed, and are gone and booked."""
    cluster = installed.cluster
    cluster.apply(workloads.namespace(MOVING, {"billing/customer": "acme"}))
    with headline.watched(installed, CHURN) as run:
        lived = Lived(installed, run)
        refused = installed.metric('metering_anomalies_total{reason="attribution_conflict"')
        _live(cluster, lived.uids)
        lived.refused = refused, installed.metric('metering_anomalies_total{reason="attribution_conflict"')
    assert len(set(lived.uids.values())) == len(lived.uids)
    lived.delivered = installed.closed(run.after)
    lived.records += (r for r in installed.delivered() if r["seq"] <= lived.delivered.records)
    publish("headline", run.report())
    return lived


def _live(cluster: Cluster, uids: dict[str, str]) -> None:
    steady_one = workloads.pod(MOVING, "mover", container("main", steady(0.1)))
    pods = [
        crashing(ACME), mixed(ACME), sized(ACME), twin(ACME), on_host(GLOBEX), steady_one,
        spoof(ACME, "spoof", "globex"), spoof(SHARED, "allowed", "initech"), spoof(SHARED, "greedy", "globex"),
    ]  # fmt: skip
    job = workloads.job(GLOBEX, "moment", 0.3, pods=3, at_once=2)
    cluster.apply(*pods, job, rolling(ACME, "1"))
    cluster.place(static(ACME))
    for pod in pods:
        where, name = pod["metadata"]["namespace"], pod["metadata"]["name"]
        uids[name] = cluster.in_phase(where, name, "Running")["metadata"]["uid"]
    mirror = cluster.in_phase(ACME, f"static-{NODE}", "Running")
    uids["static"] = mirror["metadata"]["annotations"]["kubernetes.io/config.hash"]
    uids["api-1"] = _only(cluster, ACME, "app=api,version=1")
    path = f"/apis/batch/v1/namespaces/{GLOBEX}/jobs/moment"
    until(lambda: cluster.api.get(path)["status"].get("succeeded") == 3, "the Job is complete")
    jobs = cluster.api.get(f"/api/v1/namespaces/{GLOBEX}/pods", labelSelector="job-name=moment")["items"]
    uids.update({f"moment-{number}": pod["metadata"]["uid"] for number, pod in enumerate(jobs)})
    time.sleep(21)  # two windows and more, in which nothing changes
    cluster.resize(ACME, "sized", requests={"cpu": "200m"}, limits={"cpu": "200m"})
    cluster.apply(workloads.namespace(MOVING, {"billing/customer": "globex"}), rolling(ACME, "2"))
    cluster.remove(twin(ACME))
    cluster.apply(twin(ACME))
    uids["twin-again"] = cluster.in_phase(ACME, "twin", "Running")["metadata"]["uid"]
    uids["api-2"] = _only(cluster, ACME, "app=api,version=2")
    until(lambda: cluster.pod(ACME, "crash")["status"]["containerStatuses"][0]["restartCount"] >= 2, "it failed twice")
    time.sleep(21)
    cluster.displace(static(ACME))
    cluster.remove(*pods, job, rolling(ACME, "2"))


def _only(cluster: Cluster, where: str, selector: str) -> str:
    """The uid of the one running pod that fits."""

    def one() -> Any:
        path = f"/api/v1/namespaces/{where}/pods"
        found = [p for p in cluster.api.get(path, labelSelector=selector)["items"] if p["status"]["phase"] == "Running"]
        return found[0] if len(found) == 1 else None

    return str(until(one, f"{selector} runs")["metadata"]["uid"])


def test_the_books_of_a_busy_node_close_to_the_nanosecond(lived: Lived) -> None:
    """What kubepods counted = Σ by customer + system + unattributed + Δ in flight; and that is what was there (L1)."""
    assert lived.run.faults() == []
    assert lived.run.moved.counter > len(lived.run.churn.made) * 0.5 * NS


def test_polling_the_summary_misses_what_the_agent_books(lived: Lived) -> None:
    """In the same run; the least that any way of reading it misses is a fifth."""
    polling = lived.run.polling
    assert len(polling.truth) >= CHURN / 15
    assert max(polling.seen().values()) < 0.8 * polling.moved()


KINDS = {
    "moment-0": "globex", "moment-1": "globex", "moment-2": "globex", "crash": "acme", "mixed": "acme",
    "sized": "acme", "twin": "acme", "twin-again": "acme", "hostnet": "globex", "static": "acme", "api-1": "acme",
    "api-2": "acme", "spoof": "acme", "allowed": "initech",
}  # fmt: skip


@pytest.mark.parametrize("name", KINDS)
def test_a_pods_customer_pays_what_its_own_counter_ended_with(lived: Lived, name: str) -> None:
    """Of every kind: short Jobs, crash loops, init containers and sidecars, static pods, pods made again (L1, L2)."""
    billed = lived.billed(name)
    assert billed.keys() == {KINDS[name]}
    assert sum(int(record["quantity"]) for record in lived.of(name, DIMENSION)) == billed[KINDS[name]]


def test_each_kind_of_pod_did_what_it_is_for(lived: Lived) -> None:
    """The counters are not those of idle pods."""
    assert all(lived.used(f"moment-{n}") >= 0.3 * NS for n in range(3))
    assert lived.used("crash") >= 0.6 * NS
    assert lived.used("mixed") >= 0.3 * NS


def test_a_namespace_relabelled_mid_window_splits_its_pod_between_both(lived: Lived) -> None:
    """Each nanosecond is one customer's; the span since the label was last seen is the former's, and marked so."""
    billed = lived.billed("mover")
    assert min(billed["acme"], billed["globex"]) > 0.5 * NS
    assert billed.keys() == {"acme", "globex"}
    uncertain = [r for r in lived.of("mover", "cpu") if "owner_uncertain" in r["flags"]]
    assert [r["customer"] for r in uncertain] == ["acme"]


def test_a_pod_cannot_charge_another_customer(lived: Lived) -> None:
    """Its namespace's owner pays, or nobody; the claim is counted (L11)."""
    assert lived.billed("spoof").keys() == {"acme"}
    assert lived.billed("greedy").keys() == {"unattributed"}
    assert lived.refused[1] > lived.refused[0]


def test_a_pod_in_the_hosts_network_is_never_billed_the_nodes_traffic(lived: Lived) -> None:
    """Its CPU is."""
    for dimension in ("received", "sent"):
        assert lived.of("hostnet", dimension) == []
        assert lived.of("mixed", "sent") != []
    assert lived.of("hostnet", "cpu") != []


def test_what_a_pod_requests_is_billed_as_it_is_resized(lived: Lived) -> None:
    """A tenth of a core for a whole window, later a fifth, and nothing between two windows of the same."""
    whole = [r for r in lived.of("sized", "cpu_requested") if r["covered"] == "10.000000000"]
    quantities = [int(record["quantity"]) for record in whole]
    assert quantities[0] == NS
    assert quantities[-1] == 2 * NS
    assert all(former <= later for former, later in pairwise(quantities))


def test_what_is_delivered_is_what_is_booked(lived: Lived) -> None:
    """Once each: by the files on the node, no id twice, and all that is not in an open window (L2, L3)."""
    ids = [record["id"] for record in lived.records]
    assert len(ids) == len(set(ids)) == lived.delivered.records
    sums: dict[str, int] = {}
    for record in lived.records:
        if record["dimension"] == DIMENSION:
            bearer = record["customer"] or record["kind"]
            sums[bearer] = sums.get(bearer, 0) + int(record["quantity"])
    booked = lived.delivered
    assert sums == {bearer: booked.by[bearer] - booked.open.get(bearer, 0) for bearer in booked.by}


def test_a_pod_is_explained_after_it_is_gone(lived: Lived) -> None:
    """By name, each incarnation by itself, in the agent's own pod (L12)."""
    text = lived.installed.cli("explain", "pod", f"{ACME}/twin")
    assert lived.uids["twin"] in text
    assert lived.uids["twin-again"] in text
    assert "customers[acme].match[0] namespace=acme-*" in text
    assert POD_LABEL in lived.installed.cli("explain", "pod", lived.uids["allowed"])
