"""`once` and the catalogues: what this machine would bill, and what the program can do."""

import json
import os
from pathlib import Path

from typer.testing import CliRunner

from agent.cli.app import app
from agent.cli.once import Once, once
from agent.config import parse
from agent.kinds import KINDS, SINKS
from agent.sources.kubernetes.meters import SUMMARY

HOST = """\
agent: {{data_dir: {0}/data, run_dir: {0}/run}}
sources: [{{kind: host}}]
meters: [{{meter: host.uptime, customer: me}}, {{meter: host.memory.used}}]
customers: [{{id: me}}]
sinks: [{{id: files, kind: file, path: {0}/out}}]
"""


def read(home: Path) -> Once:
    """Two readings of this very machine."""
    return once(parse(HOST.format(home), "agent.yaml", KINDS, os.environ), 0.1)


def test_two_readings_show_what_would_be_billed_to_whom(tmp_path: Path) -> None:
    """Uptime between the readings, to the millisecond, by the rule that gives it away."""
    found = read(tmp_path)
    (uptime,) = [line for line in found.usage if line.dimension == "host_uptime"]
    assert (uptime.bearer, uptime.resource, uptime.rule) == ("me", "uptime", "meters[host_uptime].customer")
    assert 100 <= uptime.quantity <= found.apart // 10**6 + 1
    assert {line.bearer for line in found.usage if line.dimension == "host_memory_used"} == {"system"}


def test_nothing_is_kept_locked_or_sent(tmp_path: Path) -> None:
    """Neither data directory nor run directory nor sink is touched."""
    read(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_it_prints_a_table_or_json(tmp_path: Path) -> None:
    """For people and for programs."""
    path = tmp_path / "agent.yaml"
    path.write_text(HOST.format(tmp_path))
    argv = ["once", "--config", str(path), "--seconds", "0.1"]
    assert "Nothing was sent." in CliRunner().invoke(app, argv).output
    assert json.loads(CliRunner().invoke(app, [*argv, "--json"]).output)["books"] == []


def test_the_catalogue_has_every_meter_with_its_formula() -> None:
    """What the sources measure is what is listed."""
    listed = json.loads(CliRunner().invoke(app, ["meters", "--json"]).output)
    kinds = {**KINDS, "kubernetes, basis: summary": SUMMARY}
    assert [(m["source"], m["name"]) for m in listed] == [(kind, m.name) for kind, ms in kinds.items() for m in ms]
    assert all(m["unit"] and m["formula"] for m in listed)
    people = CliRunner().invoke(app, ["meters"]).output
    assert all(m["name"] in people and m["note"] in people for m in listed)


def test_the_kinds_of_sources_and_sinks_have_their_keys() -> None:
    """As the configuration takes them, each with what it means."""
    sources = {s["kind"]: s for s in json.loads(CliRunner().invoke(app, ["sources", "--json"]).output)}
    assert sources.keys() == KINDS.keys()
    assert [key["name"] for key in sources["cgroups"]["keys"]] == ["id", "root", "include", "anchors"]
    assert {"root", "basis", "network", "kubelet", "kubeconfig"} <= {
        key["name"] for key in sources["kubernetes"]["keys"]
    }
    sinks = {s["kind"]: s for s in json.loads(CliRunner().invoke(app, ["sinks", "--json"]).output)}
    assert sinks.keys() == SINKS.keys()
    assert all(key["meaning"] for sink in sinks.values() for key in sink["keys"])
    assert "lines of JSON" in sinks["file"]["meaning"]


def test_the_schema_is_json_schema() -> None:
    """Editors can check a configuration with it."""
    schema = json.loads(CliRunner().invoke(app, ["schema"]).output)
    assert {"sources", "meters"} <= set(schema["properties"])
    assert schema["required"] == ["sources", "meters"]
