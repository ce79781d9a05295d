"""Each kind of pod that the tests of metering make is really of its kind, as its group and the API server say."""

import pytest

from tests.cluster import workloads
from tests.cluster.addresses import NODE
from tests.cluster.cluster import Cluster
from tests.cluster.waiting import until
from tests.cluster.witness import Witness, pods

pytestmark = [pytest.mark.real, pytest.mark.timeout(1200)]

NS = 1_000_000_000
TEAM = "team-b"


@pytest.fixture(autouse=True, scope="module")
def team(cluster: Cluster) -> None:
    """A namespace to make pods in."""
    cluster.apply(workloads.namespace(TEAM, {"tenant": "globex"}))


def used(cluster: Cluster, uid: str) -> int:
    """The CPU counter of a pod that is there, in ns."""
    return int((pods(cluster.node.groups)[uid] / "cpuacct.usage").read_text())


def test_jobs_of_a_moment_are_seen_each(cluster: Cluster) -> None:
    """0.3 s each, and no more than their sandboxes beyond it."""
    with Witness(cluster.node.groups) as witness:
        cluster.apply(workloads.job(TEAM, "moment", 0.3, pods=3, at_once=2))
        path = f"/apis/batch/v1/namespaces/{TEAM}/jobs/moment"
        until(lambda: cluster.api.get(path)["status"].get("succeeded") == 3, "the Job is complete")
        made = cluster.api.get(f"/api/v1/namespaces/{TEAM}/pods", labelSelector="job-name=moment")["items"]
        uids = [pod["metadata"]["uid"] for pod in made]
        until(lambda: not set(uids) & set(pods(cluster.node.groups)), "its pods' groups are gone")
    assert len(uids) == 3
    assert all(0.3 * NS <= witness.last[uid] < 0.5 * NS for uid in uids)


def test_a_crash_loop_keeps_its_pods_counter(cluster: Cluster) -> None:
    """The group outlives the containers, and has what the dead ones used."""
    cluster.apply(workloads.crasher(TEAM, "crash", 0.2, after=0.2))
    uid = cluster.in_phase(TEAM, "crash", "Running")["metadata"]["uid"]

    def restarts() -> int:
        statuses = cluster.pod(TEAM, "crash")["status"].get("containerStatuses", [{}])
        return int(statuses[0].get("restartCount", 0))

    until(lambda: restarts() >= 1, "it was started again")
    until(lambda: used(cluster, uid) >= 0.4 * NS, "and burned again")
    cluster.remove(workloads.crasher(TEAM, "crash", 0.2))


def test_init_containers_and_sidecars_are_in_their_pod(cluster: Cluster) -> None:
    """An init container that is done, a sidecar that goes on, and the main container: one counter."""
    first = workloads.container("first", ("burn", "0.3"))
    proxy = workloads.container("proxy", workloads.steady(0.02), sidecar=True)
    main = workloads.container("main", workloads.PAUSE)
    cluster.apply(workloads.pod(TEAM, "mixed", main, initContainers=[first, proxy]))
    pod = cluster.in_phase(TEAM, "mixed", "Running")
    uid = pod["metadata"]["uid"]
    assert used(cluster, uid) >= 0.3 * NS
    before = used(cluster, uid)
    until(lambda: used(cluster, uid) > before, "the sidecar works")
    states = until(lambda: cluster.pod(TEAM, "mixed")["status"]["initContainerStatuses"], "both are known")
    assert [sorted(status["state"]) for status in states] == [["terminated"], ["running"]]


def test_a_pod_on_the_hosts_network_has_the_nodes_address(cluster: Cluster) -> None:
    """So its counters of the network would be the node's own."""
    cluster.apply(workloads.pod(TEAM, "hostnet", workloads.container("main", workloads.PAUSE), hostNetwork=True))
    pod = cluster.in_phase(TEAM, "hostnet", "Running")
    node = cluster.api.get(f"/api/v1/nodes/{NODE}")
    assert pod["status"]["podIP"] in [address["address"] for address in node["status"]["addresses"]]


