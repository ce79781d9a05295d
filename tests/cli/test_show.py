"""Quantities, times and tables as people see them: exact, and harmless to a terminal."""

import json
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.cli import show

UNITS = {"ns": 10**9, "ms": 1000, "byte·ms": 1000, "pid·ms": 1000, "byte": 1, "op": 1, "thing": 1}


@given(st.integers(), st.sampled_from(sorted(UNITS)))
def test_the_natural_unit_loses_nothing(quantity: int, unit: str) -> None:
    """What a person reads is the integer, divided exactly: no digit is rounded away, whatever its size."""
    number = show.natural(quantity, unit).split()[0].replace(",", "")
    assert Fraction(number) * UNITS[unit] == quantity


@pytest.mark.parametrize(
    ("quantity", "unit", "words"),
    [
        (299_987_341, "ns", "0.299987341 core-seconds"),
        (-1, "ns", "-0.000000001 core-seconds"),
        (1_234_567, "byte·ms", "1,234.567 byte-seconds"),
        (3_610, "ms", "3.610 seconds"),
        (1_234, "byte", "1,234 bytes"),
    ],
)
def test_each_base_unit_has_one_that_people_think_in(quantity: int, unit: str, words: str) -> None:
    """Nanoseconds of CPU are core-seconds, byte·ms byte-seconds."""
    assert show.natural(quantity, unit) == words


def test_times_have_no_more_digits_than_they_need() -> None:
    """Zeros at the end of a fraction go; those of a whole second stay."""
    assert show.moment(1_800_000_000 * 10**9) == "2027-01-15T08:00:00Z"
    assert show.moment(1_800_000_000_500_000_000) == "2027-01-15T08:00:00.5Z"
    assert show.span(1_800_000_000 * 10**9, 1_800_000_010 * 10**9) == "2027-01-15T08:00:00Z – 08:00:10Z"
    assert show.seconds(10 * 10**9) == "10 s"
    assert show.seconds(8_002_000_000) == "8.002 s"


def test_a_name_cannot_steer_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """A tenant's cgroup may be called anything: escape sequences and line breaks are spelled out."""
    show.lines(["a\x1b[2Jb\nc"])
    show.table(("name",), [["\x1b]0;owned\x07"]])
    assert capsys.readouterr().out == "a\\x1b[2Jb\\x0ac\nname\n\\x1b]0;owned\\x07\n"


def test_a_table_into_a_pipe_is_aligned_and_never_cut(capsys: pytest.CaptureFixture[str]) -> None:
    """Long cells stay whole, so that `grep` finds them; numbers stand flush right."""
    long = "x" * 300
    show.table(("name", "n"), [[long, "1"], ["b", "20"]], right=(1,))
    head, first, second = capsys.readouterr().out.splitlines()
    assert first == f"{long}   1"
    assert (head[-1], second[-2:]) == ("n", "20")
    assert len(head) == len(first) == len(second)


def test_a_table_in_a_terminal_takes_markup_for_text(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rule is named with brackets, which would be markup to the library that draws."""
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    show.table(("rule",), [["customers[acme].match[0]"]])
    assert "customers[acme].match[0]" in capsys.readouterr().out


def test_json_carries_quantities_as_text_of_any_size(capsys: pytest.CaptureFixture[str]) -> None:
    """As in records: beyond 64 bits, and safe from programs whose numbers are floats."""
    show.json({"quantity": 10**30, "start": 1_800_000_000 * 10**9, "n": 1, "parts": [{"moved": 7}]})
    assert json.loads(capsys.readouterr().out) == {
        "quantity": "1" + "0" * 30,
        "start": "2027-01-15T08:00:00.000000000Z",
        "n": 1,
        "parts": [{"moved": "7"}],
    }
