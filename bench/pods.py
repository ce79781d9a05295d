"""The pods of one real node: the agent, installed by its chart, beside OpenTelemetry Collector's kubeletstats.

A cluster of its own is brought up and filled with pods that only live. Then, one after the other on the same pods, for
as long each: nobody measures; the agent; the Collector; nobody again. What kubelet and containerd spend beyond what
they spend with nobody is what measuring makes the node spend. Then as many pods as no node here can run, as cgroups of
our own, through every stage of the agent, accelerated (`sweep`).
"""

import os
import signal
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from msgspec import Struct

from agent.sources import cgroups
from bench import collector, sweep, tenants
from bench.collector import NotBuiltError
from bench.fresh import fresh, traced
from bench.process import cpu_ns, status
from bench.scale import Scale
from bench.sweep import Work
from bench.table import count, mib, ms, show
from tests.cluster import workloads
from tests.cluster.cluster import Cluster
from tests.cluster.installed import Installed
from tests.cluster.programs import missing
from tests.cluster.waiting import until
from tests.cluster.witness import pods

INTERVAL = 15  # s
EACH = 10  # pods of one namespace, which is one customer
ROOM = 10  # pods beside those that are counted: the agent's
REQUESTS = "metering_kubernetes_api_requests_total"
SWEPT, SWEEPS = (f"metering_sweep_duration_seconds_{what}" for what in ("sum", "count"))
METERS = (
    "cpu.time", "memory.working_set", "network.receive_bytes", "network.transmit_bytes", "io.read_bytes",
    "io.write_bytes", "pids", "alive.time",
)  # fmt: skip
BUDGETS = {
    "own CPU, share of a core": "≤ 0.2 %",
    "resident, most": "≤ 60 MiB, below the Collector",
    "kubelet + containerd beyond nobody": "≤ 0.1 %",
    "requests to the API server, per minute": "≤ 2",
    "sweep and commit, mean": "≤ 50 ms",
}


class Spent(Struct):
    """CPU in shares of one core over a phase."""

    kubelet: float
    containerd: float
    own: float = 0.0
    resident: int = 0
    most: int = 0
    requests: float = 0.0  # per minute
    sweep: float = 0.0  # mean, s


def run(scale: Scale, data: Path) -> None:
    """Print both tables."""
    if reason := missing():
        print(f"not run: {reason}")
        return
    with _node(scale, data) as installed:
        phases = _phases(installed, scale, data)
    _table(phases, scale)
    print()
    _synthetic(scale, data)


