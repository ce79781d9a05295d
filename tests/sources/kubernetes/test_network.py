"""What pods receive and send: found through the oldest process, under an identity that no namespace shares."""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.errors import SourceError
from agent.model import NS_PER_S, Reading, Sweep
from agent.sources.kubernetes.pods import PodSource
from agent.sources.kubernetes.processes import Process, Processes
from agent.sources.kubernetes.sandbox import counters, indices
from agent.usage import Cursor, Track, measure
from tests.sources.kubernetes.node import HEADER, Node, facts, uid
from tests.sources.machine import BOOT

NETWORK = frozenset({"network.receive_bytes", "network.transmit_bytes"})
S = 1000  # seconds since boot at which every test begins


def interfaces(sweep: Sweep) -> dict[str, Reading]:
    """The readings of interfaces, by name; `†` marks the gone."""
    found = {r.resource.name + "†" * r.gone: r for r in sweep.readings if "interface" in r.resource.labels}
    assert len(found) == sum("interface" in r.resource.labels for r in sweep.readings)
    return found


def moved(reading: Reading) -> tuple[int, ...]:
    """Bytes received and sent."""
    return tuple(sample.value for sample in reading.samples)


class Ledger:
    """What is booked of a source's sweeps: bytes received by pod."""

    def __init__(self, source: PodSource) -> None:
        self.source, self.tracks = source, dict[str, Track]()
        self.cursor: Cursor | None = None
        self.received: dict[str, int] = {}

    def sweep(self) -> None:
        sweep, cursor = self.source.sweep(), self.cursor
        out = measure(
            sweep,
            cursor,
            self.tracks,
            {m.name: m for m in self.source.meters},
            anchor=0,
            interval=10**12,
            from_zero=False,
        )
        for usage in out.usages:
            if usage.meter == "network.receive_bytes":
                of = usage.resource.labels["pod_uid"]
                self.received[of] = self.received.get(of, 0) + usage.quantity
        self.cursor = Cursor(sweep.boot, sweep.stamp, out.at, sweep.listing, sweep.basis, sweep.scope)


def test_every_interface_but_lo_is_a_resource_of_its_own(node: Node) -> None:
    """With the pod's labels and its own, outside the tree, under an identity of boot, pod, process and index."""
    path = node.pod(uid(1))
    node.known.tell(uid(1), facts(uid(1), "shop/web"))
    node.process(42, node.container(path, 0), S - 50, {"eth0": (500, 300), "net1": (7, 8)})
    source = node.source(wanted=NETWORK)
    one, two = source.sweep(), source.sweep()
    found = interfaces(one)
    assert {name: moved(r) for name, r in found.items()} == {"shop/web/eth0": (500, 300), "shop/web/net1": (7, 8)}
    reading = found["shop/web/eth0"]
    assert reading.resource.labels == {"pod_uid": uid(1), "namespace": "shop", "pod": "web", "interface": "eth0"}
    assert reading.resource.parent is None
    ticks = (S - 50) * os.sysconf("SC_CLK_TCK")
    assert [s.meter for s in reading.samples] == ["network.receive_bytes", "network.transmit_bytes"]
    assert {s.identity for s in reading.samples} == {f"{BOOT}/{uid(1)}/42.{ticks}/2"}
    assert reading.resource is interfaces(two)["shop/web/eth0"].resource
    assert {r.resource.key for r in found.values()} < one.listing
    assert one.listing is two.listing
    source.close()


def test_only_what_is_wanted_is_read(one: Node) -> None:
    """And without any network meter nobody is looked for."""
    one.process(42, one.pod(uid(1)), S - 50, {"eth0": (500, 300)})
    source = one.source(wanted=frozenset({"network.transmit_bytes"}))
    assert [s.meter for s in interfaces(source.sweep())[f"pod{uid(1)}/eth0"].samples] == ["network.transmit_bytes"]
    source.close()
    for source in (one.source(network=False), one.source(wanted=frozenset({"cpu.time"}))):
        sweep = source.sweep()
        assert interfaces(sweep) == {}
        assert "pod network" not in sweep.scope
        source.close()


def test_the_hosts_network_is_no_pods(node: Node) -> None:
    """By the inode of PID 1's own, and by what is known of the pod: the node's interfaces are never billed."""
    by_inode, by_facts = node.pod(uid(1)), node.pod(uid(2))
    node.process(41, by_inode, S - 50, like=1)
    node.process(42, by_facts, S - 50, {"eth0": (1, 1)})
    node.known.tell(uid(2), facts(uid(2), "kube-system/proxy", host_network=True))
    source = node.source(wanted=NETWORK)
    assert interfaces(source.sweep()) == {}
    source.close()


