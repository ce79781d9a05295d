"""Quantities are exact: no value passes through a float, and what is finer than the API keeps counts in full."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.sources.kubernetes.quantity import MOST, NANO, nano

SUFFIXES = {
    "n": Fraction(1, 10**9),
    "u": Fraction(1, 10**6),
    "m": Fraction(1, 1000),
    "": Fraction(1),
    **{suffix: Fraction(10 ** (3 * i)) for i, suffix in enumerate("kMGTPE", 1)},
    **{f"{suffix}i": Fraction(1 << 10 * i) for i, suffix in enumerate("KMGTPE", 1)},
}
digits = st.text("0123456789", min_size=1, max_size=18)


@pytest.mark.parametrize(
    ("text", "billionths"),
    [
        ("0", 0),
        ("100m", NANO // 10),
        ("0.1", NANO // 10),
        ("1", NANO),
        ("1.5Gi", 1536 * 2**20 * NANO),
        ("128974848", 128_974_848 * NANO),
        ("129e6", 129_000_000 * NANO),
        ("129E6", 129_000_000 * NANO),
        ("129M", 129_000_000 * NANO),
        ("1E", 10**18 * NANO),
        ("1e3", 1000 * NANO),
        ("1e-3", NANO // 1000),
        ("5e+1", 50 * NANO),
        ("1n", 1),
        ("0.1n", 1),
        ("1.0000000001", NANO + 1),
        ("0.5u", 500),
        (".5", NANO // 2),
        ("5.", 5 * NANO),
        ("+2k", 2000 * NANO),
        ("-1.5", -3 * NANO // 2),
        ("-0.1n", -1),
        ("9E", min(9 * 10**18 * NANO, MOST)),
        ("100E", MOST),
        ("1e999999999", MOST),
        ("1e-999999999", 1),
        ("0e999999999", 0),
    ],
)
def test_as_the_api_reads_it(text: str, billionths: int) -> None:
    """The documentation's own examples, and the edges of its grammar."""
    assert nano(text) == billionths


@pytest.mark.parametrize("text", ["", " 1", "1 ", "1 Gi", "Gi", ".", "1.2.3", "1ki", "1K", "1mm", "1e", "1e1.5", "0x10",
                                  "1_000", "NaN", "inf", "٣", "1" * 65, "1e٣", "--1", "1Gi\n"])  # fmt: skip
def test_what_is_no_quantity_is_refused(text: str) -> None:
    """With what was read, and how it is written."""
    with pytest.raises(ValueError, match="is no quantity"):
        nano(text)


@given(whole=digits, fraction=digits, suffix=st.sampled_from(sorted(SUFFIXES)))
def test_the_value_is_the_numbers_times_its_suffix_rounded_up(whole: str, fraction: str, suffix: str) -> None:
    """Never less than what was written, and never a billionth more."""
    exact = (int(whole) + Fraction(int(fraction), 10 ** len(fraction))) * SUFFIXES[suffix] * NANO
    value = nano(f"{whole}.{fraction}{suffix}")
    assert value == min(-(-exact // 1), MOST)
    assert nano(f"-{whole}.{fraction}{suffix}") == -value


@given(whole=digits, exponent=st.integers(-30, 30))
def test_an_exponent_moves_the_point(whole: str, exponent: int) -> None:
    """As many zeros, or as many digits behind the point."""
    exact = int(whole) * Fraction(10) ** exponent * NANO
    assert nano(f"{whole}e{exponent}") == nano(f"{whole}E{exponent:+}") == min(-(-exact // 1), MOST)


@given(st.text(max_size=80))
def test_any_text_is_a_quantity_or_refused(text: str) -> None:
    """Nothing else is raised, and nothing is beyond what the API holds."""
    try:
        assert abs(nano(text)) <= MOST
    except ValueError:
        return
