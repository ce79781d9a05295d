"""`metering-agent simulate`: whose each pod would be by a configuration, and what a change of it would move.

From files of objects, without a cluster. They are joined and judged by what the agent itself does that with.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from msgspec import Struct

from agent.attribution import Attribution, revise
from agent.cli.show import lines, table
from agent.config import Config
from agent.config.manifests import manifests
from agent.errors import ConfigError
from agent.model import Resource
from agent.sources.kubernetes.facts import Facts
from agent.sources.kubernetes.join import Join
from agent.sources.kubernetes.objects import Pod, Thing

GIVE = "kubectl get pods,namespaces,nodes -A -o json"
NAMED = 3  # of many


class Cluster(Struct, frozen=True):
    """Objects of a cluster. `placed`: of each pod the node that it is on, "" as long as it is on none."""

    placed: tuple[tuple[Pod, str], ...]
    namespaces: Mapping[str, Thing]
    nodes: Mapping[str, Thing]


class Fate(Struct, frozen=True):
    """Whose a pod would be: a customer, `unattributed` or `system`. `refused`: what its labels claim and do not get."""

    pod: str
    uid: str
    to: str
    rule: str
    refused: tuple[str, ...]


class Move(Struct, frozen=True):
    """A pod that would be another's."""

    pod: str
    uid: str
    before: str
    after: str
    rule: str


class Simulated(Struct, frozen=True):
    """What would be. `moved` is None where there is nothing to compare with."""

    pods: tuple[Fate, ...]
    moved: tuple[Move, ...] | None


class _Spec(Struct, rename="camel"):
    node_name: str | None = None


class _Placed(Struct):
    spec: _Spec


def cluster(paths: Iterable[Path]) -> Cluster:
    """The pods, namespaces and nodes in these files. Raises ConfigError with everything that cannot be read."""
    placed: dict[str, tuple[Pod, str]] = {}
    things: dict[str, dict[str, Thing]] = {"Namespace": {}, "Node": {}}
    problems: list[str] = []
    for path in paths:
        for thing in manifests(path):
            try:
                if thing["kind"] == "Pod":
                    pod = _typed(thing, Pod)
                    placed[pod.metadata.uid] = pod, _typed(thing, _Placed).spec.node_name or ""
                elif thing["kind"] in things:
                    found = _typed(thing, Thing)
                    things[thing["kind"]][found.metadata.name] = found
            except msgspec.ValidationError as error:
                name = msgspec.to_builtins(thing.get("metadata") or {}).get("name", "without a name")
                problems.append(f"{path}: {thing['kind']} {name}: {error}. Write it as `{GIVE}` does.")
    if not problems and not placed:
        problems.append(f"{', '.join(map(str, paths))}: no pod. Write what `{GIVE}` says.")
    if problems:
        raise ConfigError(problems)
    return Cluster(tuple(placed.values()), things["Namespace"], things["Node"])


_T = TypeVar("_T")


def _typed(thing: dict[str, Any], kind: type[_T]) -> _T:
    """What YAML has as text becomes what it means; JSON's values have their types."""
    return msgspec.convert(thing, kind, strict=False)


def simulate(cfg: Config, of: Cluster, against: Config | None, now: int) -> Simulated:
    """Each pod by the rules of `cfg` as they act at `now`, ns since the epoch; and whose it is by those of `against`.

    Raises ConfigError where the objects do not suffice to tell.
    """
    fates = _fates(cfg, of, now)
    if against is None:
        return Simulated(fates, None)
    before = {fate.uid: fate.to for fate in _fates(against, of, now)}
    moved = (Move(f.pod, f.uid, before[f.uid], f.to, f.rule) for f in fates if before[f.uid] != f.to)
    return Simulated(fates, tuple(moved))


def _fates(cfg: Config, of: Cluster, now: int) -> tuple[Fate, ...]:
    rules = cfg.rules()
    attribution = Attribution(revise((), rules, now), rules)
    era = attribution.era(now)
    fates = []
    for uid, known in _facts(cfg, of):
        owner = attribution.owner([Resource(uid, known.name, labels=known.labels)], era)
        refused = tuple(attribution.refused(known.labels, era))
        fates.append(Fate(known.name, uid, owner.customer or owner.kind, owner.rule, refused))
    return tuple(sorted(fates, key=lambda fate: (fate.pod, fate.uid)))


def _facts(cfg: Config, of: Cluster) -> Iterator[tuple[str, Facts]]:
    """What an agent on each node would know of its pods."""
    by_node: dict[str, list[Pod]] = {}
    for pod, node in of.placed:
        by_node.setdefault(node if cfg.reads_node_labels() else "", []).append(pod)
    _complete(of, [node for node in by_node if node])
    for node, pods in by_node.items():
        join = Join({}, cfg.pod_label_keys(), cfg.attribution.pod_labels.allow_annotation, node=bool(node))
        join.namespaces(of.namespaces.values())
        if node:
            join.node(of.nodes[node])
        join.pods(pods)
        for pod in pods:
            uid, name = pod.metadata.uid, f"{pod.metadata.namespace}/{pod.metadata.name}"
            yield uid, join.view.facts.get(uid, Facts(name, {"pod_uid": uid}))


def _complete(of: Cluster, nodes: Sequence[str]) -> None:
    """Raise ConfigError unless all is there that rules may ask about: half of it would name the wrong customer."""
    namespaces = sorted({pod.metadata.namespace for pod, _ in of.placed} - of.namespaces.keys())
    missing = [("namespaces", namespaces), ("nodes", sorted(set(nodes) - of.nodes.keys()))]
    problems = [
        f"--pods: {kind} of pods are not in it: {', '.join(names[:NAMED])}"
        f"{f' and {len(names) - NAMED} more' if len(names) > NAMED else ''}. Write what `{GIVE}` says."
        for kind, names in missing
        if names
    ]
    if problems:
        raise ConfigError(problems)


def tell(found: Simulated) -> None:
    """For people: each pod, or those that would move; then how many are whose, and what is refused."""
    if found.moved is None:
        rows = [[fate.pod, fate.to, fate.rule] for fate in found.pods]
        table(("pod", "customer", "rule"), rows)
    else:
        table(("pod", "from", "to", "rule"), [[m.pod, m.before, m.after, m.rule] for m in found.moved])
    refused = [fate for fate in found.pods if fate.refused]
    lines([""] if refused else [])
    lines(f"Refused: {f.pod} claims {', '.join(f.refused)}, which its namespace does not allow." for f in refused)
    counts: dict[str, int] = {}
    for fate in found.pods:
        counts[fate.to] = counts.get(fate.to, 0) + 1
    whose = ", ".join(f"{counts[to]:,} {to}" for to in sorted(counts))
    moved = f" {len(found.moved):,} would move." if found.moved is not None else ""
    lines(["", f"{len(found.pods):,} pods: {whose}.{moved}"])
