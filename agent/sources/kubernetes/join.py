"""Pods, namespaces and the node, joined into the facts of each pod. No clock and no I/O; called on the loop alone.

Whoever may edit a pod may edit its labels and its owners, so these are read once for each uid; labels of namespaces and
of the node are followed. A pod is published when all is known that rules may ask about it: a half of that could match a
rule which the other half would have overruled.
"""

import re
from collections import deque
from collections.abc import Collection, Iterable, Mapping

from msgspec import Struct, structs

from agent.sources.kubernetes.effective import Effective, effective
from agent.sources.kubernetes.facts import Facts
from agent.sources.kubernetes.objects import Annotated, Metadata, Pod, PodMetadata, Thing

TEMPLATE_HASH = "pod-template-hash"
MOST_PARTED = 1000
_HASH = re.compile(r"[0-9a-f]{32}")  # no uid of the API looks like this, so that nobody can claim another's


class Seen(Struct, frozen=True):
    """What a pod said of itself when it was first seen. A label that it did not have is None."""

    owner: str | None
    labels: Mapping[str, str | None]


class Known(Struct, frozen=True):
    """What is kept of a pod, also across restarts."""

    facts: Facts
    seen: Seen


class View(Struct, frozen=True):
    """What is published, replaced as a whole so that another thread may read it.

    `known` and `present` (whom the API has) go by the uid in the cgroup's name; `facts` has mirror pods by both uids.
    """

    serial: int
    known: Mapping[str, Known]
    facts: Mapping[str, Facts]
    present: frozenset[str] = frozenset()
    listed: bool = False  # whether `present` says anything yet


class _Pod(Struct, frozen=True):
    """A pod that the API has. `key` is the uid in its cgroup's name."""

    key: str
    uid: str
    namespace: str
    name: str
    created: str
    host_network: bool
    effective: Effective
    seen: Seen


class _Namespace(Struct, frozen=True):
    created: str
    labels: Mapping[str, str]  # as rules see them


