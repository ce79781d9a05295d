"""A node with pods, metered into a real spool: what becomes known of each, and when, is set by hand."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from agent.attribution import Customer, Rules
from agent.metering import Metering, Plan
from agent.model import NS_PER_S, Dimension, Meter, Reading, Resource, Sample, Sweep
from agent.sources.cgroups import METERS as OF_GROUPS
from agent.spool import Spool

S = NS_PER_S
EPOCH = 1_800_000_000 * S  # 2027-01-15T08:00:00Z, on the edge of a window
BOOTED = 10_000 * S
WINDOW = 60 * S

RECEIVED = Meter("network.receive_bytes", "byte", "counter", "none", "net/dev")
SENT = Meter("network.transmit_bytes", "byte", "counter", "none", "net/dev")
METERS = {meter.name: meter for meter in (*OF_GROUPS, RECEIVED, SENT)}
DIMENSIONS = (
    Dimension("cpu", "cpu.time"),
    Dimension("memory", "memory.working_set"),
    Dimension("received", RECEIVED.name),
    Dimension("sent", SENT.name),
)

ACME = Customer("acme", ({"namespace": "acme"},))
BLUE = Customer("blue", ({"namespace_labels": "tenant=blue"},))


class Pod:
    """One incarnation. `labels` is None until its metadata has come."""

    def __init__(self, uid: str, labels: Mapping[str, str] | None, network: bool) -> None:
        self.uid, self.labels, self.network = uid, labels, network
        self.cpu = self.received = self.sent = 0
        self.memory = 4096

    def readings(self, taken: int, *, gone: bool) -> list[Reading]:
        """Its cgroup, and its interface."""
        labels = {"pod_uid": self.uid, **(self.labels or {})}
        name = f"{labels['namespace']}/{labels['pod']}" if self.labels else f"pod{self.uid}"
        group = Resource(f"k/{self.uid}", name, "k/kubepods", "kubepods", labels)
        samples = (
            Sample("cpu.time", self.uid, self.cpu, taken),
            Sample("memory.working_set", self.uid, self.memory, taken),
        )
        found = [Reading(group, samples, gone)]
        if self.network:
            eth0 = Resource(f"k/{self.uid}/2", f"{name}/eth0", labels={**labels, "interface": "eth0"})
            traffic = (
                Sample(RECEIVED.name, self.uid, self.received, taken),
                Sample(SENT.name, self.uid, self.sent, taken),
            )
            found.append(Reading(eth0, traffic, gone))
        return found


class Node:
    """An agent without its daemon, its one source and its clock."""

    id, meters = "kubernetes", tuple(METERS.values())

    def __init__(self, home: Path, *customers: Customer, dimensions: Sequence[Dimension] = DIMENSIONS) -> None:
        self.home, self.now = home, BOOTED
        self.pods: dict[str, Pod] = {}
        self._dead: list[Pod] = []
        self._burnt = 0
        self._introduced: dict[str, Mapping[str, str]] = {}
        self.spool = Spool.open(home / "data", run_dir=home / "run", fingerprint={}, now=EPOCH, reserve=0)
        self.metering = Metering(
            self.spool,
            Plan(
                cluster="c",
                node="n",
                meters=METERS,
                feeds=dict.fromkeys(METERS, frozenset({self.id})),
                dimensions=tuple(dimensions),
                rules=Rules(customers),
                window=WINDOW,
                interval=15 * S,
                fresh_boot=0,
                hold=3600 * S,
                accept_after=3600 * S,
            ),
            home / "run",
            now=lambda: (EPOCH + self.now - BOOTED, self.now),
            synchronised=lambda: True,
            boot="boot",
        )
        self.metering.sweep(self)

    def start(self, uid: str, labels: Mapping[str, str] | None = None, *, network: bool = False) -> Pod:
        """A pod is made."""
        self.pods[uid] = Pod(uid, labels, network)
        return self.pods[uid]

    def introduce(self, uid: str, labels: Mapping[str, str]) -> None:
        """Its metadata comes, alive or not."""
        self._introduced[uid] = {"pod_uid": uid, **labels}
        if uid in self.pods:
            self.pods[uid].labels = labels

    def end(self, uid: str) -> None:
        """It goes, with a last reading."""
        self._dead.append(self.pods.pop(uid))

    def burn(self, uid: str, ns: int) -> None:
        """It uses CPU time."""
        self.pods[uid].cpu += ns
        self._burnt += ns

    def run(self, seconds: int = 15, times: int = 1) -> None:
        """So many sweeps, each after so long."""
        for _ in range(times):
            self.now += seconds * S
            self.metering.sweep(self)

    def sweep(self) -> Sweep:
        """Everything as it stands."""
        anchor = Resource("k/kubepods", "kubepods", None, "kubepods", {"cgroup": "kubepods"})
        readings = [Reading(anchor, (Sample("cpu.time", "kubepods", self._burnt, self.now),))]
        for pod in self.pods.values():
            readings += pod.readings(self.now, gone=False)
        listing = frozenset(reading.resource.key for reading in readings)
        for pod in self._dead:
            readings += pod.readings(self.now, gone=True)
        introduced, self._dead, self._introduced = self._introduced, [], {}
        return Sweep(self.id, "boot", self.now, readings, listing, introduced=introduced)

    def close(self) -> None:
        """Nothing is held."""
