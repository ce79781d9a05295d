"""`reconcile`: the ledger held against what a back end says that it holds, and what agrees confirmed."""

import json
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner, Result

from agent.cli.app import app
from agent.delivery.account import Account, Booked, compare
from agent.sinks import Holding
from tests.cli.conftest import Ask, Stage


@pytest.fixture
def delivered(stage: Stage, tmp_path: Path) -> Path:
    """A configuration with the sink that the stage has delivered to; the agent is stopped."""
    stage.deliver()
    stage.spool.close()
    path = tmp_path / "agent.yaml"
    path.write_text(f"""\
agent: {{data_dir: {tmp_path}/data, run_dir: {tmp_path}/run}}
sources: [{{kind: cgroups, include: ["customers.slice/**"]}}]
meters: [{{meter: cpu.time, dimension: cpu}}, {{meter: memory.working_set, dimension: memory}}]
customers: [{{id: acme, match: [{{cgroup: customers.slice/acme}}]}}]
sinks: [{{id: files, kind: file, path: {tmp_path}/out}}]
""")
    return path


def reconcile(path: Path, *argv: str, sink: str = "files") -> Result:
    """The stage's day."""
    day = ("--from", "2027-01-15", "--to", "2027-01-16")
    return CliRunner().invoke(app, ["reconcile", sink, *day, "--config", str(path), *argv])


def test_what_agrees_is_confirmed_once_and_explained(delivered: Path, ask: Ask) -> None:
    """With its line in the audit trail."""
    done = reconcile(delivered)
    assert done.exit_code == 0, done.output
    assert "2 records are confirmed." in done.output
    assert "the sink was seen to hold it as it was sent" in ask("explain", "2")
    assert "confirmed" not in ask("explain", "1")  # nobody's, and never sent
    assert reconcile(delivered).exit_code == 0
    acts = [act["what"] for act in json.loads(ask("spool", "audit", "--json"))]
    assert acts == ["sink confirm files (2)", "sink confirm files (0)"]


def test_what_differs_is_named_with_the_record_behind_it(delivered: Path, ask: Ask) -> None:
    """One line was altered and one is gone: two records, and the exit code says so."""
    (file,) = delivered.parent.joinpath("out").glob("*.ndjson")
    cpu, _memory = file.read_text().splitlines()
    file.write_text(cpu.replace('"quantity":"5035"', '"quantity":"5036"') + "\n")
    done = reconcile(delivered, "--json")
    assert done.exit_code == 1
    lines = {line["dimension"]: line for line in json.loads(done.output)["lines"]}
    assert (lines["cpu"]["here"], lines["cpu"]["there"], lines["cpu"]["difference"]) == ("5035", "5036", "1")
    assert [d["what"] for d in lines["cpu"]["discrepancies"]] == ["another value there"]
    assert [(d["seq"], d["what"]) for d in lines["memory"]["discrepancies"]] == [(3, "missing there")]
    assert "confirmed" not in ask("explain", "2")
    assert "missing there" in reconcile(delivered).output


def test_a_sink_that_is_not_there_is_told(delivered: Path) -> None:
    """With those that are."""
    done = reconcile(delivered, sink="elsewhere")
    assert done.exit_code == 1
    assert "Known: files" in done.stderr


def booked(seq: int, value: str = "1", state: str = "delivered", *, within: bool = True) -> Booked:
    """A record of acme's."""
    return Booked(seq, f"r{seq}", "acme", "cpu", value, state, within)


def holding(name: str | None, value: str = "1") -> Holding:
    """Something that the back end has for acme."""
    return Holding("acme", "cpu", value, 0, name)


def whats(account: Account) -> list[str]:
    """What differs."""
    return [one.what for line in account.lines for one in line.discrepancies]


@pytest.mark.parametrize(
    ("here", "there", "what"),
    [
        ([booked(1)], [holding("r1")], []),
        ([booked(1, "1.50")], [holding("r1", "1.5")], []),
        ([booked(1)], [], ["missing there"]),
        ([booked(1)], [holding("r1"), holding("r1")], ["there 2 times"]),
        ([booked(1)], [holding("r1", "2")], ["another value there"]),
        ([booked(1, state="ambiguous")], [holding("r1")], ["there, and ambiguous here"]),
        ([booked(1, state="ambiguous")], [], []),
        ([booked(1, within=False)], [], []),
        ([booked(1, within=False)], [holding("r1")], []),
        ([], [holding("other"), holding(None)], []),
    ],
)
def test_what_a_difference_is(here: Sequence[Booked], there: Sequence[Holding], what: list[str]) -> None:
    """Other agents' usage is none; neither is what was not delivered, and is not there."""
    account = compare(here, there)
    assert whats(account) == what
    assert account.agrees == (not what)
    assert account.confirmed == tuple(one.seq for one in here if not what and there)


@given(
    values=st.lists(st.tuples(st.integers(1, 10**30), st.integers(0, 2)), max_size=9),
    others=st.lists(st.integers(1, 10**30), max_size=3),
)
def test_sums_are_exact_and_every_difference_has_its_records(values: list[tuple[int, int]], others: list[int]) -> None:
    """Whatever is there any number of times."""
    here = [booked(n, f"{value}") for n, (value, _) in enumerate(values)]
    there = [holding(f"r{n}", f"{value}") for n, (value, times) in enumerate(values) for _ in range(times)]
    account = compare(here, [*there, *(holding(None, f"{value}") for value in others)])
    if not values and not others:
        assert account.lines == ()
        return
    (line,) = account.lines
    assert Decimal(line.here) == sum(value for value, _ in values)
    assert Decimal(line.there) == sum(value * times for value, times in values)
    assert Decimal(line.others) == sum(others)
    assert {one.seq for one in line.discrepancies} == {n for n, (_, times) in enumerate(values) if times != 1}
