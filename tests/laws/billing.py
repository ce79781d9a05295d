"""A billing system in memory that does its worst, the side of an agent that delivers to it, and time that is free."""

import asyncio
import json
import selectors
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import TypeVar

from agent.clock import Moment
from agent.delivery.drain import Drain
from agent.delivery.rendering import Route
from agent.record import UsageRecord
from agent.sinks import Answer, Entry, Finding, Look, Outcome, Sink, Terms
from agent.spool import Spool
from agent.spool.outbox import Item, Outbox, Submission
from tests.spool.ledger import NOON, append, opened

T = TypeVar("T")
HOUR = 3600.0
UNDER_WAY = 300.0  # a request may be: less than a tenth of the least horizon, which is what the agent leaves for it
PER = {"ns": 1, "core-second": 10**9, "core-minute": 60 * 10**9, "core-hour": 3600 * 10**9}  # ns in each
LOST = Answer(outcome="ambiguous", why="no answer")
PLAIN: Mapping[str, tuple[int, Answer]] = {  # how many halves of what was sent are billed, and what is answered
    "lose": (2, LOST),
    "vanish": (0, LOST),
    "half": (1, LOST),
    "unreached": (0, Answer(outcome="retry", why="no connection", left=False)),
    "busy": (0, Answer(outcome="retry", why="429", definite=True, after=30 * 10**9)),
    "503 before": (0, Answer(outcome="retry", why="503")),
    "503 after": (2, Answer(outcome="retry", why="503")),
}
FATES = (
    *PLAIN,
    *("", "clock steps", "half told", "413", "late", "silent", "claims", "sours"),
    *("agent dies before", "agent dies after", "agent stops"),
)
Sayings = Mapping[int, tuple[Outcome, str]]


class _Instant(selectors.DefaultSelector):
    """Instead of waiting, time passes."""

    seconds = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        assert timeout is not None, "nothing would ever happen again"
        self.seconds += timeout
        return super().select(0)


class Timeless(asyncio.SelectorEventLoop):
    """A loop in which an hour's sleep is over at once."""

    def __init__(self) -> None:
        self._instant = _Instant()
        super().__init__(self._instant)

    def time(self) -> float:
        return self._instant.seconds


class World:
    """What outlives the agent's deaths."""

    def __init__(self) -> None:
        self.stepped = 0  # the agent's billing time beside the true one, ns
        self.end = asyncio.Event()  # the agent is to die, or to stop
        self.how = ""

    async def strike(self, how: str) -> None:
        """The agent ends: it stops in good order, or nothing it awaits comes back."""
        self.how = how
        self.end.set()
        if how != "agent stops":
            await asyncio.Event().wait()


