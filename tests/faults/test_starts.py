"""Starts that must not go well, on the real process: a clear message and nothing spoilt, or the stated behaviour."""

import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apsw
import pytest

from agent.errors import CannotStartError
from agent.spool.lock import AnchorLocks
from agent.spool.schema import connect
from tests.conftest import require
from tests.faults.process import Agent, Delivered, configuration
from tests.real.burners import Group, anchor

pytestmark = [pytest.mark.real, pytest.mark.timeout(120)]

FROM_THE_BEGINNING: dict[str, Any] = {"kind": "file", "from": "2020-01-01", "role": "copy"}


@pytest.fixture
def top() -> Iterator[Group]:
    """An anchor of our own."""
    with anchor() as top:
        yield top


def db_of(directory: Path) -> apsw.Connection:
    """The spool of an agent that has ended."""
    return connect(str(directory / "data" / "spool.db"))


def records(directory: Path) -> list[dict[str, Any]]:
    """All that its spool holds, in order."""
    return [json.loads(body) for (body,) in db_of(directory).execute("SELECT body FROM record ORDER BY seq")]


def metered(directory: Path, top: Group, **over: Any) -> Path:
    """An agent that has metered a fifth of a second of nobody's and has stopped in order; its configuration."""
    config = configuration(directory, top.name, {}, **over)
    agent = Agent(config).ready()
    top.burn_once(0.2)
    top.end()
    assert agent.stop() == 0, agent.said()
    return config


def test_a_second_agent_on_the_data_directory_ends_at_once_and_disturbs_nothing(tmp_path: Path, top: Group) -> None:
    """Exit 3 within seconds, naming the key, the directory, the holder and the cure; the first goes on."""
    config = configuration(tmp_path, top.name, {})
    first = Agent(config).ready()
    began = time.monotonic()
    second = Agent(config, log=tmp_path / "second.log")
    assert second.wait() == 3
    assert time.monotonic() - began < 10
    assert second.said() == (
        f"agent.data_dir {tmp_path}/data is in use by another agent (pid {first.process.pid}). "
        "Stop it, or give this one its own data_dir.\n"
    )
    assert first.stop() == 0, first.said()
    assert len({record["source"] for record in records(tmp_path)}) <= 1


def test_a_second_agent_on_an_anchor_waits_and_takes_over_when_the_first_has_stopped(
    tmp_path: Path, top: Group
) -> None:
    """As in a rolling update: nothing of the second is measured while the first still books the anchor."""
    run_dir = tmp_path / "run"
    one, two = configuration(tmp_path / "one", top.name, {}), configuration(tmp_path / "two", top.name, {})
    for config in (one, two):
        sections = json.loads(config.read_text())
        sections["agent"]["run_dir"] = str(run_dir)
        config.write_text(json.dumps(sections))
    first = Agent(one).ready()
    second = Agent(two)
    assert second.wait_for("EXTEND_TIMEOUT_USEC="), second.said()
    assert not second.wait_for("READY=1", 2)
    assert first.stop() == 0, first.said()
    second.ready()
    assert second.stop() == 0, second.said()
    assert "new epoch" not in second.said()


def test_waiting_for_an_anchor_ends_with_a_message(tmp_path: Path) -> None:
    """The same lock with a short patience; the daemon's is a minute."""
    waited: list[int] = []
    first = AnchorLocks(tmp_path, 0, lambda: None)
    first.hold(["customers.slice/a"])
    second = AnchorLocks(tmp_path, 0.3, lambda: waited.append(1))
    with pytest.raises(CannotStartError) as caught:
        second.hold(["customers.slice/a"])
    assert caught.value.exit_code == 3
    assert "sources: anchor customers.slice/a is in use by another agent (pid " in str(caught.value)
    assert str(caught.value).endswith("Stop the other agent, or give the two different anchors.")
    assert waited
    first.close()
    second.hold(["customers.slice/a"])
    second.close()


def test_two_agents_with_anchors_of_their_own_share_a_run_directory(tmp_path: Path, top: Group) -> None:
    """Neither takes the other's witness for a newer copy of its own spool, however often it is started again."""
    configs = []
    for name in ("x", "y"):
        group = top.child(name)
        config = configuration(tmp_path / name, group.name, {})
        sections = json.loads(config.read_text())
        sections["agent"]["run_dir"] = str(tmp_path / "run")
        config.write_text(json.dumps(sections))
        configs.append(config)
    steady = Agent(configs[0]).ready()
    for _ in range(2):
        other = Agent(configs[1]).ready()
        assert other.stop() == 0, other.said()
        time.sleep(1.5)  # the other's next sweep writes its witness
    assert steady.stop() == 0, steady.said()
    again = Agent(configs[0]).ready()
    assert again.stop() == 0
    for agent in (steady, other, again):
        assert "new epoch" not in agent.said()


