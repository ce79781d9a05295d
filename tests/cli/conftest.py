"""A small spool that was really metered: two customers' worth of cgroups, read by a source of our own hand."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from agent.attribution import Customer, Rules
from agent.cli.app import app
from agent.metering import Metering, Plan
from agent.model import NS_PER_S, Dimension, Reading, Resource, Sample, Sweep
from agent.sinks.file import FileSink
from agent.sources.cgroups import METERS
from agent.spool import Spool
from agent.spool.outbox import Outbox
from tests.spool.draining import drain

EPOCH = 1_800_000_000 * NS_PER_S  # 2027-01-15T08:00:00Z, on the edge of a window
BOOTED = 10_000  # seconds before it
ACME = Customer("acme", ({"cgroup": "customers.slice/acme"},))

Ask = Callable[..., str]


class Groups:
    """customers.slice with acme, acme/web inside that, and a stray that is nobody's. Values are set by hand."""

    id = "cgroups"
    meters = METERS

    def __init__(self) -> None:
        self.cpu = {
            "customers.slice": 0,
            "customers.slice/acme": 0,
            "customers.slice/acme/web": 0,
            "customers.slice/stray": 0,
        }
        self.memory = 4096
        self.now = BOOTED * NS_PER_S

    def burn(self, name: str, ns: int) -> None:
        """This group used CPU time, and so did all around it."""
        while name:
            self.cpu[name] += ns
            name = name.rpartition("/")[0]

    def sweep(self) -> Sweep:
        """Everything as it stands."""
        readings = []
        for name, value in self.cpu.items():
            above = name.rpartition("/")[0]
            resource = Resource(f"k/{name}", name, f"k/{above}" if above else None, "customers.slice", {"cgroup": name})
            samples = [Sample("cpu.time", name, value, self.now)]
            if name.endswith("web"):
                samples.append(Sample("memory.working_set", name, self.memory, self.now))
            readings.append(Reading(resource, tuple(samples)))
        return Sweep(self.id, "boot", self.now, readings, frozenset(f"k/{name}" for name in self.cpu))

    def close(self) -> None:
        pass


class Stage:
    """An agent without its daemon, on a clock of our own."""

    def __init__(self, home: Path) -> None:
        self.home, self.groups = home, Groups()
        self.spool = Spool.open(home / "data", run_dir=home / "run", fingerprint={}, now=EPOCH, reserve=0)
        self.metering = Metering(
            self.spool, self.plan(ACME), home / "run", now=self._now, synchronised=lambda: True, boot="boot"
        )
        self.outbox = Outbox(self.spool)
        self.outbox.register("files", "file", "billing", b"{}", since=None)
        self.metering.sweep(self.groups)

    def _now(self) -> tuple[int, int]:
        return EPOCH + self.groups.now - BOOTED * NS_PER_S, self.groups.now

    def plan(self, *customers: Customer) -> Plan:
        """Metering for these customers."""
        meters = {meter.name: meter for meter in METERS}
        return Plan(
            cluster="c",
            node="n",
            meters=meters,
            feeds=dict.fromkeys(meters, frozenset({"cgroups"})),
            dimensions=(Dimension("cpu", "cpu.time"), Dimension("memory", "memory.working_set")),
            rules=Rules(customers),
            window=10 * NS_PER_S,
            interval=2 * NS_PER_S,
            fresh_boot=0,
            hold=3600 * NS_PER_S,
            accept_after=3600 * NS_PER_S,
        )

    def run(self, seconds: int) -> None:
        """Sweep every two seconds; in each acme uses 7 ns by itself and 1000 by its web, the stray 300."""
        for _ in range(seconds // 2):
            self.groups.now += 2 * NS_PER_S
            self.groups.burn("customers.slice/acme", 7)
            self.groups.burn("customers.slice/acme/web", 1000)
            self.groups.burn("customers.slice/stray", 300)
            self.metering.sweep(self.groups)

    def deliver(self) -> None:
        """Drain the file sink."""
        drain(FileSink("files", "billing", self.home / "out"), self.outbox, EPOCH + 60 * NS_PER_S)


def config(home: Path) -> str:
    """A configuration whose spool is the stage's."""
    path = home / "agent.yaml"
    path.write_text(f"""\
agent: {{data_dir: {home}/data, run_dir: {home}/run}}
sources: [{{kind: host}}]
meters: [{{meter: host.uptime}}]
""")
    return str(path)


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    """An agent that has metered one window: acme's cpu and memory, and the stray's cpu, which nobody owns."""
    staged = Stage(tmp_path)
    staged.run(10)
    yield staged
    staged.spool.close()


@pytest.fixture
def ask(tmp_path: Path) -> Ask:
    """The output of a command that looks into the stage's spool; the test fails if the command does."""

    def run(*argv: str, code: int = 0) -> str:
        done = CliRunner().invoke(app, [*argv, "--data-dir", str(tmp_path / "data")])
        assert done.exit_code == code, done.output
        return done.output

    return run