@contextmanager
def _node(scale: Scale, data: Path) -> Iterator[Installed]:
    cluster = Cluster(data / "node", f"{os.getpid()}-bench", bound=True)
    try:
        cluster.up(max_pods=scale.pods + ROOM, say=lambda _: None)
        spaces = [f"c{number:02}" for number in range(-(-scale.pods // EACH))]
        cluster.apply(*(workloads.namespace(space) for space in spaces))
        began = time.monotonic()
        cluster.apply(*(pod for space in spaces for pod in workloads.pauses(space, min(EACH, scale.pods))))
        until(lambda: _running(cluster) >= scale.pods, "all pods run", 900, 1)
        print(f"{scale.pods} pods run after {time.monotonic() - began:.0f} s", flush=True)
        installed = Installed(cluster)
        installed.values["config"] = _configuration(spaces)
        yield installed
    finally:
        cluster.down()


def _running(cluster: Cluster) -> int:
    found = cluster.api.get("/api/v1/pods", fieldSelector="status.phase=Running")["items"]
    return min(len(found), len(pods(cluster.node.groups)))


def _configuration(spaces: list[str]) -> dict[str, Any]:
    return {
        "agent": {"cluster": "bench", "window": "5m", "sample_interval": f"{INTERVAL}s"},
        "sources": [{"kind": "kubernetes", "root": "/host"}],
        "meters": [{"meter": meter, "group_by": ["namespace"]} for meter in METERS],
        "customers": [{"id": space, "match": [{"namespace": space}]} for space in spaces],
        "sinks": [{"id": "files", "kind": "file", "path": "/var/lib/metering-agent/out", "role": "copy"}],
    }


def _phases(installed: Installed, scale: Scale, data: Path) -> dict[str, Spent]:
    cluster, seconds = installed.cluster, float(scale.watched)
    time.sleep(seconds / 4)
    before = _spent(cluster, seconds)
    installed.install()
    time.sleep(seconds / 4)
    pid = installed.pid()
    counted = {name: installed.metric(name) for name in (REQUESTS, SWEEPS, SWEPT)}
    cpu, began = cpu_ns(pid), time.perf_counter()
    agent = _spent(cluster, seconds)
    lasted = time.perf_counter() - began
    agent.own = (cpu_ns(pid) - cpu) / 1e9 / lasted
    agent.resident, agent.most = status("VmRSS", pid), status("VmHWM", pid)
    counted = {name: installed.metric(name) - before for name, before in counted.items()}
    agent.requests, agent.sweep = counted[REQUESTS] / lasted * 60, counted[SWEPT] / max(1, counted[SWEEPS])
    installed.uninstall()
    phases = {"agent": agent}
    try:
        phases["Collector, kubeletstats"] = _collector(cluster, scale, data)
    except NotBuiltError as error:
        print(f"without OpenTelemetry Collector: {error}")
    time.sleep(seconds / 4)
    after = _spent(cluster, seconds)
    both = (before, after)
    nobody = Spent(statistics.mean(s.kubelet for s in both), statistics.mean(s.containerd for s in both))
    print(
        f"nobody measuring: kubelet {before.kubelet:.2%} before and {after.kubelet:.2%} after, "
        f"containerd with its shims {before.containerd:.2%} and {after.containerd:.2%} of a core"
    )
    return {"nobody": nobody, **phases}


def _collector(cluster: Cluster, scale: Scale, data: Path) -> Spent:
    program, seconds = collector.built("node", build=scale.build), float(scale.watched)
    config, out, log = (data / f"otelcol.{what}" for what in ("yaml", "out", "log"))
    config.write_text(collector.kubelet_configuration(INTERVAL, cluster.kubelet_url, cluster.node.etc, out))
    with log.open("wb") as said:
        command = cluster.node.inside(str(program), "--config", str(config))
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=said, stderr=said)
    pid = until(lambda: _child(process.pid), "the Collector starts")
    try:
        time.sleep(seconds / 4)
        cpu, began = cpu_ns(pid), time.perf_counter()
        spent = _spent(cluster, seconds)
        spent.own = (cpu_ns(pid) - cpu) / 1e9 / (time.perf_counter() - began)
        spent.resident, spent.most = status("VmRSS", pid), status("VmHWM", pid)
    finally:
        os.kill(pid, signal.SIGTERM)  # nsenter, which waits for it, hands on no signal
        process.wait()
    if not out.exists() or not out.stat().st_size:
        raise RuntimeError(f"the Collector wrote nothing:\n{log.read_text()[-2000:]}")
    return spent


def _child(pid: int) -> int:
    said = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return int(said[0]) if said else 0


def _spent(cluster: Cluster, seconds: float) -> Spent:
    names = ("kubelet", "containerd")
    before, began = [cluster.cpu_ns(name) for name in names], time.perf_counter()
    time.sleep(seconds)
    lasted = time.perf_counter() - began
    kubelet, containerd = ((cluster.cpu_ns(n) - b) / 1e9 / lasted for n, b in zip(names, before, strict=True))
    return Spent(kubelet, containerd)


def _table(phases: dict[str, Spent], scale: Scale) -> None:
    nobody, agent = phases.pop("nobody"), phases["agent"]
    columns, none = list(phases.values()), [""] * (len(phases) - 1)

    def beyond(what: Callable[[Spent], float]) -> list[str]:
        return [f"{what(spent) - what(nobody):+.3%}" for spent in columns]

    rows = {
        "own CPU, share of a core": [f"{spent.own:.3%}" for spent in columns],
        "resident": [mib(spent.resident) for spent in columns],
        "resident, most": [mib(spent.most) for spent in columns],
        "kubelet beyond nobody": beyond(lambda spent: spent.kubelet),
        "containerd and shims beyond nobody": beyond(lambda spent: spent.containerd),
        "kubelet + containerd beyond nobody": beyond(lambda spent: spent.kubelet + spent.containerd),
        "requests to the API server, per minute": [f"{agent.requests:.1f}", *none],
        "sweep and commit, mean": [ms(agent.sweep), *none],
    }
    head = f"{scale.pods} pods, {INTERVAL} s, {scale.watched} s each; the agent: {len(METERS)} meters, CPU each s"
    show([head, *phases, "budget"], [[what, *cells, BUDGETS.get(what, "")] for what, cells in rows.items()])


def _synthetic(scale: Scale, data: Path) -> None:
    number = scale.synthetic
    with tenants.Tenants(number, data, called=sweep.pod_name) as living:
        work = Work(
            living.anchor, number, living.leader, living.done, scale.windows, str(data / "synthetic"), pods=True
        )
        swept = fresh(sweep.measure, work, inherit=[living.done])
        work.windows, work.data = 1, str(data / "synthetic-traced")
        again, syncs = traced(sweep.measure, work, data / "strace", inherit=[living.done])
    print(f"durability: {swept.synchronous} (2 is FULL)")
    names, figures, budgets = sweep.accelerated(number, swept, again, syncs)
    head = f"{count(number)} synthetic pods, {len(cgroups.METERS)} meters, a sweep each {INTERVAL} s, CPU each second"
    show([head, "agent", "budget"], list(zip(names, figures, budgets, strict=True)))
