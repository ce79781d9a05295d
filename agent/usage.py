"""Sample → Usage: differences of counters, integrals of gauges, and the tree in which no unit is in two places. Pure.

Counters (ACCOUNTING §1): `difference`. The tree (§2): every node books its exclusive usage, own − metered children,
and only its rise. `settle` keeps what reading skew put ahead of it as `in_flight` ≤ 0, a debt that the node's next
exclusive usage pays; so Σ booked + Δin_flight = Δanchor in every sweep, by telescoping. A dying node leaves its debt
to its parent. First sight (§3): only what was absent from the last complete listing starts at zero.

Times are floored to milliseconds, so that byte·ms are integers.
"""

from collections.abc import Iterator, Mapping

from msgspec import Struct

from agent.model import NS_PER_MS, Balance, Gap, Meter, Reading, Resource, Sample, Sweep, Usage

HOLE_INTERVALS = 3  # a longer hole is a gap for gauges and `interpolated` for counters (ACCOUNTING §6)
DIP_SAMPLES = 3  # a remote counter that stays lower this long has been reset (ACCOUNTING §1)
TICK = 10 * NS_PER_MS  # the coarsest scheduler tick (HZ=100): usage is charged to the tree once per tick


class Mark(Struct, array_like=True, gc=False):
    """The last reading of one counter or level. For gauges `value` is the exclusive level and `raw` what was read."""

    identity: str
    value: int
    taken: int
    raw: int = 0
    low: int = 0  # how many samples in a row were below a high-water mark


class Track(Struct, array_like=True):
    """What is remembered of one resource from sweep to sweep; persisted with it in one transaction."""

    resource: Resource
    marks: dict[str, Mark] = {}  # by meter, or meter/aspect for levels
    in_flight: dict[str, int] = {}  # by meter; absent is zero


class Cursor(Struct, array_like=True):
    """How far a source is booked: boottime of its last sweep, the same in billing time, and what existed then."""

    boot: str
    stamp: int
    at: int
    listing: frozenset[str]
    basis: str
    scope: frozenset[str] = frozenset()


class Measured(Struct):
    """What one sweep gave."""

    at: int
    usages: list[Usage]
    balances: list[Balance]
    gaps: list[Gap]
    anomalies: list[str]
    touched: set[str]  # tracks that changed
    ended: set[str]  # tracks whose resource is gone


def floor_ms(ns: int) -> int:
    """Whole milliseconds, in nanoseconds."""
    return ns - ns % NS_PER_MS


def difference(mark: Mark | None, sample: Sample, *, born: bool, falls: str = "reset") -> tuple[int, Mark, str | None]:
    """What a counter moved since its mark; the new mark; an anomaly. Never negative (L4)."""
    if mark is None or mark.identity != sample.identity:
        # A new identity under a known resource is a counter made anew: it started at zero, as a newborn's did.
        moved = sample.value if born or mark is not None else 0
        return moved, Mark(sample.identity, sample.value, sample.taken), None
    if sample.value >= mark.value:
        return sample.value - mark.value, Mark(sample.identity, sample.value, sample.taken), None
    if falls == "reset" or (falls == "dip" and mark.low + 1 >= DIP_SAMPLES):
        return 0, Mark(sample.identity, sample.value, sample.taken), "inferred_reset"
    return 0, Mark(mark.identity, mark.value, sample.taken, 0, mark.low + 1), "dip"


def settle(moved: int, inner: int, in_flight: int) -> tuple[int, int]:
    """(booked, in_flight) of one node: its exclusive rise above all that it ever booked, and the debt that is left."""
    balance = in_flight + moved - inner
    return (balance, 0) if balance > 0 else (0, balance)


def measure(
    sweep: Sweep,
    previous: Cursor | None,
    tracks: dict[str, Track],
    meters: Mapping[str, Meter],
    *,
    anchor: int,
    interval: int,
    from_zero: bool,
) -> Measured:
    """Turn one sweep into usage, advancing `tracks` in place.

    `anchor`: billing time = anchor + boottime. `from_zero`: what the first listing of an epoch or boot means; decided
    by the caller from the age of the boot and the `metered` file (ACCOUNTING §3).
    """
    return _Measuring(sweep, previous, tracks, meters, anchor, interval, from_zero).run()


