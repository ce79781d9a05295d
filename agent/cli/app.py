"""The command line: every command, its options, and nothing else."""

import sys

import typer

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, add_completion=False)


@app.callback()
def _callback() -> None:
    """Meters what customers use, and forwards it to billing exactly once in effect."""


@app.command()
def quickstart(smoke: bool = typer.Option(False, help="Stop with exit code 0 after the first record.")) -> None:
    """Meter this machine now, with embedded defaults; everything is kept in ./.run."""
    from agent.cli.quickstart import quickstart as act

    sys.exit(act(smoke=smoke))


def main() -> None:
    """The console script."""
    app()
