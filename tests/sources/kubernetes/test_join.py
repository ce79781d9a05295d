"""What is known of a pod, and when: joined from what the API says of it, its namespace and its node."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest

from agent.sources.kubernetes import join as j
from agent.sources.kubernetes.facts import Facts
from agent.sources.kubernetes.join import Join
from agent.sources.kubernetes.objects import Pod, Thing
from tests.sources.kubernetes import double as d

CAPTURES = Path(__file__).parent / "captures"
HASH = "8634a4017a396d7d78eb1852a3a4e7df"
LATER = "2026-11-23T01:00:01Z"


def pod(name: str = "a", space: str = "team-a", **meta: Any) -> Pod:
    """One as the API writes it."""
    return msgspec.convert(d.pod(name, space, **meta), Pod)


def space(name: str = "team-a", labels: Mapping[str, str] | None = None, **more: Any) -> Thing:
    """A namespace as the API writes it."""
    return msgspec.convert(d.namespace(name, dict(labels or {"tenant": "acme"}), **more), Thing)


def joined(
    known: Mapping[str, j.Known] | None = None, *, keys: tuple[str, ...] = ("customer",), node: bool = False
) -> Join:
    """One that is empty but for namespace team-a."""
    join = Join(known or {}, keys, "billing/allowed-customers", node=node)
    join.namespaces([space()])
    return join


def facts(join: Join, pod: Pod) -> Facts:
    """What is known of it."""
    return join.view.facts[pod.metadata.uid]


def owned(kind: str, name: str, *, controller: bool = True) -> dict[str, Any]:
    """One owner reference."""
    return {"kind": kind, "name": name, "uid": "x", "controller": controller}


def mirror(name: str = "static-node-a", config: str = HASH, **meta: Any) -> Pod:
    """What the kubelet makes of a static pod."""
    annotations = {j.CONFIG_HASH: config, j.MIRROR: config}
    return pod(name, annotations=annotations, **meta)


# -- labels ------------------------------------------------------------------------------------------------------------


def test_all_labels_of_a_pod() -> None:
    """Each under a name that says whose word it is."""
    join = joined(node=True)
    join.namespaces([space(billing__allowed_customers="acme,globex")])
    join.node(msgspec.convert(d.node("node-a", {"pool": "big"}), Thing))
    made = pod(labels={"customer": "globex", "app": "web"}, ownerReferences=[owned("Job", "nightly")])
    join.pod(made)
    assert facts(join, made).name == "team-a/a"
    assert facts(join, made).labels == {
        "pod_uid": made.metadata.uid,
        "namespace": "team-a",
        "pod": "a",
        "owner": "Job/nightly",
        "namespace_label.tenant": "acme",
        "node_label.pool": "big",
        "pod_label.customer": "globex",
        "allowed_customers": "acme,globex",
    }


@pytest.mark.parametrize(
    ("owners", "labels", "owner"),
    [
        ([], {}, None),
        ([owned("ReplicaSet", "web-55866f745d")], {"pod-template-hash": "55866f745d"}, "Deployment/web"),
        ([owned("ReplicaSet", "web-55866f745d")], {}, "ReplicaSet/web-55866f745d"),
        ([owned("ReplicaSet", "web-55866f745d")], {"pod-template-hash": "745d"}, "ReplicaSet/web-55866f745d"),
        ([owned("StatefulSet", "db-1")], {"pod-template-hash": "1"}, "StatefulSet/db-1"),
        ([owned("Job", "a", controller=False)], {}, None),
        ([owned("Job", "a", controller=False), owned("CronTab", "b")], {}, "CronTab/b"),
    ],
)
def test_the_owner_is_the_controller(owners: list[dict[str, Any]], labels: dict[str, str], owner: str | None) -> None:
    """Of a Deployment's ReplicaSet the Deployment, by the template's hash."""
    join, made = joined(), pod(labels=labels, ownerReferences=owners)
    join.pod(made)
    assert facts(join, made).labels.get("owner") == owner


def test_what_a_tenant_may_edit_is_read_once() -> None:
    """Labels and owners, also such as came later, and also across a restart."""
    first = pod(labels={"customer": "acme"}, ownerReferences=[owned("Job", "a")])
    uid = first.metadata.uid
    join = joined(keys=("customer", "team"))
    join.pod(first)
    before = facts(join, first)
    edited = pod(uid=uid, labels={"customer": "globex", "team": "x"}, ownerReferences=[owned("Job", "b")])
    join.pod(edited)
    assert facts(join, edited) is before
    join.pods([edited])
    assert facts(join, edited) is before
    restarted = joined(join.view.known, keys=("customer", "team", "new"))
    restarted.pods([pod(uid=uid, labels={"customer": "globex", "team": "x", "new": "y"})])
    assert facts(restarted, edited).labels == {**before.labels, "pod_label.new": "y"}, "a key that is new to us"


def test_before_a_namespace_is_known_too_nothing_is() -> None:
    """Labels of the pod alone could match a rule that the namespace's would overrule."""
    join = Join({}, ("customer",), None, node=True)
    made = pod(labels={"customer": "acme"})
    join.pods([made])
    assert not join.view.facts
    join.pod(pod(uid=made.metadata.uid, labels={"customer": "evil"}))
    join.namespace(space())
    assert not join.view.facts
    join.node(msgspec.convert(d.node("node-a", {}), Thing))
    assert facts(join, made).labels["pod_label.customer"] == "acme", "as it was at first sight"
    assert [uid for uid, _ in join.introduced] == [made.metadata.uid]


