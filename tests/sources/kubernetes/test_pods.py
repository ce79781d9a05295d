"""Pods by their cgroups: born, read and buried by UID, labelled by what is known of them."""

import asyncio
import json
from pathlib import Path

import pytest

from agent.errors import SourceError
from agent.model import NS_PER_MS, NS_PER_S
from agent.sources import Watched
from agent.sources.cgroups import METERS as CGROUP_METERS
from agent.sources.kubernetes.meters import METERS
from tests.sources.kubernetes.node import Node, facts, uid
from tests.sources.machine import BOOT, named, names, values

CAPTURES = Path(__file__).parent / "captures"
CPU = frozenset({"cpu.time"})
STATIC = "8634a4017a396d7d78eb1852a3a4e7df"


def test_pods_of_every_class_and_the_anchor_are_read(node: Node) -> None:
    """A static pod too; what lies between is listed and nobody's."""
    for number, level in enumerate(("guaranteed", "burstable", "besteffort"), 1):
        node.container(node.pod(uid(number), level, number * 1_000_000), 1)
    node.pod(STATIC, "burstable", 9_000_000)
    node.machine.usage(node.anchor, 15_000_000)
    source = node.source(wanted=CPU)
    sweep = source.sweep()
    used = {r.resource.labels.get("pod_uid", r.resource.name): values(r)["cpu.time"] for r in sweep.readings}
    assert used == {node.anchor: 15_000_000, uid(1): 1_000_000, uid(2): 2_000_000, uid(3): 3_000_000, STATIC: 9_000_000}
    anchor = sweep.readings[0].resource
    assert (anchor.name, anchor.labels) == (node.anchor, {"cgroup": node.anchor})
    assert all(r.resource.parent == anchor.key and r.resource.anchor == node.anchor for r in sweep.readings[1:])
    assert len(sweep.listing) == 7, "the anchor, two classes, four pods"
    assert sweep.scope == {node.anchor, "not-there"}
    assert isinstance(source, Watched)
    source.close()


def test_an_anchor_may_lie_anywhere(tmp_path: Path) -> None:
    """--cgroup-root moves it, and shows in the names of its slices."""
    for driver in ("cgroupfs", "systemd"):
        node = Node(tmp_path / driver, "v2", driver, prefix="kubelet")
        node.pod(uid(1), "burstable", 5000)
        source = node.source(wanted=CPU)
        assert names(source.sweep()) == [node.anchor, f"pod{uid(1)}"]
        source.close()


def test_every_meter_of_a_group_is_a_pods(node: Node) -> None:
    """And no other: an anchor does not live, in the sense of who is billed for it."""
    path = node.pod(uid(1))
    node.machine.write(path, {"pids.current": "4\n", "memory.usage_in_bytes": "9\n", "memory.current": "9\n"})
    source = node.source()
    sweep = source.sweep()
    pod = values(named(sweep, f"pod{uid(1)}"))
    assert set(pod) == {meter.name for meter in CGROUP_METERS}
    assert (pod["pids"], pod["memory.working_set"], pod["alive.time"]) == (4, 9, 1)
    assert "alive.time" not in values(named(sweep, node.anchor))
    assert source.meters == METERS
    source.close()


def test_a_short_pod_is_read_to_its_end_and_from_its_beginning(node: Node) -> None:
    """Born and gone between two sweeps: its last value, under a key that no listing before had."""
    source = node.source(wanted=CPU)
    before = source.sweep()
    path = node.pod(uid(1))
    assert source.read() is False
    assert source.next_read_within(node.clock()) == 100 * NS_PER_MS
    container = node.container(path, 1)
    node.machine.usage(path, 300_000_000)
    node.machine.remove(container)
    assert source.read() is False, "its container's end is not its own"
    node.pass_time(1)
    node.machine.usage(path, 327_000_000)
    assert source.read() is False
    node.machine.remove(path)
    assert source.read() is True
    sweep = source.sweep()
    (gone,) = [reading for reading in sweep.readings if reading.gone]
    assert values(gone)["cpu.time"] == 327_000_000
    assert gone.resource.key not in before.listing | sweep.listing
    assert names(source.sweep()) == [node.anchor]
    source.close()


