"""DESIGN §7: which sinks run after a reload or a restart, and by which configuration."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent import config
from agent.clock import Moment
from agent.outlets import MOVED, STRANDED, Outlet, outlets
from agent.sinks import Answer
from agent.spool.acts import ACTS
from agent.spool.deliveries import states
from agent.spool.outbox import Outbox
from tests.config.written import KNOWN
from tests.spool.draining import Billing, drain
from tests.spool.ledger import NOON, append, opened, record

LOST = Answer(outcome="ambiguous", why="timed out")
EVENTS = "{{id: events, kind: cloudevents, role: copy, url: '{}'}}"
METERS = {meter.name: meter for meters in KNOWN.values() for meter in meters}


class Agent:
    """A spool, and the configuration that is in force."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.start()

    def start(self) -> None:
        self.spool = opened(self._path)
        self.outbox = Outbox(self.spool)

    def restart(self) -> None:
        self.spool.close()
        self.start()

    def load(self, *sinks: str) -> tuple[dict[str, Outlet], dict[str, str]]:
        """Adopt a file with these sinks."""
        text = "sources: [{kind: cgroups, include: ['customers.slice/*']}]\nmeters: [{meter: cpu.time}]\nsinks:\n"
        text += "".join(f"  - {sink}\n" for sink in sinks) if sinks else "  []\n"
        cfg = config.parse(text, "agent.yaml", KNOWN, os.environ, NOON)
        return outlets(cfg, self.outbox, METERS, NOON)

    def send(self, *answers: Answer, now: int = NOON) -> Billing:
        """All that the sink is owed."""
        sink = Billing("events", *answers)
        drain(sink, self.outbox, now)
        return sink

    def act(self, name: str, **arguments: object) -> None:
        ACTS[name](self.outbox, lambda: Moment(NOON, NOON), "uid 7", arguments)

    def state(self, seq: int = 1) -> str:
        return states(self.spool.db, seq)["events"]


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Agent]:
    """On a new spool."""
    made = Agent(tmp_path)
    yield made
    made.spool.close()


def test_a_sink_that_a_person_has_drained_stays_so_though_it_is_configured(agent: Agent) -> None:
    """`sink drain`: it is owed what there was; each reload, and each act, took that back."""
    here = EVENTS.format("http://127.0.0.1:1/a")
    agent.load(here)
    append(agent.spool, record(0))
    agent.act("sink drain", sink="events")
    found, _ = agent.load(here)
    append(agent.spool, record(1))
    assert [seq for seq, _ in agent.send().sent] == [1]
    assert list(found) == ["events"]
    agent.restart()
    assert agent.load(here) == ({}, {})
    assert agent.state(2) == "after it ended"
    agent.act("sink resume", sink="events")
    found, _ = agent.load(here)
    append(agent.spool, record(2))
    assert [seq for seq, _ in agent.send().sent] == [3]


def test_a_drained_sink_that_leaves_the_configuration_is_new_when_it_returns(agent: Agent) -> None:
    """It has ended, then."""
    here = EVENTS.format("http://127.0.0.1:1/a")
    agent.load(here)
    agent.act("sink drain", sink="events")
    agent.load()
    assert agent.outbox.sinks() == {}
    found, _ = agent.load(here)
    append(agent.spool, record(0))
    assert (list(found), len(agent.send().sent)) == (["events"], 1)


def test_a_sink_that_moves_settles_first_where_it_went_before(agent: Agent) -> None:
    """ACCOUNTING §7: the same bytes to another place would be there twice."""
    agent.load(EVENTS.format("http://127.0.0.1:1/a"))
    append(agent.spool, record())
    agent.send(LOST)
    found, alarms = agent.load(EVENTS.format("http://127.0.0.1:1/b"))
    assert (found["events"].freezes, alarms) == (False, {"events": MOVED})
    assert found["events"].section.destination[-1] == "http://127.0.0.1:1/a"


def test_a_sink_that_moves_by_the_environment_is_not_sent_what_may_be_elsewhere(
    agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file says the same; what may have arrived at the former address is a person's, the rest goes to the new."""
    here = EVENTS.format("${BILLING}")
    monkeypatch.setenv("BILLING", "http://127.0.0.1:1/a")
    agent.load(here)
    append(agent.spool, record())
    agent.send(LOST)
    monkeypatch.setenv("BILLING", "http://127.0.0.1:1/b")
    agent.restart()
    append(agent.spool, record(1))
    found, alarms = agent.load(here)
    assert (found["events"].freezes, alarms) == (True, {"events": STRANDED})
    assert (agent.state(1), agent.state(2)) == ("ambiguous", "owed")
    assert [seq for seq, _ in agent.send(now=2 * NOON).sent] == [2]
    assert b"127.0.0.1" not in b"".join(bytes(v) for (v,) in agent.spool.db.execute("SELECT value FROM meta"))


def test_a_sink_whose_former_address_cannot_be_read_any_more_stops_nothing(
    agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ACCOUNTING §7: no start is refused for it. The variable went with the address."""
    monkeypatch.setenv("BILLING", "http://127.0.0.1:1/a")
    agent.load(EVENTS.format("${BILLING}"))
    append(agent.spool, record())
    agent.send(LOST)
    monkeypatch.delenv("BILLING")
    agent.restart()
    found, alarms = agent.load(EVENTS.format("http://127.0.0.1:1/a"))
    assert (alarms, agent.state()) == ({}, "leaving")  # where it goes is the same
    found, alarms = agent.load(EVENTS.format("http://127.0.0.1:1/b"))
    assert (found["events"].freezes, alarms, agent.state()) == (False, {"events": MOVED}, "leaving")


def test_what_was_frozen_and_never_left_is_rendered_anew_for_the_new_place(
    agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It surely is nowhere."""
    here = EVENTS.format("${BILLING}")
    monkeypatch.setenv("BILLING", "http://127.0.0.1:1/a")
    agent.load(here)
    append(agent.spool, record())
    agent.send(Answer(outcome="retry", why="refused", left=False))
    monkeypatch.setenv("BILLING", "http://127.0.0.1:1/b")
    agent.load(here)
    assert (agent.state(), agent.outbox.has_open(agent.outbox.sinks()["events"])) == ("owed", False)
    assert [seq for seq, _ in agent.send().sent] == [1]
