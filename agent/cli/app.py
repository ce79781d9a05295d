"""Every command with its options. What a command finds out, and how that is told, lies in the modules it imports."""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from agent.cli import DEFAULT_CONFIG
from agent.cli.options import ConfigPath, DataDir, Json, directory_of, group, ledger_of
from agent.cli.sink import sink
from agent.cli.spool import spool
from agent.errors import ConfigError
from agent.spool.ledger import Ledger

app = group("Meters what customers use, and forwards it to billing exactly once in effect.")
clock = group("The clock that usage is billed by.")
app.add_typer(spool, name="spool")
app.add_typer(sink, name="sink")
app.add_typer(clock, name="clock")


@app.command()
def run(config: ConfigPath = DEFAULT_CONFIG) -> None:
    """Meter and deliver until told to stop. SIGHUP reads the configuration again."""
    # Begin anew, by the way that `agent/__main__.py` keeps free of what this command line is made of.
    program = sys.orig_argv[: len(sys.orig_argv) - len(sys.argv[1:])]
    os.execv(sys.executable, [*program, "run", "--config", str(config)])  # noqa: S606 - ourselves, without a shell


@app.command()
def quickstart(
    smoke: Annotated[bool, typer.Option("--smoke", help="End after the first record has been delivered.")] = False,
) -> None:
    """Meter this machine now, without a configuration file; everything is kept in ./.run."""
    from agent.cli.quickstart import quickstart as start

    raise typer.Exit(start(smoke=smoke))


@app.command()
def once(
    config: ConfigPath = DEFAULT_CONFIG,
    seconds: Annotated[float, typer.Option(min=0.1, max=3600, help="Time between the two readings.")] = 2,
    json: Json = False,
) -> None:
    """Read twice and show what would be billed to whom. Nothing is sent, locked or kept."""
    from agent.cli import check, show, tables
    from agent.cli.once import once as read

    found = read(check.load(config), seconds)
    show.json(found) if json else tables.once(found)


@app.command()
def check(
    config: ConfigPath = DEFAULT_CONFIG,
    cases: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A YAML list of {resource: {labels}, expect: customer} to try.")
    ] = None,
    json: Json = False,
) -> None:
    """Name every problem of a configuration by file, line and key; with --cases, also try its rules.

    Exit code 2: the configuration, or the file of cases, has problems. 1: a case failed. 0: neither.
    """
    from agent.cli import check as checking
    from agent.cli import show, tables

    try:
        checked = checking.check(config, cases)
    except ConfigError as error:
        if not json:
            raise
        checked = checking.Checked(problems=tuple(error.problems))
    show.json(checking.plain(checked)) if json else tables.checked(checked, config)
    raise typer.Exit(checked.exit_code)


@app.command()
def simulate(
    pods: Annotated[
        list[Path],
        typer.Option(
            metavar="FILE",
            help="What `kubectl get pods,namespaces,nodes -A -o json` (or yaml) says; several files add up.",
        ),
    ],
    config: ConfigPath = DEFAULT_CONFIG,
    against: Annotated[
        Path | None, typer.Option(metavar="OLD", help="The configuration in force: show only what would move.")
    ] = None,
    json: Json = False,
) -> None:
    """Say which customer each pod of a cluster would go to, by which rule, and what a change would move.

    Needs no cluster. Exit code 2: a configuration, or the file of pods, has problems.
    """
    from agent import clock as wall
    from agent.cli import check as checking
    from agent.cli import show
    from agent.cli import simulate as simulating

    cfg, old = checking.load(config), checking.load(against) if against is not None else None
    found = simulating.simulate(cfg, simulating.cluster(pods), old, wall.now()[0])
    show.json(found) if json else simulating.tell(found)


@app.command()
def explain(
    what: Annotated[str, typer.Argument(metavar="[record|customer|resource|pod]", help="What the name is of.")],
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="NAME",
            help="A record's id or number, a customer's id, a resource's name, or a pod's, as namespace/name or UID.",
        ),
    ] = None,
    config: ConfigPath = DEFAULT_CONFIG,
    data_dir: DataDir = None,
    json: Json = False,
) -> None:
    """Say why: which counters moved, which rule matched, what was sent.

    From what the spool keeps and nothing else: no agent need run, and rule, cgroup and pod may be gone.
    """
    from agent.cli import explain as explaining
    from agent.cli import pod, show, tables, telling

    kinds: dict[str, Callable[[Ledger, str], explaining.Told]] = {
        "record": explaining.record,
        "customer": explaining.customer,
        "resource": explaining.resource,
        "pod": pod.pod,
    }
    if name is not None and what not in kinds:
        raise typer.BadParameter(
            f"{what} is none of {', '.join(kinds)}. Write one of them before the name, or nothing."
        )
    with ledger_of(config, data_dir) as ledger:
        told = explaining.guess(ledger, what) if name is None else kinds[what](ledger, name)
    if json:
        show.json(telling.plain(told))
    elif isinstance(told, explaining.Customer):
        tables.customer(told)
    elif isinstance(told, pod.OfPod):
        tables.pod(told)
    else:
        show.lines(telling.record(told) if isinstance(told, explaining.Explained) else telling.resource(told))