def test_a_containers_end_is_heard_and_the_pod_read_at_once(node: Node) -> None:
    """Between the reads of each second: the pod may be all over before the next."""
    path = node.pod(uid(1))
    container = node.container(path, 1)
    source = node.source(wanted=CPU)
    source.sweep()
    node.machine.usage(path, 44_000)
    assert source.read() is False, "nothing happened, and the read is not due"
    assert values_kept(source)[path] == 0
    node.machine.remove(container)
    source.read()
    assert values_kept(source)[path] == 44_000
    source.close()


def test_a_crash_loop_neither_falls_nor_doubles(node: Node) -> None:
    """Containers come and go with counters of their own; the pod's stays, and counts on (realkube §3)."""
    path = node.pod(uid(1))
    sandbox = node.container(path, 0)
    source = node.source(wanted=CPU)
    source.sweep()
    seen, key = [], set()
    for life in range(1, 5):
        container = node.container(path, life)
        node.machine.usage(container, 1_000_000_000)
        node.machine.usage(path, life * 1_000_000_000)
        source.read()
        node.machine.remove(container)
        node.pass_time(1)
        sweep = source.sweep()
        (pod,) = [r for r in sweep.readings if r.resource.labels.get("pod_uid")]
        seen.append(values(pod)["cpu.time"])
        key.add(pod.resource.key)
        assert len(sweep.readings) == 2
    assert seen == [n * 1_000_000_000 for n in range(1, 5)]
    assert len(key) == 1
    node.machine.remove(sandbox)
    source.close()


def test_nothing_in_a_pods_group_is_read_or_watched(node: Node) -> None:
    """The sandbox is counted in its pod, once; and what a tenant makes is neither read, listed nor followed."""
    path = node.pod(uid(1), usage=5_000_000)
    node.machine.usage(node.container(path, 0), 1_000_000)
    container = node.container(path, 1)
    node.machine.usage(container, 4_000_000)
    node.machine.group(f"{container}/pod{uid(2)}")
    node.machine.group(f"{container}/burstable")
    node.machine.group(f"{container}/burstable/pod{uid(3)}")
    source = node.source(wanted=CPU)
    first = source.sweep()
    watches = len(source._groups._tree._watched)
    node.machine.group(f"{container}/deeper")
    for number in range(20):
        node.machine.group(f"{container}/deeper/pod{uid(number)}")
    assert source.read() is False
    assert names(source.sweep()) == names(first) == [node.anchor, f"pod{uid(1)}"]
    assert len(first.listing) == 4
    assert len(source._groups._tree._watched) == watches
    source.close()


def test_a_pod_made_again_under_its_name_is_another(node: Node) -> None:
    """A StatefulSet's: the same name, another UID; its groups, interfaces and devices are other resources."""
    old = node.pod(uid(1), usage=700_000_000)
    node.process(42, old, 900, {"eth0": (7000, 0)})
    for number in (1, 2):
        node.known.tell(uid(number), facts(uid(number), "db/web-0", extended={"nvidia.com/gpu": 1}))
    source = node.source(wanted=frozenset({"cpu.time", "network.receive_bytes", "extended.requested"}))
    source.sweep()
    node.end(42)
    node.machine.remove(old)
    new = node.pod(uid(2), usage=100_000_000)
    node.process(42, new, 900, {"eth0": (1000, 0)})
    sweep = source.sweep()
    for name, meter, was, now in (
        ("db/web-0", "cpu.time", 700_000_000, 100_000_000),
        ("db/web-0/eth0", "network.receive_bytes", 7000, 1000),
        ("db/web-0/nvidia.com/gpu", "extended.requested", 1, 1),
    ):
        both = {r.gone: r for r in sweep.readings if r.resource.name == name}
        assert both[True].resource.key != both[False].resource.key
        assert both[True].samples[0].identity != both[False].samples[0].identity
        assert [values(both[gone])[meter] for gone in (True, False)] == [was, now]
    source.close()


def test_labels_come_when_they_are_known_and_the_object_stays(node: Node) -> None:
    """First the UID alone; then everything; unchanged, it is the same object, to be compared by identity."""
    node.pod(uid(1))
    source = node.source(wanted=CPU)
    first = named(source.sweep(), f"pod{uid(1)}").resource
    assert first.labels == {"pod_uid": uid(1)}
    node.known.tell(uid(1), facts(uid(1), "shop/web-7"))
    assert source.read() is False, "an introduction changes nobody's hands"
    second, third = (named(source.sweep(), "shop/web-7").resource for _ in range(2))
    assert second is third
    assert second.labels == {"pod_uid": uid(1), "namespace": "shop", "pod": "web-7"}
    assert second.key == first.key
    source.close()


