"""One sweep through the pure stages: usage → attribution → windows, and what one transaction must then hold.

`Books` is the agent's memory of everything that is open. It mirrors what the spool committed: when a commit fails,
throw it away and build it again from the spool's snapshot.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence

from msgspec import Struct, structs

from agent.attribution import Attribution, Owner, is_waiting
from agent.model import Balance, Dimension, Gap, Meter, Resource, Sweep
from agent.record import UsageRecord
from agent.shares import Cell, Share
from agent.usage import Cursor, Track, floor_ms, hold_until, measure
from agent.windows import Closed, Segments, Windows

MAX_LATENESS = 120_000_000_000  # how long a source that lags the others is waited for, unless it says otherwise


class Row(Struct, array_like=True):
    """One resource as it is persisted: its marks and its shares of open windows."""

    source: str
    track: Track
    shares: list[Share] = []
    cells: list[Cell] = []


class Snapshot(Struct, array_like=True):
    """All that `Books` needs to go on where the last committed transaction left."""

    cursors: dict[str, Cursor] = {}
    rows: list[Row] = []
    segments: dict[str, list[tuple[int, int]]] = {}
    closed: dict[str, int] = {}  # by meter: the watermark of the last closing


class Commit(Struct):
    """What one transaction holds: all of it or nothing."""

    source: str | None
    cursor: Cursor | None
    rows: dict[str, Row | None]  # by resource key; None deletes
    closed: list[Closed]
    segments: dict[str, list[tuple[int, int]]]
    closings: dict[str, int]
    balances: list[Balance]
    unattributed: dict[str, int]  # ns booked to nobody, by anchor
    anomalies: list[str]
    gaps: list[Gap]


class Books:
    """What is open: tracks by source, windows, watermarks. Every method returns the `Commit` that makes it durable."""

    def __init__(
        self,
        source: str,
        meters: Mapping[str, Meter],
        feeds: Mapping[str, frozenset[str]],
        dimensions: Sequence[Dimension],
        attribution: Attribution,
        *,
        window: int,
        interval: int,
        snapshot: Snapshot,
        lateness: Mapping[str, int] | None = None,
        metadata_wait: int = 0,
    ) -> None:
        """`source` is the records' own (cluster/node/epoch); `feeds` says which sources measure a meter.

        `lateness`: how long a source that lags the others is waited for, ns. `metadata_wait`: how long a window with
        usage of pods of which nothing is known yet stays open after its watermark, ns.
        """
        self.source, self.meters, self.feeds = source, meters, feeds
        self.attribution = attribution
        self.window, self.interval = window, interval
        self._lateness, self._metadata_wait = lateness or {}, metadata_wait
        self.cursors = dict(snapshot.cursors)
        self.closed = dict(snapshot.closed)
        self.windows = Windows(dimensions, meters, Segments(snapshot.segments), interval)
        self.tracks: dict[str, dict[str, Track]] = {}
        for row in snapshot.rows:
            key = row.track.resource.key
            self.tracks.setdefault(row.source, {})[key] = row.track
            self.windows.restore(key, row.shares, row.cells)
        self._owners: dict[str, dict[tuple[int, str], Owner]] = {}  # by resource, then era and dimension

    def sweep(
        self, sweep: Sweep, *, anchor: int, doubtful: bool = False, may_close: bool = True, from_zero: bool = False
    ) -> Commit:
        """Book one sweep, then close what its watermark passed (a sweep adds, then closes)."""
        tracks = self.tracks.setdefault(sweep.source, {})
        previous = self.cursors.get(sweep.source)
        former = self._former(sweep, tracks)
        measured = measure(
            sweep, previous, tracks, self.meters, anchor=anchor, interval=self.interval, from_zero=from_zero
        )
        for meter in {d.meter for d in self.windows.dimensions.values() if sweep.source in self.feeds.get(d.meter, ())}:
            if meter not in self.windows.segments.starts:
                start = min((u.start for u in measured.usages if u.meter == meter), default=measured.at)
                self.windows.segments.begin(meter, start, self.window)
        flags = ("clock_unconfirmed",) if doubtful else ()
        unattributed: dict[str, int] = {}
        self.windows.forget_pieces()
        introduced = self._introduce(sweep, tracks)
        now = self.attribution.era(measured.at)
        judge: _Judge | None = None
        for usage in measured.usages:  # those of one resource follow each other
            if judge is None or judge.key != usage.resource.key:
                judge = self._judge(usage.resource.key, tracks, sweep.basis, former)
                uncertain = bool(former) and judge.owner(now) != self._judge(judge.key, tracks, sweep.basis).owner(now)
            self.windows.add(usage, self.attribution, judge, (*flags, "owner_uncertain") if uncertain else flags)
            top = usage.resource.anchor
            exact = top is not None and usage.quantity and self.meters[usage.meter].books == "exact"
            if exact and judge.owner(now).kind == "unattributed":
                unattributed[str(top)] = unattributed.get(str(top), 0) + usage.quantity
        at = max(measured.at, previous.at) if previous is not None else measured.at
        stamp = measured.at - anchor
        cursor = Cursor(sweep.boot, stamp, at, sweep.listing, sweep.basis, sweep.scope)
        self.cursors[sweep.source] = cursor
        closed, touched = self._close_passed() if may_close else ([], set())
        closed += [
            Closed(self.gap_record(gap, dimension, sweep.basis), ())
            for gap in measured.gaps
            for dimension in self.windows.of_meter.get(gap.meter, ())
        ]
        commit = self._commit(closed, measured.touched | touched | introduced)
        commit.source, commit.cursor = sweep.source, cursor
        commit.balances, commit.anomalies, commit.gaps = measured.balances, measured.anomalies, measured.gaps
        commit.unattributed = unattributed
        return commit

    def cut(self, meters: Iterable[str] | None = None, *, anchor: int, window: int | None = None) -> Commit:
        """End segments now: of all meters (shutdown) or of some (a reload that changes them)."""
        names = (
            list(self.windows.segments.starts)
            if meters is None
            else [m for m in meters if m in self.windows.segments.starts]
        )
        touched: set[str] = set()
        ends: dict[str, int] = {}
        for meter in names:
            sources = self.feeds.get(meter, frozenset())
            at = max(
                [self.windows.reach(meter), *(self.cursors[s].at for s in sources if s in self.cursors)], default=0
            )
            ends[meter] = at
            marks = (t.marks.get(meter) for s in sources for t in self.tracks.get(s, {}).values())
            latest = max((anchor + floor_ms(m.taken) for m in marks if m is not None), default=0)  # `at` may lie ahead
            for source in sources:
                basis = self.cursors[source].basis if source in self.cursors else ""
                for key, track in self.tracks.get(source, {}).items():
                    for usage in hold_until(track, meter, self.meters[meter], anchor, min(at, latest)):
                        self.windows.add(usage, self.attribution, self._judge(key, self.tracks[source], basis), ())
                        touched.add(key)
            self.windows.segments.begin(meter, at, window or self.window)
            self.windows.cut(meter, at)
        closed, more = self._close(lambda meter: ends.get(meter, 0))
        for meter, at in ends.items():
            self.closed[meter] = max(self.closed.get(meter, 0), at)
        return self._commit(closed, touched | more)

    def open_windows(self) -> int:
        """How many records are open: distinct windows of each dimension and owner."""
        shares = (s for of in self.windows.shares.values() for s in of.values())
        return len({(s.dimension, s.start, s.end, s.owner.customer, s.group) for s in shares})

    def mark(self, meter: str) -> int:
        """The time up to which everything of `meter` is booked (ACCOUNTING §4, closing). 0 before the first sweep.

        A source that lags the furthest by more than its lateness is no longer waited for; a lone one always is.
        """
        marks = {s: self.cursors[s].at if s in self.cursors else 0 for s in self.feeds.get(meter, ())}
        furthest = max(marks.values(), default=0)
        return min((max(at, furthest - self._lateness.get(s, MAX_LATENESS)) for s, at in marks.items()), default=0)

    def _close_passed(self) -> tuple[list[Closed], set[str]]:
        """Close the meters whose watermark passed a window edge; late usage is emitted with them, never more often."""
        passed: dict[str, int] = {}
        for meter in self.windows.of_meter:
            mark = self.mark(meter)
            last = self.closed.get(meter)
            if last is None:
                self.closed[meter] = mark
                continue
            if mark // self.window > last // self.window and self.windows.waits(meter, mark):
                mark = max(last, mark - self._metadata_wait)
            if mark // self.window > last // self.window:
                passed[meter] = self.closed[meter] = mark
        return self._close(lambda meter: passed.get(meter, 0)) if passed else ([], set())

    def _close(self, mark_of: Callable[[str], int]) -> tuple[list[Closed], set[str]]:
        origin = {k: source for source, tracks in self.tracks.items() for k in tracks}
        return self.windows.close(
            mark_of,
            lambda key: self._lineage(key, self.tracks[origin[key]]),
            lambda key: self.cursors[origin[key]].basis,
            self.source,
        )

    def _commit(self, closed: list[Closed], touched: set[str]) -> Commit:
        rows: dict[str, Row | None] = {}
        for source, tracks in self.tracks.items():
            for key in touched & tracks.keys():
                shares, cells = self.windows.shares.get(key), self.windows.cells.get(key)
                track = tracks[key]
                if not track.marks and not shares and not cells:
                    del tracks[key]
                    self._owners.pop(key, None)
                    rows[key] = None
                else:
                    rows[key] = Row(source, track, list((shares or {}).values()), list((cells or {}).values()))
        return Commit(None, None, rows, closed, self.windows.segments.starts, dict(self.closed), [], {}, [], [])

    def _lineage(self, key: str, tracks: Mapping[str, Track]) -> list[Resource]:
        """A resource and what it lies in, inside out."""
        lineage: list[Resource] = []
        at: str | None = key
        while at is not None and at in tracks:
            lineage.append(tracks[at].resource)
            at = tracks[at].resource.parent
        return lineage

    def _former(self, sweep: Sweep, tracks: Mapping[str, Track]) -> dict[str, Resource]:
        """The resources whose labels this sweep found changed, as they were: the span belongs to the old owner."""
        former: dict[str, Resource] = {}
        for reading in sweep.readings:
            track = tracks.get(reading.resource.key)
            if track is not None and track.resource is not reading.resource and track.resource != reading.resource:
                former[reading.resource.key] = track.resource
        if former:
            self._owners.clear()
        # A pod of which nothing was known had no other owner before.
        return {key: resource for key, resource in former.items() if not is_waiting(resource.labels)}

    def _introduce(self, sweep: Sweep, tracks: Mapping[str, Track]) -> set[str]:
        """Give what pods used while nobody knew whose they were to their owners; the keys of what changed."""
        changed: set[str] = set()
        for key, track in tracks.items() if sweep.introduced else ():
            resource = track.resource
            labels = sweep.introduced.get(resource.labels.get("pod_uid", ""))
            if labels is None:
                continue
            if is_waiting(resource.labels):
                track.resource = resource = introduce(resource, labels)
                self._owners.pop(key, None)
            judge = self._judge(key, tracks, sweep.basis)
            if self.windows.give(resource, judge, self.attribution.era):
                changed.add(key)
        return changed

    def _judge(
        self, key: str, tracks: Mapping[str, Track], basis: str, former: Mapping[str, Resource] | None = None
    ) -> "_Judge":
        lineage = self._lineage(key, tracks)
        if former:
            lineage = [former.get(resource.key, resource) for resource in lineage]
        return _Judge(key, lineage, basis, self.attribution, {} if former else self._owners.setdefault(key, {}))

    def gap_record(self, gap: Gap, dimension: Dimension, basis: str) -> UsageRecord:
        """A gap as a record of one dimension: quantity 0, its own start and end."""
        return UsageRecord(
            kind="gap",
            source=self.source,
            meter=gap.meter,
            policy=dimension.policy,
            dimension=dimension.name,
            customer=None,
            group=gap.group,
            start=gap.start,
            end=gap.end,
            quantity=0,
            base_unit=self.meters[gap.meter].unit,
            basis=basis,
            covered=0,
            reason=gap.reason,
            bound=gap.bound,
        )


def introduce(resource: Resource, labels: Mapping[str, str]) -> Resource:
    """A resource of a pod that was not known, as it is called now."""
    name = f"{labels['namespace']}/{labels['pod']}"
    return structs.replace(resource, name=name, labels={**resource.labels, **labels})


class _Judge:
    """Decides who bears one resource's usage, by dimension and era of the rules; remembers, for rules change rarely."""

    def __init__(
        self,
        key: str,
        lineage: list[Resource],
        basis: str,
        attribution: Attribution,
        known: dict[tuple[int, str], Owner],
    ) -> None:
        self.key, self._lineage, self._basis, self._attribution, self._known = key, lineage, basis, attribution, known

    def owner(self, era: int) -> Owner:
        """By the labels of the resource and of what it lies in."""
        owner = self._known.get((era, ""))
        if owner is None:
            owner = self._known[era, ""] = self._attribution.owner(self._lineage, era)
        return owner

    def __call__(self, dimension: Dimension, era: int) -> Owner:
        """The bearer: shared cost and whole-meter customers are the dimension's own rules."""
        bearer = self._known.get((era, dimension.name))
        if bearer is None:
            bearer = self._known[era, dimension.name] = self._bearer(dimension, self.owner(era))
        return bearer

    def _bearer(self, dimension: Dimension, owner: Owner) -> Owner:
        if dimension.customer is not None:
            return Owner("usage", dimension.customer, f"meters[{dimension.name}].customer")
        if self._basis == "host":
            return Owner("system", None, "host totals are for the books")
        if owner.kind == "system" and dimension.system is not None:
            return Owner("usage", dimension.system, f"shared.system of {dimension.name}, by {owner.rule}")
        return owner
