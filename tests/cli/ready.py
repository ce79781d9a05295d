"""A machine that is ready for the agent, in a directory: what `doctor` looks at."""

from collections.abc import Iterable
from pathlib import Path

from agent.cli.health import Check
from agent.config import Config
from agent.config import load as load_file
from tests.config.written import KNOWN

CONFIG = """\
agent: {{data_dir: {0}/data, run_dir: {0}/run}}
sources: [{{kind: cgroups, root: {0}/host, include: ["customers.slice/*"]}}]
meters: [{{meter: cpu.time}}, {{meter: memory.working_set}}]
customers: [{{id: acme}}]
sinks:
  - {sink}
spool: {{max_bytes: 200MiB, retention: 1d, evidence_retention: 1d}}
"""
EVENTS = (
    "{{id: events, kind: cloudevents, profile: openmeter-v1, url: '{url}', dedupe_horizon: 0s,"
    " dimensions: {{cpu_time: {{unit: core-hour}}}}{more}}}"
)
NOWHERE = EVENTS.format(url="http://127.0.0.1:9/api/v1/events", more="")


def configured(home: Path, sink: str = NOWHERE) -> Path:
    """A configuration whose directories lie in `home`."""
    path = home / "agent.yaml"
    path.write_text(CONFIG.format(home, sink=sink))
    path.chmod(0o600)
    return path


def load(path: Path) -> Config:
    """The configuration in it."""
    return load_file(path, KNOWN, {})


def found(checks: Iterable[Check]) -> dict[str, Check]:
    """By what was looked at."""
    return {check.what: check for check in checks}


def group(home: Path, path: str, *files: str) -> None:
    """A group of a v2 hierarchy, with these files."""
    directory = home / "host/sys/fs/cgroup" / path
    directory.mkdir(parents=True, exist_ok=True)
    for name in files:
        (directory / name).write_text("0\n")


def ready(home: Path) -> Path:
    """`home` as a machine with one metered group."""
    group(home, "", "cgroup.controllers")
    group(home, "customers.slice", "cpu.stat")
    group(home, "customers.slice/acme", "cpu.stat", "memory.current", "memory.stat")
    return home
