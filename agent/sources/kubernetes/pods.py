"""The pods of one node, by their cgroups: what the kernel counted of each, from its making to its removal.

Nobody is asked for anything on the way: the kubelet and its runtime spend forty times what the cgroups cost. Names and
labels come from `Pods`, whenever it knows them.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Literal

from msgspec import structs

from agent.model import Meter, Reading, Resource, Sample, Sweep
from agent.sources import Asked, Asking
from agent.sources.devices import Devices
from agent.sources.group import Group
from agent.sources.groups import Groups
from agent.sources.hierarchy import Layout
from agent.sources.kernel import boot_id, boottime
from agent.sources.kubernetes.facts import Facts, Pods
from agent.sources.kubernetes.meters import EXTENDED, METERS, NETWORK
from agent.sources.kubernetes.names import classes, uid_of
from agent.sources.kubernetes.network import Network
from agent.sources.tree import Node

ANCHORS = ("kubepods", "kubepods.slice")


class PodSource:
    """The pods below `anchors`, the anchors themselves, and the groups `system` for the books of the rest of the node.

    `root` is where the node's /proc and /sys are. `wanted` and `aspects` ("limit", "request") say which meters and
    levels are read at all. The label `pod_uid` is the UID in the cgroup's name: of a static pod, its config hash.
    """

    def __init__(
        self,
        id: str,  # noqa: A002 - the Protocol's word
        root: str,
        pods: Pods,
        *,
        anchors: Iterable[str] = ANCHORS,
        system: Iterable[str] = (),
        network: bool = True,
        boot: str | None = None,
        clock: Callable[[], int] = boottime,
        wanted: frozenset[str] | None = None,
        aspects: frozenset[str] = frozenset(),
    ) -> None:
        self.id = id
        self.meters: tuple[Meter, ...] = METERS
        wanted = wanted if wanted is not None else frozenset(meter.name for meter in METERS)
        boot = boot if boot is not None else boot_id(root)
        self._pods, self._scheme = pods, _Scheme(tuple(anchors), tuple(system), pods, wanted, aspects)
        self._groups = Groups(
            id,
            METERS,
            self._scheme,
            Layout(root),
            Devices(root),
            (*self._scheme.anchors, *self._scheme.system),
            boot=boot,
            clock=clock,
            books=True,
            wanted=wanted,
            aspects=frozenset(),  # what a pod may use and has asked for is in its facts
        )
        metered = network and not wanted.isdisjoint(NETWORK)
        self._network = (
            Network(root, boot, clock, wanted, self._scheme.uid_of, self._scheme.on_host) if metered else None
        )
        self._extended = EXTENDED in wanted
        self._allotted: dict[tuple[str, str], tuple[Resource, Resource]] = {}  # key, what → pod's resource, its own
        self._version = -1
        self._introduced: dict[str, Mapping[str, str]] = {}
        self._listed: tuple[frozenset[str], set[str], frozenset[str]] = frozenset(), set(), frozenset()

    def fileno(self) -> int:
        """Readable when a pod or a container came or went."""
        return self._groups.fileno()

    def next_read_within(self, now: int) -> int:
        """Nanoseconds until `read` is due again: 1 s, or 0.1 s while a pod is younger than 1 s."""
        return self._groups.next_read_within(now)

    def read(self) -> bool:
        """Keep the latest counters. True while a dead pod waits for a sweep, and when a living one may change hands.

        Raises SourceError when the network of pods cannot be told from the node's.
        """
        died = self._groups.read()
        changed = self._name_again()
        self._follow_networks()
        return died or changed

    def sweep(self) -> Sweep:
        """Every meter of every pod. Raises SourceError when one could not be read: then nothing of it counts."""
        self._introduced.update(self._pods.introduced())  # before names are asked for, which are then as new or newer
        self._name_again()
        swept = self._groups.sweep()
        self._follow_networks()
        beside = self._readings_of_extended() if self._extended else []
        scope = swept.scope
        if self._network is not None:
            networks, scopes = self._network.sweep()
            beside += networks
            scope = frozenset({*scope, *scopes})
        uids = [uid for group in self._groups.living.values() if (uid := _uid(group.resource)) is not None]
        sweep = structs.replace(
            swept,
            readings=[*swept.readings, *beside],
            listing=self._listing(swept.listing, {r.resource.key for r in beside if not r.gone}),
            scope=scope,
            remember=self._pods.remember(uids),
            introduced=self._introduced,
        )
        self._introduced = {}
        return sweep

    async def follow(self) -> None:
        """Keep what is known of the pods up to date, for ever."""
        try:
            await self._pods.follow()
        finally:
            await self._pods.close()

    def asked(self) -> Asked | None:
        """How asking the API server goes."""
        return self._pods.asked() if isinstance(self._pods, Asking) else None

    def close(self) -> None:
        """Release every file and watch; safe to call twice."""
        self._groups.close()
        if self._network is not None:
            self._network.close()

    def _name_again(self) -> bool:
        """Take up what has become known; whether it is another thing than was known of a living pod."""
        version = self._pods.version()
        if version == self._version:
            return False
        self._version = version
        return any("namespace" in former.labels for former in self._groups.name_again())

    def _follow_networks(self) -> None:
        if self._network is not None:
            self._network.follow(self._groups.living, self._groups.stirred, self._groups.young)

    def _readings_of_extended(self) -> list[Reading]:
        """Whole units that are a pod's while it exists, used or not."""
        found: list[Reading] = []
        before, self._allotted = self._allotted, {}
        living = ((group, False) for group in self._groups.living.values())
        for group, gone in (*living, *((group, True) for group in self._groups.buried)):
            of, facts = group.resource, self._scheme.facts(group.resource)
            for what, units in facts.extended.items() if facts is not None else ():
                was, resource = before.get((of.key, what), (None, None))
                if was is not of or resource is None:
                    labels = {**of.labels, "extended_resource": what}
                    resource = Resource(f"{of.key}/{what}", f"{of.name}/{what}", labels=labels)
                self._allotted[of.key, what] = of, resource
                found.append(Reading(resource, (Sample(EXTENDED, of.key, units, group.taken),), gone))
        return found

    def _listing(self, groups: frozenset[str], beside: set[str]) -> frozenset[str]:
        """All keys there are; the same object until something comes or goes."""
        if self._listed[0] is not groups or self._listed[1] != beside:
            self._listed = groups, beside, groups | beside
        return self._listed[2]


