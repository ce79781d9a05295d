"""Every preset, Lago and Stripe against their doubles: whatever goes wrong, nothing is lost or billed twice."""

import asyncio
import tempfile
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.config.sinks.http import Preset
from agent.sinks import Sink
from agent.spool.schema import MAY_BE_THERE
from tests.sinks.built import sink_for
from tests.sinks.settling import settled
from tests.sinks.test_cloudevents import MINUTE, START, entry, record
from tests.sinks.vendors import VENDORS, Back, running

FAULTS = ("lost before", "lost after", "stopped midway", "500", "503", "429", "500 after")
COUNT = 23


def payloads(sink: Sink, bad: Sequence[int] = (), count: int = COUNT) -> list[bytes]:
    """So many windows of one customer; those at `bad` are of a dimension that the vendor does not know."""
    made = []
    for n in range(count):
        of = record(start=START + n * MINUTE, end=START + (n + 1) * MINUTE)
        made.append(sink.render(entry(of, value=f"{n + 1}.5", dimension="bad" if n in bad else "cpu", at=of.end)))
    return made


def run(
    name: str, faults: Sequence[str] = (), bad: Sequence[int] = (), batch: int | None = None
) -> tuple[Back, dict[int, tuple[str, str]]]:
    """The back end in the end, and what became of each record."""

    async def story() -> tuple[Back, dict[int, tuple[str, str]]]:
        with tempfile.TemporaryDirectory() as files:
            async with running(name, *faults) as back:
                sink = sink_for(back, Path(files))
                try:
                    return back, await settled(sink, payloads(sink, bad), batch=batch)
                finally:
                    await sink.close()

    return asyncio.run(story())


def agrees(back: Back, ends: dict[int, tuple[str, str]]) -> None:
    """Each record that is settled as delivered is there, and what is there is what was delivered or may be there."""
    assert len(ends) == COUNT
    assert back.wrongs == []
    there = {event.value for event in back.held}  # each record has a value of its own
    assert len(there) == len(back.held)
    for seq, (outcome, why) in ends.items():
        value = Decimal(f"{seq}.5")
        if outcome in ("delivered", "duplicate"):
            assert value in there, (seq, outcome, why)
        elif outcome == "rejected" and MAY_BE_THERE not in why:
            assert value not in there, (seq, outcome, why)


def test_every_preset_has_its_double() -> None:
    """One that nobody tried is none."""
    assert set(get_args(Preset)) < set(VENDORS)


@pytest.mark.parametrize("name", VENDORS)
def test_everything_arrives_once(name: str) -> None:
    """As the vendor wants it told: it complained of nothing, and its total is ours."""
    back, ends = run(name)
    assert {outcome for outcome, _ in ends.values()} == {"delivered"}
    assert back.wrongs == []
    assert back.totals() == {("acme", "cpu"): sum(Decimal(f"{n + 1}.5") for n in range(COUNT))}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("name", VENDORS)
def test_no_fault_loses_or_doubles_anything(name: str, fault: str) -> None:
    """Each fault, twice over, in requests of seven records."""
    batch = 1 if VENDORS[name].most == 1 else 7
    back, ends = run(name, [fault, fault, "", fault], batch=batch)
    agrees(back, ends)
    if VENDORS[name].repeat != "listed":  # Togai refuses what it has, and does not say that it is the same
        assert back.totals() == {("acme", "cpu"): sum(Decimal(f"{n + 1}.5") for n in range(COUNT))}


@pytest.mark.parametrize("name", [name for name, vendor in VENDORS.items() if vendor.wrong != "later"])
def test_one_bad_record_holds_up_no_other(name: str) -> None:
    """It waits for a person, and all others arrive."""
    back, ends = run(name, bad=[4])
    agrees(back, ends)
    assert ends[5][0] == "rejected"
    assert {outcome for seq, (outcome, _) in ends.items() if seq != 5} == {"delivered"}
    assert back.totals() == {("acme", "cpu"): sum(Decimal(f"{n + 1}.5") for n in range(COUNT) if n != 4)}


@settings(max_examples=60, deadline=None)
@given(
    name=st.sampled_from(sorted(VENDORS)),
    faults=st.lists(st.sampled_from(("", *FAULTS)), max_size=12),
    bad=st.sets(st.integers(0, COUNT - 1), max_size=3),
    batch=st.integers(1, COUNT),
)
def test_whatever_the_schedule_of_faults_no_unit_is_lost_or_doubled(
    name: str, faults: list[str], bad: set[int], batch: int
) -> None:
    """What is settled as delivered is there once; what is not is held, and says so."""
    if VENDORS[name].wrong == "later":  # it tells of those elsewhere
        bad = set()
    back, ends = run(name, faults, sorted(bad), 1 if VENDORS[name].most == 1 else batch)
    agrees(back, ends)
