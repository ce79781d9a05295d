"""Law L6 by Hypothesis: whatever is cut, the parts sum to the whole; whatever is added, records and windows hold it."""

import itertools
from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from agent.model import NS_PER_MS, Dimension
from agent.shares import union
from agent.usage import settle, split
from tests.laws.scene import CPU_SECONDS, MINUTE, NOON, Line, S, customer, group, reading, swept

quantities = st.integers(0, 1 << 90)
times = st.integers(0, 10_000)


@given(quantities, st.lists(times, min_size=2, unique=True))
def test_split_sums_exactly_and_no_part_is_negative(quantity: int, edges: list[int]) -> None:
    """L6."""
    start, *inner, end = sorted(edges)
    parts = list(split(quantity, start, end, inner))
    assert sum(part for _, _, part in parts) == quantity
    assert all(part >= 0 for _, _, part in parts)
    assert [(a, b) for a, b, _ in parts] == list(zip([start, *inner], [*inner, end], strict=True))


@given(quantities, st.lists(times, min_size=3, unique=True))
def test_split_is_within_one_unit_of_the_exact_share(quantity: int, edges: list[int]) -> None:
    """L6: in proportion to time; cutting once more moves at most one unit."""
    start, *inner, end = sorted(edges)
    for a, b, part in split(quantity, start, end, inner):
        assert abs(part - Fraction(quantity * (b - a), end - start)) < 1


@given(quantities, st.lists(times, min_size=4, unique=True))
def test_split_is_the_same_however_it_is_cut_again(quantity: int, edges: list[int]) -> None:
    """L6: a further edge splits a part and moves no other."""
    start, *inner, end = sorted(edges)
    fine = {b: part for _, b, part in split(quantity, start, end, inner)}
    coarse = dict.fromkeys([inner[0], end], 0)
    for _, b, part in split(quantity, start, end, inner[:1]):
        coarse[b] += part
    assert coarse[inner[0]] == fine[inner[0]]


@given(quantities, quantities, st.lists(times, min_size=2, unique=True))
def test_a_larger_quantity_has_no_smaller_share_up_to_any_edge(one: int, other: int, edges: list[int]) -> None:
    """L6: monotone, so that more usage never bills less."""
    start, *inner, end = sorted(edges)
    low = high = 0
    less, more = sorted((one, other))
    for (_, _, a), (_, _, b) in zip(split(less, start, end, inner), split(more, start, end, inner), strict=True):
        low, high = low + a, high + b
        assert low <= high


@given(st.lists(st.tuples(st.integers(0, 1 << 70), st.integers(0, 1 << 70))))
def test_settle_never_books_more_than_the_highest_exclusive_value_seen(steps: list[tuple[int, int]]) -> None:
    """L1: booked = the running maximum of (own − children), and in_flight the distance to it."""
    exclusive = highest = booked = in_flight = 0
    for moved, inner in steps:
        exclusive += moved - inner
        highest = max(highest, exclusive)
        more, in_flight = settle(moved, inner, in_flight)
        booked += more
        assert more >= 0
        assert booked == highest
        assert in_flight == exclusive - highest


@given(st.lists(st.tuples(times, times).map(lambda s: (min(s), max(s)))))
def test_union_covers_what_its_spans_cover(spans: list[tuple[int, int]]) -> None:
    """§6: `covered` counts each nanosecond once."""
    merged = union([[*span] for span in spans])
    assert all(a[1] < b[0] for a, b in itertools.pairwise(merged))
    covered = {t for a, b in spans for t in range(a, b)}
    assert sum(b - a for a, b in merged) == len(covered)


steps = st.lists(
    st.tuples(
        st.integers(1, 200_000),  # ms since the sweep before
        st.sampled_from(["sweep", "sweep", "sweep", "cut", "hold", "back", "ahead", "relabel"]),
        st.lists(st.integers(0, 10**12), min_size=3, max_size=3),
    ),
    max_size=25,
)
DIMENSIONS = (
    CPU_SECONDS,
    Dimension("by-unit", "cpu.time", group_by=("unit",)),
    Dimension("io", "io.read"),
    Dimension("memory", "memory"),
)


UNITS = ("a1", "b1", "x")


class Script:
    """A line under a script, and what it must hold in the end: all that was burnt, and levels for as long as held."""

    def __init__(self, window: int) -> None:
        customers = customer("acme", unit="a*"), customer("beta", unit="b*")
        self.line = Line(*customers, dimensions=DIMENSIONS, window=window)
        self.boottime, self.anchor = 0, NOON
        self.counters, self.levels, self.units = [0, 0, 0], [0, 0, 0], list(UNITS)
        self.swept_at: int | None = None
        self.expected = dict.fromkeys((d.name for d in DIMENSIONS), 0)

    def happen(self, what: str) -> None:
        if what == "back":
            self.anchor -= 37 * S
        elif what == "ahead":
            self.anchor += 97 * S
        elif what == "relabel":
            self.units.append(self.units.pop(0))
        elif what == "cut":
            self.line.cut(self.anchor)

    def sweep(self, burnt: list[int], *, may_close: bool) -> None:
        at = self.boottime
        self.counters = [c + b for c, b in zip(self.counters, burnt, strict=True)]
        readings = [
            reading(group(f"u{i}", inode=i, unit=unit), at, cpu=counter, io=counter, memory=level)
            for i, (unit, counter, level) in enumerate(zip(self.units, self.counters, burnt, strict=True))
        ]
        self.line.sweep(swept(at, readings), anchor=self.anchor, may_close=may_close)
        if self.swept_at is not None:
            self._expect(burnt, at - self.swept_at)
        self.swept_at, self.levels = at, burnt

    def _expect(self, burnt: list[int], since: int) -> None:
        for name in ("cpu", "by-unit", "io"):
            self.expected[name] += sum(burnt)
        for level, now in zip(self.levels, burnt, strict=True):
            if since <= 3 * 15 * S or level == now:  # beyond that it is a gap, but where both sides agree
                self.expected["memory"] += level * (since // NS_PER_MS)

    def held(self) -> dict[str, int]:
        shares = [s for of in self.line.books.windows.shares.values() for s in of.values()]
        held = dict.fromkeys(self.expected, 0)
        for dimension, quantity in [(r.dimension, r.quantity) for r in self.line.records]:
            held[dimension] += quantity
        for share in shares:
            held[share.dimension] += share.quantity
        return held


@given(steps, st.sampled_from([10 * S, MINUTE, 7 * S]))
def test_records_and_open_windows_hold_all_usage_of_every_dimension(
    steps: list[tuple[int, str, list[int]]], window: int
) -> None:
    """L6, L7: cuts, clock steps, held closings and relabels lose and double nothing."""
    script = Script(window)
    for wait, what, burnt in steps:
        script.boottime += wait * NS_PER_MS
        script.happen(what)
        script.sweep(burnt, may_close=what != "hold")
    assert script.held() == script.expected
    for record in script.line.records:
        assert record.quantity >= 0
        assert record.kind == "gap" or record.start // window == (record.end - 1) // window  # one aligned window
