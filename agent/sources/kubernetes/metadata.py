"""What the API server knows of this node's pods (`Pods`): written by the loop, read on the spool's thread."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Collection, Mapping

import msgspec
from msgspec import Struct

from agent.sources import Asked
from agent.sources.kernel import boottime
from agent.sources.kubernetes.access import Access
from agent.sources.kubernetes.facts import Facts
from agent.sources.kubernetes.join import Join, Known
from agent.sources.kubernetes.objects import Pod, Thing
from agent.sources.kubernetes.watch import Collection as Wanted
from agent.sources.kubernetes.watch import Timing, Watch


class Stats(Struct, frozen=True):
    """How asking goes. `last_heard`: boottime of the last word on what we heard of longest ago; `failing`: why."""

    requests: int
    relists: int  # lists beyond the first of each collection
    failures: int
    bytes: int
    last_heard: int
    failing: str | None


class Metadata:
    """Follows the pods of `node`, all namespaces and, with `node_labels`, the node.

    `remembered` is what `remember` once gave, so that pods are known before the API server answers, or without it.
    """

    def __init__(
        self,
        access: Access,
        node: str,
        *,
        pod_label_keys: frozenset[str],
        allow_annotation: str | None,
        node_labels: bool,
        remembered: Mapping[str, bytes],
        clock: Callable[[], int] = boottime,
        chance: Callable[[], float] = random.random,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._access = access
        self._persisted = {uid: _decoded(kept) for uid, kept in remembered.items()}
        known = {uid: kept for uid, kept in self._persisted.items() if kept is not None}
        join = self._join = Join(known, pod_label_keys, allow_annotation, node=node_labels)
        timing = Timing(clock, chance, sleep)
        pods = Wanted("/api/v1/pods", (("fieldSelector", f"spec.nodeName={node}"),))
        spaces = Wanted("/api/v1/namespaces", partial=True)
        self._pods = Watch(access, pods, Pod, join.pods, join.pod, join.no_pod, timing)
        self._things = [Watch(access, spaces, Thing, join.namespaces, join.namespace, join.no_namespace, timing)]
        if node_labels:
            nodes = Wanted("/api/v1/nodes", (("fieldSelector", f"metadata.name={node}"),), partial=True)
            self._things.append(Watch(access, nodes, Thing, join.nodes, join.node, _stays, timing))

    # -- read on the spool's thread --------------------------------------------------------------------------------

    def of(self, uid: str) -> Facts | None:
        """By the uid in the cgroup's name, or a mirror pod's in the API."""
        return self._join.view.facts.get(uid)

    def version(self) -> int:
        """Changes whenever some pod's facts did."""
        return self._join.view.serial

    def introduced(self) -> Mapping[str, Mapping[str, str]]:
        """Uid → labels, of pods first known since the last call."""
        waiting, found = self._join.introduced, {}
        while waiting:
            uid, labels = waiting.popleft()
            found[uid] = labels
        return found

    def remember(self, living: Collection[str]) -> Mapping[str, bytes | None]:
        """What to persist since the last call; None for a pod that neither the API has nor a living cgroup."""
        view = self._join.view
        gone = frozenset(view.known.keys() - view.present).difference(living) if view.listed else frozenset()
        self._join.forgettable = gone
        changes: dict[str, bytes | None] = {}
        for uid, kept in view.known.items():
            if uid not in gone and self._persisted.get(uid) is not kept:
                self._persisted[uid], changes[uid] = kept, msgspec.json.encode(kept)
        for uid in [uid for uid in self._persisted if uid in gone or (view.listed and uid not in view.known)]:
            del self._persisted[uid]
            changes[uid] = None
        return changes

    # -- on the loop -----------------------------------------------------------------------------------------------

    async def follow(self) -> None:
        """For ever. Raises nothing for what a network or an API server can do."""
        async with asyncio.TaskGroup() as tasks:
            for watch in self._watches:
                tasks.create_task(watch.follow())

    async def close(self) -> None:
        """Connections end with `follow`, which is cancelled; nothing else is held."""

    def asked(self) -> Asked:
        """What telemetry says of it."""
        stats = self.stats
        return Asked(stats.requests, stats.relists, stats.failing is not None, stats.last_heard)

    @property
    def stats(self) -> Stats:
        """As things stand."""
        return Stats(
            self._access.requests,
            sum(max(0, watch.lists - 1) for watch in self._watches),
            sum(watch.failures for watch in self._watches) + self._join.misread,
            self._access.received,
            min(watch.heard for watch in self._watches),
            next((watch.failing for watch in self._watches if watch.failing is not None), None),
        )

    @property
    def _watches(self) -> "list[Watch[Pod] | Watch[Thing]]":
        return [self._pods, *self._things]


def _decoded(kept: bytes) -> Known | None:
    """None for what another release wrote and we cannot read: the API has it better."""
    try:
        return msgspec.json.decode(kept, type=Known)
    except msgspec.DecodeError:
        return None


def _stays(_: Thing) -> None:
    """A node that is gone from the API leaves its labels: its pods are still billed by them."""
