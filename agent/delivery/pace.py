"""How fast one sink is sent to: backoff with full jitter, a circuit, Retry-After, a rate. Pure.

Time and chance are arguments. Times in ns of a clock that never goes back.
"""

from collections.abc import Callable

from agent.model import NS_PER_S

FIRST = NS_PER_S // 2
CAP = 300 * NS_PER_S
TRIPS = 5  # failures in a row that open the circuit


class Pace:
    """How many submissions may be under way now. A failure of one waits by itself; failures in a row stop them all."""

    def __init__(self, concurrency: int, rate: int | None, chance: Callable[[], float]) -> None:
        """`rate` in submissions per second. `chance` is uniform in [0, 1)."""
        self._concurrency, self._chance = concurrency, chance
        self._gap = 0 if rate is None else NS_PER_S // rate
        self._failures = 0
        self._shut_until = self._free_at = 0

    def room(self, now: int, under_way: int) -> int:
        """How many more may begin now: none while the circuit is open, one to try whether it may close."""
        if now < self._shut_until:
            return 0
        return max(0, (1 if self._failures >= TRIPS else self._concurrency) - under_way)

    @property
    def opens_at(self) -> int:
        """When `room` may be more than none."""
        return self._shut_until

    @property
    def tripped(self) -> bool:
        """Whether the sink is only tried, one submission at a time."""
        return self._failures >= TRIPS

    def slot(self, now: int) -> int:
        """The instant at which the next submission may begin, by the rate."""
        at = max(now, self._free_at)
        self._free_at = at + self._gap
        return at

    def succeeded(self) -> None:
        """An answer that was no failure. A Retry-After that came beside it stands."""
        self._failures = 0

    def failed(self, now: int, attempts: int, after: int | None, *, blocked: bool) -> int:
        """How long the submission itself waits, ns, after so many attempts. `after`: what the sink asked for."""
        if blocked:
            self._failures = max(self._failures, TRIPS)
        if now >= self._shut_until:  # what was under way when it was shut tells nothing new
            self._failures += 1
            if self._failures >= TRIPS:
                self._shut_until = now + self.backoff(self._failures - TRIPS + 1)
        if after is not None:
            self._shut_until = max(self._shut_until, now + after)
        return max(after or 0, self.backoff(attempts))

    def backoff(self, attempts: int) -> int:
        """Full jitter, ns: anything up to the exponential, so that many agents do not come back at once."""
        most = min(CAP, FIRST << min(attempts, 40))
        return int(self._chance() * most)
