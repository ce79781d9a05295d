"""A node of Kubernetes: its pods' cgroups and processes, and whether those who know of them answer us."""

import asyncio
import os
from collections.abc import AsyncIterator, Iterator, Mapping
from urllib.parse import urlencode

import msgspec
from msgspec import Raw, Struct

from agent.cli.health import Check, Need, judged
from agent.cli.health.groups import WALKED, anchors, files, hierarchies
from agent.config import Config, Kubernetes
from agent.errors import SourceError
from agent.kinds import access_of, kubelet_of
from agent.sources.hierarchy import Layout, printable
from agent.sources.kernel import boottime
from agent.sources.kubernetes.access import Access, AccessError
from agent.sources.kubernetes.meters import NETWORK
from agent.sources.kubernetes.names import uid_of
from agent.sources.kubernetes.processes import Processes

PATIENCE = 10.0  # seconds for each question
LISTED = 500  # pods of a node that are counted
_FORBIDDEN = ("401", "403")  # how such refusals begin


def node(cfg: Config) -> tuple[list[Check], int]:
    """What each such source finds on this machine, and how many directories are to be followed."""
    found: list[Check] = []
    directories = 0
    for section in cfg.sources:
        if isinstance(section, Kubernetes) and section.basis == "cgroup":
            layout = Layout(str(section.root))
            pods, walked = _walk(section, layout)
            directories += walked
            found += hierarchies(section.id, layout)
            found += _kubepods(section, layout, len(pods))
            found += anchors(section.system, layout)
            found += files(cfg, section.root, layout, pods, frozenset())  # a pod's levels are in its specification
            found += _processes(cfg, section, pods)
    return found, directories


def _walk(section: Kubernetes, layout: Layout) -> tuple[list[str], int]:
    """Paths of the pods' groups, and how many directories there are in all."""
    pods: list[str] = []
    walked = 0
    for anchor in section.closed():
        hierarchy = layout.cpu(anchor)
        if hierarchy is None:
            continue
        for directory, _, _ in os.walk(hierarchy.directory(anchor)):
            walked += 1
            path = printable(os.path.relpath(directory, hierarchy.root))
            if uid_of(section.anchors, path) is not None:
                pods.append(path)
            if walked >= WALKED:
                break
    return pods, walked


def _kubepods(section: Kubernetes, layout: Layout, pods: int) -> Iterator[Check]:
    """Of the names that the kubelet's drivers give, one is enough."""
    there = [anchor for anchor in section.anchors if layout.cpu(anchor) is not None]
    drivers = ", ".join(
        f"{anchor} (driver {'systemd' if anchor.endswith('.slice') else 'cgroupfs'})" for anchor in there
    )
    cure = (
        f"Mount the node's /sys/fs/cgroup below sources[{section.id}].root; if its kubelet runs with --cgroup-root, "
        f"name the group that holds the pods in sources[{section.id}].anchors."
    )
    found = f"{drivers}: {pods:,} pods" if there else f"none of {', '.join(section.anchors)} at {layout.base}"
    yield judged("cgroups", f"pods of {section.id}", "required", bool(there), found, cure)
    yield from anchors(there, layout)


def _processes(cfg: Config, section: Kubernetes, pods: list[str]) -> Iterator[Check]:
    """Network traffic is read through a process of the pod."""
    if not section.network or not any(entry.meter in NETWORK for entry in cfg.meters):
        return
    proc = f"{str(section.root).rstrip('/')}/proc"
    try:
        seen = len(Processes(proc, boottime).oldest(pods, all_of_them=True))
    except OSError as error:
        yield judged("cgroups", "processes of pods", "required", None, f"{proc}: {error.strerror}")
        return
    cure = f"Mount the node's own /proc at {proc}: a container's has only its own processes."
    holds = seen > 0 if pods else None
    yield judged("cgroups", "processes of pods", "required", holds, f"{seen:,} of {len(pods):,} pods, in {proc}", cure)


# -- who is asked ------------------------------------------------------------------------------------------------------


async def asked(cfg: Config) -> list[Check]:
    """The API server, asked for everything that it will be asked for, and the kubelet where it is what is read."""
    found: list[Check] = []
    for section in cfg.sources:
        if isinstance(section, Kubernetes):
            found += [check async for check in _api(cfg, section)]
            found += [await _kubelet(section)] if section.basis == "summary" else []
    return found


