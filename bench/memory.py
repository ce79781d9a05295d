"""An agent that meters a host and nothing else, beside OpenTelemetry Collector's hostmetrics.

Both are started together, sample at the same interval and are left alone in real time. CPU is counted apart for the
first quarter, in which they start. The agent serves its telemetry meanwhile; the Collector has none switched on, which
is in its favour.
"""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from msgspec import Struct

from agent.sources.host import METERS
from bench import collector
from bench.collector import NotBuiltError
from bench.process import Syncs, cpu_ns, pss, status
from bench.scale import Scale
from bench.table import mib, show

INTERVAL = 15
STOP_SECONDS = 30


class Watched(Struct):
    """What one program came to. CPU in ns; sizes in bytes."""

    starting: int
    running: int
    resident: int
    most: int
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


def peer(data: Path, *, build: bool) -> list[str]:
    """The command that runs the Collector. Raises NotBuiltError."""
    program = collector.built(build=build)
    config = data / "otelcol.yaml"
    config.write_text(collector.configuration(INTERVAL, data / "otelcol.out"))
    return [str(program), "--config", str(config)]


def run(scale: Scale, data: Path) -> None:
    """Print the table."""
    commands = {"agent": agent(data / "agent")}
    try:
        commands["Collector"] = peer(data, build=scale.build)
    except NotBuiltError as error:
        print(f"without OpenTelemetry Collector: {error}")
    syncs = Syncs(data / "strace")
    with ExitStack() as stack:
        started = {name: _started(command, data / f"{name}.log", stack) for name, command in commands.items()}
        if not syncs.missing:  # a second agent beside the first, which is not slowed by being traced
            _started([*syncs.command(), *agent(data / "traced")], data / "traced.log", stack)
        began = time.time()
        time.sleep(scale.seconds / 4)
        starting = {name: cpu_ns(process.pid) for name, process in started.items()}
        time.sleep(scale.seconds * 3 / 4)
        for name, process in started.items():
            if process.poll() is not None:
                raise RuntimeError(f"{name} ended: {(data / name).with_suffix('.log').read_text()[-2000:]}")
        watched = {name: _watched(process.pid, starting[name]) for name, process in started.items()}
        ended = time.time()
    _table(watched, scale.seconds, None if syncs.missing else syncs.between(began, ended) / (ended - began))


def _started(command: list[str], log: Path, stack: ExitStack) -> subprocess.Popen[bytes]:
    """Start a program that `stack` ends."""
    with log.open("w") as said:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=said, stderr=said, start_new_session=True)
    stack.callback(_stop, process)
    return process


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Ask it to end, and what runs under it (strace hands on no signal); after a while make it."""
    for signal in (15, 9):
        if process.poll() is None:
            os.killpg(process.pid, signal)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            continue
        return


def _watched(pid: int, starting: int) -> Watched:
    return Watched(starting, cpu_ns(pid) - starting, status("VmRSS", pid), status("VmHWM", pid), pss(pid))


def _table(watched: dict[str, Watched], seconds: int, syncs: float | None) -> None:
    quarter = seconds / 4
    other = watched.get("Collector")
    rows: list[tuple[str, Callable[[Watched], str], str]] = [
        ("resident", lambda w: mib(w.resident), "≤ 48 MiB"),
        ("resident, most", lambda w: mib(w.most), f"≤ {mib(other.most)}, the Collector's" if other else ""),
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
