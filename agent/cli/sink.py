"""`metering-agent sink`: how each sink stands, and the decisions about one as a whole."""

from typing import Annotated

import typer

from agent.cli import DEFAULT_CONFIG
from agent.cli.options import ConfigPath, DataDir, Json, Reason, Why, group, ledger_of

sink = group("Where records go: how each sink stands, and its life as a whole.")

Sink = Annotated[str, typer.Argument(metavar="ID", help="The sink's id.")]


@sink.command("ls")
def ls(config: ConfigPath = DEFAULT_CONFIG, data_dir: DataDir = None, json: Json = False) -> None:
    """List the sinks: what each has still to take, what waits for a person, and what it answered last."""
    from agent.cli import show, tables
    from agent.spool.deliveries import sink_states

    with ledger_of(config, data_dir) as db:
        found = sink_states(db)
    show.json(found) if json else tables.sinks(found)


@sink.command("totals")
def totals(config: ConfigPath = DEFAULT_CONFIG, data_dir: DataDir = None, json: Json = False) -> None:
    """Sum what each sink was sent, by customer, dimension and what became of it; to be held against the sink's own."""
    from agent.cli import show, tables
    from agent.spool import deliveries

    with ledger_of(config, data_dir) as db:
        found = deliveries.totals(db)
    show.json(found) if json else tables.totals(found)


@sink.command("drain")
def drain(sink: Sink, reason: Why = "", config: ConfigPath = DEFAULT_CONFIG) -> None:
    """Let a sink take what it is owed now, and nothing that comes."""
    _act("sink drain", sink, reason, config)


@sink.command("discard")
def discard(sink: Sink, reason: Reason, config: ConfigPath = DEFAULT_CONFIG) -> None:
    """Drop everything that a sink is owed, and forget the sink."""
    _act("sink discard", sink, reason, config)


@sink.command("pause")
def pause(sink: Sink, reason: Why = "", config: ConfigPath = DEFAULT_CONFIG) -> None:
    """Send a sink nothing until it is resumed; what it is owed waits."""
    _act("sink pause", sink, reason, config)


@sink.command("resume")
def resume(sink: Sink, reason: Why = "", config: ConfigPath = DEFAULT_CONFIG) -> None:
    """Send a paused sink what it is owed."""
    _act("sink resume", sink, reason, config)


@sink.command("try")
def try_(sink: Sink, config: ConfigPath = DEFAULT_CONFIG) -> None:
    """Show the request that a made-up record of each dimension would be. Nothing is sent; secrets are hidden."""
    from agent.cli.check import load
    from agent.cli.trying import tried

    for line in tried(load(config), sink):
        typer.echo(line)


def _act(what: str, sink: str, reason: str, config: ConfigPath) -> None:
    from agent.cli.acting import act

    typer.echo(act(config, what, sink=sink, reason=reason))
