"""What the commands share: how they fail, the options that several of them take, and where the spool lies."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from agent.errors import AgentError
from agent.spool.ledger import Ledger, opened


class Commands(TyperGroup):
    """Commands whose errors are one message on standard error, with the exit code of DESIGN §8."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command that was asked for."""
        try:
            return super().invoke(ctx)
        except AgentError as error:
            typer.echo(str(error), err=True)
            raise typer.Exit(error.exit_code) from error


def group(about: str) -> typer.Typer:
    """A group of commands."""
    return typer.Typer(
        cls=Commands,
        help=about,
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
    )


ConfigPath = Annotated[Path, typer.Option("--config", metavar="PATH", help="The configuration file.")]
DataDir = Annotated[
    Path | None,
    typer.Option("--data-dir", metavar="DIR", help="The agent's data directory, if not the one --config names."),
]
Reason = Annotated[str, typer.Option("--reason", metavar="WHY", help="Why, for the audit trail.")]
Why = Annotated[str, typer.Option("--reason", metavar="WHY", help="Why, for the audit trail; may be left out.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON document, for programs.")]


def directory_of(config: Path, data_dir: Path | None) -> Path:
    """Where the spool lies: the directory named, else the one in the configuration. Raises ConfigError."""
    if data_dir is not None:
        return data_dir
    from agent.cli.check import load

    return load(config).agent.data_dir


@contextmanager
def ledger_of(config: Path, data_dir: Path | None) -> Iterator[Ledger]:
    """The spool, to be read. Raises AgentError."""
    with opened(directory_of(config, data_dir)) as ledger:
        yield ledger
