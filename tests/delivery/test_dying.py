"""Laws L2, L9, L10, ACCOUNTING §7: a drain that is stopped, and a process that dies at any of its steps."""

import asyncio
from collections.abc import Callable
from itertools import count
from pathlib import Path

import pytest

from agent.delivery.drain import Drain
from agent.errors import SpoolError
from agent.sinks import Answer, Terms
from agent.sinks.file import FileSink
from agent.spool.outbox import Submission
from tests.delivery.fakes import (
    Begun,
    Behaviour,
    Doomed,
    FakeSink,
    FullOutbox,
    KilledError,
    Life,
    all_of,
    busy,
    count_turns,
    eventually,
    lose,
    open_submissions,
    poisoned,
    swallow,
    totals,
)
from tests.spool.ledger import S, minutes, record

pytestmark = pytest.mark.timeout(300)  # many examples on a slow machine


def stopped(life: Life, when: Callable[[], bool]) -> None:
    """Cancelled at that moment, as when the budget of a shutdown is spent."""

    async def story() -> None:
        drain = life.drain()
        running = asyncio.create_task(drain.run())
        await eventually(when)
        running.cancel()
        await asyncio.wait([running])
        await drain.hold_back()

    asyncio.run(story())


def test_what_was_taken_ahead_and_never_left_is_not_tainted_by_a_stop(begun: Begun) -> None:
    """L10: only what was under way may have arrived; at a sink that knows no ids the rest goes out after a restart."""
    sink = FakeSink(terms=Terms(max_batch=1, concurrency=2, dedupe_horizon=0))
    life = begun(sink, records=10)

    async def never() -> None:
        sink.gate = asyncio.Event()

    asyncio.run(never())
    stopped(life, lambda: sink.flying == 2)
    assert [tainted is not None for _, tainted in open_submissions(life)] == [True, True, False, False]
    sink.gate = None
    life.kill()
    life.deliver()
    assert life.outcomes() == {n: "ambiguous" if n < 3 else "delivered" for n in range(1, 11)}


def test_what_waited_for_its_slot_is_not_tainted_by_a_stop(begun: Begun) -> None:
    """The rate keeps most of them back: none of those has left."""
    sink = FakeSink(terms=Terms(max_batch=1, concurrency=4, rate=1, dedupe_horizon=0))
    life = begun(sink, records=4)
    stopped(life, lambda: len(sink.upstream.taken) == 1)
    life.kill()
    sink.terms = Terms(max_batch=1, concurrency=4, dedupe_horizon=0)
    life.deliver()
    assert all_of(life, "delivered")
    assert totals(sink) == {1}


def test_what_a_turn_took_while_the_drain_was_stopped_is_not_tainted(begun: Begun) -> None:
    """The spool's thread finishes what it began; its result must not be lost with the one who waited for it."""
    sink = FakeSink(terms=Terms(max_batch=1, concurrency=2, dedupe_horizon=0))
    life = begun(sink, records=4)

    async def story() -> None:
        inside, go = asyncio.Event(), asyncio.Event()
        inline = life.on_thread

        async def slow(act: Callable[..., object], *args: object) -> object:
            done = await inline(act, *args)
            inside.set()
            await go.wait()
            return done

        life.on_thread = slow  # type: ignore[method-assign,assignment]
        drain = life.drain()
        running = asyncio.create_task(drain.run())
        await inside.wait()
        running.cancel()
        await asyncio.wait([running])
        go.set()
        await drain.hold_back()
        life.on_thread = inline  # type: ignore[method-assign]

    asyncio.run(story())
    assert [tainted for _, tainted in open_submissions(life)] == [None] * 4
    life.kill()
    life.deliver()
    assert all_of(life, "delivered")


def test_an_answer_that_came_before_the_stop_is_settled(begun: Begun) -> None:
    """Else it would be sent again, or be ambiguous, for nothing."""
    sink = FakeSink(terms=Terms(max_batch=10, dedupe_horizon=0))
    life = begun(sink)
    stopped(life, lambda: len(sink.upstream.taken) == 10)
    life.kill()
    life.deliver()
    assert all_of(life, "delivered")


TERMS = {
    "deduplicating, one by one": Terms(max_batch=1, concurrency=2),
    "deduplicating, in batches": Terms(max_batch=3),
    "deduplicating, staged": Terms(max_batch=3, staged=True),
    "forgetful": Terms(max_batch=2, dedupe_horizon=0),
    "forgetful, staged": Terms(max_batch=2, dedupe_horizon=0, staged=True),
}


@pytest.mark.parametrize("terms", TERMS.values(), ids=TERMS)
@pytest.mark.parametrize(
    "answers", [[], [lose], [busy, swallow], [poisoned(2)]], ids=["well", "lost", "refused", "bad"]
)
def test_killed_at_any_step_nothing_is_doubled_and_nothing_lost(
    tmp_path: Path, lives: list[Life], terms: Terms, answers: list[Behaviour]
) -> None:
    """Before and after each turn, each staging, each send: every record arrives once, or is held as ambiguous."""
    for last in count(1):
        sink = FakeSink(terms=terms)
        sink.upstream.knows = terms.dedupe_horizon is None
        sink.script.extend(answers)
        life = Doomed(tmp_path / str(last), sink)
        lives.append(life)
        life.append(*minutes(range(5)))
        sink.step, life.last = life.step, last
        try:
            life.deliver()
            died = False
        except KilledError:
            died = True
        life.last = 1 << 62
        life.kill()
        life.deliver()
        found = life.outcomes()
        assert set(found) == {1, 2, 3, 4, 5}
        assert set(found.values()) <= {"delivered", "duplicate", "ambiguous", "rejected"}
        assert totals(sink) <= {1}
        if terms.dedupe_horizon is None:
            assert "ambiguous" not in found.values()
        for number, outcome in found.items():
            arrived = sink.upstream.taken[record(number - 1).id(0)]
            assert outcome == "ambiguous" or arrived == (outcome != "rejected")
        if not died:
            break
    assert last > 5