def test_a_static_pods_uid_is_the_one_in_its_groups_name(node: Node) -> None:
    """The API server knows its mirror by another."""
    node.pod(STATIC)
    node.known.tell(STATIC, facts(uid(5), "kube-system/etcd-a"))
    source = node.source(wanted=CPU)
    assert named(source.sweep(), "kube-system/etcd-a").resource.labels["pod_uid"] == STATIC
    source.close()


def test_a_living_pod_that_may_change_hands_asks_for_a_sweep(node: Node) -> None:
    """A namespace's label is changed: the span until now is the old owner's."""
    node.pod(uid(1))
    node.known.tell(uid(1), facts(uid(1), "shop/web-7", labels={"namespace_label.team": "a"}))
    source = node.source(wanted=CPU)
    source.sweep()
    assert source.read() is False
    node.known.tell(uid(1), facts(uid(1), "shop/web-7", labels={"namespace_label.team": "b"}))
    assert source.read() is True
    assert named(source.sweep(), "shop/web-7").resource.labels["namespace_label.team"] == "b"
    node.known.tell(uid(2), facts(uid(2), "shop/elsewhere"))
    assert source.read() is False
    source.close()


def test_a_pod_that_died_unknown_is_named_if_that_is_known_by_the_sweep(node: Node) -> None:
    """A Job of 0.3 s is over before its metadata comes."""
    source = node.source(wanted=CPU)
    source.sweep()
    path = node.pod(uid(1))
    source.read()
    node.machine.remove(path)
    source.read()
    node.known.tell(uid(1), facts(uid(1), "batch/job-1"))
    sweep = source.sweep()
    assert named(sweep, "batch/job-1").gone
    assert sweep.introduced == {uid(1): {"pod_uid": uid(1), "namespace": "batch", "pod": "job-1"}}
    assert source.sweep().introduced == {}
    source.close()


def test_introductions_outlive_a_sweep_that_failed(node: Node) -> None:
    """They are told once only."""
    path = node.pod(uid(1))
    source = node.source(wanted=CPU)
    source.sweep()
    node.known.tell(uid(1), facts(uid(1), "a/b"))
    node.machine.write(path, {"cpuacct.usage": "??\n", "cpu.stat": "??\n"})
    with pytest.raises(SourceError):
        source.sweep()
    node.machine.usage(path, 1000)
    sweep = source.sweep()
    assert set(sweep.introduced) == {uid(1)}
    assert (sweep.remember, node.known.living) == ({"seen": b"1"}, [uid(1)])
    source.close()


def test_levels_are_those_of_the_facts(node: Node) -> None:
    """Of wanted meters and aspects only; what the kernel's files say of them is a rounded copy."""
    node.pod(uid(1))
    node.pod(uid(2))
    requests = {"cpu.time": 250_000, "memory.working_set": 64 << 20}
    limits = {"cpu.time": 1_000_000}
    node.known.tell(uid(1), facts(uid(1), "a/b", requests=requests, limits=limits))
    for aspects in (frozenset(), frozenset({"request"}), frozenset({"request", "limit"})):
        source = node.source(aspects=aspects, wanted=frozenset({"cpu.time", "memory.working_set"}))
        sweep = source.sweep()
        reading = named(sweep, "a/b")
        assert values(reading, "request") == (requests if "request" in aspects else {})
        assert values(reading, "limit") == (limits if "limit" in aspects else {})
        assert values(named(sweep, f"pod{uid(2)}"), "request") == {}
        source.close()
    only_cpu = node.source(aspects=frozenset({"request"}), wanted=CPU)
    assert values(named(only_cpu.sweep(), "a/b"), "request") == {"cpu.time": 250_000}
    only_cpu.close()


def test_extended_resources_are_held_while_the_pod_exists(node: Node) -> None:
    """Two GPUs are two units, used or not; with the pod they end."""
    path = node.pod(uid(1))
    node.known.tell(uid(1), facts(uid(1), "ml/train", extended={"nvidia.com/gpu": 2}))
    source = node.source(wanted=frozenset({"extended.requested"}))
    one, two = source.sweep(), source.sweep()
    reading = named(one, "ml/train/nvidia.com/gpu")
    assert values(reading) == {"extended.requested": 2}
    assert reading.resource is named(two, "ml/train/nvidia.com/gpu").resource
    assert reading.resource.labels["extended_resource"] == "nvidia.com/gpu"
    assert (reading.resource.parent, reading.resource.anchor) == (None, None)
    assert reading.resource.key in one.listing
    assert one.listing is two.listing
    node.machine.remove(path)
    last = source.sweep()
    assert named(last, "ml/train/nvidia.com/gpu").gone
    assert reading.resource.key not in last.listing
    assert names(source.sweep()) == [node.anchor]
    source.close()