def test_a_static_pods_group_is_named_by_its_hash(cluster: Cluster) -> None:
    """The API server's uid of its mirror is another one."""
    static = workloads.pod(TEAM, "static", workloads.container("main", workloads.steady(0.02)))
    cluster.place(static)
    pod = cluster.in_phase(TEAM, f"static-{NODE}", "Running")
    digest = pod["metadata"]["annotations"]["kubernetes.io/config.hash"]
    assert digest in pods(cluster.node.groups)
    assert pod["metadata"]["uid"] not in pods(cluster.node.groups)
    cluster.displace(static)
    until(lambda: digest not in pods(cluster.node.groups), "it is gone")


def test_a_rolling_update_makes_other_pods(cluster: Cluster) -> None:
    """Every pod of the new version is a new one."""
    selector = {"labelSelector": "app=web"}
    path = f"/api/v1/namespaces/{TEAM}/pods"

    def uids(version: str) -> set[str]:
        found = cluster.api.get(path, **selector)["items"]
        return {
            pod["metadata"]["uid"]
            for pod in found
            if pod["metadata"]["labels"]["version"] == version and pod["status"]["phase"] == "Running"
        }

    def web(version: str) -> workloads.Object:
        main = workloads.container("main", workloads.PAUSE)
        return workloads.deployment(TEAM, "web", 2, main, labels={"version": version})

    cluster.apply(web("1"))
    old = until(lambda: uids("1") if len(uids("1")) == 2 else None, "two pods run")
    cluster.apply(web("2"))
    new = until(lambda: uids("2") if len(uids("2")) == 2 and not uids("1") else None, "two others run")
    assert old is not None
    assert new is not None
    assert not old & new


def test_a_pod_made_again_under_its_name_is_another_one(cluster: Cluster) -> None:
    """With another uid and a group that begins at zero."""
    pod = workloads.pod(TEAM, "twin", workloads.container("main", workloads.steady(0.1)))
    cluster.apply(pod)
    first = cluster.in_phase(TEAM, "twin", "Running")["metadata"]["uid"]
    cluster.remove(pod)
    cluster.apply(pod)
    second = cluster.in_phase(TEAM, "twin", "Running")["metadata"]["uid"]
    assert first != second
    assert second in pods(cluster.node.groups)


def test_a_namespace_gets_another_label(cluster: Cluster) -> None:
    """As a platform team would move it to another customer."""
    cluster.apply(workloads.namespace("moving", {"tenant": "acme"}))
    cluster.apply(workloads.namespace("moving", {"tenant": "globex"}))
    assert cluster.api.get("/api/v1/namespaces/moving")["metadata"]["labels"]["tenant"] == "globex"


def test_a_pod_is_resized_in_place(cluster: Cluster) -> None:
    """Its container goes on under another limit."""
    amounts = {"cpu": "100m", "memory": "32Mi"}
    main = workloads.container("main", workloads.PAUSE, requests=amounts, limits=amounts)
    cluster.apply(workloads.pod(TEAM, "sized", main))
    pod = cluster.in_phase(TEAM, "sized", "Running")
    started = pod["status"]["containerStatuses"][0]["containerID"]
    quota = cluster.node.groups.path("cpu") / f"kubepods/pod{pod['metadata']['uid']}/cpu.cfs_quota_us"
    before = int(quota.read_text())
    cluster.resize(TEAM, "sized", requests={"cpu": "200m"}, limits={"cpu": "200m"})
    until(lambda: int(quota.read_text()) == 2 * before, "the pod's quota is doubled")
    status = cluster.pod(TEAM, "sized")["status"]["containerStatuses"][0]
    assert status["containerID"] == started
    assert status["restartCount"] == 0


def test_many_pods_at_once(cluster: Cluster) -> None:
    """Twenty here; benches make hundreds."""
    many = workloads.pauses(TEAM, 20)
    before = set(pods(cluster.node.groups))
    cluster.apply(*many)
    until(lambda: len(set(pods(cluster.node.groups)) - before) >= 20, "all have groups")
    cluster.kubectl("delete", "pods", "-n", TEAM, "--all", "--wait=false", "--grace-period=0", "--force")
