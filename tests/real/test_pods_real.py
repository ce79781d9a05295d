"""PodSource on the running kernel: groups laid out as the kubelet's, network namespaces, and what it costs."""

import itertools
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from agent.model import NS_PER_S, Reading, Sweep
from agent.sources.kubernetes.pods import PodSource
from tests.conftest import require
from tests.real.kernel import Kernel, cost, follow, fresh_anchor
from tests.sources.kubernetes.node import Known, uid
from tests.sources.machine import named, names, values

pytestmark = pytest.mark.real

SENT = """
import sys
from agent.sources.kubernetes.pods import PodSource
from tests.sources.kubernetes.node import Known
meter = frozenset({"network.transmit_bytes"})
source = PodSource("kubernetes", "/", Known(), anchors=(sys.argv[1],), wanted=meter)
found = [r for r in source.sweep().readings if "interface" in r.resource.labels]
print([(r.resource.labels["pod_uid"], r.samples[0].value) for r in found])
source.close()
"""
TALK = """
import socket, sys
out = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for _ in range(int(sys.argv[2])):
    out.sendto(bytes(1000), (sys.argv[1], 9))
"""


class Kubelet(Kernel):
    """Groups laid out as the kubelet's cgroupfs driver does, far from any real cluster's `kubepods`."""

    def __init__(self) -> None:
        super().__init__(fresh_anchor("kubepods-test"))
        self.kubepods = f"{self.anchor}/kubepods"
        for path in (self.kubepods, f"{self.kubepods}/burstable", f"{self.kubepods}/besteffort"):
            self.make(path)

    def pod(self, number: int, level: str = "besteffort") -> str:
        path = f"{self.kubepods}/{level}/pod{uid(number)}"
        self.make(path)
        return path

    def container(self, pod: str, number: int) -> str:
        path = f"{pod}/{number:064x}"
        self.make(path)
        return path

    def source(self, wanted: frozenset[str] | None = None, *, network: bool = False) -> PodSource:
        return PodSource("kubernetes", "/", Known(), anchors=(self.kubepods,), wanted=wanted, network=network)

    def joining(self, path: str) -> str:
        """What a shell does to enter a group in every tree."""
        return "; ".join(f"echo $$ > {tree / path}/cgroup.procs" for tree in self.trees)


NUMBERS = itertools.count(1)  # no name of a test is another's, whose end the kernel may not have seen to yet


class Namespace:
    """A network namespace with one end of a veth pair in it, as a CNI plugin makes a pod's."""

    def __init__(self, number: int) -> None:
        self.name, self.host = f"mtr{os.getpid()}n{number}", f"mtr{os.getpid() % 100000}h{number}"
        self.number = number
        net = f"10.213.{number}"
        for command in (
            f"ip netns add {self.name}",
            f"ip netns exec {self.name} sysctl -qw net.ipv6.conf.default.disable_ipv6=1",  # which talks by itself
            f"ip link add {self.host} type veth peer name eth0 netns {self.name}",
            f"sysctl -qw net.ipv6.conf.{self.host}.disable_ipv6=1",
            f"ip addr add {net}.1/24 dev {self.host}",
            f"ip link set {self.host} up",
            f"ip -n {self.name} addr add {net}.2/24 dev eth0",
            f"ip -n {self.name} link set eth0 up",
            f"ip -n {self.name} link set lo up",
        ):
            subprocess.run(command.split(), check=True, capture_output=True)

    def delete(self) -> None:
        # Both: the kernel lets go of a namespace, and of what is in it, when it has time.
        for command in (f"ip netns del {self.name}", f"ip link del {self.host}"):
            subprocess.run(command.split(), check=False, capture_output=True)

    def talk(self, count: int) -> None:
        """Send datagrams of 1,000 bytes to the node: 1,042 each with their headers."""
        command = ["ip", "netns", "exec", self.name, sys.executable, "-S", "-E", "-c", TALK]
        subprocess.run([*command, f"10.213.{self.number}.1", str(count)], check=True)

    def counters(self) -> tuple[int, int]:
        """Bytes that eth0 received and sent, by `ip`'s own words."""
        show = ["ip", "-n", self.name, "-s", "-j", "link", "show", "eth0"]
        stats = json.loads(subprocess.run(show, check=True, capture_output=True, text=True).stdout)[0]["stats64"]
        return stats["rx"]["bytes"], stats["tx"]["bytes"]


@pytest.fixture
def kubelet() -> Iterator[Kubelet]:
    """An anchor of our own with the kubelet's classes in it."""
    kubelet = Kubelet()
    try:
        yield kubelet
    finally:
        kubelet.clean()


