"""Which dimension goes to which sink, and how it is told: what must fit between meters, customers and sinks."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from difflib import get_close_matches

from agent.config.document import Loc
from agent.config.scalars import written_duration
from agent.config.sections import Config
from agent.config.sinks import DimensionAtSink, SinkSection, Told
from agent.delivery.quantity import Measure, units
from agent.delivery.rendering import Route
from agent.model import Meter

Found = Iterator[tuple[Loc, str]]
Line = Callable[[Loc], int]


def route(config: Config, section: SinkSection, meters: Mapping[str, Meter]) -> Route:
    """What one sink takes, and how it is told. `meters` by name."""
    customers = {c.id: c.ids[section.id] for c in config.customers if section.id in c.ids}
    orphans = unrouted(config) if section.id == _first_billing(config) else frozenset()
    elsewhere = _elsewhere(config, section.id) if section.role == "billing" else {}
    if not isinstance(section, Told):
        return Route(customers=customers, orphans=orphans, elsewhere=elsewhere)
    bases = base_units(config, meters)
    measures = None
    if section.dimensions is not None:
        measures = {name: _measure(name, told, bases.get(name, "")) for name, told in section.dimensions.items()}
    return Route(measures, customers, section.timestamp, orphans, elsewhere, section.needs_ids)


def _elsewhere(config: Config, sink: str) -> dict[str, str]:
    """The billing sink of each dimension that another takes, or that the first notes as nobody's."""
    names = [entry.name for entry in config.meters]
    others = [other for other in config.sinks if other.role == "billing" and other.id != sink]
    first = _first_billing(config)
    noted = {} if first in (None, sink) else dict.fromkeys(unrouted(config), first)
    return noted | {name: other.id for other in others for name in (names if other.takes is None else other.takes)}


def _measure(name: str, told: DimensionAtSink, base: str) -> Measure:
    unit = told.unit or ""
    scale = 0 if unit in ("", base) else told.scale
    return Measure(told.id or name, unit, units(base).get(unit, 1), scale, told.rounding, base)


def base_units(config: Config, meters: Mapping[str, Meter]) -> dict[str, str]:
    """The base unit of each dimension that is configured."""
    return {entry.name: meters[entry.meter].unit for entry in config.meters if entry.meter in meters}


def unrouted(config: Config) -> frozenset[str]:
    """Dimensions that no billing sink takes, where there is one at all: kept and counted."""
    taken = [sink.takes for sink in config.sinks if sink.role == "billing"]
    if not taken or None in taken:
        return frozenset()
    return frozenset(entry.name for entry in config.meters) - frozenset().union(*(t for t in taken if t is not None))


def _first_billing(config: Config) -> str | None:
    return next((sink.id for sink in config.sinks if sink.role == "billing"), None)


def sinks(config: Config, line: Line) -> Found:
    """What one sink can be wrong about by itself, or beside another."""
    seen: dict[tuple[str, str], Loc] = {}
    for index, sink in enumerate(config.sinks):
        for key, name in dict.fromkeys((("id", sink.id), sink.place)):
            if (key, name) in seen:
                already = f"{name} is already a sink's {key} on line {line(seen[key, name])}"
                yield ("sinks", index, key), f"{already}. Give one of them another."
            seen.setdefault((key, name), ("sinks", index, key))
        yield from ((("sinks", index, *below), text) for below, text in sink.problems())
    for index, sink in enumerate(config.sinks):
        for earlier, other in enumerate(config.sinks[:index]):
            if sink.role == other.role == "billing" and (both := _both(sink.takes, other.takes)) is not None:
                second = f"a second billing sink beside {other.id} (line {line(('sinks', earlier))})"
                yield ("sinks", index), f"{second}, and both would bill {both}. Say `role: copy` in one of them."


def _both(one: frozenset[str] | None, other: frozenset[str] | None) -> str | None:
    """What two sinks both take, in words; None: nothing."""
    if one is None or other is None:
        common = other if one is None else one
        return "every dimension" if common is None else ", ".join(sorted(common)) or None
    return ", ".join(sorted(one & other)) or None


