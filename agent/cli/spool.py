"""`metering-agent spool`: look into the one durable file, and begin a new epoch in it."""

import os
import time
from typing import Annotated

import typer

from agent.cli import DEFAULT_CONFIG
from agent.cli.options import ConfigPath, DataDir, Json, group, ledger_of
from agent.config import Config
from agent.errors import CannotStartError
from agent.spool import Spool
from agent.spool.identity import fingerprint
from agent.spool.ledger import deliveries, entries, opened

spool = group("The one durable file: what is recorded, and what is still owed to whom.")


@spool.command("ls")
def ls(
    sink: Annotated[str | None, typer.Option(metavar="ID", help="Only what this sink is still owed.")] = None,
    kind: Annotated[str | None, typer.Option(help="Only one kind: usage, unattributed, system or gap.")] = None,
    customer: Annotated[str | None, typer.Option(metavar="ID", help="Only this customer's.")] = None,
    since: Annotated[
        str | None, typer.Option(metavar="TIME", help="Only what closed then or later: a date or an RFC 3339 time.")
    ] = None,
    held: Annotated[bool, typer.Option("--held", help="Only what waits for a person's decision.")] = False,
    limit: Annotated[int, typer.Option(min=1, help="At most so many, the newest.")] = 50,
    config: ConfigPath = DEFAULT_CONFIG,
    data_dir: DataDir = None,
    json: Json = False,
) -> None:
    """List records, oldest first."""
    from agent.cli import show, tables, telling
    from agent.config.scalars import instant

    try:
        moment = instant(since) if since is not None else None
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--since") from error
    with ledger_of(config, data_dir) as ledger:
        found = entries(ledger, kind=kind, customer=customer, sink=sink, since=moment, held=held, limit=limit)
    show.json([telling.line(entry) for entry in found]) if json else tables.entries(found)


@spool.command("show")
def show_one(
    record: Annotated[str, typer.Argument(metavar="ID|NUMBER", help="The record's id or number.")],
    config: ConfigPath = DEFAULT_CONFIG,
    data_dir: DataDir = None,
    json: Json = False,
) -> None:
    """Show one record as it is stored, whether its bytes are sound, and what became of it at each sink."""
    from agent.cli import show, telling
    from agent.cli.explain import found

    with ledger_of(config, data_dir) as ledger:
        entry = found(ledger, record)
        sent = deliveries(ledger, entry)
    if json:
        show.json({"record": telling.line(entry), "deliveries": sent})
        return
    show.json(telling.line(entry))
    show.lines([f"CRC {'ok' if entry.sound else 'WRONG: these are not the bytes that were written'}"])
    show.lines(telling.sent(sent, entry))


@spool.command("new-epoch")
def new_epoch(
    reason: Annotated[str, typer.Option(metavar="WHY", help="Why, for the audit trail.")],
    config: ConfigPath = DEFAULT_CONFIG,
) -> None:
    """After a spool was restored: measure anew from now, and hold what it still owed. The agent must be stopped."""
    from agent.cli.check import load

    typer.echo(begin_epoch(load(config), reason))


def begin_epoch(cfg: Config, reason: str) -> str:
    """Begin a new epoch in the spool that `cfg` names; what that came to. Raises CannotStartError."""
    if not reason.strip():
        raise CannotStartError("--reason is empty. Say why, for whoever reads the audit trail.")
    with opened(cfg.agent.data_dir):  # there must be one: opening it to write would make it
        pass
    now = time.time_ns()
    file = Spool.open(
        cfg.agent.data_dir,
        run_dir=cfg.agent.run_dir,
        fingerprint=fingerprint(),
        now=now,
        max_bytes=cfg.spool.max_bytes,
        reserve=cfg.spool.reserve,
    )
    try:
        file.audit(now, f"uid {os.getuid()}", "spool new-epoch", reason)
        if file.restored is None:  # else opening it has begun one already, for a reason of its own
            file.new_epoch(reason, now)
    finally:
        file.close()
    return "A new epoch has begun. What the old one owed is held: `metering-agent spool ls --held` lists it."
