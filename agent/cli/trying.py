"""`metering-agent sink try`: what a sink would be sent, without sending it."""

from collections.abc import Iterator, Sequence
from typing import Protocol, runtime_checkable

from agent.config import Config, SinkSection, Told, route
from agent.delivery.quantity import Measure, convert
from agent.delivery.rendering import instant
from agent.errors import ConfigError
from agent.kinds import METERS, build_sink
from agent.model import NS_PER_S
from agent.record import UsageRecord
from agent.sinks import Entry, Sink
from agent.spool.rounding import Carried

START = 1_795_435_200 * NS_PER_S  # 2026-11-23T12:00:00Z
QUANTITY = 123_456_789_012  # with digits enough that rounding shows


@runtime_checkable
class Shows(Sink, Protocol):
    """A sink whose requests people can read."""

    def shown(self, payloads: Sequence[bytes]) -> list[str]:
        """The request with these records, line by line, without secrets."""


def tried(cfg: Config, sink_id: str) -> Iterator[str]:
    """The request of each dimension that the sink takes, line by line. Raises ConfigError."""
    section = next((sink for sink in cfg.sinks if sink.id == sink_id), None)
    if section is None:
        known = ", ".join(sink.id for sink in cfg.sinks) or "none"
        raise ConfigError([f"{sink_id} is not a sink's id. Known: {known}."])
    try:
        sink = build_sink(section)
    except ValueError as error:
        raise ConfigError([str(error)]) from None
    if not isinstance(sink, Shows):
        raise ConfigError([f"sinks[{sink_id}]: a {section.kind} sink makes no request. Look into what it writes."])
    for record in _records(cfg, section):
        yield from (f"# a made-up record of {record.dimension}, of customer {record.customer}", "")
        try:
            yield from sink.shown([sink.render(_entry(cfg, section, record))])
        except ValueError as error:
            yield f"held for a person: {error}"
        yield ""


def _records(cfg: Config, section: SinkSection) -> Iterator[UsageRecord]:
    """One for each dimension, of the first customer that has an id at the sink, or the first at all."""
    known = sorted(cfg.customers, key=lambda customer: section.id not in customer.ids)
    customer = known[0].id if known else "example"
    for entry in cfg.meters:
        if (section.takes is None or entry.name in section.takes) and entry.meter in METERS:
            yield UsageRecord(
                kind="usage",
                source=f"{cfg.agent.cluster}/{cfg.agent.node}/made-up",
                meter=entry.meter,
                policy=entry.policy,
                dimension=entry.name,
                customer=customer,
                group=dict.fromkeys(entry.group_by, "example"),
                start=START,
                end=START + cfg.agent.window,
                quantity=QUANTITY,
                base_unit=METERS[entry.meter].unit,
                basis="cgroup",
                covered=cfg.agent.window,
            )


def _entry(cfg: Config, section: SinkSection, record: UsageRecord) -> Entry:
    told = route(cfg, section, METERS)
    customer = record.customer or ""
    if told.needs_ids and customer not in told.customers:
        raise ValueError(f"{customer} has no id at this sink: add it to the customer's ids")
    measures = told.measures or {}
    measure = measures.get(record.dimension, Measure(record.dimension, record.base_unit)).of(record.base_unit)
    value, _ = convert(record.quantity, Carried(), measure)
    return Entry(
        record=record,
        id=record.id(0),
        seq=1,
        value=value,
        unit=measure.unit,
        dimension=measure.name,
        customer=told.customers.get(customer, customer),
        at=instant(record, section.timestamp if isinstance(section, Told) else "end"),
    )