@pytest.fixture
def namespaces() -> Iterator[list[Namespace]]:
    """Two pods' worth of network."""
    made: list[Namespace] = []
    try:
        made.extend(Namespace(next(NUMBERS)) for _ in range(2))
        yield made
    except (OSError, subprocess.CalledProcessError) as error:
        require(False, f"no network namespace can be made here: {error}: {getattr(error, 'stderr', b'')!r}")
        raise
    finally:
        for namespace in made:
            namespace.delete()


def interfaces(sweep: Sweep) -> dict[str, Reading]:
    """By the pod's UID and interface."""
    labels = ((r, r.resource.labels) for r in sweep.readings)
    return {f"{of['pod_uid']}/{of['interface']}": r for r, of in labels if "interface" in of}


def test_a_job_of_three_tenths_of_a_second_is_its_own_counter(kubelet: Kubelet) -> None:
    """Born between two sweeps, containers ended and removed, the pod's group lingers as a real one's does, and goes."""
    source = kubelet.source(frozenset({"cpu.time"}))
    start = values(source.sweep().readings[0])["cpu.time"]
    pod = kubelet.pod(1)
    for number in range(3):  # a crash loop in small
        container = kubelet.container(pod, number)
        process = kubelet.burn(container, 0.1)
        while process.poll() is None:
            follow(source, time.monotonic() + 0.02)
        kubelet.remove(container)
        follow(source, time.monotonic() + 0.05)
    final = kubelet.counter(pod)
    kubelet.remove(pod)
    assert follow(source, time.monotonic() + 2)
    sweep = source.sweep()
    gone = named(sweep, f"pod{uid(1)}")
    assert gone.gone
    assert values(gone)["cpu.time"] == final >= 300_000_000
    assert values(sweep.readings[0])["cpu.time"] - start == final, "the anchor moved by what the pod used"
    source.close()


def test_the_books_of_pods_that_come_and_go_close(kubelet: Kubelet) -> None:
    """Σ of the pods' final counters = what the anchor's counter moved, with nothing left over."""
    source = kubelet.source(frozenset({"cpu.time"}))
    start = values(source.sweep().readings[0])["cpu.time"]
    booked = 0
    for number in range(12):
        pod = kubelet.pod(number, "burstable" if number % 2 else "besteffort")
        container = kubelet.container(pod, 0)
        process = kubelet.burn(container, 0.05)
        while process.poll() is None:
            follow(source, time.monotonic() + 0.02)
        kubelet.remove(container)
        follow(source, time.monotonic() + 0.02)
        kubelet.remove(pod)
        follow(source, time.monotonic() + 0.02)
        if number % 3 == 0:
            booked += sum(values(r)["cpu.time"] for r in source.sweep().readings if r.gone)
    sweep = source.sweep()
    booked += sum(values(r)["cpu.time"] for r in sweep.readings if r.gone)
    moved = values(sweep.readings[0])["cpu.time"] - start
    assert booked == moved
    assert moved >= 12 * 50_000_000
    source.close()


def test_bytes_are_those_of_the_pods_own_interface(kubelet: Kubelet, namespaces: list[Namespace]) -> None:
    """Found through the oldest process of the pod; not those of a pod on the host's network."""
    wanted = frozenset({"network.receive_bytes", "network.transmit_bytes"})
    processes = []
    for number, namespace in enumerate(namespaces, 1):
        sandbox = kubelet.container(kubelet.pod(number), 0)
        enter = f"{kubelet.joining(sandbox)}; exec ip netns exec {namespace.name} sleep 60"
        processes.append(subprocess.Popen(["sh", "-c", enter]))
    on_host = kubelet.container(kubelet.pod(3), 0)
    processes.append(subprocess.Popen(["sh", "-c", f"{kubelet.joining(on_host)}; exec sleep 60"]))
    try:
        time.sleep(1.5)
        source = kubelet.source(wanted, network=True)
        before = interfaces(source.sweep())
        assert set(before) == {f"{uid(1)}/eth0", f"{uid(2)}/eth0"}
        start = namespaces[0].counters()
        namespaces[0].talk(50)
        end = namespaces[0].counters()
        after = interfaces(source.sweep())
        one = {key: [s.value for s in r.samples] for key, r in after.items()}
        assert one[f"{uid(1)}/eth0"] == list(end)
        assert end[1] - start[1] >= 50 * 1042
        assert {s.identity.rsplit("/", 1)[1] for s in after[f"{uid(1)}/eth0"].samples} == {"2"}, "eth0's index"
        source.close()
    finally:
        for process in processes:
            process.kill()
            process.wait()


