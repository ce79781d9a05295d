"""A node as its kubelet tells it, by script, and an agent's measuring side that lives through it: restarts, full disks.

What the kubelet says is JSON, as on the wire.
"""

import json
from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from agent.errors import SourceError
from agent.model import NS_PER_S, Sweep, Usage
from agent.sources import Stats
from agent.sources.kubernetes import stats
from agent.sources.kubernetes.facts import Facts
from agent.sources.kubernetes.meters import SUMMARY
from agent.sources.kubernetes.summary import SummarySource
from agent.usage import Cursor, Measured, Track, measure

CAPTURES = Path(__file__).parent / "captures"
S = NS_PER_S
WALL = 1_795_390_000 * S  # the wall clock at boottime 0
BOOT = "5f0c2a11-7b1e-4a63-9a0e-000000000001"
UID = "0b0e7f2c-0000-4000-8000-00000000000"


def stated(wall: int) -> str:
    """A time as a kubelet writes it: whole seconds, rounded down."""
    return datetime.fromtimestamp(wall // S, tz=UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def at(seconds: int) -> str:
    """The same of a boottime in seconds."""
    return stated(WALL + seconds * S)


def pod(
    number: int = 1,
    *,
    started: str | None = at(900),
    cpu: tuple[str | None, int] | None = None,
    memory: tuple[str, int] | None = None,
    network: tuple[str, int, int] | None = None,
    containers: int | None = None,
    name: str | None = None,
) -> dict[str, Any]:
    """One entry of `pods`. `cpu=(time, ns)`, `network=(time, rx, tx)` of eth0, `containers`: ns of them all."""
    ref = {"name": name or f"p{number}", "namespace": "shop", "uid": f"{UID}{number}"}
    said: dict[str, Any] = {"podRef": ref, "startTime": started, "containers": []}
    if cpu is not None:
        said["cpu"] = {"time": cpu[0], "usageNanoCores": 12345, "usageCoreNanoSeconds": cpu[1]}
        own = cpu[1] // 2 if containers is None else containers  # pause and the dead are not in the list
        said["containers"] = [{"name": "c", "startTime": started, "cpu": {"time": cpu[0], "usageCoreNanoSeconds": own}}]
    if memory is not None:
        said["memory"] = {"time": memory[0], "usageBytes": memory[1] + 999, "workingSetBytes": memory[1]}
    if network is not None:
        eth0 = {"name": "eth0", "rxBytes": network[1], "rxErrors": 0, "txBytes": network[2], "txErrors": 0}
        said["network"] = {"time": network[0], **eth0, "interfaces": [eth0]}
    return said


class Kubelet:
    """Says what it is told to say."""

    def __init__(self) -> None:
        self.says: bytes | None = None
        self.asked: list[bool] = []
        self.closed = False

    async def summary(self, *, network: bool) -> stats.Summary:
        self.asked.append(network)
        if self.says is None:
            raise SourceError("kubelet: no answer")
        return stats.decode(self.says)

    async def close(self) -> None:
        self.closed = True


class Pods:
    """What the API server is known to have said."""

    stats = Stats()

    def __init__(self) -> None:
        self.facts: dict[str, Facts] = {}
        self.everybody = True  # what is not in `facts` is known all the same, as an ordinary pod
        self.asked_to_remember: list[list[str]] = []

    def of(self, uid: str) -> Facts | None:
        if uid in self.facts or not self.everybody:
            return self.facts.get(uid)
        return self.facts.setdefault(uid, facts(uid))

    def version(self) -> int:
        return 0

    def introduced(self) -> Mapping[str, Mapping[str, str]]:
        return {}

    def remember(self, living: Collection[str]) -> Mapping[str, bytes | None]:
        self.asked_to_remember.append(sorted(living))
        return {}

    async def follow(self) -> None:
        return

    async def close(self) -> None:
        return


def facts(uid: str, name: str = "", **more: Any) -> Facts:
    """An ordinary pod of namespace shop."""
    called = name or f"p{uid[-1]}"
    return Facts(f"shop/{called}", {"pod_uid": uid, "namespace": "shop", "pod": called}, **more)


class Agent:
    """One node's measuring. `clock` moves when told; what is committed outlives `restart`."""

    def __init__(self, clock: int = 1000, **settings: Any) -> None:
        self.clock, self.offset = clock * S, WALL
        self.kubelet, self.pods = Kubelet(), Pods()
        self.settings = settings
        self.tracks: dict[str, Track] = {}
        self.cursor: Cursor | None = None
        self.memory: dict[str, bytes] = {}
        self.usages: list[Usage] = []
        self.anomalies: list[str] = []
        self.gaps: list[str] = []
        self.from_zero = False
        self._pending: dict[str, bytes | None] = {}
        self.source = self.start()

    def start(self) -> SummarySource:
        """Another process, which knows what was committed."""
        self._pending = {}
        return SummarySource(
            "kubernetes",
            self.kubelet,
            self.pods,
            boot=BOOT,
            clock=lambda: self.clock,
            wall=lambda: self.clock + self.offset,
            remembered=self.memory,
            **self.settings,
        )

    def restart(self, **settings: Any) -> None:
        """The process ends and another one begins."""
        self.settings |= settings
        self.source = self.start()

    def ask(self, *pods: dict[str, Any], raw: bytes | None = None) -> None:
        """The kubelet is asked once, and says this."""
        self.kubelet.says = raw if raw is not None else json.dumps({"node": {}, "pods": list(pods)}).encode()
        asking = self.source.ask()
        try:
            asking.send(None)
        except StopIteration:
            return
        raise AssertionError("the double does not wait")

    def hear(self, *pods: dict[str, Any], after: int = 15, commits: bool = True) -> Measured:
        """Some seconds pass, the kubelet says this, and a sweep books it."""
        self.clock += after * S
        self.ask(*pods)
        return self.sweep(commits=commits)

    def sweep(self, *, commits: bool = True) -> Measured:
        """Book what the source tells; without `commits` the disk is full."""
        sweep = self.source.sweep()
        tracks = msgspec.json.decode(msgspec.json.encode(self.tracks), type=dict[str, Track])
        measured = measure(
            sweep,
            self.cursor,
            tracks,
            {meter.name: meter for meter in SUMMARY},
            anchor=WALL,
            interval=15 * S,
            from_zero=self.from_zero and self.cursor is None,
        )
        self._pending |= sweep.remember  # as the line does with what could not be committed
        if commits:
            self._commit(sweep, measured, tracks)
        return measured

    def _commit(self, sweep: Sweep, measured: Measured, tracks: dict[str, Track]) -> None:
        self.tracks = {key: track for key, track in tracks.items() if track.marks}
        self.cursor = Cursor(sweep.boot, sweep.stamp, measured.at, sweep.listing, sweep.basis, sweep.scope)
        self.usages += measured.usages
        self.anomalies += measured.anomalies
        self.gaps += [gap.reason for gap in measured.gaps]
        for key, value in self._pending.items():
            if value is None:
                self.memory.pop(key, None)
            else:
                self.memory[key] = value
        self._pending = {}

    def billed(self, meter: str = "cpu.time", name: str = "shop/p1") -> int:
        """What is booked of a pod."""
        return sum(u.quantity for u in self.usages if u.meter == meter and u.resource.name == name)

    def spans(self, meter: str = "cpu.time") -> list[tuple[int, int, int]]:
        """(start, end, quantity) of what is booked, times in seconds of boottime."""
        return [((u.start - WALL) // S, (u.end - WALL) // S, u.quantity) for u in self.usages if u.meter == meter]


def told(sweep: Sweep) -> dict[tuple[str, str], list[int]]:
    """(resource, meter) → the values that a sweep tells."""
    found: dict[tuple[str, str], list[int]] = {}
    for reading in sweep.readings:
        for sample in reading.samples:
            found.setdefault((reading.resource.name, sample.meter), []).append(sample.value)
    return found