class Billing(World):
    """What the other end holds, and what it does to each submission in turn."""

    def __init__(
        self,
        fates: Iterable[str] = (),
        *,
        horizon: float | None = None,
        tells: bool = False,
        each: bool = True,
        poison: Sequence[int] = (),
    ) -> None:
        """`fates`: of the attempts, in order; then it behaves. `horizon`: seconds that it knows an id.

        `tells`: whether it names a duplicate. `each`: whether it answers for each record. `poison`: numbers of records
        that it refuses.
        """
        super().__init__()
        self._fates, self.horizon, self._tells, self._each = iter(fates), horizon, tells, each
        self.poison = set(poison)
        self.taken: list[dict[str, str]] = []
        self.known: dict[str, float] = {}
        self.first_bytes: dict[int, bytes] = {}
        self.changed: list[int] = []  # records that did not leave with the same bytes each time
        self.seconds = 0.0  # from the start to the last attempt

    @property
    def counts(self) -> Counter[str]:
        """How often each id is billed."""
        return Counter(event["id"] for event in self.taken)

    def totals(self) -> dict[tuple[str, str], Fraction]:
        """In base units by customer and dimension, whatever they were called when they were told."""
        sums: dict[tuple[str, str], Fraction] = {}
        for event in self.taken:
            key = event["customer"].partition("@")[0], event["dimension"].partition("@")[0]
            sums[key] = sums.get(key, Fraction(0)) + base(event)
        return sums

    async def receive(self, submission: Submission) -> Answer:
        """One submission meets its fate."""
        self.seconds = asyncio.get_running_loop().time()
        for item in submission.items:
            if self.first_bytes.setdefault(item.seq, item.payload) != item.payload:
                self.changed.append(item.seq)
        items = submission.items
        fate = next(self._fates, "")
        if fate in PLAIN:
            halves, answer = PLAIN[fate]
            self._take(items[: halves * len(items) // 2])
            return answer
        if fate == "half told" and self._each:
            return Answer(outcome="retry", why="207", items=self._take(items[: len(items) // 2]))
        if fate == "413" and len(items) > 1:
            return Answer(outcome="split", why="413", definite=True)
        if fate == "claims" and submission.tainted is None:
            return Answer(outcome="duplicate", why="an event with this id exists")
        if fate in ("silent", "sours", "clock steps", "agent dies after"):
            self._take(items)
        await self._befall(fate, items)
        return LOST if fate in ("silent", "sours", "clock steps") else self._behave(items)

    async def _befall(self, fate: str, items: Sequence[Item]) -> None:
        """What happens while it is under way."""
        match fate:
            case "late":
                await asyncio.sleep(UNDER_WAY)
            case "clock steps":  # and is set right again by the next such
                self.stepped = 0 if self.stepped else -int(24 * HOUR * 1e9)
            case "silent":
                await asyncio.sleep(2 * HOUR)
            case "sours":  # what it took it would refuse by now
                self.poison.add(items[0].seq)
            case str() if fate.startswith("agent"):
                await self.strike(fate)

    def _behave(self, items: Sequence[Item]) -> Answer:
        """Answer for each; or, like OpenMeter, stop at the first that is refused, with what stands before it taken."""
        if self._each:
            return Answer(outcome="delivered", why="ok", items=self._take(items))
        bad = next((n for n, item in enumerate(items) if item.seq in self.poison), None)
        self._take(items[:bad])
        return Answer(outcome="delivered", why="ok") if bad is None else Answer(outcome="split", why="400: refused")

    def _take(self, items: Sequence[Item]) -> Sayings:
        """Bill what is not refused and not known; what is said of each."""
        said: dict[int, tuple[Outcome, str]] = {}
        now = asyncio.get_running_loop().time()
        for item in items:
            event = json.loads(item.payload)
            known = self.known.get(event["id"])
            if item.seq in self.poison:
                said[item.seq] = "rejected", "400: refused"
            elif known is not None and (self.horizon is None or now - known < self.horizon):
                said[item.seq] = ("duplicate" if self._tells else "delivered"), "known"
            else:
                self.known[event["id"]] = now
                self.taken.append(event)
                said[item.seq] = "delivered", "ok"
        return said


class BillingSink:
    """How the agent sees it."""

    id, kind, role = "billing", "fake", "billing"

    def __init__(self, billing: Billing, terms: Terms) -> None:
        self._billing, self.terms = billing, terms

    def render(self, entry: Entry) -> bytes:
        event = {"id": entry.id, "customer": entry.customer, "dimension": entry.dimension}
        return json.dumps(event | {"value": entry.value, "unit": entry.unit, "at": f"{entry.at}"}).encode()

    async def stage(self, submission: Submission) -> None:
        raise NotImplementedError

    async def send(self, submission: Submission) -> Answer:
        return await self._billing.receive(submission)

    async def ask(self) -> list[Finding]:
        raise NotImplementedError

    async def close(self) -> None:
        raise NotImplementedError


class OpenBillingSink(BillingSink):
    """The same, of a billing system that can be read: it shows what it took after `visibility_delay`."""

    async def look(self, submission: Submission) -> Look:
        delay = (self.terms.visibility_delay or 0) / 1e9
        before = asyncio.get_running_loop().time() - delay
        known = self._billing.known
        ids = {item.seq: json.loads(item.payload)["id"] for item in submission.items}
        return Look(found={seq: id_ for seq, id_ in ids.items() if known.get(id_, 1e99) <= before}, why="read")


class Life:
    """An agent's delivering side, from one start to its end. `turns` says of each whether it dies, before or after."""

    def __init__(self, path: Path, world: World, sink: Sink, route: Route, turns: Iterator[str]) -> None:
        self._world, self._turns = world, turns
        world.end.clear()
        self._told = asyncio.Event()
        self.spool: Spool = opened(path)
        self.spool.db.pragma("synchronous", 0)  # only processes die here; power is another test's matter
        self.outbox = Outbox(self.spool)
        self.standing = self.outbox.register(sink.id, sink.kind, sink.role, b"{}", since=0)
        self.drain = Drain(
            sink,
            route,
            self.outbox,
            self._on_thread,
            now=lambda: Moment(now() + world.stepped, now()),
            chance=lambda: 0.5,
            told=lambda _sink, _turn: self._told.set(),
        )

    def append(self, records: Sequence[UsageRecord]) -> None:
        """More usage has closed."""
        append(self.spool, *records, now=now())

    async def to_its_end(self) -> bool:
        """Deliver until everything is settled (True), or until the agent dies or stops (False); the spool is closed."""
        running = asyncio.create_task(self.drain.run())
        ended = asyncio.create_task(self._world.end.wait())
        while self._owed() and not ended.done():
            self._told.clear()
            told = asyncio.create_task(self._told.wait())
            await asyncio.wait({running, ended, told}, timeout=600, return_when=asyncio.FIRST_COMPLETED)
            told.cancel()
            if running.done() and not ended.done():
                running.result()
        alive = not ended.done()
        if alive or self._world.how == "agent stops":
            self.drain.finish()
            await asyncio.wait({running}, timeout=20)
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        if self._world.how == "agent stops":
            self._turns = iter(())
            await self.drain.hold_back()
        return alive and not self._owed()

    def _owed(self) -> bool:
        return self.outbox.has_open(self.standing) or self.outbox.more(self.standing)

    async def _on_thread(self, act: Callable[..., T], *args: object) -> T:
        fate = next(self._turns, "")
        if fate == "dies before":
            await self._world.strike(fate)
        result = act(*args)
        if fate == "dies after":
            await self._world.strike(fate)
        return result


def now() -> int:
    """Billing time, ns."""
    return NOON + int(asyncio.get_running_loop().time() * 1e9)


def base(event: Mapping[str, str]) -> Fraction:
    """What an event's value is in base units."""
    return Fraction(event["value"]) * PER[event["unit"]]
