"""A real kubelet, asked with a service account's token: what is billed is what the pods' own counters come to."""

import asyncio
import hashlib
import ssl
import time
from pathlib import Path

import pytest

from agent.errors import SourceError
from agent.sources.kernel import boottime
from agent.sources.kubernetes.kubelet import Kubelet
from agent.sources.kubernetes.meters import NETWORK
from agent.sources.kubernetes.summary import SummarySource
from tests.cluster import workloads
from tests.cluster.api import network_of
from tests.cluster.cluster import Cluster
from tests.cluster.waiting import until
from tests.cluster.witness import pods
from tests.sources.kubernetes.summaries import BOOT, Agent, facts

pytestmark = [pytest.mark.real, pytest.mark.timeout(1200)]

TEAM, ACCOUNT = "summary", "metering-agent"
EVERY = 2.0  # s between answers; the kubelet's own readings are 10 to 20 s apart
SETTLED = 120.0  # s in which a kubelet has read what is idle by now
ROLE = {
    "apiVersion": "rbac.authorization.k8s.io/v1",
    "kind": "ClusterRole",
    "metadata": {"name": "metering-agent-summary"},
    "rules": [{"apiGroups": [""], "resources": ["nodes/stats"], "verbs": ["get"]}],
}
BINDING = {
    "apiVersion": "rbac.authorization.k8s.io/v1",
    "kind": "ClusterRoleBinding",
    "metadata": {"name": "metering-agent-summary"},
    "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "metering-agent-summary"},
    "subjects": [{"kind": "ServiceAccount", "name": ACCOUNT, "namespace": TEAM}],
}


class RealAgent(Agent):
    """An agent of this node, that asks its kubelet over the node's network."""

    def __init__(self, cluster: Cluster, token_file: Path, pin: str | None = None) -> None:
        self.cluster, self._token_file, self._pin = cluster, token_file, pin
        super().__init__()

    def start(self) -> SummarySource:
        ca_file = None if self._pin else self.cluster.node.etc / "ca.crt"
        asked = Kubelet(self.cluster.kubelet_url, token_file=self._token_file, ca_file=ca_file, pin=self._pin)
        return SummarySource("kubernetes", asked, self.pods, boot=BOOT, wall=time.time_ns, remembered=self.memory)

    def look(self) -> None:
        """Ask once, and book it."""
        pid = self.cluster.node.pid()
        assert pid is not None

        async def once() -> None:
            await self.source.ask()
            await self.source._kubelet.close()

        with network_of(pid):
            asyncio.run(once())
        self.sweep()

    def used(self, uid: str) -> int:
        """The pod's own counter."""
        return int((pods(self.cluster.node.groups)[uid] / "cpuacct.usage").read_text())

    def billed_of(self, uid: str, meter: str = "cpu.time") -> int:
        """What is booked of a pod."""
        return sum(u.quantity for u in self.usages if u.meter == meter and u.resource.labels["pod_uid"] == uid)

    def settles(self, uid: str) -> None:
        """Look again and again until all that the pod used is billed; never more."""
        deadline = time.monotonic() + SETTLED
        while True:
            self.look()
            billed, used = self.billed_of(uid), self.used(uid)  # the truth is read later, so it is never less
            assert billed <= used
            if billed == used:
                return
            assert time.monotonic() < deadline, f"{billed} of {used} ns after {SETTLED} s"
            time.sleep(EVERY)