def taken(config: Config, known_meters: Mapping[str, Sequence[Meter]]) -> Found:
    """Dimensions that sinks name must exist, and units must fit."""
    meters = {meter.name: meter for kind in known_meters.values() for meter in kind}
    bases = base_units(config, meters)
    for index, sink in enumerate(config.sinks):
        yield from _untold(config, index, sink)
        for name, told in (sink.dimensions or {}).items() if isinstance(sink, Told) else ():
            at = ("sinks", index, "dimensions", name)
            if name not in (names := [entry.name for entry in config.meters]):
                close = get_close_matches(name, names, n=1)
                cure = f"Did you mean {close[0]}?" if close else "Add it to meters, or remove it here."
                yield at, f"{name} is not a dimension of meters. {cure}"
            elif name in bases:  # else its meter is unknown, which is told there
                yield from _told(at, told, bases[name])


def _untold(config: Config, index: int, sink: SinkSection) -> Found:
    """Labels by which usage is grouped, and which that sink cannot be told of."""
    for entry in config.meters:
        if isinstance(sink, Told) and (sink.takes is None or entry.name in sink.takes):
            for why in filter(None, map(sink.untold, entry.group_by)):
                yield ("sinks", index), f"{why}, so {entry.name} could not be told. Rename that key."


def _told(at: Loc, told: DimensionAtSink, base: str) -> Found:
    if told.unit is not None and told.unit not in units(base):
        yield (*at, "unit"), f"{told.unit} cannot tell {base}. Write one of {', '.join(units(base))}."
    elif told.unit in (None, base) and "scale" in told.model_fields_set:
        yield (*at, "scale"), f"{base}, the base unit, has no decimals. Add a unit such as {list(units(base))[-1]}."


def named(config: Config) -> Found:
    """Sinks that customers have ids at must exist, must be told of customers by them, and may know no others."""
    sinks = {sink.id: sink for sink in config.sinks}
    knows = [sink.id for sink in config.sinks if isinstance(sink, Told) and sink.needs_ids]
    for index, customer in enumerate(config.customers):
        for sink_id in (known for known in knows if known not in customer.ids):
            text = f"{customer.id} has no id at {sink_id}, which knows customers by its own alone"
            yield ("customers", index, "ids"), f"{text}. Add `ids: {{{sink_id}: ...}}`."
        for sink in customer.ids:
            at = ("customers", index, "ids", sink)
            if sink not in sinks:
                known = f"Known: {', '.join(sinks)}" if sinks else "There is none"
                yield at, f"{sink} is not a sink's id. {known}."
            elif not isinstance(sinks[sink], Told):
                yield at, f"{sink} is a {sinks[sink].kind} sink, whose lines have the customer's own id. Remove this."


def knows(config: Config) -> Found:
    """Each customer must be one that each billing sink can know."""
    for index, customer in enumerate(config.customers):
        for sink in config.sinks:
            if not isinstance(sink, Told) or sink.role != "billing":
                continue
            if (why := sink.refuses(customer.ids.get(sink.id, customer.id))) is not None:
                given = sink.id in customer.ids
                at = ("customers", index, "ids", sink.id) if given else ("customers", index)
                cure = "Write the one that is shown there." if given else f"Write it: `ids: {{{sink.id}: …}}`."
                yield at, f"{why}. {cure}"


def remembered(config: Config) -> Found:
    """The ledger must outlive what it may still be asked about (DESIGN §6)."""
    for index, sink in enumerate(config.sinks):
        if not isinstance(sink, Told):
            continue
        for key, needed in (("dedupe_horizon", sink.remembers), ("max_age", sink.max_age)):
            if needed is not None and needed > config.spool.retention:
                kept = f"longer than spool.retention ({written_duration(config.spool.retention)}) keeps records"
                cure = f"Write spool.retention: {written_duration(needed)} or more."
                yield ("sinks", index, key), f"{kept}, and what was sent must be known as long. {cure}"
