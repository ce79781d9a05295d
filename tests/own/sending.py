"""Who sends: a process that delivers a spool through one real sink and may be killed, and what the spool says of it.

`python -m tests.own.sending DATA KIND ARGUMENTS`: deliver all that DATA owes; ARGUMENTS are those of the sink, as JSON.
"""

import asyncio
import json
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping
from decimal import Decimal
from importlib import import_module
from pathlib import Path
from typing import Any

from msgspec import structs

from agent.clock import Moment
from agent.delivery.drain import Drain
from agent.delivery.rendering import Route
from agent.kinds import SINKS
from agent.record import UsageRecord
from agent.sinks import Sink
from agent.spool.outbox import Outbox
from tests.drained import at_once
from tests.faults.process import ROOT
from tests.spool.ledger import append, opened, record

Totals = dict[tuple[str, str], Decimal]


def filled(data: Path, kind: str, count: int, *, seed: int = 1) -> Totals:
    """Put so many records into a new spool that owes them to a sink of this kind; what they come to."""
    dice, totals = random.Random(seed), Totals()
    records: list[UsageRecord] = []
    for number in range(count):
        customer, quantity = dice.choice(["acme", "beta"]), dice.randrange(10**13)
        one = record(number, customer=customer, quantity=quantity)
        records.append(structs.replace(one, dimension=dice.choice(["cpu", "disk"]), group={"pod": f'a"\\{number}\té'}))
        key = customer, records[-1].dimension
        totals[key] = totals.get(key, Decimal(0)) + quantity
    spool = opened(data)
    Outbox(spool).register("own", kind, "billing", b"{}", since=0)
    append(spool, *records)
    spool.close()
    return totals


def outcomes(data: Path) -> Counter[str]:
    """How many records met each outcome; `open` those that met none."""
    spool = opened(data)
    try:
        return Counter(outcome or "open" for (outcome,) in spool.db.execute("SELECT outcome FROM item"))
    finally:
        spool.close()


def built(kind: str, arguments: Mapping[str, Any]) -> Sink:
    """The sink of these arguments."""
    module, name = SINKS[kind]
    values = {key: Path(value) if key.endswith("_file") and value else value for key, value in arguments.items()}
    made: Sink = getattr(import_module(module), name)("own", "billing", **values)
    return made


async def deliver(data: Path, sink: Sink, *, seconds: float = 50, until: Callable[[], bool] | None = None) -> None:
    """Until everything is settled; or, with `until`, until that says so, and then the drain is cancelled."""
    spool = opened(data)
    outbox = Outbox(spool)
    standing = outbox.sinks()["own"]
    drain = Drain(
        sink,
        Route(),
        outbox,
        at_once,
        now=lambda: Moment(time.time_ns(), time.time_ns()),
        chance=lambda: random.random() / 200,  # of what would be minutes
        told=lambda _sink, turn: print(*(f"{s.count} {s.outcome}: {s.why}" for s in turn.settled if s.why), sep="\n"),
    )
    running = asyncio.create_task(drain.run())
    try:
        async with asyncio.timeout(seconds):
            while until is not None or outbox.has_open(standing) or outbox.more(standing):
                await asyncio.sleep(0.005)
                if running.done():
                    running.result()
                if until is not None and until():
                    return
        drain.finish()
        await running
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await sink.close()
        spool.close()


def started(data: Path, kind: str, arguments: Mapping[str, Any]) -> "subprocess.Popen[bytes]":
    """The process."""
    told = json.dumps(dict(arguments), default=str)
    argv = [sys.executable, "-m", "tests.own.sending", str(data), kind, told]
    return subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.DEVNULL)


def main(data: str, kind: str, arguments: str) -> None:
    """Deliver to the end."""
    asyncio.run(deliver(Path(data), built(kind, json.loads(arguments))))


if __name__ == "__main__":
    main(*sys.argv[1:])
