"""Billing time = anchor + CLOCK_BOOTTIME, so that no step of the wall clock moves a quantity (L5, ACCOUNTING §4).

Beside it runs elapsed time, for waits and for what a sink may have forgotten (L10): it follows a step forward, which
cannot be told from a machine that slept unawares, and no step back, so that nothing ever seems younger than it is.

`BillingClock` decides and is pure; `now` and `synchronised` at the end touch the kernel.
"""

import ctypes
import time
from enum import Enum

from msgspec import Struct

from agent.model import NS_PER_MS, NS_PER_S
from agent.record import rfc3339

BUILD_TIME = 1_790_000_000 * 1_000_000_000  # 2026-09-21: no wall clock of this release is before it
DATE_LASTS = 600 * NS_PER_S  # how long a date confirms anything: clocks of boots do not drift by seconds in it
DATE_COARSE = 3 * NS_PER_S  # a date has whole seconds, and was on its way
STEP = 500 * NS_PER_MS  # a smaller difference is left alone: adjtime slews both clocks alike
NOBODY_KNOWS = 1 << 62  # an age, ns: longer than any horizon


class Verdict(Enum):
    """What an observation of the wall clock meant."""

    STEADY = "steady"
    UNCONFIRMED = "unconfirmed"  # it stepped; until it is confirmed nothing closes but a cut
    ACCEPTED = "accepted"  # the anchor moved


class ClockState(Struct):
    """What is persisted. `doubtful`: the anchor itself was never confirmed, only assumed."""

    boot: str
    anchor: int
    doubtful: bool = False
    pending: int | None = None  # a step that awaits confirmation, in ns
    pending_since: int = 0  # boottime
    elapsed: int | None = None  # the anchor of elapsed time; None: the same, for no step back was ever followed
    confirmed: bool = False  # somebody has vouched for the anchor
    unsure_before: int = 0  # elapsed time: how long the machine was off since then is not confirmed yet
    lost_before: int = 0  # elapsed time: the same, and nobody will ever know


class Age(Struct, frozen=True):
    """How long ago something was, ns: at least and at most."""

    least: int
    most: int


class Moment(Struct, frozen=True):
    """One instant, ns. Usage is dated in `billing` time; waits and horizons are measured in `elapsed` time.

    `ahead`: how far the wall clock is ahead of both, by a step that may yet prove true.
    """

    billing: int
    elapsed: int
    ahead: int = 0
    unsure_before: int = 0
    lost_before: int = 0

    def age(self, since: int) -> Age:
        """Of something that happened at `since`, elapsed time."""
        least = self.elapsed - since
        if least < 0 or since < self.lost_before:
            return Age(NOBODY_KNOWS, NOBODY_KNOWS)
        return Age(least, NOBODY_KNOWS if since < self.unsure_before else least + self.ahead)