class _Scheme:
    """Pods by the kubelet's names, labelled with what is known of them."""

    def __init__(
        self,
        anchors: tuple[str, ...],
        system: tuple[str, ...],
        pods: Pods,
        wanted: frozenset[str],
        aspects: frozenset[str],
    ) -> None:
        self.anchors, self.system, self._pods = anchors, system, pods
        self._alive = "alive.time" in wanted
        self._wanted, self._aspects = wanted, aspects
        above = (*anchors, *(name for anchor in anchors for name in classes(anchor)))
        self._entered = frozenset(above) | {a.rpartition("/")[0] for a in above}

    def uid_of(self, node: Node) -> str | None:
        return uid_of(self.anchors, node.path)

    def on_host(self, uid: str) -> bool:
        facts = self._pods.of(uid)
        return facts is not None and facts.host_network

    def facts(self, resource: Resource) -> Facts | None:
        """What is known of the pod that this is the resource of; None of any other."""
        uid = _uid(resource)
        return self._pods.of(uid) if uid is not None else None

    def metered(self, node: Node) -> bool:
        return node.path in self.anchors or node.path in self.system or self.uid_of(node) is not None

    def descends(self, node: Node) -> bool:
        return node.path in self._entered

    def named(self, group: Group) -> tuple[str, Mapping[str, str]]:
        node = group.node
        uid = self.uid_of(node)
        if uid is None:
            return node.name, {"cgroup": node.name} | ({"system": "node"} if node.path in self.system else {})
        facts = self._pods.of(uid)
        if facts is None:
            return f"pod{uid}", {"pod_uid": uid}
        return facts.name, facts.labels if facts.labels.get("pod_uid") == uid else {**facts.labels, "pod_uid": uid}

    def stated(self, group: Group) -> list[Sample]:
        """That it lives, and what it asked for and may use at most."""
        facts = self.facts(group.resource)
        samples = []
        if self._alive and _uid(group.resource) is not None:
            samples.append(Sample("alive.time", group.identity, 1, group.taken))
        if facts is not None:
            samples += self._levels(group, "request", facts.requests)
            samples += self._levels(group, "limit", facts.limits)
        return samples

    def _levels(self, group: Group, aspect: Literal["request", "limit"], levels: Mapping[str, int]) -> Iterable[Sample]:
        if aspect not in self._aspects:
            return ()
        wanted = ((meter, level) for meter, level in levels.items() if meter in self._wanted)
        return (Sample(meter, group.identity, level, group.taken, aspect) for meter, level in wanted)

    def forget_old(self) -> None:
        """Nothing is kept here."""


def _uid(resource: Resource) -> str | None:
    return resource.labels.get("pod_uid")
