"""DESIGN §7, laws L3, L8, L9, L10: a drain over a real spool, with back ends that misbehave and a process that dies."""

import asyncio
from itertools import count
from pathlib import Path

import pytest

from agent.errors import SinkError
from agent.model import NS_PER_MS
from agent.sinks import Answer, Finding, Terms
from agent.spool.outbox import Submission
from tests.delivery.fakes import (
    HOUR,
    Begun,
    FakeSink,
    Life,
    all_of,
    busy,
    count_turns,
    down,
    eventually,
    lose,
    open_submissions,
    poisoned,
    seqs,
    swallow,
    take,
    totals,
)
from tests.spool.ledger import NOON, S, minutes, record

pytestmark = pytest.mark.timeout(300)  # many examples on a slow machine

BATCHES = Terms(max_batch=4)
SINGLE = Terms(max_batch=1, concurrency=3)
FORGETFUL = Terms(max_batch=2, dedupe_horizon=0)


# -- what is delivered -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("terms", [BATCHES, SINGLE, Terms(max_batch=100, concurrency=32, staged=True)])
def test_everything_that_is_owed_arrives_once(begun: Begun, terms: Terms) -> None:
    """In batches or one by one; `finish` ends it when nothing is left."""
    sink = FakeSink(terms=terms)
    life = begun(sink, records=25)
    life.deliver()
    assert all_of(life, "delivered")
    assert (len(sink.upstream.taken), totals(sink)) == (25, {1})
    assert max(len(one.items) for one in sink.sent) <= terms.max_batch
    assert life.told() == {"delivered": 25}
    assert life.outbox.backlog(life.standing) == (0, None)


def test_a_lost_answer_is_followed_by_the_same_bytes(begun: Begun) -> None:
    """L3, L9: sent again as it was frozen; the duplicate that comes back then is delivery."""
    sink = FakeSink(terms=BATCHES)
    sink.script.extend([lose, swallow, busy, down])
    life = begun(sink, records=4)
    life.deliver()
    assert len(set(sink.payloads)) == 1
    assert len(sink.sent) == 5
    assert all_of(life, "duplicate")
    assert totals(sink) == {1}
    assert [one.tainted for one in sink.sent] == [None, *[NOON] * 4]
    assert [one.attempts for one in sink.sent] == [0, 1, 2, 3, 4]
    outcomes = [outcome for (outcome,) in life.spool.db.execute("SELECT outcome FROM attempt ORDER BY id")]
    assert outcomes == ["ambiguous", "ambiguous", "retry", "retry", "delivered"]


def test_every_third_answer_lost_and_the_totals_are_equal(begun: Begun) -> None:
    """The issue's own demonstration, small."""
    sink = FakeSink(terms=SINGLE)
    sink.script.extend([take, take, lose] * 40)
    life = begun(sink, records=60)
    life.deliver()
    assert (len(sink.upstream.taken), totals(sink)) == (60, {1})
    assert set(life.outcomes().values()) == {"delivered", "duplicate"}


def test_a_duplicate_on_a_first_attempt_is_a_conflict(begun: Begun) -> None:
    """L9: somebody else used our id; it is held, and nothing else is."""
    sink = FakeSink(terms=BATCHES)
    life = begun(sink, records=3)
    sink.upstream.taken[record(1).id(0)] = 1
    sink.script.extend([busy])  # surely not taken: no attempt of ours explains the duplicate
    life.deliver()
    assert life.outcomes() == {1: "delivered", 2: "conflict", 3: "delivered"}
    assert life.outbox.stuck(life.standing) == {"conflict": 1}


def test_a_sink_that_knows_no_ids_is_sent_nothing_twice(begun: Begun) -> None:
    """L10: what may have arrived is ambiguous at once, and waits for a person; what surely did not goes again."""
    sink = FakeSink(terms=FORGETFUL)
    sink.upstream.knows = False
    sink.script.extend([lose, swallow, busy, down])
    life = begun(sink, records=8)
    life.deliver()
    assert life.outcomes() == {n: "ambiguous" if n < 5 else "delivered" for n in range(1, 9)}
    assert totals(sink) == {1}
    assert life.outbox.stuck(life.standing) == {"ambiguous": 4}


def test_a_submission_that_waited_beyond_its_horizon_is_not_sent_again(begun: Begun) -> None:
    """L10: the horizon runs from the first attempt, also where the agent was off meanwhile."""
    sink = FakeSink(terms=Terms(max_batch=4, dedupe_horizon=10 * HOUR))
    sink.script.extend([lose])
    life = begun(sink, records=4)
    life.chance = 0.9
    life.deliver()
    life.kill()
    life.clock.now += 9 * HOUR
    life.deliver()
    assert len(sink.sent) == 1
    assert all_of(life, "ambiguous")
    assert life.told()["ambiguous"] == 4 + 4  # once as it may come again, once for good


