"""A back end that misbehaves on cue, a life of one drain with it, and the ways in which both can be killed."""

import asyncio
import json
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TypeVar

from agent.clock import Moment
from agent.delivery.drain import Drain, Turn
from agent.delivery.rendering import Route
from agent.errors import SpoolFullError
from agent.model import NS_PER_S
from agent.record import UsageRecord
from agent.sinks import Answer, Entry, Finding, Sink, Terms
from agent.spool import Spool
from agent.spool.outbox import Item, Outbox, Standing, Submission
from tests.spool.ledger import NOON, append, opened

T = TypeVar("T")
S = NS_PER_S
HOUR = 3600 * S


class KilledError(Exception):
    """The process is gone."""


def submission(seqs: Iterable[int] = (1,), *, tainted: int | None = None, attempts: int = 0) -> Submission:
    """One of these records, as it stands before an attempt."""
    items = tuple(Item(seq, b"record %d" % seq) for seq in seqs)
    return Submission(7, 1, "name", items[0].seq, items[-1].seq, NOON, attempts, tainted, items)


class Clock:
    """Stands until it is moved: both times, or by a step of the wall clock."""

    def __init__(self, now: int = NOON) -> None:
        self.now, self.stepped = now, 0
        self.ahead = self.unsure_before = self.lost_before = 0

    def __call__(self) -> Moment:
        return Moment(self.now + self.stepped, self.now, self.ahead, self.unsure_before, self.lost_before)


class Upstream:
    """The far end, which nobody can ask: what it took, each time. One that `knows` ids discards a repeat."""

    def __init__(self, *, knows: bool = True) -> None:
        self.knows, self.taken = knows, Counter[str]()

    def take(self, item: Item) -> bool:
        """Take one item; False where it is a repeat."""
        record = json.loads(item.payload)["id"]
        repeat = self.knows and record in self.taken
        self.taken[record] += not repeat
        return not repeat


class FakeSink:
    """A back end that answers by `script`, one behaviour for each attempt, then by `always`; it notes what it got."""

    kind = "fake"

    def __init__(self, sink_id: str = "sink", role: str = "billing", terms: Terms | None = None) -> None:
        self.id, self.role = sink_id, role
        self.terms = terms or Terms(max_batch=10)
        self.upstream = Upstream()
        self.script: deque[Behaviour] = deque()
        self.always: Behaviour = take
        self.sent: list[Submission] = []
        self.staged: list[str] = []
        self.asked = 0
        self.findings: list[list[Finding]] = []
        self.flying = self.most_flying = 0
        self.step: Callable[[str], None] = lambda _: None  # where the process may be killed
        self.gate: asyncio.Event | None = None  # answers wait for it

    def render(self, entry: Entry) -> bytes:
        if entry.record.metadata.get("padding") == "unrenderable":
            raise ValueError("no such padding")
        fields = {"id": entry.id, "seq": entry.seq, "value": entry.value, "unit": entry.unit, "at": entry.at}
        return json.dumps(fields | {"dimension": entry.dimension, "customer": entry.customer}).encode()

    async def stage(self, submission: Submission) -> None:
        self.step("stage")
        self.staged.append(submission.name)

    async def send(self, submission: Submission) -> Answer:
        self.step("before it left")
        self.sent.append(submission)
        self.flying += 1
        self.most_flying = max(self.most_flying, self.flying)
        try:
            await (asyncio.sleep(0) if self.gate is None else self.gate.wait())
            answer = (self.script.popleft() if self.script else self.always)(self, submission)
        finally:
            self.flying -= 1
        self.step("after it was taken")
        return answer

    async def ask(self) -> list[Finding]:
        self.asked += 1
        return self.findings.pop(0) if self.findings else []

    async def close(self) -> None:
        """Nothing to let go of."""

    @property
    def payloads(self) -> list[tuple[bytes, ...]]:
        """What was sent, attempt by attempt."""
        return [tuple(item.payload for item in submission.items) for submission in self.sent]


Behaviour = Callable[[FakeSink, Submission], Answer]


def take(sink: FakeSink, submission: Submission) -> Answer:
    """Everything is taken, and repeats are named."""
    repeats = [item.seq for item in submission.items if not sink.upstream.take(item)]
    return Answer(outcome="delivered", why="200", items=dict.fromkeys(repeats, ("duplicate", "seen")))


def lose(sink: FakeSink, submission: Submission) -> Answer:
    """Everything is taken, and the answer is lost."""
    take(sink, submission)
    return Answer(outcome="ambiguous", why="connection reset")


def swallow(_sink: FakeSink, _submission: Submission) -> Answer:
    """It left, nothing was taken, and nobody can tell."""
    return Answer(outcome="ambiguous", why="time-out")


def busy(_sink: FakeSink, _submission: Submission) -> Answer:
    """Refused for now, and surely not taken."""
    return Answer(outcome="retry", why="429", definite=True)


def down(_sink: FakeSink, _submission: Submission) -> Answer:
    """Nothing left."""
    return Answer(outcome="retry", why="connection refused", left=False)


