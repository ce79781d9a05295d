"""`spool resolve|requeue|drop|erase|audit` and `sink …`: asked of the running agent, or done under the spool's lock."""

import asyncio
import json
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import pytest
from typer.testing import CliRunner

from agent import control
from agent.cli.app import app
from agent.clock import Moment
from agent.model import NS_PER_S
from agent.sinks import Answer, Terms
from agent.spool.acts import ACTS
from tests.cli.conftest import EPOCH, Ask, Stage, config
from tests.spool.draining import Billing, drain

LATER = EPOCH + 60 * NS_PER_S
LOST = Answer(outcome="ambiguous", why="timed out")


def decide(stage: Stage, *argv: str, code: int = 0) -> str:
    """A decision at the command line; the test fails if the command does."""
    done = CliRunner().invoke(app, [*argv, "--config", config(stage.home)])
    assert done.exit_code == code, done.output
    return done.output


def lose(stage: Stage) -> None:
    """Both of acme's records may have arrived, and the sink remembers no id; the agent has stopped."""
    drain(Billing("files", LOST, terms=Terms(max_batch=100, dedupe_horizon=0)), stage.outbox, LATER)
    stage.spool.close()


@contextmanager
def running(stage: Stage) -> Iterator[None]:
    """An agent that does what it is asked, on the stage's spool."""
    ready, loop = threading.Event(), asyncio.new_event_loop()

    def answer(name: str) -> control.Answer:
        async def act(who: str, arguments: Mapping[str, object]) -> object:
            return ACTS[name](stage.outbox, lambda: Moment(LATER, LATER), who, arguments)

        return act

    async def serve() -> None:
        server = await control.serve(stage.home / "data", {name: answer(name) for name in ACTS})
        ready.set()
        try:
            await asyncio.sleep(60)
        finally:
            server.close()

    serving = loop.create_task(serve())
    thread = threading.Thread(target=lambda: loop.run_until_complete(asyncio.wait([serving])))
    thread.start()
    ready.wait(10)
    try:
        yield
    finally:
        loop.call_soon_threadsafe(serving.cancel)
        thread.join()
        loop.close()


def test_a_person_resolves_what_is_ambiguous_and_the_trail_says_so(stage: Stage, ask: Ask) -> None:
    """From the list of what waits, by the command that `explain` names, to the trail."""
    lose(stage)
    listed = json.loads(ask("spool", "ls", "--outcome", "ambiguous", "--json"))
    assert [record["seq"] for record in listed] == [2, 3]
    assert "`metering-agent spool resolve 2 --sink files --delivered|--resend`" in ask("explain", "2")
    assert decide(stage, "spool", "resolve", "2", "--sink", "files", "--delivered", "--reason", "seen") == "Done.\n"
    assert decide(stage, "spool", "resolve", "--all", "--sink", "files", "--outcome", "ambiguous", "--resend")
    assert "settled by a person: seen" in ask("explain", "2")
    assert "it may have arrived since" in ask("explain", "3")
    (first, second) = json.loads(ask("spool", "audit", "--json"))
    assert (first["who"], first["what"]) == (f"uid {os.getuid()}", "spool resolve as delivered 2 at files (1)")
    assert (first["why"], second["what"]) == ("seen", "spool resolve by sending again 3 at files (1)")
    assert ask("spool", "audit").splitlines()[1].endswith("  seen")


def test_the_running_agent_is_asked_and_says_what_came_of_it(stage: Stage, ask: Ask) -> None:
    """It has the lock; its errors are the command's."""
    with running(stage):
        assert "is paused" in decide(stage, "sink", "pause", "files", "--reason", "maintenance")
        assert "spool drop: --reason is empty" in decide(stage, "spool", "drop", "2", "--reason", "", code=1)
        assert decide(stage, "spool", "drop", "2", "--sink", "files", "--reason", "a test") == "Done.\n"
    assert "dropped at 2027-01-15T08:01:00Z: a test" in ask("explain", "2")
    assert [act["why"] for act in json.loads(ask("spool", "audit", "--json"))] == ["maintenance", "a test"]


def test_a_refused_record_is_requeued_and_goes_out(stage: Stage, ask: Ask) -> None:
    """What it says, the cure beside it, and then it is delivered."""
    refused = Answer(outcome="rejected", why="400: no such meter", definite=True)
    drain(Billing("files", refused), stage.outbox, LATER)
    assert "rejected at 2027-01-15T08:01:00Z: 400: no such meter" in ask("explain", "2")
    with running(stage):
        assert decide(stage, "spool", "requeue", "--all", "--sink", "files", "--outcome", "rejected") == "2 done.\n"
    drain(Billing("files"), stage.outbox, LATER)
    assert "files: delivered" in ask("spool", "ls", "--customer", "acme")


def test_an_erased_record_is_listed_and_explained_without_its_words(stage: Stage, ask: Ask) -> None:
    """Number, id and digest are left; every command copes."""
    id_ = json.loads(ask("spool", "show", "2", "--json"))["record"]["id"]
    stage.deliver()
    with running(stage):
        assert decide(stage, "spool", "erase", "2", "--reason", "asked for").startswith("1 erased.")
    listed = ask("spool", "ls")
    assert "(erased)" in listed
    assert id_ in listed
    shown = json.loads(ask("spool", "show", "2", "--json"))["record"]
    assert shown.keys() == {"id", "seq", "kind", "erased", "closed", "sound"}
    assert shown["sound"]
    assert f"what it said had SHA-256 {shown['erased']}" in ask("explain", id_)
    assert ask("explain", "2") == ask("explain", id_)
    assert json.loads(ask("explain", "2", "--json"))["record"] == shown
    assert len(ask("spool", "export").splitlines()) == 3
    assert "5,035 ns" not in ask("explain", "customer", "acme")


def test_sinks_are_listed_with_what_they_are_owed_and_said(stage: Stage, ask: Ask) -> None:
    """Owed, since when, what waits for a person, and the last answer."""
    (before,) = json.loads(ask("sink", "ls", "--json"))
    assert (before["state"], before["owed"], before["oldest"]) == ("delivering", 2, "2027-01-15T08:00:10.000000000Z")
    lose(stage)
    told = ask("sink", "ls")
    assert "2 ambiguous" in told
    assert "2027-01-15T08:01:00Z ambiguous: timed out" in told
    decide(stage, "sink", "drain", "files")
    assert "draining" in ask("sink", "ls")
    assert "1" not in decide(stage, "sink", "resume", "files")
    assert "files is removed; 2 records" in decide(stage, "sink", "discard", "files", "--reason", "contract ended")
    assert ask("sink", "ls") == "No sink is known to this spool.\n"
    assert "Sink number 1 (removed): dropped" in ask("explain", "2")


@pytest.mark.parametrize(
    "argv",
    [
        ("spool", "resolve", "2"),
        ("spool", "resolve", "2", "--delivered", "--resend"),
        ("spool", "requeue"),
        ("spool", "requeue", "2", "--all"),
        ("spool", "drop", "2"),
        ("spool", "erase", "2"),
        ("sink", "discard", "files"),
    ],
)
def test_half_a_decision_is_a_usage_error(stage: Stage, argv: tuple[str, ...]) -> None:
    """Exit 2, and nothing is done."""
    decide(stage, *argv, code=2)


def test_a_spool_that_somebody_else_holds_is_not_written(stage: Stage) -> None:
    """No agent answers, and yet it is locked: exit 3."""
    assert "in use by another agent" in decide(stage, "sink", "pause", "files", code=3)