def test_one_poison_record_among_good_ones_is_found_and_they_arrive(begun: Begun) -> None:
    """L9: halved until it is alone; every other record is delivered once, by the bytes first frozen."""
    sink = FakeSink(terms=Terms(max_batch=16))
    sink.always = poisoned(11)
    life = begun(sink, records=16)
    life.deliver()
    assert life.outcomes() == {n: "rejected" if n == 11 else "delivered" for n in range(1, 17)}
    assert (len(sink.upstream.taken), totals(sink)) == (15, {1})
    first = dict(zip(range(1, 17), sink.payloads[0], strict=True))
    assert all(item.payload == first[item.seq] for one in sink.sent for item in one.items)


def test_each_record_of_an_answer_has_its_own_fate(begun: Begun) -> None:
    """L9: taken, refused and postponed in one answer; only the last is sent again, and not in a hot loop."""

    def partly(sink: FakeSink, one: Submission) -> Answer:
        sink.upstream.take(one.items[0])
        return Answer(outcome="delivered", why="207", items={2: ("rejected", "bad"), 3: ("retry", "throttled")})

    sink = FakeSink(terms=Terms(max_batch=3))
    sink.script.extend([partly])
    life = begun(sink, records=3)
    life.chance = 0.5
    life.deliver()
    assert seqs(sink.sent) == [[1, 2, 3]]
    life.clock.now += S // 2
    life.deliver()
    assert seqs(sink.sent) == [[1, 2, 3], [3]]
    assert life.outcomes() == {1: "delivered", 2: "rejected", 3: "delivered"}


def test_retry_after_is_obeyed(begun: Begun) -> None:
    """Nothing at all is sent before, and what was taken ahead has not left meanwhile; then all of it goes."""
    sink = FakeSink(terms=Terms(max_batch=1, dedupe_horizon=0))
    sink.script.extend([lambda *_: Answer(outcome="retry", why="429", definite=True, after=30 * S)])
    life = begun(sink, records=3)

    async def story() -> None:
        drain = life.drain()
        running = asyncio.create_task(drain.run())
        await eventually(lambda: len(sink.sent) == 1 and {tainted for _, tainted in open_submissions(life)} == {None})
        life.clock.now += 30 * S - 1
        drain.stir()
        await asyncio.sleep(0.03)
        assert len(sink.sent) == 1
        life.clock.now += 1
        drain.stir()
        await eventually(lambda: all_of(life, "delivered"))
        drain.finish()
        await running

    asyncio.run(story())
    assert len(sink.sent) == 4


def test_finishing_does_not_wait_for_what_may_not_be_sent_yet(begun: Begun) -> None:
    """DESIGN §8: a Retry-After of an hour is no reason to spend the shutdown's budget."""
    sink = FakeSink(terms=Terms(max_batch=1))
    sink.script.extend([lambda *_: Answer(outcome="retry", why="429", definite=True, after=HOUR)])
    life = begun(sink, records=3)
    life.deliver()
    assert len(sink.sent) == 1
    assert life.outbox.backlog(life.standing)[0] == 3


# -- staged, asked, paused ---------------------------------------------------------------------------------------------


def test_a_staged_sink_stages_then_notes_then_sends(begun: Begun) -> None:
    """ACCOUNTING §7: only what is ready to appear is noted as leaving; a retry of what may have left stages nothing."""
    sink = FakeSink(terms=Terms(max_batch=2, staged=True))
    life = begun(sink, records=2)
    seen: list[tuple[str, int]] = []

    def look(where: str) -> None:
        seen.append((where, int(str(life.spool.db.execute("SELECT attempts FROM submission").get))))

    sink.step = look
    sink.script.extend([swallow])
    life.deliver()
    steps = ["stage", "before it left", "after it was taken"]
    assert seen == [(steps[0], 0), (steps[1], 1), (steps[2], 1), (steps[1], 2), (steps[2], 2)]
    assert all_of(life, "delivered")


def test_what_cannot_be_staged_has_not_left(begun: Begun) -> None:
    """A full disk under the file sink makes nothing ambiguous, and it is staged anew."""
    sink = FakeSink(terms=Terms(max_batch=2, staged=True, dedupe_horizon=0))
    tries = count()

    def fail_once(where: str) -> None:
        if where == "stage" and next(tries) == 0:
            raise SinkError("no space left")

    sink.step = fail_once
    life = begun(sink, records=2)
    life.deliver()
    assert all_of(life, "delivered")
    assert next(tries) == 2


def test_nothing_is_sent_before_the_sink_has_agreed(begun: Begun) -> None:
    """ACCOUNTING §7: a dimension that does not sum would bill a twelfth; also when the agent stops meanwhile."""
    sink = FakeSink(terms=Terms(max_batch=10, asks=True))
    wrong = Finding("meter cpu", ok=False, why="aggregates by max", cure="Make it sum.")
    sink.findings = [[wrong, Finding("auth", ok=True, why="200")], [wrong], []]
    life = begun(sink, records=2)
    life.deliver()
    assert sink.sent == []
    ((_, turn), *_) = life.turns
    assert [(s.outcome, s.count, s.why) for s in turn.settled] == [
        ("refused", 0, "meter cpu: aggregates by max. Make it sum.")
    ]

    async def mended() -> None:
        drain = life.drain()
        running = asyncio.create_task(drain.run())
        await eventually(lambda: len(sink.findings) == 1)
        drain.stir()  # a person has mended it
        await eventually(lambda: all_of(life, "delivered"))
        drain.finish()
        await running

    sink.findings = [[wrong], []]
    asyncio.run(mended())