class _Measuring:
    """One sweep under way: what `measure` would otherwise hand from function to function."""

    def __init__(
        self,
        sweep: Sweep,
        previous: Cursor | None,
        tracks: dict[str, Track],
        meters: Mapping[str, Meter],
        anchor: int,
        interval: int,
        from_zero: bool,
    ) -> None:
        stamp = floor_ms(sweep.stamp)
        # Another basis has other counters: what they show is new to us, and not newly used.
        same = previous is not None and (previous.boot, previous.basis) == (sweep.boot, sweep.basis)
        self.sweep, self.tracks, self.meters = sweep, tracks, meters
        self.anchor, self.hole = anchor, HOLE_INTERVALS * interval
        self.previous = previous
        self.seen = {reading.resource.key for reading in sweep.readings}
        self.known = previous.listing if previous is not None and same else None
        self.from_zero = from_zero and (previous is None or previous.boot != sweep.boot)
        self.entering = sweep.scope - previous.scope if previous is not None else sweep.scope  # anchors new to us
        if previous is None:
            self.start = anchor if from_zero else anchor + stamp
        elif previous.boot == sweep.boot:
            self.start = anchor + previous.stamp
        else:
            self.start = max(previous.at, anchor)
        self.out = Measured(anchor + stamp, [], [], [], [], set(), set())
        self.start = min(self.start, self.out.at)
        self.inner: dict[tuple[str, str], int] = {}  # (node, meter) → what its children moved, or hold, in this sweep

    def run(self) -> Measured:
        sweep, out = self.sweep, self.out
        if self.previous is not None and self.known is None:
            self._begin_anew("reboot" if self.previous.boot != sweep.boot else "basis")
        was = self._in_flight()
        for key in [k for k, t in self.tracks.items() if t.marks and k not in self.seen]:
            self._end(key)  # gone, or no longer metered: what it still uses stays with its parent
        for reading in reversed(sweep.readings):  # children before parents: a node then knows what they moved
            resource = reading.resource
            track = self.tracks.get(resource.key)
            if track is None:
                track = self.tracks[resource.key] = Track(resource)
            if reading.samples:
                self._read(track, reading, born=self._born(reading))
            track.resource = resource
            out.touched.add(resource.key)
            if reading.gone:
                self._anchor_gone(reading)
                self._end(resource.key)
        self._balance(was)
        for key in out.ended:
            self.tracks[key].in_flight = {}
        return out

    def _begin_anew(self, reason: str) -> None:
        """A new boot, or other counters: no old one goes on. What they counted after the last sweep is a gap."""
        assert self.previous is not None
        end = self.start if self.from_zero else self.out.at  # a baseline says nothing of the new boot so far either
        for key, track in list(self.tracks.items()):
            resource = track.resource
            for meter in [m for m in track.marks if resource.anchor == resource.name and self._exact(m)]:
                bound = max(0, end - self.previous.at) * self.sweep.cores
                self.out.gaps.append(Gap(meter, {"anchor": resource.name}, self.previous.at, end, reason, bound))
            if track.marks or track.in_flight:
                self._end(key)
                track.in_flight = {}

    def _exact(self, meter: str) -> bool:
        return meter in self.meters and self.meters[meter].books == "exact"

    def _anchor_gone(self, reading: Reading) -> None:
        """An anchor that dies takes with it what it counted after its last reading: a gap with its bound."""
        if reading.resource.anchor != reading.resource.name:
            return
        for sample in reading.samples:
            meter = self.meters.get(sample.meter)
            if meter is not None and self._exact(meter.name) and sample.aspect == "usage":
                start = self.anchor + floor_ms(sample.taken)
                bound = max(0, self.sweep.stamp - sample.taken) * self.sweep.cores
                group = {"anchor": reading.resource.name}
                self.out.gaps.append(Gap(meter.name, group, start, self.out.at, "anchor_gone", bound))

    def _end(self, key: str) -> None:
        """Forget a resource's marks; its debt is its parent's now. One without parent takes it along."""
        track = self.tracks[key]
        parent = self.tracks.get(self._above(track.resource) or "")
        if parent is not None:
            for meter, debt in track.in_flight.items():
                parent.in_flight[meter] = parent.in_flight.get(meter, 0) + debt
                self.out.touched.add(parent.resource.key)
            track.in_flight = {}
        track.marks = {}
        self.out.touched.add(key)
        self.out.ended.add(key)

    def _above(self, resource: Resource) -> str | None:
        """The nearest of what a resource lies in that this sweep read."""
        parent = resource.parent
        while parent is not None and parent not in self.seen:
            parent = self.tracks[parent].resource.parent if parent in self.tracks else None
        return parent

    def _born(self, reading: Reading) -> bool:
        """Whether a resource's counters start at zero: it is new, and not only new to us."""
        resource = reading.resource
        if reading.born is not None and (self.known is not None or self.previous is None):
            return reading.born
        if self.known is None:
            return self.from_zero
        return resource.key not in self.known and resource.anchor not in self.entering

    def _read(self, track: Track, reading: Reading, *, born: bool) -> None:
        alive_until = max(sample.taken for sample in reading.samples)
        began = min(sample.taken for sample in reading.samples) if born and reading.gone else None
        levels = _levels(track, reading)
        for sample in reading.samples:
            meter = self.meters.get(sample.meter)
            if meter is None:
                continue
            if sample.aspect != "usage":
                track.marks[f"{sample.meter}/{sample.aspect}"] = Mark("", sample.value, sample.taken)
            elif meter.kind == "counter":
                self._count(track, reading.resource, meter, sample, levels.get(meter.name, ()), born=born)
            else:
                until = alive_until if reading.gone else sample.taken
                self._hold(track, reading.resource, meter, sample, until, began, levels.get(meter.name, ()))
        if len(track.marks) > len(reading.samples):  # what is no longer read baselines when it returns
            read = {s.meter if s.aspect == "usage" else f"{s.meter}/{s.aspect}" for s in reading.samples}
            track.marks = {name: mark for name, mark in track.marks.items() if name in read}

    def _count(
        self,
        track: Track,
        resource: Resource,
        meter: Meter,
        sample: Sample,
        levels: tuple[tuple[str, int], ...],
        *,
        born: bool,
    ) -> None:
        mark = track.marks.get(meter.name)
        moved, track.marks[meter.name], anomaly = difference(mark, sample, born=born, falls=self.sweep.falls)
        first = mark.value if mark is not None and mark.identity == sample.identity else sample.value - moved
        inner = 0
        if meter.books != "none":
            inner = self.inner.pop((resource.key, meter.name), 0)
            if anomaly == "inferred_reset" or (mark is None and not born):
                moved = inner  # a parent that fell, or is new to us, proves nothing yet: take its children's word
            quantity, debt = settle(moved, inner, track.in_flight.get(meter.name, 0))
            if debt:
                track.in_flight[meter.name] = debt
            else:
                track.in_flight.pop(meter.name, None)
            if (above := self._above(resource)) is not None:
                self.inner[above, meter.name] = self.inner.get((above, meter.name), 0) + moved
        else:
            quantity = moved
        if mark is None and not born:
            return  # a baseline: nothing is known of the time before it
        flags: tuple[str, ...] = ()
        if anomaly is not None:
            self.out.anomalies.append(anomaly)
            flags = (anomaly,) if anomaly == "inferred_reset" else ()
        if meter.books == "exact":
            start, end = self.start, self.out.at
        else:
            start = self.anchor + floor_ms(mark.taken) if mark is not None else self.start
            end = self.anchor + floor_ms(sample.taken)
        if quantity and end - start > self.hole:
            flags = (*flags, "interpolated")
        self.out.usages.append(
            Usage(resource, meter.name, start, end, quantity, moved, inner, first, sample.value, flags, levels)
        )

    def _hold(
        self,
        track: Track,
        resource: Resource,
        meter: Meter,
        sample: Sample,
        until: int,
        began: int | None,
        levels: tuple[tuple[str, int], ...],
    ) -> None:
        """Left-hold: the level of the last sample holds until this one (DESIGN §4)."""
        level = sample.value
        if meter.books != "none":
            level = max(0, sample.value - self.inner.pop((resource.key, meter.name), 0))
            if (above := self._above(resource)) is not None:
                self.inner[above, meter.name] = self.inner.get((above, meter.name), 0) + sample.value
        mark = track.marks.get(meter.name)
        known = max(until, mark.taken) if mark is not None else until
        track.marks[meter.name] = Mark(sample.identity, level, known, sample.value)
        if mark is None and began is not None:  # born and gone since the last sweep: it held what its birth showed
            mark = Mark(sample.identity, level, began, sample.value)
        if mark is None or until <= mark.taken:
            return
        start, end = self.anchor + floor_ms(mark.taken), self.anchor + floor_ms(until)
        flags: tuple[str, ...] = ()
        if end - start > self.hole:
            if mark.identity != sample.identity or mark.raw != sample.value:
                group = {"resource": resource.name}
                self.out.gaps.append(Gap(meter.name, group, start, end, "no_sample"))
                return
            flags = ("held",)
        quantity = mark.value * ((end - start) // NS_PER_MS)
        self.out.usages.append(
            Usage(resource, meter.name, start, end, quantity, quantity, 0, mark.raw, sample.value, flags, levels)
        )

    def _in_flight(self) -> dict[tuple[str, str], int]:
        """Σ in_flight by anchor and exact meter."""
        total: dict[tuple[str, str], int] = {}
        for track in self.tracks.values():
            anchor = track.resource.anchor
            if anchor is not None:
                for meter, debt in track.in_flight.items():
                    total[anchor, meter] = total.get((anchor, meter), 0) + debt
        return total

    def _balance(self, was: dict[tuple[str, str], int]) -> None:
        """Close the books of every anchor for this sweep; what skew cannot explain is an overrun."""
        now = self._in_flight()
        last_read: dict[str, int] = {}
        for reading in self.sweep.readings:
            anchor = reading.resource.anchor
            if anchor is not None and reading.samples and not reading.gone:
                last_read[anchor] = max(last_read.get(anchor, 0), reading.samples[0].taken)
        sums: dict[tuple[str, str], tuple[int, int]] = {}
        for usage in self.out.usages:
            anchor = usage.resource.anchor
            if anchor is not None and self.meters[usage.meter].books == "exact":
                moved, booked = sums.get((anchor, usage.meter), (0, 0))
                top = usage.moved if usage.resource.name == anchor else 0
                sums[anchor, usage.meter] = (moved + top, booked + usage.quantity)
        for (anchor, meter), (moved, booked) in sums.items():
            debt = now.get((anchor, meter), 0)
            skew = max(0, last_read.get(anchor, 0) - self.sweep.stamp) + TICK
            overrun = max(0, -debt - skew * self.sweep.cores)
            change = debt - was.get((anchor, meter), 0)
            self.out.balances.append(Balance(anchor, meter, moved, booked, debt, change, overrun))


def hold_until(track: Track, name: str, meter: Meter, anchor: int, at: int) -> Iterator[Usage]:
    """Integrate a resource's gauge up to `at` at its last level, for a cut; advances its mark."""
    mark = track.marks.get(name)
    if mark is None or meter.kind != "gauge":
        return
    start = anchor + floor_ms(mark.taken)
    if start < at:
        quantity = mark.value * ((at - start) // NS_PER_MS)
        mark.taken = at - anchor
        yield Usage(track.resource, name, start, at, quantity, quantity, 0, mark.raw, mark.raw)


def _levels(track: Track, reading: Reading) -> dict[str, tuple[tuple[str, int], ...]]:
    """The limits and requests that held over the span now ending: the last known, or a newborn's first."""
    found: dict[str, tuple[tuple[str, int], ...]] = {}
    for sample in reading.samples:
        if sample.aspect != "usage":
            mark = track.marks.get(f"{sample.meter}/{sample.aspect}")
            value = mark.value if mark is not None else sample.value
            found[sample.meter] = (*found.get(sample.meter, ()), (sample.aspect, value))
    return found


def split(quantity: int, start: int, end: int, edges: list[int]) -> Iterator[tuple[int, int, int]]:
    """Cut `quantity` over `[start, end)` at `edges` in proportion to time: (start, end, part), Σ parts = quantity (L6).

    Each edge takes the floor of its cumulative share, so the parts depend on no order and on no float.
    """
    done, left = 0, start
    span = end - start
    for edge in [*edges, end]:
        upto = quantity * (edge - start) // span if span else quantity
        yield left, edge, upto - done
        done, left = upto, edge