@app.command()
def reconcile(
    sink: Annotated[str, typer.Argument(metavar="SINK", help="The sink's id.")],
    since: Annotated[str, typer.Option("--from", metavar="TIME", help="From then on: a date or an RFC 3339 time.")],
    until: Annotated[str, typer.Option("--to", metavar="TIME", help="Until then, and not then.")],
    config: ConfigPath = DEFAULT_CONFIG,
    json: Json = False,
) -> None:
    """Hold the ledger against what a sink's back end says it holds; what agrees is marked confirmed.

    By customer and dimension, with the records behind each difference. Exit code 1: something differs.
    """
    from agent.cli import reconcile as reconciling
    from agent.cli import show, tables
    from agent.config.scalars import instant

    try:
        start, end = instant(since), instant(until)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--from, --to") from error
    if start >= end:
        raise typer.BadParameter("--to is not after --from.")
    account = reconciling.reconcile(config, sink, start, end)
    show.json(account) if json else tables.account(account)
    raise typer.Exit(0 if account.agrees else 1)


@clock.command("accept")
def clock_accept(config: ConfigPath = DEFAULT_CONFIG, data_dir: DataDir = None) -> None:
    """Vouch for the wall clock after it has stepped: billing time follows it at once. The agent must run."""
    from agent.control import ask

    typer.echo(ask(directory_of(config, data_dir), "clock accept"))


@app.command()
def doctor(config: ConfigPath = DEFAULT_CONFIG, json: Json = False) -> None:
    """Look whether this machine, the spool and the sinks are ready, and name the cure where not. Sends no usage.

    Exit code 0: all that is required holds. 1: something does not, or could not be seen. 2: a bad configuration.
    """
    from agent.cli import check as checking
    from agent.cli import doctor as examining
    from agent.cli import show
    from agent.kinds import build_sink

    checks = examining.diagnose(checking.load(config), config, build_sink)
    show.json(examining.plain(checks)) if json else examining.tell(checks)
    raise typer.Exit(0 if examining.sound(checks) else 1)


@app.command()
def top(
    once: Annotated[
        bool, typer.Option("--once", help="Show it once and end, as it is done without a terminal.")
    ] = False,
    pods: Annotated[bool, typer.Option("--pods", help="Pods, the busiest first, in place of customers.")] = False,
    config: ConfigPath = DEFAULT_CONFIG,
    data_dir: DataDir = None,
    json: Json = False,
) -> None:
    """Watch who uses how much, today and each second, and how delivery fares. From the spool; q leaves."""
    from agent.cli import pods as of_pods
    from agent.cli import show
    from agent.cli import top as watching

    directory, once = directory_of(config, data_dir), once or not sys.stdout.isatty()
    if pods:
        paces = of_pods.Paces()
        if json:
            show.json(of_pods.look(directory, paces))
        else:
            watching.watch(lambda: of_pods.look(directory, paces), of_pods.once, of_pods.draw, once=once)
        return
    tally = watching.Tally()
    if json:
        show.json(watching.look(directory, tally))
    else:
        watching.watch(lambda: watching.look(directory, tally), watching.once, watching.draw, once=once)


@app.command()
def meters(json: Json = False) -> None:
    """List what can be measured: base unit, formula, and whether a parent's counter proves the sum."""
    from agent.cli import catalogue, show, tables

    show.json(catalogue.meters()) if json else tables.meters(catalogue.meters())


@app.command()
def sources(json: Json = False) -> None:
    """List the kinds of sources that a configuration can name, with their keys."""
    from agent.cli import catalogue, show, tables

    show.json(catalogue.sources()) if json else tables.sections(catalogue.sources())


@app.command()
def sinks(json: Json = False) -> None:
    """List the kinds of sinks that a configuration can name, with their keys."""
    from agent.cli import catalogue, show, tables

    show.json(catalogue.sinks()) if json else tables.sections(catalogue.sinks())


@app.command()
def schema() -> None:
    """Print the JSON Schema of the configuration file."""
    from agent.cli import show
    from agent.config import json_schema

    show.document(json_schema())


@app.command()
def version() -> None:
    """Print the version of this release."""
    from agent import __version__

    typer.echo(__version__)
