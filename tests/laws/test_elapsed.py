"""Law L10: nothing is sent again that may be forgotten, whatever the clocks do: elapsed time is never too short."""

from collections.abc import Callable

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.clock import NOBODY_KNOWS, STEP, Age, BillingClock, ClockState, Moment, dated
from agent.model import NS_PER_MS
from tests.laws.scene import NOON, S

DAY = 86_400 * S
HOUR = 3600 * S


class Machine:
    """A machine whose clocks err, seen from where the true time is known. `beside`: how far the wall clock is off."""

    def __init__(self) -> None:
        self.true, self.boottime, self.beside, self.boots = NOON, 0, 0, 0
        self.last = 0  # the last billing time that was persisted
        self.clock = BillingClock.start("boot-0", NOON, 0, 0, None, DAY)
        self.commit()

    @property
    def wall(self) -> int:
        return self.true + self.beside

    @property
    def moment(self) -> Moment:
        return self.clock.moment(self.wall, self.boottime)

    def commit(self) -> None:
        self.last = self.clock.at(self.boottime)
        self.kept = msgspec.json.encode(self.clock.state)

    def run(self, ns: int) -> None:
        """Time passes, asleep or awake: CLOCK_BOOTTIME counts both."""
        self.true += ns
        self.boottime += ns

    def stopped(self, ns: int) -> None:
        """The hypervisor stops it, and no clock of its own notices; its wall clock falls behind."""
        self.true += ns
        self.beside -= ns

    def sweep(self, *, synchronised: bool) -> None:
        if synchronised:
            self.beside = 0
        self.clock.observe(self.wall, self.boottime, synchronised=synchronised)
        self.commit()

    def reboot(self, off: int, beside: int) -> None:
        """Off for so long; its battery's clock errs by `beside` when it is back."""
        self.true += off
        self.boottime, self.beside, self.boots = 0, beside, self.boots + 1
        kept = msgspec.json.decode(self.kept, type=ClockState)
        self.clock = BillingClock.start(f"boot-{self.boots}", self.wall, 0, self.last, kept, DAY)
        self.commit()

    def crash(self) -> None:
        """The agent alone."""
        kept = msgspec.json.decode(self.kept, type=ClockState)
        self.clock = BillingClock.start(f"boot-{self.boots}", self.wall, self.boottime, self.last, kept, DAY)


Happening = Callable[[Machine], None]
spans = st.integers(0, 40 * DAY)
happenings = st.one_of(
    spans.map(lambda ns: lambda m: m.run(ns)),
    spans.map(lambda ns: lambda m: m.stopped(ns)),
    st.integers(-40 * DAY, 40 * DAY).map(lambda ns: lambda m: setattr(m, "beside", ns)),
    st.booleans().map(lambda sure: lambda m: m.sweep(synchronised=sure)),
    st.tuples(spans, st.integers(-40 * DAY, 40 * DAY)).map(lambda two: lambda m: m.reboot(*two)),
    st.just(lambda m: m.crash()),
)


@given(st.lists(happenings, max_size=14), st.lists(happenings, max_size=14))
def test_nothing_seems_younger_than_it_is_once_the_clock_is_confirmed(
    before: list[Happening], after: list[Happening]
) -> None:
    """Steps, suspension, unnoticed stops, reboots with a wrong clock and crashes, in any order."""
    machine = Machine()
    for happens in before:
        happens(machine)
    machine.sweep(synchronised=True)  # a sink that answers tells its date
    left, elapsed = machine.true, machine.moment.elapsed
    for happens in after:
        happens(machine)
    machine.sweep(synchronised=True)
    assert machine.moment.age(elapsed).least >= machine.true - left - len(after) * STEP


@given(st.lists(happenings, max_size=20))
def test_elapsed_time_never_goes_back(script: list[Happening]) -> None:
    """So that a retry waits as long as it was told to, and no longer."""
    machine = Machine()
    for happens in script:
        machine.commit()
        before = machine.moment.elapsed
        happens(machine)
        assert machine.moment.elapsed > before - NS_PER_MS  # to which anchors are floored


@given(st.integers(-40 * DAY, 40 * DAY), spans, st.integers(-40 * DAY, 40 * DAY))
def test_while_a_clock_is_not_confirmed_the_age_is_at_most_what_it_may_be(beside: int, off: int, step: int) -> None:
    """Before the doubt ends, what may be too old is not said to be young."""
    machine = Machine()
    machine.sweep(synchronised=True)
    left, elapsed = machine.true, machine.moment.elapsed
    machine.reboot(off, beside)
    assert machine.moment.age(elapsed).most >= machine.true - left
    machine.beside = max(step, 0)
    machine.sweep(synchronised=False)
    assert machine.moment.age(elapsed).most >= machine.true - left


