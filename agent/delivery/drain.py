"""One sink's own line, from the spool to the back end: freeze, note that it leaves, send, settle (DESIGN §7).

Everything that touches the spool happens in turns, one transaction each: what came back is settled and what goes next
is frozen and noted as leaving, in one commit. Between two turns the loop only sends. A crash at any instant leaves
submissions that may have left, and says so. Where a sink can be read back, those that it has forgotten are looked for.
"""

import asyncio
import contextlib
from collections import Counter, deque
from collections.abc import Callable, Mapping

from msgspec import Struct, structs

from agent.clock import Moment
from agent.delivery.judgement import Doubt, forgotten, judge, ripe, weigh
from agent.delivery.pace import Pace
from agent.delivery.rendering import Rendering, Route
from agent.errors import SinkError, SpoolFullError
from agent.model import NS_PER_S
from agent.sinks import Answer, Look, Readable, Sink
from agent.spool.doubts import doubt_of, end_doubt, keep_doubt
from agent.spool.outbox import Outbox, Submission
from agent.spool.thread import OnThread

GATHER_SECONDS = 0.004  # answers that come within it share one commit
IDLE_SECONDS = 60.0  # a look that nothing asked for
FULL_SECONDS = 5.0  # between two tries to settle anything on a full disk
UNSURE_SECONDS = 5  # between two looks at whether the clock is confirmed by now
ASK_SECONDS = 60  # between two questions to the sink for the sake of the date that its answer bears
AHEAD = 2  # submissions taken for each that may be under way, so that a slot never waits for the disk
TOO_LATE = Answer(outcome="retry", why="not sent again: its turn came too late", left=False)
UNSURE = "not sent again yet: how long ago it may have arrived is not known before the clock is confirmed"
HELD_BACK = Answer(outcome="retry", why="not sent: taken ahead, and held back", left=False)


class Settled(Struct, frozen=True):
    """So many records of one sink met this outcome. `again`: they are sent again by themselves."""

    outcome: str
    count: int
    why: str
    again: bool = False


class Turn(Struct, frozen=True):
    """What one turn came to."""

    taken: tuple[Submission, ...] = ()
    settled: tuple[Settled, ...] = ()
    more: bool = False  # there is more to freeze
    due: int | None = None  # when something is to be sent again, elapsed time
    full: str | None = None  # the disk was; nothing was taken
    unsure: bool = False  # something waits for the clock to be confirmed
    sought: Mapping[int, Doubt] = {}  # those of `taken`, by id, that are not sent but looked for


class _Back(Struct, frozen=True):
    """An attempt, or a look, that is over; it began at `began`, elapsed time."""

    submission: Submission
    answer: Answer | Look
    began: int
    wait: int
    doubt: Doubt | None = None  # in which it was looked for