def test_a_namespace_that_is_relabelled_relabels_its_pods_only() -> None:
    """At once; and equal facts are the same object."""
    join = joined()
    join.namespaces([space(), space("team-b")])
    ours, theirs = pod(), pod("b", "team-b")
    join.pods([ours, theirs])
    before, serial = facts(join, theirs), join.view.serial
    join.namespace(space(labels={"tenant": "globex"}))
    assert facts(join, ours).labels["namespace_label.tenant"] == "globex"
    assert facts(join, theirs) is before
    assert join.view.serial == serial + 1
    join.namespace(space(labels={"tenant": "globex"}))
    join.pod(ours)
    assert join.view.serial == serial + 1, "nothing has changed"


def test_a_namespace_made_again_does_not_take_over_pods_of_the_former() -> None:
    """The watches are apart: its successor may be seen before the end of its pods."""
    join = joined()
    old = pod()
    join.pod(old)
    before = facts(join, old)
    join.no_namespace(space())
    assert facts(join, old) is before
    join.namespace(space(labels={"tenant": "globex"}, created=LATER))
    join.pod(old)
    assert facts(join, old) is before
    new = pod(created=LATER)
    join.pod(new)
    assert facts(join, new).labels["namespace_label.tenant"] == "globex"


# -- coming and going --------------------------------------------------------------------------------------------------


def test_a_pod_of_the_same_name_is_another() -> None:
    """By its uid; what the first one was stays known until it is forgotten."""
    join = joined()
    first, second = pod(labels={"customer": "acme"}), pod(labels={"customer": "globex"})
    join.pod(first)
    join.no_pod(first)
    join.pod(second)
    assert facts(join, first).labels["pod_label.customer"] == "acme"
    assert facts(join, second).labels["pod_label.customer"] == "globex"
    join.forgettable = frozenset({first.metadata.uid, second.metadata.uid})
    join.pod(pod("c"))
    assert first.metadata.uid not in join.view.facts
    assert second.metadata.uid in join.view.facts, "the API has it, so it is not forgotten"


def test_a_pod_that_is_finished_stays_known_while_the_api_has_it() -> None:
    """Its last usage is still to be read."""
    join, made = joined(), d.pod("a")
    join.pod(msgspec.convert(made, Pod))
    join.pod(msgspec.convert(made | {"status": {"phase": "Succeeded"}}, Pod))
    join.forgettable = frozenset({made["metadata"]["uid"]})
    join.pods([msgspec.convert(made, Pod)])
    assert made["metadata"]["uid"] in join.view.facts


@pytest.mark.parametrize("way", ["event", "list"])
def test_a_pod_gone_before_its_namespace_was_known_is_introduced_all_the_same(way: str) -> None:
    """What a short-lived pod used waits for that."""
    join = Join({}, (), None, node=False)
    short = pod()
    join.pod(short)
    join.no_pod(short) if way == "event" else join.pods([])
    join.namespaces([space()])
    assert facts(join, short).labels["namespace"] == "team-a"
    assert [uid for uid, _ in join.introduced] == [short.metadata.uid]
    assert not join.view.present


def test_each_pod_is_introduced_once() -> None:
    """And one that is remembered was introduced before the restart."""
    join, made = joined(), pod()
    join.pods([made])
    join.pods([made])
    join.namespace(space(labels={"tenant": "globex"}))
    assert list(join.introduced) == [
        (made.metadata.uid, {**facts(join, made).labels, "namespace_label.tenant": "acme"})
    ]
    restarted = joined(join.view.known)
    restarted.pods([made])
    assert not restarted.introduced


def test_a_pod_whose_requests_are_not_understood_is_known_without_them() -> None:
    """And counted: it must not become nobody's."""
    join, made = joined(), d.pod("a")
    made["spec"]["containers"][0]["resources"] = {"requests": {"cpu": "much"}}
    join.pod(msgspec.convert(made, Pod))
    assert join.view.facts[made["metadata"]["uid"]].requests == {}
    assert join.misread == 1