def test_a_paused_sink_is_sent_nothing_until_it_is_resumed(begun: Begun) -> None:
    """DESIGN §7: what it is owed waits, what came back is settled."""
    sink = FakeSink(terms=BATCHES)
    life = begun(sink, records=8)
    life.outbox.pause(life.standing, paused=True)
    life.deliver()
    assert sink.sent == []
    life.outbox.pause(life.standing, paused=False)
    life.deliver()
    assert all_of(life, "delivered")


def test_new_records_are_sent_when_the_drain_is_stirred(begun: Begun) -> None:
    """It rests otherwise: no turn comes unasked."""
    sink = FakeSink(terms=BATCHES)
    life = begun(sink, records=0)
    turns = count_turns(life)

    async def story() -> None:
        drain = life.drain()
        running = asyncio.create_task(drain.run())
        await asyncio.sleep(0.03)
        assert len(turns) <= 2
        life.append(record())
        drain.stir()
        await eventually(lambda: all_of(life, "delivered"))
        await asyncio.sleep(0.03)
        quiet = len(turns)
        await asyncio.sleep(0.03)
        assert len(turns) == quiet
        drain.finish()
        await running

    asyncio.run(story())


# -- bounds ------------------------------------------------------------------------------------------------------------


def test_no_more_are_under_way_than_may_be(begun: Begun) -> None:
    """Concurrency is a bound, and it is used; what is taken ahead is bounded too."""
    sink = FakeSink(terms=Terms(max_batch=1, concurrency=3))
    life = begun(sink, records=40)
    turns = count_turns(life)

    async def story() -> None:
        sink.gate = asyncio.Event()
        drain = life.drain()
        running = asyncio.create_task(drain.run())
        await eventually(lambda: sink.flying == 3)
        await asyncio.sleep(0.03)
        query = "SELECT count(*) FROM submission"
        assert (sink.flying, life.spool.db.execute(query).get) == (3, 6)
        resting = len(turns)
        await asyncio.sleep(0.03)
        assert len(turns) == resting  # there is more, and due, and no room: it waits for an answer
        sink.gate.set()
        drain.finish()
        await running

    asyncio.run(story())
    assert sink.most_flying == 3
    assert all_of(life, "delivered")


def test_what_is_due_while_the_circuit_is_open_causes_no_busy_loop(begun: Begun) -> None:
    """A back end that is down for a week costs a try every few minutes."""
    sink = FakeSink(terms=Terms(max_batch=1, concurrency=4))
    sink.always = down
    life = begun(sink, records=40)
    life.chance = 0.9
    turns = count_turns(life)

    async def story() -> None:
        running = asyncio.create_task(life.drain().run())
        await eventually(lambda: len(sink.sent) >= 5)
        await asyncio.sleep(0.05)
        resting, tried = len(turns), len(sink.sent)
        life.clock.now += 10 * S  # due long since, but nobody wakes it
        await asyncio.sleep(0.05)
        assert len(turns) <= resting + 2
        assert tried <= 8
        running.cancel()
        await asyncio.wait([running])

    asyncio.run(story())
    assert not set(life.outcomes().values()) - {None}


def test_a_sink_that_fails_does_not_stop_another(tmp_path: Path, lives: list[Life]) -> None:
    """They share nothing but the spool."""
    bad, good = FakeSink("bad", terms=SINGLE), FakeSink("good", "copy", SINGLE)
    bad.always = down
    life = Life(tmp_path, bad, good)
    lives.append(life)
    life.chance = 0.9
    life.append(*minutes(range(20)))

    async def story() -> None:
        drains = [life.drain(sink) for sink in (bad, good)]
        for drain in drains:
            drain.finish()
        await asyncio.gather(*(drain.run() for drain in drains))

    asyncio.run(story())
    assert set(life.outcomes(1).values()) == {"delivered"}
    assert life.outbox.backlog(life.standing)[0] == 20
    bad.always = take
    life.clock.now += 600 * S
    life.deliver()
    assert all_of(life, "delivered")


def test_the_rate_keeps_submissions_apart(begun: Begun) -> None:
    """Per second, at any concurrency: the fourth leaves three gaps after the first."""
    sink = FakeSink(terms=Terms(max_batch=1, concurrency=4, rate=100))
    life = begun(sink, records=4)
    clock = {"now": 0.0}
    sink.step = lambda where: clock.update(now=asyncio.get_running_loop().time())

    async def story() -> float:
        drain = life.drain()
        drain.finish()
        began = asyncio.get_running_loop().time()
        await drain.run()
        return clock["now"] - began

    assert asyncio.run(story()) >= 3 * 10 * NS_PER_MS / S
    assert all_of(life, "delivered")
