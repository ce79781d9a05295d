"""One record as one sink is to be sent it: whose, under which name, how much, at what time. Frozen once, here.

The configuration acts only here, so a change of it reaches what was never submitted and nothing else (L3).
"""

from collections.abc import Collection, Mapping
from typing import Literal

import msgspec
from msgspec import Struct

from agent.delivery.quantity import Measure, convert
from agent.model import NS_PER_S
from agent.record import UsageRecord, record_id, with_seq
from agent.sinks import Entry, Sink
from agent.spool.erasure import is_erased
from agent.spool.outbox import Draft, Outbox, Rendered, Standing, Unsent
from agent.spool.rounding import Carried, Rounding
from agent.spool.schema import BILLED

Instant = Literal["start", "mid", "end", "hour"]
HOUR = 3600 * NS_PER_S


class Route(Struct, frozen=True):
    """What one sink takes, and how it is told.

    `measures`: by our dimension; None: every dimension, in base units. `customers`: our id → the sink's. `orphans`:
    billable dimensions that no sink takes, which this one notes as `unrouted`. `elsewhere`: for a billing sink, the
    billing sink that takes, or notes, a dimension which this one does not. `needs_ids`: it knows no other
    customers.
    """

    measures: Mapping[str, Measure] | None = None
    customers: Mapping[str, str] = {}
    timestamp: Instant = "end"
    orphans: Collection[str] = ()
    elsewhere: Mapping[str, str] = {}
    needs_ids: bool = False


class Rendering:
    """Renders for one sink, inside one transaction of the spool's thread.

    A billable record is one billing sink's for ever, the first's that takes it, and of none it is overlooked: also
    where a reload gives its dimension to another, before or after that one has passed it (L2, L8).
    """

    def __init__(self, sink: Sink, route: Route, outbox: Outbox, standing: Standing, now: int) -> None:
        self._sink, self._route, self._outbox, self._standing, self._now = sink, route, outbox, standing, now
        self._others = outbox.others(standing) if standing.role == "billing" else []

    def __call__(self, seq: int, kind: str, body: bytes) -> Rendered:
        """What becomes of a record here: a draft, an end without sending, or None when it is not for this sink."""
        billing = self._standing.role == "billing"
        if is_erased(body) or (billing and (kind not in BILLED or self._outbox.is_at(self._others, seq))):
            return None
        name = record_id(body)
        if self._route.measures is None and self._sink.terms.verbatim:
            return Draft(seq, name.bytes, with_seq(body, seq), kept=False)
        record = UsageRecord.parse(body)
        if self._route.measures is None:
            measure = Measure(record.dimension, record.base_unit)
        elif record.dimension in self._route.measures:
            measure = self._route.measures[record.dimension]
        elif record.dimension in self._route.orphans:
            return Unsent(seq, name.bytes, "unrouted", f"no sink takes {record.dimension}")
        else:
            if record.dimension in self._route.elsewhere:
                self._outbox.offer(self._route.elsewhere[record.dimension], seq)
            return None
        try:
            payload, rounding = self._rendered(record, str(name), seq, measure)
        except ValueError as error:
            return Unsent(seq, name.bytes, "rejected", str(error))
        return Draft(seq, name.bytes, payload, rounding=rounding)

    def _rendered(self, record: UsageRecord, name: str, seq: int, measure: Measure) -> tuple[bytes, bytes | None]:
        """What is sent, and how its value came about. Raises ValueError saying why it is not sent."""
        self._refuse(record)
        measure = measure.of(record.base_unit)
        customer = record.customer or ""
        before = Carried()
        if measure.rounds:
            before = Carried(*self._outbox.remainder(self._standing, customer, record.dimension))
        value, after = convert(record.quantity, before, measure)
        payload = self._sink.render(
            Entry(
                record=record,
                id=name,
                seq=seq,
                value=value,
                unit=measure.unit,
                dimension=measure.name,
                customer=self._route.customers.get(customer, customer) or record.kind,  # a copy tells of nobody, too
                at=instant(record, self._route.timestamp),
            )
        )
        if len(payload) > self._sink.terms.max_bytes:
            raise ValueError(f"{len(payload)} bytes, and the sink takes {self._sink.terms.max_bytes}")
        if not measure.rounds:
            return payload, None
        self._outbox.leave(self._standing, customer, record.dimension, after.value, after.grain, self._now)
        return payload, msgspec.json.encode(Rounding(value, measure.unit, measure.per, before, after))

    def _refuse(self, record: UsageRecord) -> None:
        terms = self._sink.terms
        if self._route.needs_ids and record.customer not in self._route.customers:
            raise ValueError(
                f"{record.customer or record.kind} has no id at this sink: add it to the customer's ids, and requeue it"
            )
        if record.quantity < 0 and not terms.negative:
            of = f" of record {record.corrects}" if record.corrects else ""
            raise ValueError(f"a correction{of} by {record.quantity} {record.base_unit}: nothing negative is taken")
        if terms.max_age is not None and self._now - record.end > terms.max_age:
            age, most = (self._now - record.end) // NS_PER_S, terms.max_age // NS_PER_S
            raise ValueError(f"its window ended {age} s ago, and the sink takes none beyond {most} s")


def instant(record: UsageRecord, policy: Instant) -> int:
    """The one time that most sinks know, ns: DESIGN §7's timestamp policy."""
    match policy:
        case "start":
            return record.start
        case "mid":
            return (record.start + record.end) // 2
        case "hour":
            return record.start - record.start % HOUR
        case _:
            return record.end
