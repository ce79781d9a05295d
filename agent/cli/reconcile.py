"""`metering-agent reconcile`: the ledger held against what a back end says that it holds; what agrees is confirmed."""

import asyncio
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from agent import config
from agent.cli.acting import act
from agent.cli.check import load
from agent.config import Config, SinkSection
from agent.delivery.account import Account, Booked, compare
from agent.delivery.rendering import Route, instant
from agent.errors import AgentError
from agent.kinds import METERS, build_sink
from agent.sinks import Accountable, Holding
from agent.spool.acts.choice import runs
from agent.spool.acts.confirming import written
from agent.spool.deliveries import sent_between
from agent.spool.ledger import Ledger, opened

AROUND = 86_400 * 10**9  # ns beside the span in which records are looked for whose time may be told otherwise there
RUNS = 1_000  # runs of numbers in one request to the agent


def reconcile(path: Path, sink: str, start: int, end: int) -> Account:
    """Hold `[start, end)`, ns, against the sink, and confirm what agrees. Raises AgentError."""
    cfg = load(path)
    section = next((section for section in cfg.sinks if section.id == sink), None)
    if section is None:
        raise AgentError(f"{sink}: no sink of this id is configured. Known: {', '.join(s.id for s in cfg.sinks)}.")
    route = config.route(cfg, section, METERS)
    with opened(cfg.agent.data_dir) as db:
        booked = list(_booked(db, route, section, start, end))
    account = compare(booked, asyncio.run(_held(section, start, end, _customers(cfg, route, booked))))
    found = runs(account.confirmed)
    for first in range(0, len(found), RUNS):
        act(path, "sink confirm", sink=sink, records=written(found[first : first + RUNS]))
    return account


def _customers(cfg: Config, route: Route, booked: Sequence[Booked]) -> set[str]:
    """Whose usage is asked for, in the sink's words: all that are configured, and all that have records."""
    return {route.customers.get(c.id, c.id) for c in cfg.customers} | {one.customer for one in booked}


async def _held(section: SinkSection, start: int, end: int, customers: Collection[str]) -> list[Holding]:
    made = build_sink(section)
    try:
        if not isinstance(made, Accountable):
            cure = "Hold `metering-agent sink totals` against its own figures."
            raise AgentError(f"{section.id}: a {section.kind} sink cannot be asked what it holds. {cure}")
        return [holding async for holding in made.holdings(start, end, sorted(customers))]
    finally:
        await made.close()


def _booked(db: Ledger, route: Route, section: SinkSection, start: int, end: int) -> Iterator[Booked]:
    """What was sent, as the sink was told it: by names that are configured now, and the value that was frozen."""
    for entry, state, value in sent_between(db, section.id, start - AROUND, end + AROUND):
        record = entry.record
        measure = (route.measures or {}).get(record.dimension)
        yield Booked(
            seq=entry.seq,
            id=entry.id,
            customer=route.customers.get(record.customer or "", record.customer or ""),
            dimension=record.dimension if measure is None else measure.name,
            value=value or str(record.quantity),
            state=state,
            within=start <= instant(record, route.timestamp) < end,
        )