def poisoned(*seqs: int) -> Behaviour:
    """A batch that holds one of these is refused whole."""

    def answer(sink: FakeSink, submission: Submission) -> Answer:
        if any(item.seq in seqs for item in submission.items):
            return Answer(outcome="split", why="400: malformed", definite=True)
        return take(sink, submission)

    return answer


class Life:
    """One sink's drain over a spool in `path`: killed, opened again, and run until nothing more can be sent."""

    def __init__(self, path: Path, *sinks: FakeSink, route: Route | None = None) -> None:
        self.path, self.sinks, self.route = path, sinks, route or Route()
        self.clock = Clock()
        self.chance = 0.0
        self.turns: list[tuple[str, Turn]] = []
        self.dead = False
        self.open()

    def open(self) -> None:
        """Start, as after a crash."""
        self.dead = False
        self.spool: Spool = opened(self.path)
        self.outbox = Outbox(self.spool)
        for sink in self.sinks:
            self.outbox.register(sink.id, sink.kind, sink.role, b"{}", since=0)

    def kill(self) -> None:
        """The process is gone, and another begins."""
        self.spool.close()
        self.open()

    def append(self, *records: UsageRecord) -> None:
        append(self.spool, *records)

    @property
    def standing(self) -> Standing:
        return self.outbox.sinks()[self.sinks[0].id]

    def drain(self, sink: Sink | None = None) -> Drain:
        """A drain of the first sink, or of this one."""
        return Drain(
            sink or self.sinks[0],
            self.route,
            self.outbox,
            self.on_thread,
            now=self.clock,
            chance=lambda: self.chance,
            told=lambda name, turn: self.turns.append((name, turn)),
        )

    async def on_thread(self, act: Callable[..., T], *args: object) -> T:
        """The spool's thread, which is this one; it dies with the process."""
        self.step("before a turn")
        done = act(*args)
        self.step("after a turn")
        return done

    def step(self, _where: str) -> None:
        """A point at which the process may be killed."""
        if self.dead:
            raise KilledError

    def deliver(self) -> None:
        """All that can be, now."""

        async def whole() -> None:
            drain = self.drain()
            drain.finish()
            await drain.run()

        asyncio.run(asyncio.wait_for(whole(), 20))

    def outcomes(self, sink: int = 0) -> dict[int, str | None]:
        """Sequence number → outcome."""
        number = self.outbox.sinks()[self.sinks[sink].id].number
        return dict(self.spool.db.execute("SELECT seq, outcome FROM item WHERE sink=? ORDER BY seq", (number,)))

    def told(self) -> Counter[str]:
        """How many records met each outcome, as telemetry heard."""
        heard: Counter[str] = Counter()
        for _, turn in self.turns:
            for settled in turn.settled:
                heard[settled.outcome] += settled.count
        return heard


class Doomed(Life):
    """A life that ends at its `last`-th step."""

    steps = 0
    last = 1 << 62

    def step(self, where: str) -> None:
        super().step(where)
        self.steps += 1
        if self.steps == self.last:
            self.dead = True
            raise KilledError(where)


class FullOutbox(Outbox):
    """On a disk that has no room to freeze anything for so many turns; what is settled fits into the reserve."""

    def __init__(self, spool: Spool, turns: int) -> None:
        super().__init__(spool)
        self.turns, self.rooms = turns, 0

    def freeze(self, *args: object, **kwargs: object) -> list[Submission]:
        if self.turns:
            self.turns -= 1
            raise SpoolFullError("spool: no space left")
        return super().freeze(*args, **kwargs)  # type: ignore[arg-type]

    def make_room(self, now: int) -> None:
        self.rooms += 1


def seqs(submissions: Sequence[Submission]) -> list[list[int]]:
    """The numbers of their items."""
    return [[item.seq for item in submission.items] for submission in submissions]


async def eventually(happened: Callable[[], bool]) -> None:
    """Wait until it is so: a drain goes on in turns of milliseconds."""
    async with asyncio.timeout(10):
        while not happened():  # noqa: ASYNC110 - what happens is seen in the spool, which sets no event
            await asyncio.sleep(0.001)


Begun = Callable[..., Life]


def all_of(life: Life, outcome: str) -> bool:
    """Whether each record met this outcome."""
    found = life.outcomes()
    return len(found) == life.outbox.last() and set(found.values()) == {outcome}


def totals(sink: FakeSink) -> set[int]:
    """How often the far end took what it took."""
    return set(sink.upstream.taken.values())


def open_submissions(life: Life) -> list[tuple[int, int | None]]:
    """(attempts, tainted) of what is unsettled."""
    return list(life.spool.db.execute("SELECT attempts, tainted FROM submission WHERE settled IS NULL ORDER BY id"))


def count_turns(life: Life) -> list[str]:
    """Every call to the spool's thread from here on."""
    turns: list[str] = []
    life.step = turns.append  # type: ignore[method-assign,assignment]
    return turns
