"""A make-believe node of Kubernetes: pods' cgroups as both drivers name them, and processes in its /proc."""

import os
import shutil
from collections.abc import Collection, Mapping
from pathlib import Path

from agent.model import NS_PER_S
from agent.sources import Stats
from agent.sources.kubernetes.facts import Facts
from agent.sources.kubernetes.pods import PodSource
from tests.sources.machine import BOOT, Machine

TICKS = os.sysconf("SC_CLK_TCK")
HEADER = "Inter-|   Receive  |  Transmit\n face |bytes packets |bytes packets\n"


class Known:
    """What a watch would know, told by the test."""

    stats = Stats()

    def __init__(self) -> None:
        self.facts: dict[str, Facts] = {}
        self.changes = 0
        self.new: dict[str, Mapping[str, str]] = {}
        self.living: Collection[str] = ()
        self.followed = self.closed = 0

    def tell(self, uid: str, facts: Facts) -> None:
        """Something became known of a pod."""
        if uid not in self.facts:
            self.new[uid] = facts.labels
        self.facts[uid] = facts
        self.changes += 1

    def of(self, uid: str) -> Facts | None:
        return self.facts.get(uid)

    def version(self) -> int:
        return self.changes

    def introduced(self) -> Mapping[str, Mapping[str, str]]:
        new, self.new = self.new, {}
        return new

    def remember(self, living: Collection[str]) -> Mapping[str, bytes | None]:
        self.living = sorted(living)
        return {"seen": b"1"} if living else {}

    async def follow(self) -> None:
        self.followed += 1

    async def close(self) -> None:
        self.closed += 1


def facts(
    uid: str,
    name: str,
    *,
    labels: Mapping[str, str] | None = None,
    requests: Mapping[str, int] | None = None,
    limits: Mapping[str, int] | None = None,
    extended: Mapping[str, int] | None = None,
    host_network: bool = False,
) -> Facts:
    """Facts of the pod `namespace/pod`."""
    namespace, _, pod = name.partition("/")
    known = {"pod_uid": uid, "namespace": namespace, "pod": pod, **(labels or {})}
    return Facts(name, known, host_network, requests or {}, limits or {}, extended or {})


class Node:
    """`driver`: "cgroupfs" or "systemd". `prefix`: what --cgroup-root puts before the anchor."""

    def __init__(self, root: Path, layout: str = "v1", driver: str = "cgroupfs", prefix: str = "") -> None:
        self.machine, self.driver = Machine(root, layout), driver
        self.clock, self.known = self.machine.clock, Known()
        self.stem = f"{prefix}-kubepods" if prefix else "kubepods"
        self.anchor = f"{self.stem}.slice" if driver == "systemd" else self.stem
        if prefix:
            top = f"{prefix}.slice" if driver == "systemd" else prefix
            self.machine.group(top)
            self.anchor = f"{top}/{self.anchor if driver == 'systemd' else 'kubepods'}"
        self.machine.group(self.anchor)
        for level in ("burstable", "besteffort"):
            self.machine.group(self.level(level))
        self.proc = root / "proc"
        self.process(1, "init.scope", 0, {"eth0": (10**9, 10**9)})

    def level(self, name: str) -> str:
        """The group of one class of pods; of "guaranteed" the anchor."""
        if name == "guaranteed":
            return self.anchor
        return f"{self.anchor}/{self.stem}-{name}.slice" if self.driver == "systemd" else f"{self.anchor}/{name}"

    def path(self, uid: str, level: str = "burstable") -> str:
        """Where the kubelet puts a pod."""
        above = self.level(level)
        if self.driver == "cgroupfs":
            return f"{above}/pod{uid}"
        stem = above.rpartition("/")[2].removesuffix(".slice")
        return f"{above}/{stem}-pod{uid.replace('-', '_')}.slice"

    def pod(self, uid: str, level: str = "burstable", usage: int = 0) -> str:
        """Make a pod's group; its path."""
        path = self.path(uid, level)
        self.machine.group(path)
        self.machine.usage(path, usage)
        return path

    def container(self, pod: str, number: int) -> str:
        """Make a container's group in a pod's; its path."""
        name = f"{number:064x}"
        path = f"{pod}/cri-containerd-{name}.scope" if self.driver == "systemd" else f"{pod}/{name}"
        self.machine.group(path)
        return path

    def process(
        self,
        pid: int,
        group: str,
        began: float,
        interfaces: Mapping[str, tuple[int, int]] | None = None,
        *,
        like: int | None = None,
        seen_as: str | None = None,
    ) -> None:
        """A process in `group`, begun so many seconds after boot, in a network of its own or in that of `like`."""
        directory = self.proc / str(pid)
        (directory / "net").mkdir(parents=True)
        path = seen_as if seen_as is not None else f"/{group}"
        (directory / "cgroup").write_text(f"4:cpuacct:{path}\n3:memory:{path}\n0::{path}\n")
        fields = [str(pid), "(a (b) c)", "S", *["0"] * 18, str(int(began * TICKS)), *["0"] * 30]
        (directory / "stat").write_text(" ".join(fields))
        if like is not None:
            for file in ("dev", "dev_mcast"):
                os.link(self.proc / str(like) / "net" / file, directory / "net" / file)
        else:
            self.network(pid, interfaces or {})

    def network(
        self, pid: int, interfaces: Mapping[str, tuple[int, int]], indices: Mapping[str, int] | None = None
    ) -> None:
        """Set what a process's network shows: bytes received and sent by interface; in place, as a namespace's."""
        lo = {} if "lo" in interfaces else {"lo": (77, 77)}
        rows = "".join(
            f"{name:>6}: {receive} 1 0 0 0 0 0 0 {transmit} 1 0 0 0 0 0 0\n"
            for name, (receive, transmit) in {**lo, **interfaces}.items()
        )
        numbers = indices if indices is not None else {name: n for n, name in enumerate(interfaces, 2)}
        mcast = "".join(f"{n}    {name}            1     0     333300000001\n" for name, n in numbers.items())
        (self.proc / str(pid) / "net/dev").write_text(HEADER + rows)
        (self.proc / str(pid) / "net/dev_mcast").write_text(mcast)

    def end(self, pid: int) -> None:
        """A process's end."""
        shutil.rmtree(self.proc / str(pid))

    def pass_time(self, seconds: float) -> None:
        """Let the clock run."""
        self.clock.now += int(seconds * NS_PER_S)

    def source(
        self,
        *,
        system: tuple[str, ...] = (),
        network: bool = True,
        wanted: frozenset[str] | None = None,
        aspects: frozenset[str] = frozenset(),
    ) -> PodSource:
        """A source of this node's pods."""
        return PodSource(
            "kubernetes",
            str(self.machine.root),
            self.known,
            anchors=(self.anchor, "not-there"),
            system=system,
            network=network,
            boot=BOOT,
            clock=self.clock,
            wanted=wanted,
            aspects=aspects,
        )


def uid(number: int) -> str:
    """A UID as the API server gives them."""
    return f"{number:08x}-9119-4e0a-9312-c89d90599182"
