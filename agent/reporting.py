"""What happened, told to telemetry and the log: transitions are logged once, events are counted. On the loop only."""

import logging
from collections.abc import Mapping
from typing import TextIO

import structlog
from msgspec import Struct

from agent.books import Commit
from agent.delivery.drain import Turn
from agent.metering import Swept
from agent.model import NS_PER_S
from agent.sources import Stats
from agent.telemetry import SpoolLevels, Telemetry
from agent.telemetry import metrics as m

log = structlog.get_logger()


class SinkStock(Struct, frozen=True):
    """One sink at one moment: what it has still to take, what waits for a person, whether it may be built anew."""

    records: int
    oldest: int | None  # when the oldest of them closed
    stuck: Mapping[str, int]  # by outcome
    max_age: int | None
    ended: bool  # it was to end, or to change, and is settled


class Stock(Struct, frozen=True):
    """The spool and its sinks at one moment."""

    levels: SpoolLevels
    sinks: Mapping[str, SinkStock]


class Reporter:
    """Carries facts from the line to those who watch it."""

    def __init__(self, telemetry: Telemetry) -> None:
        self.telemetry = telemetry
        self.failing: set[str] = set()  # what has failed and was logged; recovery is logged once too

    def swept(self, swept: Swept) -> None:
        """One sweep was committed."""
        told, commit = self.telemetry, swept.commit
        told.clock_observed(swept.verdict, swept.offset)
        told.swept(swept.source, seconds=swept.seconds, stamp=swept.stamp)
        told.committed(swept.source, swept.stamp)
        for reason in commit.anomalies:
            told.anomaly(swept.source, reason)
        for reason, count in swept.conflicts.items():
            told.anomaly(swept.source, reason, count)
        for gap in commit.gaps:
            told.gap(swept.source, gap.reason)
        for balance in commit.balances:
            told.balanced(balance, commit.unattributed.get(balance.anchor, 0))
            if balance.overrun:
                log.error("books overrun", anchor=balance.anchor, meter=balance.meter, by=balance.overrun)
        self.recorded(commit)

    def followed(self, source: str, stats: Stats) -> None:
        """How asking the API server goes, as it was at a sweep."""
        failing = stats.failing is not None
        self.telemetry.followed(
            source, requests=stats.requests, relists=stats.relists, failing=failing, heard=stats.last_heard
        )
        if stats.failing is not None:
            self.fails(f"metadata of {source}", stats.failing)
        else:
            self.recovers(f"metadata of {source}")

    def recorded(self, commit: Commit) -> None:
        """A commit made records."""
        for closed in commit.closed:
            r = closed.record
            self.telemetry.recorded(r.kind, customer=r.customer, dimension=r.dimension, quantity=r.quantity)

    def turned(self, sink: str, turn: Turn) -> None:
        """A sink's drain settled something, or could not."""
        told = self.telemetry
        if turn.full is not None:
            self.fails("spool space", turn.full)
        for settled in turn.settled:
            if settled.outcome in m.DELIVERY_OUTCOMES:
                told.settled(sink, settled.outcome, settled.count)
            match settled.outcome:
                case "delivered" | "duplicate":
                    self.recovers(f"sink {sink}")
                case "retry" | "refused":
                    self.fails(f"sink {sink}", settled.why)
                case "ambiguous" if settled.again:
                    log.warning("may have arrived; not settled yet", sink=sink, records=settled.count, why=settled.why)
                case outcome:
                    log.error("not delivered", sink=sink, outcome=outcome, records=settled.count, why=settled.why)

    def stock(self, stock: Stock) -> None:
        """The spool stands so."""
        told = self.telemetry
        told.spool(stock.levels)
        for sink, stands in stock.sinks.items():
            told.backlog(sink, stands.records, stands.oldest)
            told.stuck(sink, stands.stuck)
            if stands.max_age is not None:
                age = told.age(stands.oldest)
                late = age > stands.max_age * 3 // 4
                most = stands.max_age // NS_PER_S
                why = f"its oldest record is {age // NS_PER_S} s old, and it takes none beyond {most} s"
                if late:
                    self.fails(f"age at sink {sink}", why)
                else:
                    self.recovers(f"age at sink {sink}")

    def fails(self, what: str, why: str) -> None:
        """`what` does not work; logged when it begins."""
        if what not in self.failing:
            self.failing.add(what)
            log.error("failing", what=what, why=why)

    def recovers(self, what: str) -> None:
        """`what` works; logged when it had failed."""
        if what in self.failing:
            self.failing.discard(what)
            log.info("recovered", what=what)


def log_to(stream: TextIO, *, least: int = logging.INFO) -> None:
    """Write the log to `stream`, one line of key=value pairs per event, from level `least` up."""
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(least),
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso"),
            structlog.processors.LogfmtRenderer(key_order=["timestamp", "level", "event"]),
        ],
        logger_factory=structlog.PrintLoggerFactory(stream),
    )
