"""ACCOUNTING §4: windows, segments, splitting and closing (laws L6, L7)."""

from agent.model import Dimension, Reading
from agent.usage import split
from tests.laws.scene import CPU_SECONDS, NOON, Line, S, customer, group, reading, swept

UNIT = group("a", unit="a")
ACME = customer("acme", unit="a")
IO = Dimension("io", "io.read")
MEMORY = Dimension("memory", "memory")


def spans(line: Line) -> list[tuple[int, int, int, int]]:
    """(start, end, n-th of its key so far, quantity) of acme's records, in seconds after noon."""
    seen: dict[bytes, int] = {}
    found = []
    for r in line.records:
        if r.customer == "acme":
            n = seen[r.key()] = seen.get(r.key(), -1) + 1
            found.append(((r.start - NOON) // S, (r.end - NOON) // S, n, r.quantity))
    return found


def run(line: Line, *points: tuple[int, int]) -> Line:
    """CPU readings of the one unit: (second, value)."""
    for at, value in points:
        line.sweep(swept(at * S, [reading(UNIT, at * S, cpu=value)]))
    return line


def test_usage_across_an_edge_is_split_by_time_in_integers() -> None:
    """L6: 45 → 75 s, 7 ns: three (the floor) before the edge, four after."""
    line = run(Line(ACME), (45, 0), (75, 7), (120, 7))
    assert spans(line) == [(45, 60, 0, 3), (60, 120, 0, 4)]


def test_windows_are_utc_aligned_and_clipped_only_to_the_agents_own_segments() -> None:
    """§4: the epoch starts at 50 s; the unit's life, from 70 to 80 s, clips nothing."""
    line, anchor = Line(ACME), group("s")
    unit = group("s/a", anchor, unit="a")
    line.sweep(swept(50 * S, [reading(anchor, 50 * S, cpu=0)]))
    line.sweep(swept(70 * S, [reading(anchor, 70 * S, cpu=0)]))
    line.sweep(swept(80 * S, [reading(anchor, 80 * S, cpu=5), reading(unit, 80 * S, cpu=5)]))
    line.sweep(swept(90 * S, [reading(anchor, 90 * S, cpu=6), reading(unit, 80 * S, cpu=5, gone=True)]))
    line.sweep(swept(120 * S, [reading(anchor, 120 * S, cpu=6)]))
    assert spans(line) == [(60, 120, 0, 5)]
    assert [((r.start - NOON) // S, (r.end - NOON) // S) for r in line.records if r.customer is None] == [(60, 120)]


def test_the_first_window_of_an_epoch_starts_with_the_epoch() -> None:
    """§4: epoch start is a segment's start."""
    assert spans(run(Line(ACME), (50, 0), (60, 5)))[0][:2] == (50, 60)


def test_a_shutdown_cuts_and_the_successor_goes_on_at_the_cut() -> None:
    """§4, DESIGN §8: a record's start and end are the span it covers; nothing is twice, nothing is missing."""
    line = run(Line(ACME), (0, 0), (20, 20))
    line.cut()
    run(line, (30, 30), (60, 60))
    assert spans(line) == [(0, 20, 0, 20), (20, 60, 0, 40)]


def test_usage_that_spans_a_cut_is_split_there() -> None:
    """L6 at a segment's start: a lagging source's counter moved from before the cut to after it."""
    line = Line(ACME, dimensions=[IO], feeds=("fast", "slow"))
    other = group("b", inode=2)
    for source, unit in (("fast", other), ("slow", UNIT)):
        line.sweep(swept(0, [reading(unit, 0, io=0)], source=source))
    line.sweep(swept(20 * S, [reading(other, 20 * S, io=0)], source="fast"))
    line.cut()
    line.sweep(swept(40 * S, [reading(UNIT, 40 * S, io=100)], source="slow"))
    line.cut()
    assert spans(line) == [(0, 20, 0, 50), (20, 40, 0, 50)]


def test_a_window_closes_when_its_watermark_passes_its_end_and_not_before() -> None:
    """§4: a sweep at 59.999 s closes nothing; one at 60 s does."""
    line = run(Line(ACME), (0, 0))
    line.sweep(swept(60 * S - 1_000_000, [reading(UNIT, 60 * S - 1_000_000, cpu=5)]))
    assert line.records == []
    run(line, (60, 6))
    assert spans(line) == [(0, 60, 0, 6)]


def test_a_lagging_source_is_waited_for_up_to_its_lateness() -> None:
    """§4: lateness is measured against the furthest committed watermark of another source of that meter."""
    line = Line(ACME, feeds=("fast", "slow"))
    slow = group("b", inode=2)
    line.sweep(swept(0, [reading(slow, 0, cpu=0)], source="slow"))
    for at in (0, 60, 120, 179):
        line.sweep(swept(at * S, [reading(UNIT, at * S, cpu=at)], source="fast"))
    assert line.records == []
    line.sweep(swept(180 * S, [reading(UNIT, 180 * S, cpu=180)], source="fast"))
    assert spans(line) == [(0, 60, 0, 60)]


def test_a_lone_source_never_closes_by_lateness() -> None:
    """§4: however far the clock goes, without its own sweep there is no watermark."""
    line = run(Line(ACME), (0, 0), (59, 5))
    line.sweep(swept(3600 * S, [], source="another"))
    assert line.records == []


def test_one_source_that_has_never_swept_holds_the_window_back() -> None:
    """§4: *all* its sources' committed watermarks."""
    line = Line(ACME, feeds=("cgroups", "slow"))
    assert run(line, (0, 0), (60, 60), (90, 90)).records == []


def test_late_usage_is_emitted_at_most_once_per_window_length_as_the_next_delta() -> None:
    """L7: late usage gathers; order never matters, for deltas only add."""
    line = Line(ACME, dimensions=[IO], feeds=("fast", "slow"))
    other = group("b", inode=2)
    line.sweep(swept(0, [reading(UNIT, 0, io=0)], source="slow"))
    for at in range(0, 240, 60):
        line.sweep(swept(at * S, [reading(other, at * S, io=0)], source="fast"))
    late = {at: 10 * at for at in range(6, 60, 6)}
    for at, value in late.items():  # nine late readings within the window that closed at 180 s
        line.sweep(swept(at * S, [reading(UNIT, at * S, io=value)], source="slow"))
    assert [s for s in spans(line) if s[2] > 0 or s[3]] == []
    line.sweep(swept(240 * S, [reading(other, 240 * S, io=0)], source="fast"))
    assert spans(line) == [(0, 60, 0, max(late.values()))]
    line.sweep(swept(58 * S, [reading(UNIT, 58 * S, io=999)], source="slow"))
    line.sweep(swept(300 * S, [reading(other, 300 * S, io=0)], source="fast"))
    assert spans(line)[1] == (0, 60, 1, 999 - max(late.values()))


def test_zero_usage_makes_no_record() -> None:
    """§6."""
    assert run(Line(ACME), (0, 5), (60, 5), (120, 5)).records == []


def test_a_cut_closes_regardless() -> None:
    """§4: also what a lagging source would have held back, and while a clock step is unconfirmed."""
    line = Line(ACME, feeds=("cgroups", "slow"))
    run(line, (0, 0), (20, 20))
    line.sweep(swept(30 * S, [reading(UNIT, 30 * S, cpu=30)]), may_close=False, doubtful=True)
    assert [(r.quantity, r.flags) for r in line.cut()] == [(30, ("clock_unconfirmed",))]


def test_while_a_step_is_unconfirmed_nothing_closes_and_all_is_flagged() -> None:
    """§4: until then nothing closes but a cut."""
    line = run(Line(ACME), (0, 0), (30, 30))
    line.sweep(swept(90 * S, [reading(UNIT, 90 * S, cpu=90)]), may_close=False, doubtful=True)
    assert line.records == []
    line.sweep(swept(120 * S, [reading(UNIT, 120 * S, cpu=120)]))
    assert [(s[:2], r.flags) for s, r in zip(spans(line), line.records, strict=True)] == [
        ((0, 60), ("clock_unconfirmed", "interpolated")),
        ((60, 120), ("clock_unconfirmed", "interpolated")),
    ]


def test_the_close_watermark_never_moves_back() -> None:
    """§4: after a step back of ten minutes the same windows do not close again until their time has passed twice."""
    line = run(Line(ACME), (0, 0), (660, 660))
    back = NOON - 600 * S
    marks = [line.books.mark("cpu.time")]
    for at in (720, 780, 1260):
        line.sweep(swept(at * S, [reading(UNIT, at * S, cpu=at)]), anchor=back)
        marks.append(line.books.mark("cpu.time"))
    assert marks == sorted(marks)
    assert marks[1] == marks[0]
    line.sweep(swept(1320 * S, [reading(UNIT, 1320 * S, cpu=1320)]), anchor=back)
    assert sum(s[3] for s in spans(line)) == 1320


def test_a_step_forward_bills_only_what_was_used() -> None:
    """L5: an hour skipped is an hour in which nothing was measured, and nothing is guessed."""
    line = run(Line(ACME), (0, 0), (30, 30))
    line.sweep(swept(45 * S, [reading(UNIT, 45 * S, cpu=45)]), anchor=NOON + 3600 * S)
    line.cut(NOON + 3600 * S)
    assert sum(s[3] for s in spans(line)) == 45


def test_a_policy_cell_does_not_depend_on_the_polls_rhythm() -> None:
    """§4: [0.75 core against 0.5]. Half a core requested; one core for 7.5 s, none for 7.5 s.

    Polled each 7.5 s, max(request, usage) of each poll is 1 and 0.5: 0.75 of a core. On cells of 15 s it is 0.5
    however often one polls.
    """
    request = S // 2 // 1000  # ns per ms
    policy = Dimension("cpu", "cpu.time", policy="max(request, usage)")

    def billed(*seconds: float) -> int:
        line = Line(ACME, dimensions=[policy], interval=15 * S)
        for second in seconds:
            at = int(second * S)
            burnt = int(sum(min(max(second - start, 0), 7.5) for start in range(0, 60, 15)) * S)
            line.sweep(swept(at, [reading(UNIT, at, cpu=burnt, cpu_request=request)]))
        return line.billed("acme")

    often = [n * 7.5 for n in range(9)]
    assert billed(*often) == billed(*range(0, 61, 15)) == 30 * S


def test_a_policy_cell_takes_the_larger_of_request_and_usage_cell_by_cell() -> None:
    """§4: a burst in one cell is not averaged away by the idle cell beside it."""
    policy = Dimension("cpu", "cpu.time", policy="max(request, usage)")
    line = Line(ACME, dimensions=[policy])
    for at, burnt in ((0, 0), (15, 15), (30, 15), (60, 15)):
        line.sweep(swept(at * S, [reading(UNIT, at * S, cpu=burnt * S, cpu_request=500_000)]))
    assert line.billed("acme") == 15 * S + 3 * 7_500_000_000


def test_a_window_that_is_no_multiple_of_the_interval_closes_with_its_last_cell() -> None:
    """§4: the cell at the edge ends with the window; one record, not a second delta a window later."""
    line = Line(ACME, dimensions=[Dimension("cpu", "cpu.time", policy="request")], window=10 * S, interval=15 * S)
    for at in range(0, 41, 5):
        line.sweep(swept(at * S, [reading(UNIT, at * S, cpu=0, cpu_request=100)]))
    assert spans(line) == [(a, a + 10, 0, 1_000_000) for a in (0, 10, 20, 30)]


def test_request_and_limit_bill_the_level_for_as_long_as_it_held() -> None:
    """DESIGN §4: segments of constant request; the change at 30 s acts from the sweep that saw it."""
    line = Line(ACME, dimensions=[Dimension("cpu", "cpu.time", policy="request")])
    for at, level in ((0, 100), (30, 300), (60, 300)):
        line.sweep(swept(at * S, [reading(UNIT, at * S, cpu=0, cpu_request=level)]))
    assert line.billed("acme") == 30_000 * 100 + 30_000 * 300


def test_a_policy_cell_that_a_cut_divides_is_billed_in_two_parts_that_sum() -> None:
    """§4 and §8: a shutdown in the middle of a cell."""
    line = Line(ACME, dimensions=[Dimension("cpu", "cpu.time", policy="request")])
    for at in (0, 20):
        line.sweep(swept(at * S, [reading(UNIT, at * S, cpu=0, cpu_request=100)]))
    line.cut()
    for at in (22, 60):
        line.sweep(swept(at * S, [reading(UNIT, at * S, cpu=0, cpu_request=100)]))
    assert spans(line) == [(0, 20, 0, 2_000_000), (20, 60, 0, 4_000_000)]


def test_a_gauge_holds_its_last_value_until_the_next_sample() -> None:
    """DESIGN §4: left-hold, in byte·ms."""
    line = Line(ACME, dimensions=[MEMORY])
    for at, level in ((0, 10), (15, 30), (60, 0)):
        line.sweep(swept(at * S, [reading(UNIT, at * S, memory=level)]))
    assert line.billed("acme") == 10 * 15_000 + 30 * 45_000


def test_a_gauge_of_a_tree_holds_a_parent_to_what_its_children_do_not_have() -> None:
    """DESIGN L1: no unit is in two places; where skew shows a parent below its children it has nothing, not less."""
    line = Line(ACME, customer("beta", unit="b"), dimensions=[Dimension("pids", "pids")])
    top = group("s", unit="b")
    child = group("s/c", top)
    for at, above, below in ((0, 10, 4), (15, 3, 4), (30, 3, 4)):
        line.sweep(swept(at * S, [reading(top, at * S, pids=above), reading(child, at * S, pids=below)]))
    held = {k: sum(s.quantity for s in of.values()) for k, of in line.books.windows.shares.items()}
    assert held == {top.key: 6 * 15_000, child.key: 4 * 30_000}


def test_a_gauge_of_the_dead_holds_until_its_last_sign_of_life() -> None:
    """DESIGN §4: its level was read with the last sweep, its counter a second before it died."""
    line = Line(ACME, dimensions=[MEMORY])
    line.sweep(swept(0, [reading(UNIT, 0, memory=10)]))
    late, early = reading(UNIT, 9 * S, cpu=1).samples, reading(UNIT, 5 * S, memory=10).samples
    line.sweep(swept(15 * S, [Reading(UNIT, (*late, *early), gone=True)]))
    assert line.open("acme") == 10 * 9_000


def test_a_gauge_hole_beyond_three_intervals_is_a_gap() -> None:
    """§6: nothing is guessed across it, and the gap says where."""
    line = Line(ACME, dimensions=[MEMORY], interval=15 * S)
    for at, level in ((0, 10), (46, 30)):
        line.sweep(swept(at * S, [reading(UNIT, at * S, memory=level)]))
    (gap,) = line.records
    assert (gap.kind, gap.reason, gap.group, gap.quantity) == ("gap", "no_sample", {"resource": "a"}, 0)
    assert (gap.start, gap.end) == (NOON, NOON + 46 * S)
    assert line.open("acme") == 0


def test_a_gauge_hole_of_three_intervals_is_none() -> None:
    """§6: *beyond* three."""
    line = Line(ACME, dimensions=[MEMORY], interval=15 * S)
    for at, level in ((0, 10), (45, 30)):
        line.sweep(swept(at * S, [reading(UNIT, at * S, memory=level)]))
    assert (line.records, line.open("acme")) == ([], 450_000)


def test_a_gauge_that_agrees_on_both_sides_of_a_hole_is_held_and_flagged() -> None:
    """§6: identity and value agree; `held`."""
    line = Line(ACME, dimensions=[MEMORY], interval=15 * S)
    for at in (0, 46, 60):
        line.sweep(swept(at * S, [reading(UNIT, at * S, memory=10)]))
    assert [(r.quantity, r.flags) for r in line.records] == [(600_000, ("held",))]


def test_a_counter_bills_the_measured_difference_across_a_hole_and_says_so() -> None:
    """DESIGN §4: over the real span, flagged `interpolated`."""
    line = run(Line(ACME), (0, 0), (46, 46), (60, 60))
    assert [(r.quantity, r.flags) for r in line.records] == [(60, ("interpolated",))]


def test_a_gauge_is_held_up_to_the_cut() -> None:
    """DESIGN §8: the record covers the span up to the cut, and the successor does not bill it again."""
    line = Line(ACME, dimensions=[MEMORY, CPU_SECONDS])
    line.sweep(swept(0, [reading(UNIT, 0, memory=10, cpu=0)]))
    line.sweep(swept(20 * S, [reading(UNIT, 20 * S, memory=10, cpu=0)]))
    line.cut()
    line.sweep(swept(60 * S, [reading(UNIT, 60 * S, memory=10, cpu=0)]))
    assert [(s[0], s[1], s[3]) for s in spans(line)] == [(0, 20, 200_000), (20, 60, 400_000)]


def test_a_gauge_is_held_up_to_a_cut_that_lies_beyond_its_last_sample() -> None:
    """L6: another source is ahead; the lagging one's level covers the cut window, and is not billed again after it."""
    line = Line(customer("acme", unit="*"), dimensions=[MEMORY], feeds=("fast", "slow"))
    other = group("b", inode=2, unit="b")
    for at, source, unit in ((0, "slow", UNIT), (0, "fast", other), (20, "slow", UNIT), (30, "fast", other)):
        line.sweep(swept(at * S, [reading(unit, at * S, memory=10)], source=source))
    line.cut()
    assert spans(line) == [(0, 30, 0, 2 * 300_000)]
    for source, unit in (("slow", UNIT), ("fast", other)):
        line.sweep(swept(40 * S, [reading(unit, 40 * S, memory=10)], source=source))
    line.cut()
    assert spans(line) == [(0, 30, 0, 600_000), (30, 40, 0, 200_000)]


def test_a_cut_after_a_step_back_holds_no_gauge_into_the_future() -> None:
    """L5: [the clock went back 37 s, and the cut held the level for 37 s that had not passed: billed twice]."""
    line, back = Line(ACME, dimensions=[MEMORY]), NOON - 37 * S
    line.sweep(swept(60 * S, [reading(UNIT, 60 * S, memory=1)]))
    line.sweep(swept(70 * S, [reading(UNIT, 70 * S, memory=1)]), anchor=back)
    line.cut(back)
    for at in (80, 140):
        line.sweep(swept(at * S, [reading(UNIT, at * S, memory=1)]), anchor=back)
    assert line.billed("acme") + line.open("acme") == 80_000


def test_covered_is_the_union_of_what_was_observed_and_partial_says_that_it_is_less() -> None:
    """§6: of two units of one customer, one observed 0–20 s and one 10–30 s: 30 of 60 s."""
    line = Line(customer("acme", unit="a*"), dimensions=[IO])
    a, b, idle = group("a1", unit="a1"), group("a2", inode=2, unit="a2"), group("z", inode=3)
    line.sweep(swept(0, [reading(a, 0, io=0), reading(idle, 0, io=0)], others=[b.key]))
    line.sweep(swept(10 * S, [reading(a, 10 * S, io=1), reading(b, 10 * S, io=0)]))
    line.sweep(swept(20 * S, [reading(b, 20 * S, io=1), reading(a, 20 * S, io=2, gone=True)]))
    line.sweep(swept(30 * S, [reading(b, 30 * S, io=2, gone=True)]))
    line.sweep(swept(60 * S, []))
    (record,) = line.records
    assert (record.quantity, record.covered, record.flags) == (4, 30 * S, ("partial",))


def test_a_window_that_was_observed_whole_is_not_partial() -> None:
    """§6: also the first, clipped to its segment."""
    line = run(Line(ACME), (50, 0), (60, 5), (120, 6))
    assert [(r.covered, r.flags) for r in line.records] == [(10 * S, ()), (60 * S, ("interpolated",))]


def test_split_floors_each_cumulative_share() -> None:
    """L6: the parts depend on no order and no float."""
    assert list(split(10, 0, 3, [1, 2])) == [(0, 1, 3), (1, 2, 3), (2, 3, 4)]
    assert next(iter(split(10**30, 0, 3, [1, 2]))) == (0, 1, 10**30 // 3)
