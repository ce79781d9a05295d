"""ACCOUNTING §4: the billing clock (law L5). What an unconfirmed clock means for windows is in test_windows."""

import pytest

from agent.clock import BUILD_TIME, STEP, BillingClock, ClockState, Verdict
from agent.model import NS_PER_MS
from tests.laws.scene import NOON, S

DAY = 86_400 * S
HOUR = 3600 * S


def started(wall: int = NOON, boottime: int = 0, last: int = 0, kept: ClockState | None = None) -> BillingClock:
    """A clock that has just started on `boot-1`."""
    return BillingClock.start("boot-1", wall, boottime, last, kept, DAY)


def test_a_first_anchor_that_can_be_true_is_accepted() -> None:
    """§4: ≥ the build date and ≥ the last persisted billing time."""
    clock = started(last=NOON - 1)
    assert clock.at(0) == NOON
    assert not clock.doubtful
    assert clock.may_close


@pytest.mark.parametrize(("wall", "last", "replaced"), [(0, 0, BUILD_TIME), (NOON, NOON + HOUR, NOON + HOUR)])
def test_a_first_anchor_that_cannot_be_true_is_replaced_by_the_larger_floor_and_flagged(
    wall: int, last: int, replaced: int
) -> None:
    """§4: 1970 on a board without a battery, or a wall clock behind what was already billed."""
    clock = started(wall=wall, last=last)
    assert clock.at(0) == replaced
    assert clock.doubtful


def test_the_anchor_is_whole_milliseconds() -> None:
    """Byte·ms are integers only if billing time and boottime share their milliseconds."""
    assert started(wall=NOON + 123_456_789, boottime=987_654_321).state.anchor % NS_PER_MS == 0


def test_a_restart_within_a_boot_keeps_the_anchor_whatever_the_wall_says() -> None:
    """L5: between two runs the boottime went on, so no wall clock is needed."""
    first = started()
    again = started(wall=NOON + 5 * HOUR, boottime=HOUR, kept=first.state)
    assert again.at(HOUR) == NOON + HOUR


def test_another_boot_starts_another_anchor() -> None:
    """§4: first anchor *of a boot*."""
    kept = ClockState("boot-0", NOON - 30 * DAY)
    assert started(kept=kept).at(0) == NOON


def test_a_small_difference_is_left_alone() -> None:
    """Slewing is no step: boottime is slewed alike."""
    clock = started()
    assert clock.observe(NOON + S + STEP, S, synchronised=True) is Verdict.STEADY
    assert clock.at(S) == NOON + S


@pytest.mark.parametrize("step", [HOUR, -HOUR, DAY * 400, -STEP - 1, STEP + 1])
def test_an_unconfirmed_step_moves_nothing_and_lets_nothing_close(step: int) -> None:
    """§4: until it is confirmed, nothing closes but a cut, flagged."""
    clock = started()
    assert clock.observe(NOON + S + step, S, synchronised=False) is Verdict.UNCONFIRMED
    assert clock.at(S) == NOON + S
    assert not clock.may_close
    assert clock.doubtful


@pytest.mark.parametrize("step", [HOUR, -HOUR])
def test_a_confirmed_step_is_accepted_at_once(step: int) -> None:
    """§4: the kernel says a time service disciplines it."""
    clock = started()
    assert clock.observe(NOON + S + step, S, synchronised=True) is Verdict.ACCEPTED
    assert clock.at(S) == NOON + S + step
    assert clock.may_close
    assert not clock.doubtful


def test_a_pending_step_is_accepted_when_it_is_confirmed_later() -> None:
    """§4: the time service finds its servers a minute later."""
    clock = started()
    clock.observe(NOON + HOUR, 0, synchronised=False)
    assert clock.observe(NOON + HOUR + 60 * S, 60 * S, synchronised=True) is Verdict.ACCEPTED
    assert clock.at(60 * S) == NOON + HOUR + 60 * S


def test_a_step_that_is_taken_back_leaves_nothing() -> None:
    """A mistaken `date -s`, corrected: windows close again, unflagged."""
    clock = started()
    clock.observe(NOON + HOUR, 0, synchronised=False)
    assert clock.observe(NOON + S, S, synchronised=False) is Verdict.STEADY
    assert clock.may_close
    assert not clock.doubtful


def test_a_step_that_stays_is_accepted_after_accept_after_and_stays_flagged() -> None:
    """§4: `clock.accept_after` stable, same flag."""
    clock = started()
    clock.observe(NOON + HOUR, 0, synchronised=False)
    assert clock.observe(NOON + HOUR + DAY - 1, DAY - 1, synchronised=False) is Verdict.UNCONFIRMED
    assert clock.observe(NOON + HOUR + DAY, DAY, synchronised=False) is Verdict.ACCEPTED
    assert clock.at(DAY) == NOON + HOUR + DAY
    assert clock.may_close
    assert clock.doubtful


def test_a_clock_that_keeps_jumping_is_never_stable() -> None:
    """§4: stable means the same step all the time."""
    clock = started()
    for hours in range(1, 60):
        at = hours * HOUR
        assert clock.observe(NOON + at + hours * HOUR, at, synchronised=False) is Verdict.UNCONFIRMED


def test_a_step_that_waits_goes_on_waiting_after_a_restart() -> None:
    """§4: what is pending is persisted; a crash loop neither accepts nor forgets it."""
    clock = started()
    clock.observe(NOON + HOUR, 0, synchronised=False)
    again = started(wall=NOON + HOUR + S, boottime=S, kept=clock.state)
    assert not again.may_close
    assert again.observe(NOON + HOUR + DAY, DAY, synchronised=False) is Verdict.ACCEPTED


def test_a_person_may_accept_the_clock() -> None:
    """§4: `metering-agent clock accept` moves the anchor, unflagged, and says what it did."""
    clock = started()
    clock.observe(NOON - HOUR, 0, synchronised=False)
    said = clock.accept(NOON - HOUR, 0)
    assert clock.at(0) == NOON - HOUR
    assert clock.may_close
    assert not clock.doubtful
    assert said == "billing time moved from 2027-01-15T08:00:00.000000000Z to 2027-01-15T07:00:00.000000000Z"


def test_a_doubtful_first_anchor_is_confirmed_by_a_synchronised_clock_that_agrees() -> None:
    """§4: the flag ends where the doubt ends."""
    clock = started(wall=0, last=NOON)
    clock.observe(NOON, 0, synchronised=True)
    assert not clock.doubtful