# -- static pods -------------------------------------------------------------------------------------------------------


def test_a_static_pod_goes_by_the_hash_of_its_file() -> None:
    """That is the uid in its cgroup's name; by the API's uid it is found, too. The kubelet may make its mirror anew."""
    join, first = joined(), mirror()
    join.pod(first)
    known = join.view.facts[HASH]
    assert known.labels["pod_uid"] == HASH
    assert facts(join, first) is known
    assert [uid for uid, _ in join.introduced] == [HASH]
    assert join.view.present == {HASH}
    again = mirror()
    join.pods([again])
    assert join.view.facts[HASH] is known
    assert facts(join, again) is known
    assert first.metadata.uid not in join.view.facts


def test_nobody_takes_anothers_identity_by_an_annotation() -> None:
    """A uid of the API has dashes, a hash has none; and who has a hash keeps it."""
    join = joined()
    victim, static = pod("victim"), mirror()
    join.pods([victim, static])
    before = dict(join.view.facts)
    join.namespace(space("evil", {"tenant": "evil"}))
    for claimed in (victim.metadata.uid, HASH, "", "x" * 32):
        join.pod(mirror("thief", claimed, namespace="evil"))
    join.pod(pod("thief", "evil", annotations={j.CONFIG_HASH: "0" * 32}))
    assert join.view.facts.items() >= before.items()
    assert {join.view.facts[uid].labels["pod_uid"] for uid in join.view.facts} == join.view.known.keys()
    assert "0" * 32 not in join.view.facts


# -- as captured -------------------------------------------------------------------------------------------------------


def test_the_captured_node() -> None:
    """Every pod of a real node, by its name, and whose it is."""
    things = json.loads((CAPTURES / "namespaces-nodes.json").read_bytes())["items"]
    pods = json.loads((CAPTURES / "pods.json").read_bytes())["items"]
    join = Join({}, ("customer",), None, node=True)
    join.pods(msgspec.convert(pods, list[Pod]))
    join.namespaces(msgspec.convert([t for t in things if t["kind"] == "Namespace"], list[Thing]))
    join.nodes(msgspec.convert([t for t in things if t["kind"] == "Node"], list[Thing]))
    known = {kept.facts.name: kept.facts for kept in join.view.known.values()}
    assert len(known) == len(pods)
    assert {name for name, fact in known.items() if fact.host_network} == {"team-b/hostnet"}
    assert {name: fact.labels["owner"] for name, fact in known.items() if "owner" in fact.labels} == {
        "metering/agent-stwlg": "DaemonSet/agent",
        "team-a/short-1-1795396348-9cl9t": "Job/short-1-1795396348",
        "team-a/short-2-1795396348-d27jb": "Job/short-2-1795396348",
        "team-a/short-3-1795396348-2djr4": "Job/short-3-1795396348",
        "team-a/static-web-node-a": "Node/node-a",
        "team-a/tick-29923279-gj9sn": "Job/tick-29923279",
        "team-a/tick-29923280-4dnw8": "Job/tick-29923280",
        "team-a/tick-29923281-m956m": "Job/tick-29923281",
        "team-a/web-55866f745d-dxncb": "Deployment/web",
        "team-a/web-55866f745d-whbrj": "Deployment/web",
    }
    assert join.view.facts[HASH].name == "team-a/static-web-node-a"
    guaranteed = known["team-a/guaranteed"]
    assert guaranteed.requests == guaranteed.limits == {"cpu.time": 100_000, "memory.working_set": 64 << 20}
    assert known["team-a/web-55866f745d-dxncb"].limits == {"memory.working_set": 64 << 20}
    assert guaranteed.labels["namespace_label.tenant"] == "acme"
    assert guaranteed.labels["pod_label.customer"] == "acme"


def test_the_captured_watch() -> None:
    """A Job of 0.3 s, from its first event to its last: known from the first, and still after it."""
    join = joined()
    for line in (CAPTURES / "watch-short-job.jsonl").read_bytes().splitlines():
        event = json.loads(line)["event"]
        if event["type"] == "BOOKMARK":
            continue
        thing = msgspec.convert(event["object"], Pod)
        join.namespace(space(thing.metadata.namespace, created="2026-11-23T00:00:00Z"))
        (join.no_pod if event["type"] == "DELETED" else join.pod)(thing)
        assert thing.metadata.uid in join.view.facts
    assert "Job/short-1-1795396348" in {kept.facts.labels.get("owner") for kept in join.view.known.values()}
