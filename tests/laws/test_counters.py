"""ACCOUNTING §1: counter identities and falls (law L4)."""

from agent.model import Sample
from agent.usage import Mark, difference
from tests.laws.scene import CPU_SECONDS, NOON, Line, Measuring, S, booked, customer, group, reading, swept


def walk(values: list[int], *, falls: str) -> tuple[list[int], list[str]]:
    """What each value after the first moved, and the anomalies on the way."""
    _, mark, _ = difference(None, sampled(values[0]), born=False, falls=falls)
    moved, anomalies = [], []
    for value in values[1:]:
        more, mark, anomaly = difference(mark, sampled(value), born=False, falls=falls)
        moved.append(more)
        anomalies += [anomaly] if anomaly is not None else []
    return moved, anomalies


def sampled(value: int, identity: str = "inode-7") -> Sample:
    """One reading of one counter."""
    return reading(group(identity, inode=0), 1 * S, cpu=value).samples[0]


def test_a_kernel_counter_that_falls_is_marked_again_at_the_lower_value() -> None:
    """§1 kernel files: the fall bills nothing, and only what comes after it counts."""
    assert walk([100, 40, 55], falls="reset") == ([0, 15], ["inferred_reset"])


def test_a_fall_to_zero_bills_nothing_of_the_fall() -> None:
    """§1: v1 cpuacct.usage is writable."""
    assert walk([100, 0, 7], falls="reset") == ([0, 7], ["inferred_reset"])


def test_usage_after_a_kernel_reset_carries_the_flag_inferred_reset() -> None:
    """§1: flag `inferred_reset` on the record that saw the fall."""
    line, anchor = Line(customer("acme", unit="a.service")), group("a.slice")
    unit = group("a.service", anchor, unit="a.service")
    for at, a, u in ((0, 100, 50), (15, 110, 60), (30, 120, 5), (60, 130, 15)):
        line.sweep(swept(at * S, [reading(anchor, at * S, cpu=a), reading(unit, at * S, cpu=u)]))
    (record,) = [r for r in line.records if r.customer == "acme"]
    assert (record.quantity, record.flags) == (20, ("inferred_reset",))


def test_what_a_reset_group_used_stays_with_its_parent_and_the_books_close() -> None:
    """L1 with a reset inside: the parent's own counter did not fall."""
    measure, anchor = Measuring(), group("a.slice")
    unit = group("a.service", anchor, unit="a.service")
    measure(swept(0, [reading(anchor, 0, cpu=100), reading(unit, 0, cpu=50)]))
    out = measure(swept(S, [reading(anchor, S, cpu=112), reading(unit, S, cpu=2)]))
    assert booked(out) == {"a.slice": 12, "a.service": 0}
    assert out.balances[0].booked + out.balances[0].change == out.balances[0].moved == 12


def test_an_anchor_that_is_reset_takes_its_childrens_word() -> None:
    """§1 at the top: the fall bills nothing, but what the children moved was used."""
    measure, anchor = Measuring(), group("a.slice")
    unit = group("a.service", anchor, unit="a.service")
    measure(swept(0, [reading(anchor, 0, cpu=100), reading(unit, 0, cpu=50)]))
    out = measure(swept(S, [reading(anchor, S, cpu=1), reading(unit, S, cpu=59)]))
    assert booked(out) == {"a.slice": 0, "a.service": 9}
    assert out.balances[0].moved == 9 == out.balances[0].booked + out.balances[0].change


def test_a_remote_counter_that_dips_and_comes_back_bills_only_above_its_high_water_mark() -> None:
    """§1 kubelet: 100 → 0 (zero with fresh time) → 130 is 30, not 130."""
    assert walk([100, 0, 130], falls="dip") == ([0, 30], ["dip"])


def test_a_remote_counter_that_recovers_below_its_mark_bills_nothing_until_it_passes_it() -> None:
    """§1: nothing is billed below the high-water mark."""
    assert walk([100, 60, 90, 101], falls="dip") == ([0, 0, 1], ["dip", "dip"])


def test_a_remote_level_that_stays_lower_for_three_samples_has_been_reset() -> None:
    """§1: 3 samples lower move the mark there, flagged, billing none of the fall."""
    assert walk([100, 10, 20, 30, 45], falls="dip") == ([0, 0, 0, 15], ["dip", "dip", "inferred_reset"])


def test_two_low_samples_with_a_recovery_between_do_not_add_up_to_a_reset() -> None:
    """§1: three in a row."""
    assert walk([100, 10, 10, 100, 10, 110], falls="dip")[0] == [0, 0, 0, 0, 10]


def test_a_dip_is_counted_as_an_anomaly_and_is_no_flag() -> None:
    """§1, §6: an anomaly is a metric with a reason label, not a flag."""
    measure, remote = Measuring(), group("series")
    measure(swept(0, [reading(remote, 0, remote=100)], falls="dip"))
    out = measure(swept(S, [reading(remote, S, remote=0)], falls="dip"))
    assert (out.anomalies, [u.flags for u in out.usages]) == (["dip"], [()])


def test_a_new_identity_starts_at_zero() -> None:
    """§1: only a new identity does; here the same resource's counter was made anew."""
    moved, mark, anomaly = difference(Mark("inode-7", 100, 0), sampled(30, "inode-8"), born=False)
    assert (moved, mark.value, anomaly) == (30, 30, None)


def test_a_recreated_group_under_the_same_name_is_another_counter() -> None:
    """§1: identity is the inode. 100 → (gone, made again) → 30 is a final 100 and a first 30."""
    measure, anchor = Measuring(), group("a.slice")
    old, new = (group("a.service", anchor, inode=i, unit="a.service") for i in (7, 8))
    measure(swept(0, [reading(anchor, 0, cpu=0), reading(old, 0, cpu=0)]), from_zero=True)
    measure(swept(S, [reading(anchor, S, cpu=100), reading(old, S, cpu=100)]))
    out = measure(swept(2 * S, [reading(anchor, 2 * S, cpu=130), reading(new, 2 * S, cpu=30)]))
    assert booked(out) == {"a.slice": 0, "a.service": 30}


def test_values_stay_as_fine_as_the_counter() -> None:
    """§1: a single nanosecond is billed; nothing is rounded on the way."""
    line, anchor = Line(customer("acme", unit="a")), group("a", unit="a")
    line.sweep(swept(0, [reading(anchor, 0, cpu=10**18)]))
    line.sweep(swept(60 * S, [reading(anchor, 60 * S, cpu=10**18 + 1)]))
    assert [r.quantity for r in line.records] == [1]


def test_a_quantity_beyond_64_bits_survives() -> None:
    """DESIGN §4: ten TiB for a day in byte·ms overflows 64 bits; ours are Python ints."""
    line = Line(customer("acme", unit="a"), dimensions=[CPU_SECONDS.__class__("mem", "memory")], window=3600 * S)
    unit = group("a", unit="a")
    for at in range(0, 3601, 15):
        line.sweep(swept(at * S, [reading(unit, at * S, memory=10 << 60)]), anchor=NOON)
    assert [r.quantity for r in line.records] == [(10 << 60) * 3_600_000]