def test_without_the_hosts_own_network_to_compare_nothing_is_read(one: Node) -> None:
    """Else every pod on the host's network would be billed the node's interfaces."""
    one.process(42, one.pod(uid(1)), S - 50, {"eth0": (1, 1)})
    one.end(1)
    source = one.source(wanted=NETWORK)
    with pytest.raises(SourceError, match=r"proc/1/net/dev.*network: false"):
        source.sweep()
    source.close()


def test_the_oldest_process_is_the_one(one: Node) -> None:
    """The sandbox's own; a container's may have made itself a network."""
    path = one.pod(uid(1))
    one.process(41, one.container(path, 1), S - 40, {"eth0": (9, 9)})
    one.process(50, one.container(path, 0), S - 50, {"eth0": (500, 300)})
    source = one.source(wanted=NETWORK)
    assert moved(interfaces(source.sweep())[f"pod{uid(1)}/eth0"]) == (500, 300)
    source.close()


def test_a_short_pods_traffic_is_read_when_its_container_ends(node: Node) -> None:
    """The sandbox outlives it by a second: so long nobody waits for the next sweep."""
    source = node.source(wanted=NETWORK)
    ledger = Ledger(source)
    ledger.sweep()
    path = node.pod(uid(1))
    source.read()
    node.pass_time(0.4)
    sandbox = node.container(path, 0)
    node.process(42, sandbox, S + 0.4, {"eth0": (0, 0)})
    source.read()
    container = node.container(path, 1)
    node.pass_time(0.3)
    node.network(42, {"eth0": (5000, 70)})
    node.machine.remove(container)
    source.read()
    node.end(42)
    node.machine.remove(sandbox)
    node.pass_time(1)
    node.machine.remove(path)
    assert source.read() is True
    sweep = source.sweep()
    gone = interfaces(sweep)[f"pod{uid(1)}/eth0†"]
    assert moved(gone) == (5000, 70)
    assert gone.resource.key not in sweep.listing
    assert interfaces(source.sweep()) == {}
    source.close()


def test_a_pod_is_billed_from_its_first_byte(node: Node) -> None:
    """Born after the first listing: from zero, whenever its process was found."""
    source = node.source(wanted=NETWORK)
    ledger = Ledger(source)
    node.process(41, node.pod(uid(1)), S - 50, {"eth0": (10**6, 0)})
    ledger.sweep()
    node.pass_time(5)
    path = node.pod(uid(2))
    source.read()
    node.pass_time(3)
    node.process(42, node.container(path, 0), S + 6, {"eth0": (800, 0)})
    node.network(41, {"eth0": (10**6 + 50, 0)})
    source.read()
    ledger.sweep()
    node.network(42, {"eth0": (900, 0)})
    ledger.sweep()
    assert ledger.received == {uid(1): 50, uid(2): 900}
    source.close()


def test_a_sandbox_found_late_that_ran_before_us_baselines(one: Node) -> None:
    """What it counted before is nobody's to bill; in whatever sweep that is committed it is found."""
    path = one.pod(uid(1))
    source = one.source(wanted=NETWORK)
    ledger = Ledger(source)
    ledger.sweep()
    one.process(42, path, S - 50, {"eth0": (10**6, 0)})
    one.pass_time(20)
    source.read()
    source.sweep()  # not committed
    ledger.sweep()
    one.network(42, {"eth0": (10**6 + 7, 0)})
    ledger.sweep()
    assert ledger.received == {uid(1): 7}
    source.close()


def test_when_the_network_comes_to_be_metered_it_baselines(one: Node) -> None:
    """A reload adds the meter: the pods are known, their interfaces are not, and their bytes are old."""
    one.process(42, one.pod(uid(1)), S - 50, {"eth0": (10**6, 0)})
    before = one.source(wanted=frozenset({"cpu.time"}))
    ledger = Ledger(before)
    ledger.sweep()
    before.close()
    ledger.source = one.source(wanted=NETWORK)
    ledger.sweep()
    one.network(42, {"eth0": (10**6 + 7, 0)})
    ledger.sweep()
    assert ledger.received == {uid(1): 7}
    ledger.source.close()