def test_a_short_pods_traffic_is_kept_and_its_namespace_let_go(kubelet: Kubelet, namespaces: list[Namespace]) -> None:
    """What it sent is read when its container ends; nothing that we hold keeps its interface from vanishing."""
    source = kubelet.source(frozenset({"network.transmit_bytes"}), network=True)
    source.sweep()
    namespace = namespaces[0]
    pod = kubelet.pod(1)
    sandbox = kubelet.container(pod, 0)
    enter = f"{kubelet.joining(sandbox)}; exec ip netns exec {namespace.name} sleep 60"
    pause = subprocess.Popen(["sh", "-c", enter])
    try:
        container = kubelet.container(pod, 1)
        follow(source, time.monotonic() + 0.3)
        namespace.talk(20)
        _, sent = namespace.counters()
        kubelet.remove(container)
        follow(source, time.monotonic() + 1.2)
    finally:
        pause.kill()
        pause.wait()
    kubelet.remove(sandbox)
    namespace.delete()
    for _ in range(200):
        if not Path(f"/sys/class/net/{namespace.host}").exists():
            break
        time.sleep(0.01)
    else:
        pytest.fail("the pod's interface lives on")
    kubelet.remove(pod)
    assert follow(source, time.monotonic() + 2)
    gone = interfaces(source.sweep())[f"{uid(1)}/eth0"]
    assert gone.gone
    assert [s.value for s in gone.samples] == [sent]
    assert sent >= 20 * 1042
    source.close()


def test_a_reader_without_the_hosts_pids_and_capabilities_finds_the_pods(
    kubelet: Kubelet, namespaces: list[Namespace]
) -> None:
    """As the DaemonSet's container is: other PID, cgroup and network namespaces, uid 0 with no capability at all."""
    sandbox = kubelet.container(kubelet.pod(1), 0)
    enter = f"{kubelet.joining(sandbox)}; exec ip netns exec {namespaces[0].name} sleep 60"
    pause = subprocess.Popen(["sh", "-c", enter])
    mine = kubelet.container(kubelet.pod(2), 0)
    time.sleep(1.5)
    command = (
        f"{kubelet.joining(mine)}; exec unshare --cgroup --net --pid --fork "
        f'setpriv --bounding-set=-all --inh-caps=-all "$@"'
    )
    try:
        run = subprocess.run(
            ["sh", "-c", command, "sh", sys.executable, "-c", SENT, kubelet.kubepods],
            check=False,
            capture_output=True,
            text=True,
        )
        assert run.stderr == ""
        assert run.stdout.strip() == str([(uid(1), namespaces[0].counters()[1])])
    finally:
        pause.kill()
        pause.wait()


def test_what_five_hundred_pods_cost(kubelet: Kubelet) -> None:
    """Budget: a sweep of 8 meters ≤ 50 ms of CPU (DESIGN §12); containers in the pods cost nothing."""
    for number in range(500):
        pod = kubelet.pod(number, "burstable" if number % 2 else "besteffort")
        for container in range(3):
            (kubelet.cpu / pod / f"{container:064x}").mkdir()
    source = kubelet.source()
    first = cost(source.sweep)
    sweeps = statistics.median(cost(source.sweep) for _ in range(20))
    reads = []
    for _ in range(20):
        source._groups._read_at = None
        reads.append(cost(source.read))
    samples = sum(len(reading.samples) for reading in source.sweep().readings)
    print(
        f"\n500 pods, {samples} samples: first sweep {first:.1f} ms, sweep {sweeps:.2f} ms, "
        f"read pass {statistics.median(reads):.2f} ms of CPU"
    )
    assert len(source._groups._tree._watched) < 2 * 500 + 10
    assert sweeps < 50
    assert statistics.median(reads) < 5
    source.close()


def test_a_hundred_births_at_once_are_followed(kubelet: Kubelet) -> None:
    """Every pod is seen, read from its beginning and buried; none twice."""
    source = kubelet.source(frozenset({"cpu.time"}))
    listed = source.sweep().listing
    pods = [kubelet.pod(number) for number in range(100)]
    follow(source, time.monotonic() + 0.1)
    assert len(names(source.sweep())) == 101
    for pod in pods:
        kubelet.remove(pod)
    with suppress(AssertionError):
        follow(source, time.monotonic() + 1)
    sweep = source.sweep()
    assert sum(reading.gone for reading in sweep.readings) == 100
    assert sweep.listing == listed
    assert sweep.stamp < time.clock_gettime_ns(time.CLOCK_BOOTTIME) < sweep.stamp + 10 * NS_PER_S
    source.close()
