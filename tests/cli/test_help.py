"""Every command is listed, and explains itself and each of its options."""

from collections.abc import Iterator

import pytest
import typer
from typer.testing import CliRunner

from agent.cli.app import app

COMMANDS = (
    "check",
    "clock accept",
    "doctor",
    "explain",
    "meters",
    "once",
    "quickstart",
    "reconcile",
    "run",
    "schema",
    "simulate",
    "sink discard",
    "sink drain",
    "sink ls",
    "sink pause",
    "sink resume",
    "sink totals",
    "sink try",
    "sinks",
    "sources",
    "spool audit",
    "spool drop",
    "spool erase",
    "spool export",
    "spool fsck",
    "spool ls",
    "spool new-epoch",
    "spool requeue",
    "spool resolve",
    "spool show",
    "top",
    "version",
)


def walk(command: object, name: str = "") -> Iterator[str]:
    """The full name of every command at or below this one."""
    inner = getattr(command, "commands", None)
    if inner is None:
        yield name
    else:
        for word, below in inner.items():
            yield from walk(below, f"{name} {word}".strip())


def test_the_commands_are_these() -> None:
    """A command that comes or goes is a change for users: here, and in the README."""
    assert tuple(sorted(walk(typer.main.get_command(app)))) == COMMANDS


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_says_what_it_and_each_option_is_for(command: str) -> None:
    """`--help` has a sentence for the command, and a text beside each option and argument."""
    found = typer.main.get_command(app)
    for word in command.split():
        found = getattr(found, "commands")[word]  # noqa: B009 - not typed as a group
    assert found.help
    assert all(getattr(parameter, "help", None) for parameter in found.params)
    shown = CliRunner().invoke(app, [*command.split(), "--help"])
    assert shown.exit_code == 0
    assert "Usage:" in shown.output


def test_no_command_at_all_shows_the_list() -> None:
    """Whoever types the bare name sees what there is."""
    shown = CliRunner().invoke(app, []).output
    assert all(f" {command.split()[0]} " in shown for command in COMMANDS)