def test_a_data_directory_that_cannot_be_written_is_named_with_its_cure(tmp_path: Path, top: Group) -> None:
    """Uid 0 without any capability, as the unit runs it: root's own directory mode then counts."""
    require(shutil.which("setpriv") is not None, "setpriv is not installed")
    config = configuration(tmp_path, top.name, {})
    (tmp_path / "data").mkdir(mode=0o500)
    agent = Agent(config, under=["setpriv", "--bounding-set=-all", "--inh-caps=-all"])
    assert agent.wait() == 3
    assert agent.said() == (
        f"agent.data_dir: {tmp_path}/data: Permission denied. "
        "Make it a writable directory of uid 0, or name another in agent.data_dir.\n"
    )


def new_epoch_over(directory: Path, config: Path, before: list[dict[str, Any]], reason: str) -> None:
    """Start the agent on a spool that is not its own continuation, and check all that must follow."""
    sections = json.loads(config.read_text())
    sections["sinks"] = [{"id": "audit", "path": str(directory / "audit"), **FROM_THE_BEGINNING}]
    config.write_text(json.dumps(sections))
    agent = Agent(config, log=directory / "after.log").ready()
    assert agent.stop() == 0, agent.said()
    assert 'event="new epoch"' in agent.said()
    assert reason in agent.said()
    old = {record["id"] for record in before}
    after = [record for record in records(directory) if record["id"] not in old]
    (source,) = {record["source"] for record in after}
    assert source not in {record["source"] for record in before}
    gaps = [record for record in after if record["kind"] == "gap"]
    assert [(gap["reason"], gap["quantity"]) for gap in gaps] == [("new_epoch", "0")]
    assert gaps[0]["start"] >= max(record["start"] for record in before)
    assert reason in gaps[0]["metadata"]["because"]
    db = db_of(directory)
    ((first, last, why),) = db.execute("SELECT first, last, reason FROM held")
    assert (first, last) == (1, len(before))
    assert reason in why
    assert list(db.execute("SELECT who, what FROM audit")) == [("agent", "new epoch")]
    delivered = {record["id"] for record in Delivered(directory / "audit").records}
    assert delivered == {record["id"] for record in after}  # the old backlog waits for a person
    again = Agent(config, log=directory / "again.log").ready()
    assert again.stop() == 0
    assert "new epoch" not in again.said()  # once


def test_a_cloned_spool_begins_a_new_epoch_and_holds_the_old_backlog(tmp_path: Path, top: Group) -> None:
    """An image with a spool inside, booted as another machine: its backlog is the first machine's to send."""
    config = metered(tmp_path, top, sinks=[])
    before = records(tmp_path)
    assert before
    db = db_of(tmp_path)
    identity = json.loads(bytes(db.execute("SELECT value FROM meta WHERE name='identity'").get))
    identity["fingerprint"] = {"machine_id": "of another machine", "instance_id": "i-other"}
    with db:
        db.execute("UPDATE meta SET value=? WHERE name='identity'", (json.dumps(identity).encode(),))
    db.close()
    new_epoch_over(tmp_path, config, before, "cloned spool: ")


def test_a_restored_older_spool_begins_a_new_epoch_and_holds_the_old_backlog(tmp_path: Path, top: Group) -> None:
    """A backup of the data directory, witness and all: the run directory has seen a later commit."""
    config = metered(tmp_path, top, sinks=[])
    shutil.copytree(tmp_path / "data", tmp_path / "backup", ignore=shutil.ignore_patterns("control"))
    before = records(tmp_path)
    assert before
    metered(tmp_path, top, sinks=[])
    shutil.rmtree(tmp_path / "data")
    shutil.copytree(tmp_path / "backup", tmp_path / "data")
    new_epoch_over(tmp_path, config, before, "restored spool: it ends at commit ")


def test_a_disk_that_refuses_the_spool_is_waited_for(tmp_path: Path, top: Group) -> None:
    """ACCOUNTING §7: up, not ready, trying again; no loop of exits, and no deleting by hand what is not in the way."""
    config = configuration(tmp_path, top.name, {})
    obstacle = tmp_path / "data" / "spool.db"
    obstacle.mkdir(parents=True)
    agent = Agent(config)
    assert agent.wait_for("EXTEND_TIMEOUT_USEC=10000000"), agent.said()
    assert not agent.wait_for("READY=1", 1)
    assert agent.process.poll() is None
    obstacle.rmdir()
    agent.ready()
    assert agent.stop() == 0, agent.said()
    assert "recovered" in agent.said()


def test_one_that_waits_for_its_disk_can_be_stopped(tmp_path: Path, top: Group) -> None:
    """Exit 3: it never started."""
    config = configuration(tmp_path, top.name, {})
    (tmp_path / "data" / "spool.db").mkdir(parents=True)
    agent = Agent(config)
    assert agent.wait_for("EXTEND_TIMEOUT_USEC=10000000"), agent.said()
    assert agent.stop() == 3


def test_one_that_waits_for_an_anchor_can_be_stopped(tmp_path: Path, top: Group) -> None:
    """At once, not when the wait is over."""
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    holder = AnchorLocks(run_dir, 0, lambda: None)
    holder.hold([top.name])
    agent = Agent(configuration(tmp_path, top.name, {}))
    assert agent.wait_for("EXTEND_TIMEOUT_USEC=5000000"), agent.said()
    began = time.monotonic()
    assert agent.stop() == 3
    assert time.monotonic() - began < 10
    holder.close()