@pytest.fixture(scope="module")
def token_file(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of an account that may do what the chart gives with the basis summary, and nothing else."""
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": ACCOUNT, "namespace": TEAM}}
    cluster.apply(workloads.namespace(TEAM))
    cluster.apply(account)
    file = tmp_path_factory.mktemp("account") / "token"
    file.write_text(cluster.kubectl("create", "token", ACCOUNT, "-n", TEAM, "--duration=1h"))
    return file


@pytest.fixture
def agent(cluster: Cluster, token_file: Path) -> RealAgent:
    """One that may ask."""
    cluster.apply(ROLE, BINDING)
    agent = RealAgent(cluster, token_file)
    until(lambda: _asks(agent), "the role is in force")
    time.sleep(1.1)  # starts are told in whole seconds: one in the second of the first look may be older than it
    return agent


def _asks(agent: RealAgent) -> bool:
    try:
        agent.look()
    except SourceError:
        return False
    return True


def test_without_the_role_it_says_which_is_missing(cluster: Cluster, token_file: Path) -> None:
    """The kubelet's own words, and the cure."""
    cluster.remove(BINDING)
    agent = RealAgent(cluster, token_file)
    until(lambda: not _asks(agent), "the role is no longer in force")
    with pytest.raises(SourceError, match=r"403: Forbidden .*subresource.*`get` on nodes/stats"):
        agent.look()


def test_a_token_of_nobody_is_refused(cluster: Cluster, tmp_path: Path) -> None:
    """401."""
    (tmp_path / "token").write_text("nobody")
    with pytest.raises(SourceError, match="401"):
        RealAgent(cluster, tmp_path / "token").look()


def test_its_certificate_may_be_pinned(cluster: Cluster, agent: RealAgent, token_file: Path) -> None:
    """The SHA-256 of what it shows."""
    pid = cluster.node.pid()
    assert pid is not None
    host, port = cluster.kubelet_url.removeprefix("https://").split(":")
    with network_of(pid):
        shown = ssl.PEM_cert_to_DER_cert(ssl.get_server_certificate((host, int(port))))
    RealAgent(cluster, token_file, pin=hashlib.sha256(shown).hexdigest()).look()
    with pytest.raises(SourceError, match="another one is pinned"):
        RealAgent(cluster, token_file, pin="0" * 64).look()


def test_a_new_pod_is_billed_what_its_counter_says_to_the_nanosecond(cluster: Cluster, agent: RealAgent) -> None:
    """From zero: its sandbox, and what it burned before the kubelet counted."""
    cluster.apply(workloads.burner(TEAM, "new", 2, sleep=600))
    uid = cluster.in_phase(TEAM, "new", "Running")["metadata"]["uid"]
    agent.settles(uid)
    assert agent.billed_of(uid) > 2_000_000_000
    assert agent.billed_of(uid, "network.receive_bytes") > 0
    cluster.remove(workloads.burner(TEAM, "new", 2))


def test_an_old_pod_is_billed_from_when_it_was_first_seen(cluster: Cluster, agent: RealAgent, token_file: Path) -> None:
    """A second agent that comes later bills nothing of the time before it."""
    cluster.apply(workloads.burner(TEAM, "old", 2, sleep=600))
    uid = cluster.in_phase(TEAM, "old", "Running")["metadata"]["uid"]
    agent.settles(uid)
    late = RealAgent(cluster, token_file)
    late.look()
    for _ in range(15):
        late.look()
        time.sleep(EVERY)
    assert late.billed_of(uid) == 0
    cluster.remove(workloads.burner(TEAM, "old", 2))


def test_a_crash_loop_and_a_kubelet_that_is_killed(cluster: Cluster, agent: RealAgent) -> None:
    """Absent in its back-off, its sum of containers after the kubelet's start: never more than the pod used."""
    crasher = workloads.crasher(TEAM, "crash", 0.5, after=0.5)
    cluster.apply(crasher)
    uid = cluster.in_phase(TEAM, "crash", "Running")["metadata"]["uid"]
    absent = 0
    for n in range(30):
        if n == 15:
            cluster.kill("kubelet")
            with pytest.raises(SourceError, match="no answer"):
                agent.look()
            cluster.start("kubelet")
            agent.restart()
        agent.look()
        assert agent.billed_of(uid) <= agent.used(uid)
        absent += not any(pod.listed for pod in agent.source._pods.values() if pod.uid == uid)
        time.sleep(EVERY)
    assert absent > 0
    until(lambda: _caught_up(agent, uid), "a life is billed", every=EVERY)
    cluster.remove(crasher)


def _caught_up(agent: RealAgent, uid: str) -> bool:
    """Whether all but the latest life, 0.5 s and its making, is billed."""
    agent.look()
    return agent.used(uid) - agent.billed_of(uid) < 1_000_000_000 < agent.billed_of(uid)


def test_a_pod_of_the_hosts_network_is_billed_no_interface(cluster: Cluster, agent: RealAgent) -> None:
    """The kubelet does show the node's."""
    spec = workloads.pod(TEAM, "hostnet", workloads.container("main", workloads.steady(0.05)), hostNetwork=True)
    cluster.apply(spec)
    uid = cluster.in_phase(TEAM, "hostnet", "Running")["metadata"]["uid"]
    agent.pods.facts[uid] = facts(uid, "hostnet", host_network=True)
    began = boottime()
    while agent.billed_of(uid) == 0 and boottime() - began < SETTLED * 1e9:
        agent.look()
        time.sleep(EVERY)
    assert agent.source._answer is not None
    shown = agent.source._answer.summary.by_uid[uid].network
    assert shown is not None
    assert max(interface.rx_bytes or 0 for interface in shown.counted) > 0
    meters = {u.meter for u in agent.usages if u.resource.labels["pod_uid"] == uid}
    assert not meters & set(NETWORK)
    cluster.remove(spec)