@pytest.mark.parametrize("step", [-HOUR, -DAY, HOUR, 40 * DAY])
def test_a_step_that_is_followed_makes_nothing_younger(step: int) -> None:
    """One back changes nothing; one forward may be time that passed unnoticed."""
    machine = Machine()
    elapsed = machine.moment.elapsed
    machine.run(HOUR)
    machine.clock.accept(machine.wall + step, machine.boottime)
    assert machine.moment.age(elapsed).least == HOUR + max(step, 0)
    machine.clock.accept(machine.wall, machine.boottime)
    assert machine.moment.age(elapsed).least == HOUR + abs(step)


def test_a_step_that_is_not_confirmed_leaves_it_open() -> None:
    """It may be a wrong clock, or an hour that went by unnoticed."""
    machine = Machine()
    elapsed = machine.moment.elapsed
    machine.beside = HOUR
    assert machine.moment.age(elapsed) == Age(0, HOUR)
    machine.beside = -HOUR
    assert machine.moment.age(elapsed).most == 0


def test_a_reboot_leaves_it_open_until_the_clock_is_confirmed() -> None:
    """A battery's clock may be behind by any time."""
    machine = Machine()
    machine.sweep(synchronised=True)
    elapsed = machine.moment.elapsed
    machine.reboot(10 * HOUR, -2 * HOUR)
    assert machine.moment.age(elapsed) == Age(8 * HOUR, NOBODY_KNOWS)
    machine.sweep(synchronised=True)
    assert machine.moment.age(elapsed) == Age(10 * HOUR, 10 * HOUR)


@pytest.mark.parametrize(("beside", "least"), [(-2 * HOUR, 32 * HOUR), (-30 * HOUR, NOBODY_KNOWS)])
def test_a_clock_that_nobody_confirms_is_believed_after_a_day_if_it_can_be_true(beside: int, least: int) -> None:
    """So that nothing waits for ever; where it cannot be true, a person decides."""
    machine = Machine()
    machine.sweep(synchronised=True)
    elapsed = machine.moment.elapsed
    machine.reboot(10 * HOUR, beside)
    machine.run(DAY)
    machine.sweep(synchronised=False)
    assert machine.moment.age(elapsed).least == least


def test_a_boot_that_began_in_the_future_leaves_nobody_to_know() -> None:
    """The clock was a day ahead, and nobody said so before it was right again: the time between is anything."""
    machine = Machine()
    machine.reboot(0, DAY)
    machine.sweep(synchronised=False)
    elapsed = machine.moment.elapsed
    machine.run(HOUR)
    machine.sweep(synchronised=False)
    machine.reboot(3 * DAY, 0)
    machine.sweep(synchronised=True)
    assert machine.moment.age(elapsed).least == NOBODY_KNOWS


def test_a_confirmed_clock_that_proves_to_have_been_ahead_leaves_nobody_to_know() -> None:
    """Billing time cannot have been there yet, so the hours of both boots are in doubt."""
    machine = Machine()
    machine.run(HOUR)
    machine.clock.accept(machine.wall + DAY, machine.boottime)
    machine.commit()
    elapsed = machine.moment.elapsed
    machine.reboot(HOUR, 0)
    machine.sweep(synchronised=True)
    assert machine.moment.age(elapsed).least == NOBODY_KNOWS


def test_a_boot_whose_clock_runs_ahead_at_first_makes_things_older_and_no_more() -> None:
    """A battery's clock in local time, east of Greenwich."""
    machine = Machine()
    machine.sweep(synchronised=True)
    elapsed = machine.moment.elapsed
    machine.reboot(10 * HOUR, 2 * HOUR)
    machine.sweep(synchronised=True)
    assert machine.moment.age(elapsed) == Age(12 * HOUR, 12 * HOUR)


def test_people_read_elapsed_time_as_it_is_dated_now() -> None:
    """After a step back, what left before it is not told to lie in the future."""
    machine = Machine()
    machine.run(HOUR)
    elapsed = machine.moment.elapsed
    machine.clock.accept(machine.wall - DAY, machine.boottime)
    assert dated(elapsed, machine.clock.state) == NOON + HOUR - DAY
