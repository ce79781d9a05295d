"""DESIGN §7: a sink that left the configuration is told what it is owed as before."""

import json
from pathlib import Path
from typing import Any

from agent import config
from agent.config import Config
from agent.kinds import KINDS, METERS
from agent.outlets import REMOVED, outlets
from agent.spool.outbox import Outbox
from agent.spool.remembered import remembered
from tests.spool.ledger import append, minutes, opened


def configured(*sinks: str, ids: dict[str, str] | None = None) -> Config:
    """One customer, and these billing sinks, of which the first takes the dimension."""
    sections: dict[str, Any] = {
        "agent": {"cluster": "test"},
        "sources": [{"kind": "cgroups", "include": ["a.slice/**"]}],
        "meters": [{"meter": "cpu.time", "dimension": "cpu"}],
        "customers": [{"id": "acme", "match": [{"cgroup": "a.slice/acme"}], "ids": ids or {}}],
        "sinks": [
            {
                "id": sink,
                "kind": "cloudevents",
                "profile": "openmeter-v1",
                "url": "https://billing.example/events",
                "dedupe_horizon": "32d",
                "dimensions": {"cpu": {"aggregation": "sum"}},
            }
            for sink in sinks
        ],
    }
    return config.parse(json.dumps(sections), "agent.yaml", KINDS, {})


def test_a_sink_that_was_renamed_is_told_its_backlog_by_the_names_that_its_customers_had_there(tmp_path: Path) -> None:
    """Found by the campaign: a configuration can name customers at its own sinks only, and `acme` is nobody there."""
    outbox = Outbox(opened(tmp_path))
    before, _ = outlets(configured("events", ids={"events": "cus_1"}), outbox, METERS, 0)
    append(outbox.spool, *minutes([1]))
    after, alarms = outlets(configured("later", ids={"later": "cus_2"}), outbox, METERS, 0)
    assert alarms == {"events": REMOVED}
    assert before["events"].route.customers == after["events"].route.customers == {"acme": "cus_1"}
    assert after["later"].route.customers == {"acme": "cus_2"}
    outbox.spool.close()


def test_the_names_that_the_configuration_said_last_count(tmp_path: Path) -> None:
    """Corrected while the sink was still configured."""
    outbox = Outbox(opened(tmp_path))
    for name in ("cus_typo", "cus_1"):
        outlets(configured("events", ids={"events": name}), outbox, METERS, 0)
    append(outbox.spool, *minutes([1]))
    after, _ = outlets(configured(), outbox, METERS, 0)
    assert after["events"].route.customers == {"acme": "cus_1"}
    outbox.spool.close()


def test_the_names_go_with_the_sink(tmp_path: Path) -> None:
    """One that is owed nothing is forgotten whole."""
    outbox = Outbox(opened(tmp_path))
    outlets(configured("events", ids={"events": "cus_1"}), outbox, METERS, 0)
    assert outlets(configured(), outbox, METERS, 0) == ({}, {})
    assert remembered(outbox.spool.db).customers == {}
    outbox.spool.close()
