"""How these tests write a configuration: the smallest sound one, with some sections exchanged."""

import pytest

from agent.config import Config, parse
from agent.config.check import KnownMeters
from agent.errors import ConfigError
from agent.model import Meter

NOW = 1_800_000_000 * 10**9  # 2027-01-15


UNITS = {"memory.working_set": "byte·ms", "io.read": "byte", "host.network.transmit_bytes": "byte"}


def _meters(*names: str) -> tuple[Meter, ...]:
    return tuple(Meter(name, UNITS.get(name, "ns"), "counter", "exact", "") for name in names)


KNOWN = {
    "host": _meters("host.cpu.time", "host.network.transmit_bytes"),
    "cgroups": _meters("cpu.time", "memory.working_set", "io.read"),
    "kubernetes": _meters("cpu.time", "memory.working_set", "io.read"),
}
SECTIONS = {
    "sources": "sources: [{kind: cgroups, include: [a.slice/*]}]",
    "meters": "meters: [{meter: cpu.time}]",
    "sinks": "sinks: [{id: files, kind: file, path: /out}]",
}


def text(**sections: str) -> str:
    """A sound file on three lines, whose sections are exchanged for, or followed by, those given."""
    return "\n".join({**SECTIONS, **sections}.values()) + "\n"


def load(written: str, known: KnownMeters = KNOWN, **environ: str) -> Config:
    """The configuration in this text, as of NOW."""
    return parse(written, "agent.yaml", known, {"NODE": "n1", **environ}, NOW)


def problems(written: str, known: KnownMeters = KNOWN, **environ: str) -> list[str]:
    """What is wrong with this file, or the test fails because nothing is."""
    with pytest.raises(ConfigError) as raised:
        load(written, known, **environ)
    return raised.value.problems
