"""`sink try`: the request as it would leave, nothing sent, no secret shown, and no file of one read."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from agent.cli.app import app

CONFIG = """\
agent: {cluster: c, node: n}
sources: [{kind: cgroups, include: [a.slice/*]}]
meters: [{meter: cpu.time, group_by: [unit]}, {meter: memory.working_set, dimension: ram}]
customers: [{id: acme}, {id: blue, ids: {bill: cus_1}}]
sinks:
  - id: bill
    kind: http
    role: copy
    preset: metronome
    token_file: /nowhere
    dimensions: {cpu_time: {id: cpu, unit: core-second, scale: 3}}
  - {id: one, kind: cloudevents, role: copy, url: https://b.example/x, token_file: /nowhere}
  - {id: long, kind: http, role: copy, preset: orb, dimensions: {ram: {unit: KiB-hour, scale: 18}}}
  - {id: files, kind: file, role: copy, path: /nowhere/out}
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A file with several sinks."""
    path = tmp_path / "agent.yaml"
    path.write_text(CONFIG)
    return path


def tried(config: Path, sink: str, code: int = 0) -> str:
    """What is said."""
    result = CliRunner().invoke(app, ["sink", "try", sink, "--config", str(config)])
    assert result.exit_code == code, result.output
    return result.output


def test_a_request_is_shown_as_it_would_leave(config: Path) -> None:
    """Of the first customer whom the sink knows by an id of its own."""
    lines = tried(config, "bill").splitlines()
    assert lines[:7] == [
        "# a made-up record of cpu_time, of customer blue",
        "",
        "POST https://api.metronome.com/v1/ingest",
        "Content-Type: application/json",
        "Content-Encoding: gzip",
        "Authorization: [secret]",
        "",
    ]
    assert '"customer_id":"cus_1"' in lines[7]
    assert '"properties":{"unit":"example","value":"123.457"}' in lines[7]


def test_every_dimension_is_shown(config: Path) -> None:
    """Of a sink that takes all."""
    told = tried(config, "one")
    assert told.count("POST https://b.example/x") == 2
    assert "Authorization: [secret]" in told


def test_what_would_be_held_is_said(config: Path) -> None:
    """Before the first record is."""
    assert "held for a person: " in tried(config, "long")
    assert "more than 15 digits" in tried(config, "long")


def test_a_sink_that_is_not_there_or_makes_no_request(config: Path) -> None:
    """With the cure."""
    assert "x is not a sink's id. Known: bill, one, long, files." in tried(config, "x", 2)
    assert "a file sink makes no request" in tried(config, "files", 2)
