"""`metering-agent spool`: look into the one durable file, and decide what the agent must not decide by itself."""

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, BinaryIO

import msgspec
import typer

from agent.cli import DEFAULT_CONFIG
from agent.cli.options import ConfigPath, DataDir, Json, Reason, Why, directory_of, group, ledger_of
from agent.config import Config
from agent.errors import AgentError, CannotStartError
from agent.spool import deliveries, ledger

spool = group("The one durable file: what is recorded, what is still owed to whom, and what a person must decide.")

AtSink = Annotated[str | None, typer.Option("--sink", metavar="ID", help="Only what this sink has not taken.")]
InState = Annotated[
    str | None,
    typer.Option("--outcome", metavar="STATE", help="Only what stands so at the sink, or at any: owed, rejected …"),
]
OfCustomer = Annotated[str | None, typer.Option("--customer", metavar="ID", help="Only this customer's.")]
Since = Annotated[
    str | None, typer.Option(metavar="TIME", help="Only what closed then or later: a date or an RFC 3339 time.")
]
Held = Annotated[bool, typer.Option("--held", help="Only what is held for a person's decision.")]
Chosen = Annotated[str | None, typer.Argument(metavar="[ID|NUMBER]", help="The record's id or number.")]
All = Annotated[bool, typer.Option("--all", help="Every record that has this --outcome at this --sink.")]
Sink = Annotated[str | None, typer.Option("--sink", metavar="ID", help="At which sink.")]
Outcome = Annotated[str | None, typer.Option("--outcome", metavar="STATE", help="With --all: what has become of them.")]


@spool.command("ls")
def ls(
    sink: AtSink = None,
    outcome: InState = None,
    kind: Annotated[str | None, typer.Option(help="Only one kind: usage, unattributed, system or gap.")] = None,
    customer: OfCustomer = None,
    since: Since = None,
    held: Held = False,
    limit: Annotated[int, typer.Option(min=1, help="At most so many, the newest.")] = 50,
    config: ConfigPath = DEFAULT_CONFIG,
    data_dir: DataDir = None,
    json: Json = False,
) -> None:
    """List records, oldest first, and where they stand at each sink."""
    from agent.cli import show, tables, telling

    moment = _instant(since)
    with ledger_of(config, data_dir) as db:
        where = deliveries.standing(db, sink, outcome)
        found = ledger.entries(db, kind=kind, customer=customer, since=moment, held=held, where=where, limit=limit)
        states = [deliveries.states(db, entry.seq) for entry in found]
    if json:
        show.json([{**telling.line(entry), "sinks": at} for entry, at in zip(found, states, strict=True)])
    else:
        tables.entries(found, states)


@spool.command("show")
def show_one(
    record: Annotated[str, typer.Argument(metavar="ID|NUMBER", help="The record's id or number.")],
    config: ConfigPath = DEFAULT_CONFIG,
    data_dir: DataDir = None,
    json: Json = False,
) -> None:
    """Show one record as it is stored, whether its bytes are sound, and what became of it at each sink."""
    from agent.cli import show, telling

    with ledger_of(config, data_dir) as db:
        entry = ledger.named(db, record)
        sent = deliveries.deliveries(db, entry)
    if json:
        show.json({"record": telling.line(entry), "deliveries": sent})
        return
    show.json(telling.line(entry))
    show.lines([f"CRC {'ok' if entry.sound else 'WRONG: these are not the bytes that were written'}"])
    show.lines(telling.sent(sent, entry))


@spool.command("export")
def export(
    sink: AtSink = None,
    outcome: InState = None,
    customer: OfCustomer = None,
    since: Since = None,
    held: Held = False,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A new file, which only you may read; else standard output.")
    ] = None,
    config: ConfigPath = DEFAULT_CONFIG,
    data_dir: DataDir = None,
) -> None:
    """Write records as lines of JSON, oldest first, each with what became of it at every sink. Changes nothing."""
    from agent.cli import show, telling

    moment = _instant(since)
    with ledger_of(config, data_dir) as db, _written(out) as file:
        where = deliveries.standing(db, sink, outcome)
        for entry in ledger.each(db, customer=customer, since=moment, held=held, where=where):
            line = {**telling.line(entry), "deliveries": deliveries.deliveries(db, entry)}
            file.write(msgspec.json.encode(show.exact(line)) + b"\n")


@contextmanager
def _written(path: Path | None) -> Iterator[BinaryIO]:
    if path is None:
        yield sys.stdout.buffer
        return
    try:
        number = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise AgentError(f"--out {path}: {error.strerror}. Name a file that is not there yet.") from error
    with os.fdopen(number, "wb") as file:
        yield file