def test_the_rest_of_the_node_is_an_anchor_and_no_more(node: Node) -> None:
    """For the books: its own units are another source's."""
    node.machine.group("system.slice")
    node.machine.group("system.slice/sshd.service")
    node.machine.usage("system.slice", 3_000_000)
    source = node.source(system=("system.slice",), wanted=CPU)
    sweep = source.sweep()
    reading = named(sweep, "system.slice")
    assert reading.resource.labels == {"cgroup": "system.slice", "system": "node"}
    assert (reading.resource.anchor, reading.resource.parent) == ("system.slice", None)
    assert values(reading)["cpu.time"] == 3_000_000
    node.machine.group("system.slice/cron.service")
    assert source.sweep().listing is sweep.listing
    source.close()


def test_what_is_followed_is_closed(one: Node) -> None:
    """By the loop that followed it."""
    source = one.source()
    asyncio.run(source.follow())
    assert (one.known.followed, one.known.closed) == (1, 1)
    source.close()
    source.close()


def test_the_first_second_of_a_real_job(tmp_path: Path) -> None:
    """Golden: a Job of 0.3 s as inotify showed it on a real node, event by event; its end is its counter's last."""
    node = Node(tmp_path, "hybrid")
    events = json.loads((CAPTURES / "cgroup-events-short-job.json").read_text())["events"]
    source = node.source(wanted=CPU)
    before = source.sweep()
    start, last, asked = events[0][0], 0, []
    for at, event, place, content, used in events:
        node.clock.now = 1000 * NS_PER_S + int((at - start) * NS_PER_S)
        tree, _, path = place.partition("/")
        pod, names_of_it = "/".join(path.split("/")[:2]), ("unified",) if tree == "v2" else None
        path = f"{node.anchor}/{path}"
        if used is not None:
            last = used
            node.machine.usage(f"{node.anchor}/{pod}", used)
        if event == "create":
            trees = names_of_it or tuple(t for t in node.machine.trees if t != "unified")
            node.machine.group(path, only=trees)
        elif event == "modify":
            node.machine.write(path, {"cgroup.events": f"{content}\nfrozen 0\n"})
        elif tree == "v1":
            node.machine.remove(path)
        asked.append(source.read())
    assert asked == [False] * (len(events) - 2) + [True, True], "only the pod's own end"
    gone = source.sweep().readings[-1]
    assert gone.gone
    assert gone.resource.labels == {"pod_uid": "011751c5-9119-4e0a-9312-c89d90599182"}
    assert gone.resource.key not in before.listing
    assert values(gone)["cpu.time"] == last == 327_375_388
    source.close()


def test_the_files_of_a_real_pod(tmp_path: Path) -> None:
    """Golden: what a real node's v1 hierarchies said of one pod with a sidecar."""
    node = Node(tmp_path, "v1")
    pod = "5462e716-60a8-4997-a997-753411ef50ae"
    path = node.pod(pod, "besteffort")
    for part in (CAPTURES / "cgroup-files-sidecar-pod.txt").read_text().split("## ")[1:]:
        file, _, text = part.partition("\n")
        tree, _, inside = file.removeprefix("/sys/fs/cgroup/").partition("/")
        if tree in node.machine.trees and inside.startswith(path):
            (node.machine.trees[tree] / inside).write_text(text)
    (node.machine.trees["blkio"] / path / "blkio.throttle.io_service_bytes_recursive").unlink()
    source = node.source()
    reading = named(source.sweep(), f"pod{pod}")
    assert values(reading) == {
        "cpu.time": 38_652_196_087,
        "memory.working_set": 1_359_872,
        "io.read_bytes": 0,
        "io.write_bytes": 0,
        "io.read_ops": 0,
        "io.write_ops": 0,
        "pids": 5,
        "alive.time": 1,
    }
    assert reading.samples[0].identity.startswith(f"{BOOT}/cpuacct/")
    source.close()


def values_kept(source: object) -> dict[str, int]:
    """The CPU counters that the source holds."""
    return {group.node.path: group.value for group in source._groups.living.values()}  # type: ignore[attr-defined]