class BillingClock:
    """The anchor and its rules. Every time comes in as an argument."""

    def __init__(self, state: ClockState, accept_after: int) -> None:
        self.state = state
        self.accept_after = accept_after

    @classmethod
    def start(
        cls, boot: str, wall: int, boottime: int, last: int, kept: ClockState | None, accept_after: int
    ) -> "BillingClock":
        """The clock at start-up: the boot's kept anchor, else a first one.

        `last` is the last persisted billing time. A wall clock before it, or before the build, cannot be true: the
        larger of the two takes its place, flagged.
        """
        if kept is not None and kept.boot == boot:
            return cls(kept, accept_after)
        floor = max(BUILD_TIME, last)
        true = max(wall, floor)
        anchor = true - boottime
        anchor -= anchor % NS_PER_MS
        state = ClockState(boot, anchor, doubtful=wall < floor)
        if kept is not None:
            state.elapsed = anchor + _since(kept) - kept.anchor
            begun = state.elapsed + boottime + NS_PER_MS  # anchors are floored: whatever was before is older than this
            state.lost_before = kept.lost_before if kept.confirmed else begun
            state.unsure_before = begun
        return cls(state, accept_after)

    @property
    def may_close(self) -> bool:
        """Whether windows may close: not while a step awaits its confirmation."""
        return self.state.pending is None

    @property
    def doubtful(self) -> bool:
        """Whether what is booked now carries `clock_unconfirmed`."""
        return self.state.doubtful or self.state.pending is not None

    def at(self, boottime: int) -> int:
        """Billing time of a boottime."""
        return self.state.anchor + boottime

    def moment(self, wall: int, boottime: int) -> Moment:
        """Both times at once. On any thread: a step that is followed meanwhile counts twice rather than not at all."""
        state = self.state
        billing = state.anchor + boottime  # read before what `_move` writes first
        elapsed = _since(state) + boottime
        return Moment(billing, elapsed, max(0, wall - billing), state.unsure_before, state.lost_before)

    def observe(self, wall: int, boottime: int, *, synchronised: bool) -> Verdict:
        """Compare the wall clock with billing time; move the anchor only for a confirmed step."""
        state = self.state
        offset = wall - boottime - state.anchor
        if state.unsure_before and boottime >= self.accept_after:
            self._known(lost=state.doubtful)
        if abs(offset) <= STEP:
            state.pending = None
            if synchronised:
                self._confirmed(offset)
            return Verdict.STEADY
        if synchronised:
            self._move(offset)
            self._confirmed(offset)
            return Verdict.ACCEPTED
        if state.pending is None or abs(offset - state.pending) > STEP:
            state.pending, state.pending_since = offset, boottime
        elif boottime - state.pending_since >= self.accept_after:
            self._move(offset)
            state.doubtful, state.confirmed = True, False
            return Verdict.ACCEPTED
        return Verdict.UNCONFIRMED

    def accept(self, wall: int, boottime: int) -> str:
        """A person vouches for the wall clock (`metering-agent clock accept`); says what it did."""
        before, offset = self.at(boottime), wall - boottime - self.state.anchor
        self._move(offset)
        self._confirmed(offset)
        return f"billing time moved from {rfc3339(before)} to {rfc3339(self.at(boottime))}"

    def _move(self, offset: int) -> None:
        state = self.state
        offset -= offset % NS_PER_MS
        state.elapsed = _since(state) + max(0, offset)
        state.anchor += offset
        state.pending = None

    def _confirmed(self, offset: int) -> None:
        """The wall clock is right. If it is behind what was persisted, that was ahead, and nobody knows by how much."""
        self._known(lost=self.state.doubtful and offset < -STEP)
        self.state.doubtful, self.state.confirmed = False, True

    def _known(self, *, lost: bool) -> None:
        """How long the machine was off is as it seems, or nobody will ever know."""
        state = self.state
        if lost:
            state.lost_before = max(state.lost_before, state.unsure_before)
        state.unsure_before = 0


def _since(state: ClockState) -> int:
    """The anchor of elapsed time."""
    return state.anchor if state.elapsed is None else state.elapsed


def dated(elapsed: int, state: ClockState) -> int:
    """A time of elapsed time as people read it: in billing time as it is now."""
    return elapsed - _since(state) + state.anchor


class Dates:
    """What other machines' clocks said last: the `Date` of what sinks answered. Written and read on any thread."""

    def __init__(self) -> None:
        self._seen: tuple[int, int] | None = None

    def note(self, seconds: int, boottime: int) -> None:
        """A date that came at `boottime` (ns)."""
        self._seen = seconds * NS_PER_S, boottime

    def agree(self, wall: int, boottime: int) -> bool:
        """Whether the wall clock is within a few seconds of a date that is not old."""
        if self._seen is None:
            return False
        date, at = self._seen
        return boottime - at < DATE_LASTS and abs(wall - (date + boottime - at)) < DATE_COARSE


def now() -> tuple[int, int]:
    """(wall, boottime) in nanoseconds, read together."""
    return time.time_ns(), time.clock_gettime_ns(time.CLOCK_BOOTTIME)


class _Timex(ctypes.Structure):
    """The head of struct timex, adjtimex(2); the kernel writes 208 bytes on 64-bit machines."""

    _fields_ = (
        ("modes", ctypes.c_uint),
        ("offset", ctypes.c_long),
        ("freq", ctypes.c_long),
        ("maxerror", ctypes.c_long),
        ("esterror", ctypes.c_long),
        ("status", ctypes.c_int),
        ("rest", ctypes.c_byte * 256),
    )


_STA_UNSYNC = 0x0040
_TIME_ERROR = 5


def synchronised() -> bool:
    """Whether the kernel says that a time service disciplines its clock (adjtimex needs no privilege to read)."""
    timex = _Timex()
    state = ctypes.CDLL(None).adjtimex(ctypes.byref(timex))
    return state not in (-1, _TIME_ERROR) and not timex.status & _STA_UNSYNC
