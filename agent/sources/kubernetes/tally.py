"""What is known of one counter, one level and one pod from answer to answer: which reading is news, and of what. Pure.

Wall times are the kubelet's, ns since the epoch, and 0 where it states none. `taken` and `polled` are CLOCK_BOOTTIME.
"""

from msgspec import Struct, field

from agent.model import NS_PER_S

HELD_BACK = 3  # first readings that may be of another counter, before they are taken for this one's
SETTLED = 60 * NS_PER_S  # how long after a later start a counter that did not fall has been the same one all along

Told = tuple[int, int]  # value, taken


class Moment(Struct, frozen=True):
    """When an answer came, by both clocks: that is how the kubelet's times become boottimes."""

    wall: int
    polled: int

    def at(self, time: int) -> int:
        """The boottime of a wall time, which is not after the answer that states it."""
        return min(time - self.wall + self.polled, self.polled)


class Counter(Struct):
    """One counter. `since` is the start of what it counts: with the pod's uid that is its identity.

    Zero is what a kubelet shows while nobody has counted. A value above all before it is usage, whatever its time says;
    one below is a dip, however long it lasts, unless the kubelet states a later start.
    """

    since: int
    known: bool = False  # told before, by this process or an earlier one
    born: bool | None = None  # whether it began at zero after the pod was looked for; None: the books decide
    high: int = 0
    reached: int = 0  # when that was
    time: int = 0  # the latest that was stated
    taken: int = 0
    later: int = 0  # a later start that was stated, while it is not known whether this counter began anew with it
    held_back: int = 0

    def read(
        self,
        time: int,
        value: int,
        now: Moment,
        *,
        new: bool = False,
        began: int | None = None,
        borrowed: bool = False,
        most: int | None = None,
    ) -> list[Told]:
        """What this reading tells: nothing, a value, a first one after the zero it began from, a dip after its top.

        `new`: it began at zero; `began`: at this boottime. `borrowed`: the value may be another counter's. `most`: what
        one that began anew at `later` can have reached. A dip is told with its top, for that may not be booked yet.
        """
        fresh = time > 0 and time != self.time and now.at(time) > self.taken
        if value <= 0 or (value <= self.high and not fresh):
            return []
        if borrowed and not new and not self.known and self.held_back < HELD_BACK:
            self.held_back += fresh
            self.time = time
            return []
        if self.later:
            self._restart(time, value, borrowed=borrowed, most=most)
        self.taken, self.time = now.at(time) if fresh else now.polled, time
        if value < self.high:
            return [(self.high, self.reached), (value, self.taken)]
        self.high, self.reached = value, self.taken
        first, self.known = not self.known, True
        if first and new and began is not None and 0 <= began < self.taken:
            return [(0, began), (value, self.taken)]
        return [(value, self.taken)]

    def _restart(self, time: int, value: int, *, borrowed: bool, most: int | None) -> None:
        """Whether it began anew at the later start: it fell, to what it can have reached since, and is no other."""
        if value < self.high and not borrowed and (most is None or value <= most):
            self.since, self.later, self.high = self.later, 0, 0
        elif value >= self.high and time > self.later + SETTLED:
            self.later = 0


class Level(Struct):
    """One level. Only a later time is news."""

    time: int = 0
    taken: int = 0

    def read(self, time: int, value: int, now: Moment) -> list[Told]:
        """What this reading tells: nothing, or a value. Zero is not known yet: what runs holds some."""
        if value <= 0 or time <= 0 or time == self.time or (taken := now.at(time)) <= self.taken:
            return []
        self.time, self.taken = time, taken
        return [(value, taken)]


class Pod(Struct):
    """One pod, listed or not. `since` is the first start that was stated, `started` the latest, both wall.

    `seen`: when it was last listed.
    """

    uid: str
    name: str
    since: int
    started: int
    new: bool  # it started after the pods of this node were first looked for
    seen: int
    listed: bool = True
    introduced: bool = False  # the API server knew it
    counters: dict[str, Counter] = field(default_factory=dict)
    memory: Level = field(default_factory=Level)

    @property
    def knows(self) -> dict[str, int]:
        """The known counters, each with its start."""
        return {name: counter.since for name, counter in self.counters.items() if counter.known}

    def counter(self, name: str, *, born: bool | None) -> Counter:
        """The counter of this name; `born` is for one that nobody has told yet."""
        found = self.counters.get(name)
        if found is None:
            found = self.counters[name] = Counter(self.since)
        if not found.known:
            found.born = born
        return found

    def start(self, started: int) -> None:
        """A later start was stated: a new sandbox. Its counters may have begun anew with it, or go on."""
        for counter in self.counters.values():
            if not counter.known:
                counter.since = counter.since or started
            elif self.started:
                counter.later = started
        self.since, self.started = self.since or started, started


class Known(Struct, frozen=True, array_like=True):
    """A pod as it is remembered: its first and latest start, and the start in each known counter's identity."""

    name: str
    since: int
    started: int
    counters: dict[str, int]