@spool.command("fsck")
def fsck(config: ConfigPath = DEFAULT_CONFIG, data_dir: DataDir = None, json: Json = False) -> None:
    """Prove that every record is there and says what it said: pages, CRCs, the sequence, each day's digest.

    Changes nothing, and the agent may run. Exit code 1: something is wrong.
    """
    from agent.cli import show
    from agent.spool.verify import fsck as verify

    report = verify(directory_of(config, data_dir))
    if json:
        show.json(report)
    else:
        show.lines(f"{name}: {fact}" for name, fact in report.facts.items())
        show.lines(report.problems or ["Sound."])
    raise typer.Exit(1 if report.problems else 0)


@spool.command("audit")
def audit(config: ConfigPath = DEFAULT_CONFIG, data_dir: DataDir = None, json: Json = False) -> None:
    """List what was done by hand: when, who, what and why."""
    from agent.cli import show, tables

    with ledger_of(config, data_dir) as db:
        trail = ledger.audit(db)
    show.json(trail) if json else tables.audit(trail)


# -- acts ------------------------------------------------------------------------------------------------------------


@spool.command("resolve")
def resolve(
    record: Chosen = None,
    all_: All = False,
    sink: Sink = None,
    outcome: Outcome = None,
    delivered: Annotated[bool, typer.Option("--delivered", help="The sink has it: never send it again.")] = False,
    resend: Annotated[bool, typer.Option("--resend", help="Send it (again), byte for byte as it was.")] = False,
    reason: Why = "",
    config: ConfigPath = DEFAULT_CONFIG,
) -> None:
    """Decide on what may or may not have arrived (ambiguous, conflict), or is held because it may have."""
    if delivered == resend:
        raise typer.BadParameter("Say what is to become of it: --delivered or --resend.")
    verdict = "delivered" if delivered else "resend"
    _act(config, "spool resolve", all_, record=record, sink=sink, outcome=outcome, reason=reason, verdict=verdict)


@spool.command("requeue")
def requeue(
    record: Chosen = None,
    all_: All = False,
    sink: Sink = None,
    outcome: Outcome = None,
    reason: Why = "",
    config: ConfigPath = DEFAULT_CONFIG,
) -> None:
    """Send what was refused (rejected, unrouted, dropped, conflict) anew, as the configuration has it today."""
    _act(config, "spool requeue", all_, record=record, sink=sink, outcome=outcome, reason=reason)


@spool.command("drop")
def drop(
    reason: Reason,
    record: Chosen = None,
    all_: All = False,
    sink: Sink = None,
    outcome: Outcome = None,
    config: ConfigPath = DEFAULT_CONFIG,
) -> None:
    """Never send a record to a sink. It stays in the ledger, with the reason."""
    _act(config, "spool drop", all_, record=record, sink=sink, outcome=outcome, reason=reason)


@spool.command("erase")
def erase(
    reason: Reason,
    record: Chosen = None,
    customer: Annotated[str | None, typer.Option(metavar="ID", help="Every settled record of this customer.")] = None,
    config: ConfigPath = DEFAULT_CONFIG,
) -> None:
    """Forget what settled records said: their digests take the place of the words, and fsck still holds."""
    from agent.cli.acting import act

    typer.echo(act(config, "spool erase", record=record, customer=customer, reason=reason))


def _act(config: Path, what: str, all_: bool, **choice: str | None) -> None:
    from agent.cli.acting import act

    if all_ == (choice["record"] is not None):
        raise typer.BadParameter("Name one record, or --all with --outcome.")
    typer.echo(act(config, what, **choice))


@spool.command("new-epoch")
def new_epoch(reason: Reason, config: ConfigPath = DEFAULT_CONFIG) -> None:
    """After a spool was restored: measure anew from now, and hold what it still owed. The agent must be stopped."""
    from agent.cli.check import load

    typer.echo(begin_epoch(load(config), reason))


def begin_epoch(cfg: Config, reason: str) -> str:
    """Begin a new epoch in the spool that `cfg` names; what that came to. Raises CannotStartError."""
    from agent.cli.acting import asker, writing

    if not reason.strip():
        raise CannotStartError("--reason is empty. Say why, for whoever reads the audit trail.")
    with writing(cfg) as file:
        now = time.time_ns()
        file.audit(now, asker(), "spool new-epoch", reason)
        if file.restored is None:  # else opening it has begun one already, for a reason of its own
            file.new_epoch(reason, now)
    return "A new epoch has begun. What the old one owed is held: `metering-agent spool ls --held` lists it."


def _instant(text: str | None) -> int | None:
    from agent.config.scalars import instant

    try:
        return instant(text) if text is not None else None
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--since") from error