def test_a_restart_goes_on_where_it_was(one: Node) -> None:
    """The same process, the same key: what came meanwhile is the difference; a pod born meanwhile, from zero."""
    one.process(42, one.pod(uid(1)), S - 50, {"eth0": (1000, 0)})
    source = one.source(wanted=NETWORK)
    ledger = Ledger(source)
    ledger.sweep()
    source.close()
    one.network(42, {"eth0": (1600, 0)})
    one.process(43, one.pod(uid(2)), S + 5, {"eth0": (30, 0)})
    one.pass_time(100)
    ledger.source = one.source(wanted=NETWORK)
    ledger.sweep()
    assert ledger.received == {uid(1): 600, uid(2): 30}
    ledger.source.close()


def test_a_sandbox_made_again_under_the_same_uid_is_new(one: Node) -> None:
    """Its counters begin again, under the same pod and the same interface index."""
    path = one.pod(uid(1))
    first = one.container(path, 0)
    source = one.source(wanted=NETWORK)
    one.process(42, first, S - 50, {"eth0": (1000, 0)})
    source.sweep()
    one.network(42, {"eth0": (1500, 0)})
    source.sweep()
    one.end(42)
    one.machine.remove(first)
    one.pass_time(20)
    source.read()
    one.process(43, one.container(path, 1), S + 19, {"eth0": (40, 0)})
    one.pass_time(5)
    source.read()
    sweep = source.sweep()
    assert {n: moved(r) for n, r in interfaces(sweep).items()} == {
        f"pod{uid(1)}/eth0†": (1500, 0),
        f"pod{uid(1)}/eth0": (40, 0),
    }
    assert len({r.resource.key for r in interfaces(sweep).values()}) == 2
    source.close()


def test_a_network_whose_first_process_ended_goes_on(one: Node) -> None:
    """The sandbox's process was killed and a container's lives in the same network: nothing begins at zero."""
    path = one.pod(uid(1))
    source = one.source(wanted=NETWORK)
    ledger = Ledger(source)
    one.process(42, path, S - 50, {"eth0": (1000, 0)})
    one.process(43, path, S - 40, like=42)
    ledger.sweep()
    one.end(42)
    one.network(43, {"eth0": (1200, 0)})
    one.pass_time(2)
    source.read()  # missed
    ledger.sweep()
    one.pass_time(2)
    source.read()
    ledger.sweep()
    assert ledger.received == {uid(1): 200}
    source.close()


def test_the_runtime_on_its_way_into_the_pod_is_not_the_sandbox(one: Node) -> None:
    """First it is in the host's network, then a short-lived parent is in the pod's: neither fixes the identity."""
    source = one.source(wanted=NETWORK)
    ledger = Ledger(source)
    ledger.sweep()
    path = one.container(one.pod(uid(1)), 0)
    one.process(70, path, S, like=1)
    source.read()
    one.end(70)
    one.process(71, path, S, {"eth0": (10, 0)})
    one.process(72, path, S + 0.01, like=71)
    one.pass_time(0.2)
    source.read()
    ledger.sweep()
    one.end(71)
    one.network(72, {"eth0": (60, 0)})
    one.pass_time(2)
    source.next_read_within(one.clock())  # the pod is no longer young, and not read before the sweep
    ledger.sweep()
    assert ledger.received == {}, "nobody is there whose name would stay"
    for _ in range(3):
        one.pass_time(1)
        source.read()
    ledger.sweep()
    assert ledger.received == {uid(1): 60}
    assert ledger.cursor is not None
    (key,) = [k for k in ledger.cursor.listing if k.endswith("/2")]
    assert "/72." in key, "which a restarted agent finds again"
    source.close()


def test_an_interface_that_is_taken_out_ends(one: Node) -> None:
    """And one that is put in begins; a renamed one goes on under its index."""
    one.process(42, one.pod(uid(1)), S - 50, {"eth0": (1000, 0), "net1": (5, 0)})
    source = one.source(wanted=NETWORK)
    before = interfaces(source.sweep())
    one.network(42, {"up0": (1001, 0), "net2": (1, 0)}, {"up0": 2, "net2": 4})
    after = interfaces(source.sweep())
    name = f"pod{uid(1)}/"
    assert set(after) == {f"{name}up0", f"{name}net2", f"{name}net1†"}
    assert after[f"{name}up0"].resource.key == before[f"{name}eth0"].resource.key
    assert after[f"{name}up0"].resource.labels["interface"] == "up0"
    source.close()


