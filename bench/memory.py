"""An agent that meters a host and nothing else, beside OpenTelemetry Collector's hostmetrics.

Both are started together, sample at the same interval and are left alone in real time. CPU is counted apart for the
first quarter, in which they start. The agent serves its telemetry meanwhile; the Collector has none switched on, which
is in its favour.
"""

import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from msgspec import Struct

from agent.sources.host import METERS
from bench import collector
from bench.collector import NotBuiltError
from bench.process import Syncs, alive, cpu_ns, pss, started, status
from bench.scale import Scale
from bench.table import mib, show

INTERVAL = 15


class Watched(Struct):
    """What one program came to. CPU in ns; sizes in bytes."""

    starting: int
    running: int
    resident: int
    most: int
    anonymous: int
    proportional: int


def configuration(data: Path) -> str:
    """Every meter of the host, for one customer, into files."""
    meters = "\n".join(f"  - {{meter: {meter.name}, customer: house}}" for meter in METERS)
    return f"""\
agent: {{data_dir: {data}/data, run_dir: {data}/run, window: 5m, sample_interval: {INTERVAL}s}}
telemetry: {{listen: "127.0.0.1:0"}}
sources: [{{kind: host}}]
meters:
{meters}
customers: [{{id: house}}]
sinks: [{{id: files, kind: file, path: {data}/out}}]
"""


def agent(data: Path) -> list[str]:
    """The command that runs an agent in `data`, as its unit runs it."""
    data.mkdir()
    config = data / "agent.yaml"
    config.write_text(configuration(data))
    return [sys.executable, "-m", "agent", "run", "--config", str(config)]


def peer(name: str, data: Path, *, build: bool) -> list[str]:
    """The command that runs one build of the Collector. Raises NotBuiltError."""
    program = collector.built(name, build=build)
    config = data / f"otelcol-{name}.yaml"
    config.write_text(collector.configuration(INTERVAL, data / f"otelcol-{name}.out"))
    return [str(program), "--config", str(config)]


def run(scale: Scale, data: Path) -> None:
    """Print the table."""
    commands = {"agent": agent(data / "agent")}
    for name in collector.BUILDS:
        try:
            commands[f"Collector, {name}"] = peer(name, data, build=scale.build)
        except NotBuiltError as error:
            print(f"without OpenTelemetry Collector, {name}: {error}")
    syncs = Syncs(data / "strace")
    with ExitStack() as stack:
        running = {name: started(command, data / f"{name}.log", stack) for name, command in commands.items()}
        if not syncs.missing:  # a second agent beside the first, which is not slowed by being traced
            started([*syncs.command(), *agent(data / "traced")], data / "traced.log", stack)
        began = time.time()
        time.sleep(scale.seconds / 4)
        starting = {name: cpu_ns(alive(process)) for name, process in running.items()}
        time.sleep(scale.seconds * 3 / 4)
        watched = {name: _watched(alive(process), starting[name]) for name, process in running.items()}
        ended = time.time()
    _table(watched, scale.seconds, None if syncs.missing else syncs.between(began, ended) / (ended - began))


def _watched(pid: int, starting: int) -> Watched:
    running, resident, most = cpu_ns(pid) - starting, status("VmRSS", pid), status("VmHWM", pid)
    return Watched(starting, running, resident, most, status("RssAnon", pid), pss(pid))


def _table(watched: dict[str, Watched], seconds: int, syncs: float | None) -> None:
    quarter = seconds / 4
    others = [w.most for name, w in watched.items() if name != "agent"]
    rows: list[tuple[str, Callable[[Watched], str], str]] = [
        ("resident", lambda w: mib(w.resident), "≤ 48 MiB"),
        ("resident, most", lambda w: mib(w.most), f"≤ {mib(min(others))}, a Collector's" if others else ""),
        ("  of that not backed by files", lambda w: mib(w.anonymous), ""),
        ("proportional (PSS)", lambda w: mib(w.proportional), ""),
        (f"CPU in the first {quarter:.0f} s", lambda w: f"{w.starting / 1e9:.3f} s", ""),
        (f"CPU in the {seconds - quarter:.0f} s after", lambda w: f"{w.running / 1e9:.3f} s", ""),
        ("  share of one core", lambda w: f"{w.running / 1e9 / (seconds - quarter):.3%}", ""),
    ]
    print(
        "durability: synchronous=2, FULL, as the agent asserts at its start; "
        "fsync and fdatasync counted by strace in a second agent that runs beside"
    )
    table = [[what, *map(figure, watched.values()), budget] for what, figure, budget in rows]
    traced = "not counted" if syncs is None else f"{syncs:.3f}"
    table.append(["fsyncs per second, start included", traced, *[""] * len(watched)])
    show([f"host only, {INTERVAL} s, after {seconds} s", *watched, "budget"], table)