class Drain:
    """Delivers what one sink is owed. `run` until `finish`."""

    def __init__(
        self,
        sink: Sink,
        route: Route,
        outbox: Outbox,
        on_thread: OnThread,
        *,
        now: Callable[[], Moment],
        chance: Callable[[], float],
        told: Callable[[str, Turn], None],
        freezes: bool = True,
    ) -> None:
        """`told` hears of each turn that settled something.

        Not `freezes`: only what is frozen already is delivered.
        """
        self._freezes = freezes
        self.sink, self._route, self._outbox, self._on_thread = sink, route, outbox, on_thread
        self._now, self._told = now, told
        self._pace = Pace(sink.terms.concurrency, sink.terms.rate, chance)
        self._stir = asyncio.Event()
        self._back: list[_Back] = []
        self._ready: deque[Submission] = deque()
        self._sought: dict[int, Doubt] = {}  # of those that are ready, in which doubt they are looked for
        self._flying: dict[int, asyncio.Task[None]] = {}
        self._turning: asyncio.Task[Turn] | None = None
        self._asking: asyncio.Task[object] | None = None
        self._asked: int | None = None
        self._closing, self._taking = False, True
        self._broken: Exception | None = None

    def stir(self) -> None:
        """There may be something to send."""
        self._stir.set()

    def finish(self, *, taking: bool = True) -> None:
        """Let `run` return when nothing more can be sent at once; not `taking`: when what is under way has ended."""
        self._closing, self._taking = True, taking
        self.stir()

    async def run(self) -> None:
        """Deliver until `finish`. Cancelled, it leaves what is under way as what may have left. Raises SpoolError."""
        try:
            if not await self._agree():
                return
            while True:
                self._turning = asyncio.create_task(self._turn())
                turn = await asyncio.shield(self._turning)  # what the spool has noted must be known here, too
                if self._broken is not None:
                    raise self._broken
                self._launch()
                if turn.unsure:
                    self._ask_the_date()
                if self._room() and (turn.more or turn.taken):
                    continue
                if self._closing and not (self._flying or self._ready or self._back):
                    return
                await self._rest(turn)
        finally:
            under_way = [*self._flying.values(), *([] if self._asking is None else [self._asking])]
            for task in under_way:
                task.cancel()
            await asyncio.gather(*under_way, return_exceptions=True)

    async def hold_back(self) -> None:
        """After `run` was cancelled: note that what was taken ahead has not left."""
        if self._turning is not None:
            await self._turning
        self._hold_ready()
        await self._on_thread(self._settle_and_take, self._back, 0, frozenset())

    async def _agree(self) -> bool:
        """Where the back end must be asked first, send nothing until it says that it sums (ACCOUNTING §7)."""
        while self.sink.terms.asks:
            wrong = [finding for finding in await self.sink.ask() if not finding.ok]
            if not wrong:
                break
            settled = tuple(Settled("refused", 0, f"{f.what}: {f.why}. {f.cure}") for f in wrong)
            self._told(self.sink.id, Turn(settled=settled))
            if self._closing:
                return False
            await self._stirred(IDLE_SECONDS)
        return True

    def _ask_the_date(self) -> None:
        """Have another machine confirm the clock where nothing else is sent whose answer would (decision 50)."""
        now = self._elapsed()
        if (self._asked is None or now - self._asked >= ASK_SECONDS * NS_PER_S) and not self._closing:
            self._asked = now
            self._asking = asyncio.create_task(self.sink.ask())

    # -- turns -----------------------------------------------------------------------------------------------------

    def _room(self) -> int:
        """How many submissions may be taken from the spool now."""
        if not self._taking or self._elapsed() < self._pace.opens_at:
            return 0
        most = 1 if self._pace.tripped else AHEAD * self.sink.terms.concurrency
        return max(0, most - len(self._flying) - len(self._ready))

    async def _turn(self) -> Turn:
        back, self._back = self._back, []
        beside = frozenset(self._flying) | {s.id for s in self._ready}
        try:
            turn = await self._on_thread(self._settle_and_take, back, self._room(), beside)
        except SpoolFullError as error:
            self._back = back + self._back
            turn = Turn(full=str(error))
        if turn.settled or turn.full:
            self._told(self.sink.id, turn)
        self._ready += turn.taken
        self._sought |= turn.sought
        return turn

    def _settle_and_take(self, back: list[_Back], room: int, beside: frozenset[int]) -> Turn:
        """The whole turn, on the spool's thread. On a full disk settling goes on, in the space of the reserve."""
        try:
            return self._transact(back, room, beside)
        except SpoolFullError as error:
            self._outbox.make_room(self._now().billing)
            return structs.replace(self._transact(back, 0, beside), more=False, full=str(error))

    def _transact(self, back: list[_Back], room: int, beside: frozenset[int]) -> Turn:
        outbox, now, terms = self._outbox, self._now(), self.sink.terms
        standing = outbox.sinks().get(self.sink.id)
        if standing is None:
            return Turn()
        room = 0 if standing.paused else room
        settled: list[Settled] = []
        taken: list[Submission] = []
        sought: dict[int, Doubt] = {}
        unsure = False
        with outbox.transaction():
            for over in back:
                settled += self._settle(over, now)
            for submission in outbox.due(standing, now.elapsed, room, beside):
                gone = submission.attempts and forgotten(submission.tainted, terms, now.age)
                if gone is None:
                    unsure = True
                    settled.append(self._wait(submission, now))
                elif not gone:
                    taken.append(submission)
                elif terms.visibility_delay is None:
                    settled.append(self._give_up(submission, now))
                elif (doubt := self._doubted(submission, terms.visibility_delay, now)) is not None:
                    sought[submission.id] = doubt
                    taken.append(submission)
            if self._freezes and len(taken) < room:
                rendering = Rendering(self.sink, self._route, outbox, standing, now.billing)
                taken += outbox.freeze(
                    standing,
                    rendering,
                    batches=room - len(taken),
                    max_batch=terms.max_batch,
                    max_bytes=terms.max_bytes,
                    now=now,
                )
            outbox.leaving([s for s in taken if s.id not in sought and (s.attempts or not terms.staged)], now.elapsed)
        more = self._freezes and not standing.paused and outbox.more(standing)
        due = None if standing.paused else outbox.next_due(standing, beside | {s.id for s in taken})
        return Turn(tuple(taken), tuple(settled), more, due, unsure=unsure, sought=sought)

    def _settle(self, over: _Back, now: Moment) -> list[Settled]:
        outbox, submission, answer = self._outbox, over.submission, over.answer
        if isinstance(answer, Look):
            return self._see(over, answer, now)
        verdict = judge(submission, answer, self.sink.terms, over.began, now.age)
        began = now.billing - (now.elapsed - over.began)
        outbox.attempted(submission, began, now.billing, verdict.outcome, answer.why)
        outbox.settle(submission, verdict.settled, now.billing)
        tally = Counter(verdict.settled.values())
        settled = [Settled(outcome, count, why) for (outcome, why), count in tally.items()]
        left = len(submission.items) - len(verdict.settled)
        if left:
            outcome = "ambiguous" if answer.outcome == "ambiguous" else "retry"
            settled.append(Settled(outcome, left, answer.why, again=True))
            delay = self.sink.terms.visibility_delay
            if verdict.groups:
                outbox.split(submission, verdict.groups, verdict.tainted, now)
            elif delay is not None and forgotten(verdict.tainted, self.sink.terms, now.age):
                keep_doubt(outbox.spool.db, submission.id, now.elapsed, None, 0)
                outbox.postpone(submission, now.elapsed + delay, verdict.tainted)
            else:
                outbox.postpone(submission, now.elapsed + over.wait, verdict.tainted)
        return settled

    def _wait(self, submission: Submission, now: Moment) -> Settled:
        self._outbox.postpone(submission, now.elapsed + UNSURE_SECONDS * NS_PER_S, submission.tainted)
        return Settled("retry", len(submission.items), UNSURE, again=True)

    def _doubted(self, submission: Submission, delay: int, now: Moment) -> Doubt | None:
        """The doubt in which it is to be looked for now; None: not yet, and it is due when it is time.

        One that nobody has noted was under way when the agent ended, which closed its connection.
        """
        kept = doubt_of(self._outbox.spool.db, submission.id)
        doubt = Doubt(now.elapsed) if kept is None else Doubt(*kept)
        due = ripe(doubt, delay, now)
        if due is None:
            doubt, due = Doubt(now.elapsed), now.elapsed + delay
        if due <= now.elapsed:
            return doubt
        keep_doubt(self._outbox.spool.db, submission.id, doubt.since, doubt.empty, doubt.unread)
        self._outbox.postpone(submission, due, submission.tainted)
        return None

    def _see(self, over: _Back, look: Look, now: Moment) -> list[Settled]:
        """What was found is delivered; what is cleared of all doubt is due at once."""
        outbox, submission = self._outbox, over.submission
        assert over.doubt is not None
        seen = weigh(submission, look, over.doubt, over.began)
        outbox.attempted(submission, now.billing - (now.elapsed - over.began), now.billing, seen.outcome, look.why)
        outbox.settle(submission, seen.settled, now.billing)
        settled = [Settled(outcome, 1, why) for outcome, why in seen.settled.values()]
        left = len(submission.items) - len(seen.settled)
        if seen.doubt is None or not left:
            end_doubt(outbox.spool.db, submission.id)
            if left:
                outbox.postpone(submission, now.elapsed, None)
        else:
            due = ripe(seen.doubt, self.sink.terms.visibility_delay or 0, now) or now.elapsed
            outbox.postpone(submission, max(due, now.elapsed + over.wait), submission.tainted)
            keep_doubt(outbox.spool.db, submission.id, seen.doubt.since, seen.doubt.empty, seen.doubt.unread)
        return [*settled, *([Settled("ambiguous", left, look.why, again=True)] if left else [])]

    def _give_up(self, submission: Submission, now: Moment) -> Settled:
        why = "an attempt may have arrived, and the sink no longer knows its id"
        self._outbox.settle(submission, {item.seq: ("ambiguous", why) for item in submission.items}, now.billing)
        return Settled("ambiguous", len(submission.items), why)

    # -- sending ---------------------------------------------------------------------------------------------------

    def _launch(self) -> None:
        """Begin as many attempts as may be under way."""
        while self._taking and self._ready and self._pace.room(self._elapsed(), len(self._flying)):
            submission = self._ready.popleft()
            self._flying[submission.id] = asyncio.create_task(self._fly(submission))
        shut = self._pace.tripped or self._elapsed() < self._pace.opens_at
        if shut or not self._taking:  # what was taken ahead waits in the spool
            self._hold_ready()

    def _hold_ready(self) -> None:
        self._back += [_Back(s, HELD_BACK, self._elapsed(), 0) for s in self._ready if s.id not in self._sought]
        for submission in self._ready:  # what was only to be looked for is due as it was
            self._sought.pop(submission.id, None)
        self._ready.clear()

    async def _fly(self, submission: Submission) -> None:
        """One attempt, from its slot to its answer."""
        pause = self._pace.slot(self._elapsed()) - self._elapsed()
        if pause > 0:
            try:
                await asyncio.sleep(pause / NS_PER_S)
            except asyncio.CancelledError:
                self._ready.append(submission)  # it has not left, and `hold_back` says so
                raise
        began = self._elapsed()
        doubt = self._sought.pop(submission.id, None)
        try:
            if doubt is None:
                answer = await self._attempt(submission, began)
                self._back.append(_Back(submission, answer, began, self._waits(submission, answer)))
            else:
                assert isinstance(self.sink, Readable)
                look = await self.sink.look(submission)
                wait = self._pace.backoff(doubt.unread + 1) if look.failed else 0
                self._back.append(_Back(submission, look, began, wait, doubt))
        except Exception as error:  # noqa: BLE001 - the task has nobody else to tell; `run` raises it
            self._broken = error
        del self._flying[submission.id]
        self._launch()
        self.stir()

    def _waits(self, submission: Submission, answer: Answer) -> int:
        """How long before it is sent again, if it must be; the pace learns of the answer."""
        attempts = submission.attempts + 1
        if answer.outcome in ("retry", "ambiguous"):
            return self._pace.failed(self._elapsed(), attempts, answer.after, blocked=answer.blocked)
        self._pace.succeeded()
        return max(answer.after or 0, self._pace.backoff(attempts))  # of items that it did not take

    async def _attempt(self, submission: Submission, began: int) -> Answer:
        if submission.attempts and forgotten(submission.tainted, self.sink.terms, self._now().age) is not False:
            return TOO_LATE
        try:
            if self.sink.terms.staged and not submission.attempts:
                await self.sink.stage(submission)
                await self._on_thread(self._note_leaving, submission, began)
            return await self.sink.send(submission)
        except (SinkError, SpoolFullError) as error:
            return Answer(outcome="retry", why=str(error), left=False)

    def _note_leaving(self, submission: Submission, now: int) -> None:
        with self._outbox.transaction():
            self._outbox.leaving([submission], now)

    async def _rest(self, turn: Turn) -> None:
        """Until something came back, is due, or was asked for; then a moment more, for what comes with it."""
        shut = self._pace.opens_at - self._elapsed()
        seconds = IDLE_SECONDS
        if turn.full:
            seconds = FULL_SECONDS
        elif shut > 0:
            seconds = shut / NS_PER_S
        elif turn.due is not None and self._room():
            seconds = max(0.0, (turn.due - self._elapsed()) / NS_PER_S)
        if turn.full or not self._back:
            await self._stirred(min(seconds, IDLE_SECONDS))
        await asyncio.sleep(GATHER_SECONDS)

    def _elapsed(self) -> int:
        return self._now().elapsed

    async def _stirred(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stir.wait()
        self._stir.clear()