def test_a_pod_that_is_not_found_is_looked_for_less_and_less(one: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """One look serves all; a stir makes it soon again."""
    path = one.pod(uid(1))
    source = one.source(wanted=NETWORK)
    source.sweep()
    looks: list[int] = []
    look = Processes.oldest

    def noted(self: Processes, groups: Iterable[str], *, all_of_them: bool) -> dict[str, Process]:
        looks.append(one.clock.now)
        return look(self, groups, all_of_them=all_of_them)

    monkeypatch.setattr(Processes, "oldest", noted)
    for _ in range(36_000):
        one.pass_time(0.1)
        source._follow_networks()
    assert 12 <= len(looks) <= 20
    assert looks[-1] - looks[-2] >= 599 * NS_PER_S
    one.process(42, one.container(path, 0), S + 3600, {"eth0": (1, 1)})
    source.read()
    one.pass_time(2)
    assert set(interfaces(source.sweep())) == {f"pod{uid(1)}/eth0"}
    source.close()


def test_a_look_passes_by_those_it_has_seen(one: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """A birth costs a listing of /proc, and the new processes in it."""
    for pid in range(100, 130):
        one.process(pid, "system.slice", 5)
    source = one.source(wanted=NETWORK)
    one.pod(uid(1))
    source.sweep()
    one.pass_time(2)
    path = one.pod(uid(2))
    source.read()
    asked: list[str] = []
    group = Processes._group

    def noted(self: Processes, pid: str, known: Mapping[str, str]) -> str | None:
        asked.append(pid)
        return group(self, pid, known)

    monkeypatch.setattr(Processes, "_group", noted)
    one.process(42, one.container(path, 0), S + 2, {"eth0": (1, 1)})
    source.read()
    assert asked == ["42"]
    source.close()


def test_a_process_that_came_into_the_group_late_is_found_in_the_end(one: Node) -> None:
    """A look among all processes, after some seconds of looking among the new."""
    path = one.pod(uid(1))
    one.process(42, "system.slice", 5, {"eth0": (1, 1)})
    source = one.source(wanted=NETWORK)
    source.sweep()
    (one.proc / "42/cgroup").write_text(f"0::/{path}\n")
    for _ in range(20):
        one.pass_time(1)
        source.read()
    assert set(interfaces(source.sweep())) == {f"pod{uid(1)}/eth0"}
    source.close()


def test_no_file_of_a_network_is_held(one: Node) -> None:
    """An open `net/dev` would keep the namespace alive, and a device in it from its next pod."""
    for number in range(1, 4):
        one.process(40 + number, one.pod(uid(number)), S - 50, {"eth0": (1, 1)})
    source = one.source(wanted=NETWORK)
    source.sweep()
    assert held_below(one.proc) == [one.proc / str(pid) for pid in (41, 42, 43)]
    source.close()
    assert held_below(one.proc) == []


def held_below(directory: Path) -> list[Path]:
    """What this process holds open there."""
    links = [link.readlink() for link in Path("/proc/self/fd").iterdir() if link.is_symlink()]
    return sorted(link for link in links if link.is_relative_to(directory))


def test_a_process_that_takes_a_pid_over_is_not_read(one: Node) -> None:
    """The held directory is of the process that was found, and answers for no other."""
    path = one.pod(uid(1))
    one.process(42, path, S - 50, {"eth0": (1000, 0)})
    source = one.source(wanted=NETWORK)
    source.sweep()
    one.end(42)
    one.process(42, "system.slice", S + 1, {"eth0": (10**9, 0)})
    one.pass_time(1)
    source.read()
    assert moved(interfaces(source.sweep())[f"pod{uid(1)}/eth0"]) == (1000, 0)
    source.close()


@given(
    st.dictionaries(
        st.sampled_from(["eth0", "net1", "wg0", "a.b"]), st.tuples(st.integers(0, 2**64), st.integers(0, 2**64))
    )
)
def test_net_dev_is_read_as_it_is_written(rows: dict[str, tuple[int, int]]) -> None:
    """Whatever the width of its columns."""
    text = HEADER + "".join(f"{n:>6}:{r:8} 1 0 0 0 0 0 0 {t:8} 1 0 0 0 0 0 0\n" for n, (r, t) in rows.items())
    assert counters(text.encode()) == rows


def test_another_interface_called_lo_counts() -> None:
    """A tenant who may rename interfaces does not escape: the loopback receives what it sends."""
    row = "    lo: {} 1 0 0 0 0 0 0 {} 1 0 0 0 0 0 0\n"
    assert counters((HEADER + row.format(5, 5)).encode()) == {}
    assert counters((HEADER + row.format(5, 6)).encode()) == {"lo": (5, 6)}


def test_indices_are_of_interfaces_with_a_multicast_address() -> None:
    """As `dev_mcast` lists them, each address on a line."""
    text = b"2    eth0       1     0     333300000001\n2    eth0       1     0     01005e000001\n7    net1 1 0 ff\n"
    assert indices(text) == {"eth0": "2", "net1": "7"}
