"""`spool ls`, `show`, `export` and `new-epoch`."""

import json
import os
from pathlib import Path

import pytest
from typer.testing import CliRunner

from agent.cli.app import app
from agent.spool import ledger
from tests.cli.conftest import Ask, Stage, config


def numbers(listing: str) -> list[int]:
    """The sequence numbers of a `--json` listing."""
    return [record["seq"] for record in json.loads(listing)]


def test_ls_lists_what_fits_every_condition(stage: Stage, ask: Ask) -> None:
    """By kind, customer, time and number, oldest first."""
    stage.run(10)
    assert numbers(ask("spool", "ls", "--json")) == [1, 2, 3, 4, 5, 6]
    assert numbers(ask("spool", "ls", "--json", "--kind", "unattributed")) == [1, 4]
    assert numbers(ask("spool", "ls", "--json", "--customer", "acme")) == [2, 3, 5, 6]
    assert numbers(ask("spool", "ls", "--json", "--customer", "acme", "--limit", "1")) == [6]
    assert numbers(ask("spool", "ls", "--json", "--since", "2027-01-15T08:00:20Z")) == [4, 5, 6]
    assert numbers(ask("spool", "ls", "--json", "--customer", "acm")) == []


def test_ls_for_a_sink_lists_what_it_is_still_owed(stage: Stage, ask: Ask) -> None:
    """A billing sink is never owed what is not billed; one that is unknown is an error."""
    assert numbers(ask("spool", "ls", "--json", "--sink", "files")) == [2, 3]
    stage.deliver()
    assert ask("spool", "ls", "--sink", "files") == "No such record.\n"
    assert "Known: files" in ask("spool", "ls", "--sink", "fils", code=1)


def test_ls_lists_what_stands_so_at_a_sink(stage: Stage, ask: Ask) -> None:
    """By outcome, at one sink or at any; a word that is no state is answered with those that are."""
    assert numbers(ask("spool", "ls", "--json", "--outcome", "owed")) == [2, 3]
    stage.deliver()
    assert numbers(ask("spool", "ls", "--json", "--sink", "files", "--outcome", "delivered")) == [2, 3]
    assert json.loads(ask("spool", "ls", "--json"))[1]["sinks"] == {"files": "delivered"}
    assert "One of: owed, leaving, held" in ask("spool", "ls", "--outcome", "lost", code=1)


def test_an_export_is_lines_of_records_with_what_became_of_each(stage: Stage, ask: Ask, tmp_path: Path) -> None:
    """To standard output, or to a new file that nobody else can read."""
    stage.deliver()
    out = tmp_path / "records.ndjson"
    assert ask("spool", "export", "--out", str(out)) == ""
    assert out.read_text() == ask("spool", "export")
    assert out.stat().st_mode & 0o777 == 0o600
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert [(line["seq"], line["deliveries"][0]["state"]) for line in lines] == [
        (1, "not for it"),
        (2, "delivered"),
        (3, "delivered"),
    ]
    assert lines[1]["deliveries"][0]["at"] == "2027-01-15T08:01:00.000000000Z"
    assert [json.loads(line)["seq"] for line in ask("spool", "export", "--customer", "acme").splitlines()] == [2, 3]
    assert "not there yet" in ask("spool", "export", "--out", str(out), code=1)


def test_fsck_says_what_it_looked_at_and_ends_with_1_when_something_is_wrong(stage: Stage, ask: Ask) -> None:
    """Sound, beside the agent that runs; then a record whose bytes are not its own."""
    told = ask("spool", "fsck")
    assert told.endswith("Sound.\n")
    assert "records: 3\n" in told
    stage.spool.db.execute("UPDATE record SET crc=crc+1 WHERE seq=2")
    assert "record 2: CRC does not match its bytes" in ask("spool", "fsck", code=1)
    assert json.loads(ask("spool", "fsck", "--json", code=1))["problems"]


def test_ls_for_people_is_a_table(stage: Stage, ask: Ask) -> None:
    """Who, what, when and how much, with the id to ask further."""
    head, _, acme, _ = ask("spool", "ls").splitlines()
    assert head.split() == ["number", "window", "for", "dimension", "group", "quantity", "id", "at", "sinks"]
    assert acme.endswith("  files: owed")
    assert "2027-01-15T08:00:00Z – 08:00:10Z  acme" in acme
    assert "0.000005035 core-seconds" in acme


def test_a_time_that_is_none_is_a_usage_error(stage: Stage, ask: Ask) -> None:
    """The cure is in the message, as in the configuration."""
    assert "2026-01-31T09:00:00Z" in ask("spool", "ls", "--since", "yesterday", code=2)


def test_show_is_the_record_as_sinks_get_it(stage: Stage, ask: Ask) -> None:
    """The stored fields with their number, the CRC, and each sink."""
    shown = json.loads(ask("spool", "show", "2", "--json"))
    stage.deliver()
    (file,) = (stage.home / "out").glob("*.ndjson")
    sent = json.loads(file.read_text().splitlines()[0])
    assert {key: shown["record"][key] for key in sent} == sent
    assert "CRC ok\n" in ask("spool", "show", sent["id"])


def test_a_new_epoch_holds_the_backlog_and_notes_who_and_why(stage: Stage, ask: Ask) -> None:
    """After a restore by a person: the old records wait, are told to wait, and nothing is lost."""
    stage.spool.close()
    path = config(stage.home)
    done = CliRunner().invoke(app, ["spool", "new-epoch", "--config", path, "--reason", "restored from Monday"])
    assert done.exit_code == 0, done.output
    assert numbers(ask("spool", "ls", "--held", "--json")) == [1, 2, 3]
    assert "held: restored from Monday" in ask("explain", "2")
    with ledger.opened(stage.home / "data") as db:
        audit = list(db.execute("SELECT who, what, why FROM audit"))
    assert (f"uid {os.getuid()}", "spool new-epoch", "restored from Monday") in audit


def test_a_new_epoch_needs_the_agent_stopped(stage: Stage) -> None:
    """The running agent holds the lock: exit 3, and nothing is changed."""
    path = config(stage.home)
    done = CliRunner().invoke(app, ["spool", "new-epoch", "--config", path, "--reason", "why not"])
    assert (done.exit_code, "in use by another agent" in done.output) == (3, True)


@pytest.mark.parametrize("argv", [("ls",), ("show", "1")])
def test_no_spool_is_an_error_that_names_the_cure(ask: Ask, argv: tuple[str, ...]) -> None:
    """Exit 3: the directory, and how to name another."""
    assert "--data-dir" in ask("spool", *argv, code=3)


def test_a_new_epoch_makes_no_spool_where_there_is_none(tmp_path: Path) -> None:
    """A wrong path in the configuration must not leave an empty spool behind."""
    done = CliRunner().invoke(app, ["spool", "new-epoch", "--config", config(tmp_path), "--reason", "x"])
    assert done.exit_code == 3
    assert not (tmp_path / "data").exists()


def test_something_else_than_a_spool_is_an_error_not_a_traceback(tmp_path: Path, ask: Ask) -> None:
    """A file of another program under the spool's name."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data/spool.db").write_bytes(b"not a database, but long enough to be read as one" * 100)
    assert "cannot be read" in ask("spool", "ls", code=1)


def test_the_clock_is_accepted_by_the_running_agent_only(stage: Stage, ask: Ask) -> None:
    """Nobody listens: exit 3 and the cure."""
    assert "no agent answers" in ask("clock", "accept", code=3)