# -- a full disk, and one that fails -----------------------------------------------------------------------------------


def test_on_a_full_disk_what_came_back_is_settled_and_nothing_new_is_frozen(begun: Begun) -> None:
    """DESIGN §6: acknowledging goes on in the reserve; and the loop does not spin over what has no room."""
    sink = FakeSink(terms=Terms(max_batch=2))
    life = begun(sink, records=8)
    turns = count_turns(life)

    async def story() -> None:
        drain = life.drain()
        running = asyncio.create_task(drain.run())
        sink.gate = asyncio.Event()
        await eventually(lambda: sink.flying == 1)
        outbox = FullOutbox(life.spool, 1 << 30)
        drain._outbox = outbox  # the disk fills while an answer is awaited
        sink.gate.set()
        await eventually(lambda: list(life.outcomes().values()).count("delivered") == 4)
        await asyncio.sleep(0.05)
        resting = len(turns)
        await asyncio.sleep(0.05)
        assert len(turns) <= resting + 2
        assert outbox.rooms >= 1
        assert any(turn.full for _, turn in life.turns)
        outbox.turns = 0  # somebody made room
        drain.finish()
        await running

    asyncio.run(story())
    assert all_of(life, "delivered")
    assert totals(sink) == {1}


def test_a_disk_that_fails_ends_the_drain_with_the_reason(begun: Begun) -> None:
    """DESIGN §6: stop cleanly; what is under way may have left, and the spool says so."""
    sink = FakeSink(terms=Terms(max_batch=2, staged=True))
    life = begun(sink)
    noted = count()

    def fail(where: str) -> None:
        if where == "before it left" and next(noted) == 1:
            raise SpoolError("spool: IOError")

    sink.step = fail
    with pytest.raises(SpoolError, match="IOError"):
        life.deliver()


# -- the file sink -----------------------------------------------------------------------------------------------------


def lines(path: Path) -> list[bytes]:
    """What a shipper would find."""
    return [line for file in sorted(path.glob("*.ndjson")) for line in file.read_bytes().splitlines()]


def deliver_files(life: Life, sink: FileSink) -> None:
    """All that can be, now; or until it is killed."""

    async def whole() -> None:
        drain: Drain = life.drain(sink)
        drain.finish()
        await drain.run()

    asyncio.run(whole())


class Ports(FileSink):
    """A file sink whose process may die beside each of its steps."""

    step: Callable[[str], None] = staticmethod(lambda _: None)

    async def stage(self, submission: Submission) -> None:
        self.step("before it is written")
        await super().stage(submission)
        self.step("after it is written")

    async def send(self, submission: Submission) -> Answer:
        self.step("before the rename")
        answer = await super().send(submission)
        self.step("after the rename")
        return answer


@pytest.mark.parametrize("shipper", [False, True])
def test_a_file_killed_at_any_step_appears_whole_and_once(tmp_path: Path, lives: list[Life], *, shipper: bool) -> None:
    """ACCOUNTING §7: temp present = rename it; absent = done, also if a shipper took the file already."""
    for last in count(1):
        place = tmp_path / str(last)
        sink = Ports("sink", "copy", place / "out")
        life = Doomed(place, FakeSink(role="copy"))
        lives.append(life)
        life.append(*minutes(range(3)))
        sink.step, life.last = life.step, last
        try:
            deliver_files(life, sink)
            died = False
        except KilledError:
            died = True
        taken: list[bytes] = []
        if shipper:
            taken = lines(place / "out")
            for file in (place / "out").glob("*.ndjson"):
                file.unlink()
        life.last = 1 << 62
        life.kill()
        life.append(*minutes(range(3, 5)))
        deliver_files(life, sink)
        bodies = list(life.spool.db.execute("SELECT body FROM record ORDER BY seq"))
        found = taken + lines(place / "out")
        assert [line.replace(b'"seq":%d,' % seq, b"") for seq, line in enumerate(found, 1)] == [b for (b,) in bodies]
        assert list((place / "out").glob(".*")) == []
        assert all_of(life, "delivered")
        if not died:
            break
    assert last > 6


def test_a_directory_that_cannot_be_written_names_itself_and_is_tried_again(tmp_path: Path, lives: list[Life]) -> None:
    """L9: nothing is known to have left; the message has place and cure."""
    life = Life(tmp_path, FakeSink(role="copy"))
    lives.append(life)
    life.chance = 0.9
    life.append(record())
    sink = FileSink("sink", "copy", tmp_path / "out")
    (tmp_path / "out").rmdir()
    deliver_files(life, sink)
    assert [(s.outcome, s.count) for _, turn in life.turns for s in turn.settled] == [("retry", 1)]
    assert "out: No such file or directory. Free space" in life.turns[0][1].settled[0].why
    (tmp_path / "out").mkdir()
    life.clock.now += 2 * S
    deliver_files(life, sink)
    assert all_of(life, "delivered")
    assert len(lines(tmp_path / "out")) == 1
