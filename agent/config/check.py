"""What no section can see alone: names that must exist, directories claimed twice, space, and times that must fit.

Each check yields (place, what and cure). It runs when the sections that it reads are sound, so that every problem of
a file is reported at once and none is the echo of another.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from difflib import get_close_matches

from agent.config import routes
from agent.config.document import Loc
from agent.config.scalars import NS, written_duration
from agent.config.sections import Config, MeterEntry
from agent.config.sources import Cgroups, Kubernetes, measures
from agent.config.ties import ties
from agent.model import Meter
from agent.pattern import anchor_of

Found = Iterator[tuple[Loc, str]]
Line = Callable[[Loc], int]
KnownMeters = Mapping[str, Sequence[Meter]]  # kind of source → what it can measure

DAY = NS["d"]
EVIDENCE_BYTES = 260  # for each resource and window (ACCOUNTING §8)
RECORD_BYTES = 600  # for each record, its index included (ACCOUNTING §8)
MODEST_RESOURCES = 20  # a small host's services: what `check` assumes when it judges max_bytes


def check(config: Config, line: Line, known_meters: KnownMeters, broken: frozenset[str]) -> Found:
    """Every problem between sections; checks that need one of the `broken` sections are left out."""
    checks: tuple[tuple[str, Found], ...] = (
        ("agent", _times(config)),
        ("sources", _sources(config, line)),
        ("meters", _dimensions(config, line)),
        ("sources meters", _measured(config, known_meters)),
        ("customers", _customers(config, line)),
        ("customers", ties(config.customers, line)),
        ("attribution", _system(config)),
        ("customers meters", _payers_of_meters(config)),
        ("customers attribution", _payer_of_system(config)),
        ("sinks", routes.sinks(config, line)),
        ("sinks meters", routes.taken(config, known_meters)),
        ("sinks customers", routes.named(config)),
        ("sinks customers", routes.knows(config)),
        ("sinks spool", routes.remembered(config)),
        ("spool agent meters customers", _space(config)),
    )
    for needs, found in checks:
        if broken.isdisjoint(needs.split()):
            yield from found


def _times(config: Config) -> Found:
    window, interval = config.agent.window, config.agent.sample_interval
    if not 10 * NS["s"] <= window <= NS["h"]:
        yield ("agent", "window"), f"{written_duration(window)} is outside 10s to 1h. Write 5m, or another in between."
    elif DAY % window:
        yield (
            ("agent", "window"),
            f"{written_duration(window)} does not divide a day evenly. Write 10s, 1m, 5m, 10m, 15m, 30m or 1h.",
        )
    if interval < NS["s"]:
        yield ("agent", "sample_interval"), f"{written_duration(interval)} is shorter than 1s. Write 1s or more."
    elif window % interval:
        uneven = f"{written_duration(interval)} does not divide the window of {written_duration(window)} evenly"
        yield ("agent", "sample_interval"), f"{uneven}. Write one that does, such as 1s, 5s or 10s."


def _unique(names: Sequence[tuple[str, Loc]], what: str, line: Line) -> Found:
    first: dict[str, Loc] = {}
    for name, loc in names:
        if name in first:
            yield loc, f"{name} is already {what} on line {line(first[name])}. Give one of them another."
        first.setdefault(name, loc)


def _sources(config: Config, line: Line) -> Found:
    if not config.sources:
        yield ("sources",), "no source, so nothing would be measured. Add `- {kind: host}`."
    yield from _unique([(s.id, ("sources", i, "id")) for i, s in enumerate(config.sources)], "a source's id", line)
    claimed: list[tuple[str, int, Loc]] = []
    told = any(isinstance(source, Kubernetes) and source.basis == "summary" for source in config.sources)
    for index, source in enumerate(config.sources):
        if not isinstance(source, Cgroups | Kubernetes):
            continue
        if told and isinstance(source, Cgroups):
            text = "beside a kubelet's summary, whose counters no group's books can prove"
            yield ("sources", index), f"{text}. Give it an agent of its own, or write `basis: cgroup` there."
        here: Loc = ("sources", index)
        key = "anchors" if source.anchors else "include"
        for number, glob in enumerate(source.include if isinstance(source, Cgroups) else ()):
            if not anchor_of(glob) and not source.anchors:
                rootless = f'"{glob}" has no directory before its first wildcard: its anchor would be the root'
                text = f"{rootless}, whose books cannot close. Begin with a directory, such as system.slice/*."
                yield (*here, "include", number), text
            elif not any(_inside(anchor_of(glob), anchor) for anchor in source.closed()):
                outside = f'"{glob}" lies under none of the anchors {", ".join(source.anchors)}'
                text = f"{outside}. Add its directory to `anchors`, or remove `anchors`."
                yield (*here, "include", number), text
        for number, anchor in enumerate(source.closed()):
            loc: Loc = (*here, key, number) if source.anchors else (*here, key)
            if isinstance(source, Kubernetes) and number >= len(source.anchors):
                loc = (*here, "system", number - len(source.anchors))
            for other, owner, before in claimed:
                if anchor and other and (_inside(anchor, other) or _inside(other, anchor)):
                    yield loc, _claimed_twice(anchor, other, line(before), owner == index)
            claimed.append((anchor, index, loc))


def _inside(path: str, directory: str) -> bool:
    return path == directory or path.startswith(directory + "/")


def _claimed_twice(anchor: str, other: str, line: int, same_source: bool) -> str:
    relation = "is" if anchor == other else "lies inside" if _inside(anchor, other) else "holds"
    if same_source:
        return (
            f"anchor {anchor} {relation} anchor {other} (line {line}), and no unit has two books. Keep the outer one."
        )
    return (
        f"two sources claim one directory: {anchor} {relation} {other} (line {line}). "
        "Put both `include` lists into one source."
    )


def _dimensions(config: Config, line: Line) -> Found:
    if not config.meters:
        yield ("meters",), "no meter, so nothing would be billed. Add `- {meter: ...}` from `metering-agent meters`."
    names = [(m.name, ("meters", i, "dimension")) for i, m in enumerate(config.meters)]
    yield from _unique(names, "a dimension", line)
    for index, entry in enumerate(config.meters):
        if repeated := next((label for label in entry.group_by if entry.group_by.count(label) > 1), None):
            yield ("meters", index, "group_by"), f"{repeated} stands here twice. Keep one."
    yield from _chosen(config, line)


def _chosen(config: Config, line: Line) -> Found:
    """Entries among which a label chooses must count alike: until a pod is known its usage is kept with the first."""
    first: dict[str, tuple[int, MeterEntry]] = {}
    for index, entry in enumerate(config.meters):
        if entry.dimension_from is None:
            continue
        before, other = first.setdefault(entry.meter, (index, entry))
        for key in ("dimension_from", "policy"):
            if getattr(entry, key) != getattr(other, key):
                where = f"meters[{before}] (line {line(('meters', before))})"
                text = f"not that of {where}, and a label chooses between the two. Write {getattr(other, key)}."
                yield ("meters", index, key), text


def _measured(config: Config, known: KnownMeters) -> Found:
    measured = {
        meter.name for source in config.sources for meter in known.get(source.kind, ()) if measures(source, meter.name)
    }
    for index, entry in enumerate(config.meters if config.sources else ()):
        if entry.meter in measured:
            continue
        elsewhere = sorted(kind for kind, meters in known.items() if entry.meter in {m.name for m in meters})
        if any(isinstance(s, Kubernetes) and not measures(s, entry.meter) for s in config.sources) and elsewhere:
            text = "not told by a kubelet's summary. Write `basis: cgroup`, or remove it."
        elif elsewhere:
            kinds_of = " or ".join(elsewhere)
            text = f"measured by the source kind {kinds_of} only. Add `- {{kind: {elsewhere[0]}}}` to sources."
        else:
            close = get_close_matches(entry.meter, sorted(measured))
            near = f" Did you mean {' or '.join(close)}?" if close else ""
            text = f"no configured source measures {entry.meter}.{near} `metering-agent meters` lists all."
        yield ("meters", index, "meter"), text


def _customers(config: Config, line: Line) -> Found:
    ids: list[tuple[str, Loc]] = [(c.id, ("customers", i, "id")) for i, c in enumerate(config.customers)]
    yield from _unique(ids, "a customer's id", line)
    for index, customer in enumerate(config.customers):
        if customer.since is not None and customer.until is not None and customer.until <= customer.since:
            yield ("customers", index, "until"), "not after `from`. Write a later date, or remove one of them."
        for number, match in enumerate(customer.match):
            if not match.selector():
                yield ("customers", index, "match", number), _EMPTY


_EMPTY = "no label, which would match everything. Write one, such as `unit: acme-*.service`."


def _system(config: Config) -> Found:
    for number, match in enumerate(config.attribution.system):
        if not match.selector():
            yield ("attribution", "system", number), _EMPTY


def _undeclared(customer: str | None, config: Config) -> str | None:
    """What is wrong with naming this customer; None when it is declared (or `exclude`, or nobody)."""
    ids = [c.id for c in config.customers]
    if customer is None or customer == "exclude" or customer in ids:
        return None
    close = get_close_matches(customer, ids, n=1)
    cure = f"Did you mean {close[0]}?" if close else f"Add `- {{id: {customer}}}` to customers."
    return f"{customer} is not a declared customer. {cure}"


def _payers_of_meters(config: Config) -> Found:
    for index, entry in enumerate(config.meters):
        if text := _undeclared(entry.customer, config):
            yield ("meters", index, "customer"), text
        if entry.shared and (text := _undeclared(entry.shared.system, config)):
            yield ("meters", index, "shared", "system"), text


def _payer_of_system(config: Config) -> Found:
    if text := _undeclared(config.attribution.shared.system, config):
        yield ("attribution", "shared", "system"), text


def retention_bytes(config: Config, resources: int, records_per_window: int) -> int:
    """Bytes that the retention of ledger and evidence needs, by the figures of ACCOUNTING §8."""
    window = config.agent.window
    evidence = -(-config.spool.evidence_retention // window) * resources * EVIDENCE_BYTES
    return evidence + -(-config.spool.retention // window) * records_per_window * RECORD_BYTES


def modest_records(customers: int, meters: Sequence[MeterEntry]) -> int:
    """Records in each window of a modest host: each dimension, for all customers that its resources can have."""
    return min(customers + 1, MODEST_RESOURCES) * len(meters)


def _space(config: Config) -> Found:
    if config.agent.window == 0:
        return
    records = modest_records(len(config.customers), config.meters)
    needed = retention_bytes(config, MODEST_RESOURCES, records) + config.spool.reserve
    if needed > config.spool.max_bytes:
        mebibytes = -(-needed // (1 << 20))
        load = f"{MODEST_RESOURCES} resources, records in each window: {records}"
        cure = f"Write {mebibytes}MiB or more, a shorter retention, or a longer window."
        yield ("spool", "max_bytes"), f"too small: reserve and retention need {mebibytes}MiB ({load}). {cure}"