class _List(Struct):
    items: list[Raw] | None = None


async def _api(cfg: Config, section: Kubernetes) -> AsyncIterator[Check]:
    area = "API server"
    try:
        access = access_of(section)
    except SourceError as error:
        yield judged(area, "reachable", "required", holds=False, found=str(error), cure="Correct this first.")
        return
    of_node = {"fieldSelector": f"spec.nodeName={cfg.agent.node}"}
    pods = await _list(access, "/api/v1/pods", of_node | {"limit": str(LISTED)})
    if isinstance(pods, str) and not pods.startswith(_FORBIDDEN):
        cure = "Until it answers, pods that are new are unattributed; what is known of the others is kept."
        yield judged(area, "reachable", "required", holds=False, found=pods, cure=cure)
        return
    yield _right(area, "list pods", "required", pods if isinstance(pods, str) else None, f"{pods} of {cfg.agent.node}")
    yield _right(area, "watch pods", "required", await _watch(access, "/api/v1/pods", of_node))
    if pods == 0:
        cure = "Is agent.node what `kubectl get nodes` calls this one? In a pod, let spec.nodeName say it."
        yield judged(area, "pods of this node", "optional", holds=False, found=f"none of {cfg.agent.node}", cure=cure)
    spaces = await _list(access, "/api/v1/namespaces", {"limit": "1"})
    yield _right(area, "list namespaces", "required", spaces if isinstance(spaces, str) else None)
    yield _right(area, "watch namespaces", "required", await _watch(access, "/api/v1/namespaces", {}))
    itself = {"fieldSelector": f"metadata.name={cfg.agent.node}"}
    need: Need = "required" if cfg.reads_node_labels() else "informative"
    refused = await _watch(access, "/api/v1/nodes", itself)
    if need == "informative" and refused is not None:
        yield judged(area, "watch its node", need, holds=True, found="not granted, and no rule asks for its labels")
        return
    nodes = await _list(access, "/api/v1/nodes", itself)
    yield _right(area, "list its node", need, nodes if isinstance(nodes, str) else None)
    yield _right(area, "watch its node", need, refused)


def _right(area: str, what: str, need: Need, refused: str | None, found: str = "granted") -> Check:
    verb, _, thing = what.partition(" ")
    thing = "nodes" if thing == "its node" else thing
    cure = f"Grant the agent's account the verb {verb} on {thing} in a ClusterRole, as the chart does."
    return judged(area, what, need, refused is None, refused or found, cure)


async def _list(access: Access, path: str, query: Mapping[str, str]) -> int | str:
    """How many there are; or why not, in the server's words."""
    body = bytearray()
    try:
        async with (
            asyncio.timeout(PATIENCE),
            access.get(_target(path, query), accept="application/json", silence=PATIENCE) as pieces,
        ):
            async for piece in pieces:
                body += piece
        return len(msgspec.json.decode(body, type=_List).items or ())
    except (AccessError, msgspec.DecodeError, TimeoutError) as error:
        return _why(error)


async def _watch(access: Access, path: str, query: Mapping[str, str]) -> str | None:
    """Why it may not be watched, in the server's words; None if it may: the watch is let go at once."""
    target = _target(path, {**query, "watch": "1", "timeoutSeconds": "1"})
    try:
        async with asyncio.timeout(PATIENCE), access.get(target, accept="application/json", silence=PATIENCE):
            return None
    except (AccessError, TimeoutError) as error:
        return _why(error)


def _target(path: str, query: Mapping[str, str]) -> str:
    return f"{path}?{urlencode(query)}"


def _why(error: Exception) -> str:
    return str(error) or f"no answer within {PATIENCE:g} s"


async def _kubelet(section: Kubernetes) -> Check:
    """Asked once for what it will be asked for each minute."""
    area, what = "kubelet", "stats/summary"
    cure = "Grant `get` on nodes/stats, and see that kubelet.url, ca_file or pin, and token_file are this node's."
    try:
        kubelet = kubelet_of(section)
        try:
            summary = await kubelet.summary(network=section.network)
        finally:
            await kubelet.close()
    except (SourceError, ValueError) as error:
        return judged(area, what, "required", holds=False, found=str(error), cure=cure)
    return judged(area, what, "required", holds=True, found=f"{len(summary.by_uid):,} pods")
