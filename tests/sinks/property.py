"""One schedule for all sinks: what back ends, crashes, restarts and time do, against the true total (L2, L8, L10).

The n-th record's quantity is 4 to the n, so that a total alone tells how often each record is in it.
"""

import asyncio
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from itertools import chain, cycle, repeat
from pathlib import Path
from unittest import mock

from msgspec import Struct, structs

from agent.delivery.quantity import Measure
from agent.delivery.rendering import Route
from agent.record import UsageRecord
from agent.sinks import Sink
from agent.spool.schema import STUCK
from tests.laws.billing import Life, Timeless, World, now
from tests.sinks.doubles import Double, Totals
from tests.spool.ledger import record

CUSTOMERS = {"acme": "e8366954-6f36-47e9-8431-ac95f88b5cc7", "beta": "0a9c4b1e-51c7-4d3f-9d6e-3f2d6f0c8a11"}
DIMENSIONS = {"cpu": "da9611bd-e0f3-4c0d-a754-fda5be730872", "disk": "8a7b5f91-3b85-4cf4-8585-dcdf17f49004"}
TOLD = Route(
    measures={name: Measure(id_, "ns", base="ns") for name, id_ in DIMENSIONS.items()},
    customers=CUSTOMERS,
)
"""Customers and dimensions by UUIDs, in base units."""


class Adapter(Struct, frozen=True):
    """One kind of sink. `double` gets the faults and the world's clock (seconds); `sink` builds one against it.

    What `sink` gives is entered around each life of the agent. `settles`: no schedule leaves anything ambiguous.
    """

    faults: tuple[str, ...]
    double: Callable[[Sequence[str], Callable[[], float], Path], Double]
    sink: Callable[[Double, Path], AbstractContextManager[Sink]]
    route: Route = TOLD
    settles: bool = False


class Schedule(Struct, frozen=True):
    """What happens, in order: of `uses` (customer, dimension), to requests, at turns of the spool, between lives."""

    uses: Sequence[tuple[str, str]]
    faults: Sequence[str] = ()
    turns: Sequence[str] = ()
    gaps: Sequence[float] = ()


class Tally(Struct):
    """What a run of schedules came to, in records."""

    schedules: int = 0
    records: int = 0
    lost: int = 0
    doubled: int = 0
    held: int = 0


Fate = tuple[str, str, str, str]  # customer, dimension, outcome and why of one record


def run(adapter: Adapter, schedule: Schedule) -> tuple[list[Fate], Totals]:
    """Agents follow each other over one spool until everything is settled, in no time."""
    with (
        tempfile.TemporaryDirectory() as path,
        asyncio.Runner(loop_factory=Timeless) as runner,
        mock.patch.object(asyncio, "to_thread", _at_once),
    ):
        return runner.run(_lives(Path(path), adapter, schedule))


async def _at_once(act: Callable[..., object], *args: object) -> object:
    return act(*args)


async def _lives(path: Path, adapter: Adapter, schedule: Schedule) -> tuple[list[Fate], Totals]:
    double = adapter.double(schedule.faults, lambda: now() / 1e9, path)
    world, turns = World(), iter(schedule.turns)
    records = [_used(n, *use) for n, use in enumerate(schedule.uses)]
    third = -(-len(records) // 3)
    coming = chain((records[n : n + third] for n in range(0, len(records), third)), repeat(()))
    for gap, more in zip(cycle(schedule.gaps or [0.0]), coming, strict=False):
        with adapter.sink(double, path) as sink:
            life = Life(path, world, sink, adapter.route, turns)
            try:
                life.append(more)
                if await life.to_its_end() and life.outbox.last() == len(records):
                    return list(_fates(life, records)), double.totals()
            finally:
                life.spool.close()
        await asyncio.sleep(gap)
    raise AssertionError


def _used(number: int, customer: str, dimension: str) -> UsageRecord:
    return structs.replace(record(number, customer=customer, quantity=4**number), dimension=dimension)


def _fates(life: Life, records: Sequence[UsageRecord]) -> Iterator[Fate]:
    rows = life.spool.db.execute("SELECT outcome, why FROM item ORDER BY seq")
    for one, (outcome, why) in zip(records, rows, strict=True):
        yield one.customer or "", one.dimension, outcome, why


def holds(adapter: Adapter, fates: Sequence[Fate], totals: Totals, tally: Tally) -> None:
    """The law, record by record; `tally` grows."""
    left = {key: int(total) for key, total in totals.items()}
    customers: Mapping[str, str] = adapter.route.customers
    tally.schedules += 1
    tally.records += len(fates)
    for number, (customer, dimension, outcome, why) in enumerate(fates):
        measures = adapter.route.measures
        key = customers.get(customer, customer), dimension if measures is None else measures[dimension].name
        counted = left.get(key, 0) >> 2 * number & 3
        left[key] = left.get(key, 0) - counted * 4**number
        tally.doubled += counted > 1
        tally.lost += outcome in ("delivered", "duplicate") and not counted
        tally.held += outcome in STUCK
        assert counted <= 1, (number, outcome, why)
        if outcome in ("delivered", "duplicate"):
            assert counted == 1, (number, outcome, why)
        else:
            assert outcome in STUCK, (number, outcome)
            assert why
        if outcome == "unrouted" or (outcome == "rejected" and "may have arrived" not in why):
            assert not counted, (number, outcome, why)
        assert not (adapter.settles and outcome == "ambiguous"), why
    assert not any(left.values())  # nothing of anybody else's
