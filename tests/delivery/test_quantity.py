"""ACCOUNTING §7: base units into a sink's units. Σ submitted + what is carried = Σ usage, as exact integers."""

from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.delivery.quantity import Measure, Rounding, convert, units
from agent.spool.rounding import Carried

ROUNDINGS: tuple[Rounding, ...] = ("half-even", "half-up")
PERS = [1, 3, 1000, 3_600_000_000_000, (1 << 30) * 3_600_000]
quantities = st.integers(-(10**24), 10**24) | st.integers(-5000, 5000)
measures = st.builds(
    Measure, st.just("d"), st.just("u"), st.sampled_from(PERS), st.integers(0, 9), st.sampled_from(ROUNDINGS)
)


def exact(carried: Carried) -> Fraction:
    """In base units."""
    return Fraction(carried.value, carried.grain)


@given(st.lists(st.tuples(quantities, measures), max_size=30))
def test_submitted_plus_carried_is_the_usage_whatever_the_units_become(steps: list[tuple[int, Measure]]) -> None:
    """The law, through any change of unit, scale and rounding on the way; also with negative quantities."""
    carried, submitted = Carried(), Fraction(0)
    for quantity, measure in steps:
        value, carried = convert(quantity, carried, measure)
        submitted += Fraction(value) * measure.per
    assert submitted + exact(carried) == sum(quantity for quantity, _ in steps)


@given(st.lists(quantities, min_size=1, max_size=30), measures)
def test_never_more_than_half_a_step_is_carried(steps: list[int], measure: Measure) -> None:
    """However many records there were: rounding errors do not add up."""
    carried = Carried()
    for quantity in steps:
        _, carried = convert(quantity, carried, measure)
        assert abs(exact(carried)) <= Fraction(measure.per, 2 * 10**measure.scale)


@given(quantities, measures)
def test_a_value_has_exactly_the_decimals_of_its_scale(quantity: int, measure: Measure) -> None:
    """No exponent, no minus before zero, and what is parsed back is the same."""
    value, _ = convert(quantity, Carried(), measure)
    whole, dot, decimals = value.partition(".")
    assert len(decimals) == measure.scale
    assert bool(dot) == bool(measure.scale)
    assert whole.lstrip("-").isdigit()
    assert not (value.startswith("-") and Decimal(value) == 0)


@given(quantities, st.sampled_from(PERS), st.integers(0, 9))
def test_the_two_roundings_differ_in_ties_only(quantity: int, per: int, scale: int) -> None:
    """And there by one step."""
    even, up = (convert(quantity, Carried(), Measure("d", "u", per, scale, rounding)) for rounding in ROUNDINGS)
    tie = (2 * quantity * 10**scale) % per == 0 and (2 * quantity * 10**scale) // per % 2 == 1
    assert tie or even == up
    assert Fraction(up[0]) - Fraction(even[0]) in ({0, Fraction(1, 10**scale)} if tie else {0})


@given(st.lists(quantities, max_size=20), st.lists(measures, max_size=20))
def test_base_units_are_told_as_they_are(steps: list[int], before: list[Measure]) -> None:
    """A whole number of base units needs no rounding: nothing is carried but what was before."""
    for quantity in steps:
        assert convert(quantity, Carried(), Measure("d", "ns")) == (str(quantity), Carried())


@pytest.mark.parametrize(
    ("quantity", "scale", "rounding", "value", "left"),
    [
        (1_500, 0, "half-even", "2", -500),
        (2_500, 0, "half-even", "2", 500),
        (2_500, 0, "half-up", "3", -500),
        (-1_500, 0, "half-even", "-2", 500),
        (-2_500, 0, "half-up", "-2", -500),
        (-400, 0, "half-even", "0", -400),
        (1_234, 2, "half-even", "1.23", 4),
        (-5, 2, "half-even", "0.00", -5),
        (-7, 2, "half-even", "-0.01", 3),
        (5, 6, "half-even", "0.005000", 0),
    ],
)
def test_rounding_by_example(quantity: int, scale: int, rounding: Rounding, value: str, left: int) -> None:
    """Of thousandths: half-up goes up on both sides of zero; what is left is signed."""
    told, carried = convert(quantity, Carried(), Measure("d", "thousand", 1_000, scale, rounding))
    assert (told, exact(carried)) == (value, Fraction(left))


def test_thirds_that_never_terminate_come_out_even() -> None:
    """GiB-hours do not end in decimals; a year of them still sums to what was used."""
    measure = Measure("d", "GiB-hour", units("byte·ms")["GiB-hour"], 6)
    carried, submitted = Carried(), Decimal(0)
    for _ in range(8760):
        value, carried = convert(measure.per // 3, carried, measure)
        submitted += Decimal(value)
    assert Fraction(submitted) * measure.per + exact(carried) == 8760 * (measure.per // 3)
    assert abs(submitted - 2920) <= Decimal("0.000001")


def test_a_carried_third_of_an_old_unit_is_not_lost_when_the_unit_changes() -> None:
    """The grain is the least that holds both, and goes when nothing is carried."""
    _, carried = convert(1, Carried(), Measure("d", "u", 3, 2))  # 0.33, and 1/100 is left
    assert carried == Carried(1, 100)
    value, carried = convert(0, carried, Measure("d", "v", 1, 2))
    assert (value, carried) == ("0.01", Carried())


@pytest.mark.parametrize(
    ("base", "unit", "per"),
    [
        ("ns", "core-hour", 3_600 * 10**9),
        ("byte", "GiB", 1 << 30),
        ("byte", "GB", 10**9),
        ("byte·ms", "GiB-hour", (1 << 30) * 3_600_000),
        ("task·ms", "task-minute", 60_000),
        ("ms", "day", 86_400_000),
        ("op", "op", 1),
    ],
)
def test_units_hold_so_many_base_units(base: str, unit: str, per: int) -> None:
    """A bill is wrong by this factor if it is."""
    assert units(base)[unit] == per
    assert next(iter(units(base).items())) == (base, 1)


def test_the_unit_of_the_record_decides_not_that_of_todays_meter() -> None:
    """§7: a dimension that moved to another meter, or a retired sink's, is never told 10⁹ times too much."""
    hours = Measure("cpu", "core-hour", 3_600_000_000_000, 6, base="ns")
    assert hours.of("ns") == hours
    with pytest.raises(ValueError, match="core-hour cannot tell byte"):
        hours.of("byte")
    assert Measure("net", "GB", 1, 6, base="").of("byte").per == 10**9
    assert Measure("net", "").of("byte") == Measure("net", "byte", base="byte")
