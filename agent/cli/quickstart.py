"""`metering-agent quickstart`: meter this machine now, with embedded defaults, and show the records as they come.

It needs no privilege and keeps everything in ./.run. It meters the cgroup the user already lives in; as root at the
true root of the hierarchy, a child group that it makes, with a small burner inside; where neither can be, the host.
"""

import asyncio
import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from msgspec import Struct
from rich.console import Console

from agent import config
from agent.daemon import KINDS, Daemon
from agent.errors import AgentError
from agent.record import UsageRecord
from agent.sources.hierarchy import Layout

WINDOW, INTERVAL = "10s", "2s"
BURNER = "import time\nwhile True:\n    t = time.perf_counter()\n    while time.perf_counter() - t < 0.02: pass\n    time.sleep(0.08)\n"
GROUP = "metering-quickstart"

console = Console(highlight=False)


class Scene(Struct, frozen=True):
    """What the quick start will meter: a source section, a meter, and what to say of it."""

    source: str
    meters: str
    saying: str


def _own_cgroup() -> tuple[str, Path] | None:
    """The path of this process's group in the CPU hierarchy, and its directory; None when that is the root."""
    layout = Layout("/")
    hierarchy = layout.cpu("")
    if hierarchy is None:
        return None
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        unified = hierarchy.name == "unified" and not controllers
        if unified or hierarchy.name in controllers.split(","):
            return (path.strip("/"), Path(hierarchy.directory(path.strip("/"))))
    return None


@contextlib.contextmanager
def scene() -> Iterator[Scene]:
    """Choose what to meter; make and remove the group and its burner where that is ours to do."""
    own = _own_cgroup()
    meters = "[{meter: cpu.time, dimension: cpu_core_seconds}, {meter: memory.working_set, dimension: memory}, {meter: alive.time}]"
    if own is not None and own[0] and own[1].is_dir():
        source = f'{{kind: cgroups, include: ["{own[0]}"]}}'
        yield Scene(source, meters, f"your own cgroup {own[0]}")
        return
    if own is not None and os.geteuid() == 0 and os.access(own[1], os.W_OK):
        name = f"{GROUP}-{os.getpid()}"
        group = own[1] / name
        with contextlib.ExitStack() as stack:
            group.mkdir()
            stack.callback(_remove, group)
            burner = subprocess.Popen([sys.executable, "-c", BURNER])  # noqa: S603 - our own text
            stack.callback(burner.wait)
            stack.callback(burner.kill)
            (group / "cgroup.procs").write_text(str(burner.pid))
            yield Scene(
                f'{{kind: cgroups, include: ["{name}"]}}', meters, f"cgroup {name}, in which a small burner runs"
            )
        return
    yield Scene("{kind: host}", "[{meter: host.cpu.time, customer: demo, group_by: [mode]}]", "the whole host")


def _remove(group: Path) -> None:
    for _ in range(50):
        try:
            group.rmdir()
        except OSError:
            time.sleep(0.02)
        else:
            return


def embedded(what: Scene, run: Path) -> str:
    """The embedded configuration, as YAML."""
    match = '[{cgroup: "**"}]' if "cgroups" in what.source else "[]"
    return f"""\
agent: {{cluster: quickstart, data_dir: {run}/data, run_dir: {run}/run, window: {WINDOW}, sample_interval: {INTERVAL}}}
telemetry: {{listen: "127.0.0.1:0"}}
sources: [{what.source}]
meters: {what.meters}
customers: [{{id: demo, name: "You", match: {match}}}]
sinks: [{{id: files, kind: file, path: {run}/out, role: copy}}]
spool: {{max_bytes: 256MiB, retention: 1d, evidence_retention: 1d}}
"""


def quickstart(*, smoke: bool) -> int:
    """Run until interrupted, or with `smoke` until the first record has been delivered; the exit code."""
    run = Path(".run").resolve()
    run.mkdir(mode=0o700, exist_ok=True)
    with scene() as what:
        text = embedded(what, run)
        (run / "agent.yaml").write_text(text)
        console.print(
            f"Metering {what.saying} for customer [bold]demo[/]: a sweep each {INTERVAL}, a record each {WINDOW}."
        )
        console.print("The first record comes within 20 s. Stop with Ctrl-C.\n")
        try:
            return asyncio.run(_live(lambda: config.parse(text, "quickstart", KINDS, os.environ), run, smoke=smoke))
        except AgentError as error:
            console.print(f"[red]{error}[/]", markup=True)
            return error.exit_code


async def _live(load, run: Path, *, smoke: bool) -> int:  # type: ignore[no-untyped-def]
    daemon = Daemon(load)
    running = asyncio.create_task(daemon.run(), name="agent")
    showing = asyncio.create_task(_show(daemon, run, smoke=smoke), name="show")
    await asyncio.wait({running, showing}, return_when=asyncio.FIRST_COMPLETED)
    if showing.done() and not showing.cancelled():
        showing.result()
    daemon.stop()
    code = await running
    showing.cancel()
    console.print(f"\nStopped. Records are in {run}/out, the spool is in {run}/data. Explain one with:")
    console.print(f"  .venv/bin/metering-agent explain --config {run}/agent.yaml customer demo")
    return code


async def _show(daemon: Daemon, run: Path, *, smoke: bool) -> None:
    """Print records as their files appear; with `smoke`, return after the first."""
    shown = {path.name for path in (run / "out").glob("*.ndjson")}
    while True:
        await asyncio.sleep(0.2)
        fresh = sorted(path for path in (run / "out").glob("records-*.ndjson") if path.name not in shown)
        for path in fresh:
            shown.add(path.name)
            for line in path.read_bytes().splitlines():
                record = UsageRecord.parse(line)
                _print(record)
            console.print(f"  [dim]→ {path}[/]")
        if fresh and smoke:
            return


def _print(record: UsageRecord) -> None:
    who = record.customer or record.kind
    span = f"{record.start / 1e9:.0f}"
    console.print(
        f"{who:14} {record.dimension:18} {record.quantity:>20,} {record.base_unit:8} {record.covered / 1e9:.3f} s from {span}"
    )