class Join:
    """Told of objects, it publishes a `view`. `introduced`: uid and labels of each pod when it was first known.

    `forgettable` is set by the reader: whom nobody needs any more if the API has not got them either. `misread` counts
    pods whose requests are not understood.
    """

    def __init__(
        self, known: Mapping[str, Known], pod_label_keys: Collection[str], allow_annotation: str | None, *, node: bool
    ) -> None:
        self._keys, self._allow = pod_label_keys, allow_annotation
        self._pods: dict[str, _Pod] = {}  # by the API's uid
        self._parted: dict[str, _Pod] = {}  # gone from the API before all was known
        self._namespaces: dict[str, _Namespace] = {}
        self._node: Mapping[str, str] | None = None if node else {}
        self.view = View(0, known, {uid: kept.facts for uid, kept in known.items()})
        self.introduced: deque[tuple[str, Mapping[str, str]]] = deque()
        self.forgettable: frozenset[str] = frozenset()
        self.misread = 0

    # -- pods ------------------------------------------------------------------------------------------------------

    def pods(self, pods: Iterable[Pod]) -> None:
        """These are all that the API has."""
        before, self._pods = self._pods, {}
        for pod in pods:
            self._pods[pod.metadata.uid] = self._read(pod, before.get(pod.metadata.uid))
        for uid in before.keys() - self._pods.keys():
            self._part_with(before[uid])
        self._publish(self._pods.values(), listed=True)

    def pod(self, pod: Pod) -> None:
        """This one is new, or has changed."""
        read = self._pods[pod.metadata.uid] = self._read(pod, self._pods.get(pod.metadata.uid))
        self._publish([read])

    def no_pod(self, pod: Pod) -> None:
        """The API has it no more; what was known of it stays until it is forgettable."""
        read = self._pods.pop(pod.metadata.uid, None)
        if read is not None:
            self._part_with(read)
        self._publish([])

    def _part_with(self, pod: _Pod) -> None:
        """Its namespace may still come to be known: what a short-lived pod used waits for that."""
        if pod.key not in self.view.known:
            self._parted[pod.uid] = pod
            while len(self._parted) > MOST_PARTED:
                del self._parted[next(iter(self._parted))]

    def _read(self, pod: Pod, before: _Pod | None) -> _Pod:
        meta = pod.metadata
        key = before.key if before is not None else self._key(meta)
        known = self.view.known.get(key)
        seen = before.seen if before is not None else known.seen if known is not None else None
        try:
            counts = effective(pod)
        except ValueError:
            self.misread += 1
            counts = Effective({}, {}, {})
        return _Pod(
            key,
            meta.uid,
            meta.namespace,
            meta.name,
            meta.created or "",
            bool(pod.spec.host_network),
            counts,
            _first_sight(meta, self._keys, seen),
        )

    def _key(self, meta: PodMetadata) -> str:
        """The uid in the cgroup's name: of a mirror pod the hash of its file, unless another has it already."""
        said = meta.annotations
        config = said.config if said is not None and said.mirror == said.config else None
        if config is None or not _HASH.fullmatch(config):
            return meta.uid
        return meta.uid if any(pod.key == config for pod in self._pods.values()) else config

    # -- namespaces and the node -----------------------------------------------------------------------------------

    def namespaces(self, namespaces: Iterable[Thing]) -> None:
        """These are all."""
        self._namespaces = {thing.metadata.name: self._labels(thing.metadata) for thing in namespaces}
        self._publish([*self._pods.values(), *self._parted.values()])

    def namespace(self, thing: Thing) -> None:
        """This one is new, or has changed."""
        name = thing.metadata.name
        self._namespaces[name] = self._labels(thing.metadata)
        pods = (*self._pods.values(), *self._parted.values())
        self._publish([pod for pod in pods if pod.namespace == name])

    def no_namespace(self, thing: Thing) -> None:
        """It is no more: what its pods were known by stays."""
        self._namespaces.pop(thing.metadata.name, None)

    def nodes(self, nodes: Iterable[Thing]) -> None:
        """Our own node, or none: a node that is gone from the API leaves its labels."""
        for thing in nodes:
            self.node(thing)

    def node(self, thing: Thing) -> None:
        """Our own node has these labels."""
        self._node = {f"node_label.{key}": value for key, value in (thing.metadata.labels or {}).items()}
        self._publish([*self._pods.values(), *self._parted.values()])

    def _labels(self, meta: Annotated) -> _Namespace:
        labels = {f"namespace_label.{key}": value for key, value in (meta.labels or {}).items()}
        allowed = None if self._allow is None else (meta.annotations or {}).get(self._allow)
        if allowed is not None:
            labels["allowed_customers"] = allowed
        return _Namespace(meta.created or "", labels)

    # -- publishing ------------------------------------------------------------------------------------------------

    def _publish(self, pods: Iterable[_Pod], *, listed: bool = False) -> None:
        before = self.view
        present = frozenset(pod.key for pod in self._pods.values())
        fresh: dict[str, Known] = {}
        introduced: list[tuple[str, Mapping[str, str]]] = []
        for pod in pods:
            if (facts := self._facts(pod)) is None:
                continue
            known = before.known.get(pod.key)
            if known is None:
                introduced.append((pod.key, facts.labels))
                self._parted.pop(pod.uid, None)
            elif known.facts == facts:
                facts = known.facts
            if known is None or known.facts is not facts or known.seen != pod.seen:
                fresh[pod.key] = Known(facts, pod.seen)
        forgotten = (self.forgettable & before.known.keys()) - present
        if not fresh and not forgotten and present == before.present and (before.listed or not listed):
            return
        known_now = {key: kept for key, kept in before.known.items() if key not in forgotten} | fresh
        facts_now = {key: kept.facts for key, kept in known_now.items()}
        aliases = {p.uid: facts_now[p.key] for p in self._pods.values() if p.uid != p.key and p.key in facts_now}
        self.view = View(before.serial + 1, known_now, facts_now | aliases, present, before.listed or listed)
        self.introduced.extend(introduced)

    def _facts(self, pod: _Pod) -> Facts | None:
        """None as long as something is missing, or what is there is of a namespace that came after the pod."""
        namespace = self._namespaces.get(pod.namespace)
        if namespace is None or self._node is None or pod.created < namespace.created:
            return None
        labels = {"pod_uid": pod.key, "namespace": pod.namespace, "pod": pod.name}
        if pod.seen.owner is not None:
            labels["owner"] = pod.seen.owner
        labels |= {f"pod_label.{k}": v for k, v in pod.seen.labels.items() if v is not None and k in self._keys}
        counts, name = pod.effective, f"{pod.namespace}/{pod.name}"
        return Facts(
            name,
            {**labels, **namespace.labels, **self._node},
            pod.host_network,
            counts.requests,
            counts.limits,
            counts.extended,
        )


def _first_sight(meta: Metadata, keys: Iterable[str], before: Seen | None) -> Seen:
    """What was seen first, and of keys that are new in the configuration what is there now."""
    labels = meta.labels or {}
    now = {key: labels.get(key) for key in keys}
    if before is None:
        return Seen(_owner(meta, labels), now)
    return before if now.keys() <= before.labels.keys() else structs.replace(before, labels={**now, **before.labels})


def _owner(meta: Metadata, labels: Mapping[str, str]) -> str | None:
    """The controller as `Kind/name`. A ReplicaSet that a Deployment made is named after it and the template's hash."""
    for owner in meta.owners or ():
        if owner.controller:
            stem = owner.name.removesuffix(f"-{labels.get(TEMPLATE_HASH)}")
            made = owner.kind == "ReplicaSet" and stem != owner.name
            return f"Deployment/{stem}" if made else f"{owner.kind}/{owner.name}"
    return None
