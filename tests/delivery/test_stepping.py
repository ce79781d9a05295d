"""Law L10 where clocks step: what waits waits as long as it was told to, and a horizon is as long as it is."""

import asyncio

import pytest

from agent.delivery.drain import UNSURE, UNSURE_SECONDS
from agent.sinks import Terms
from tests.delivery.fakes import HOUR, Begun, FakeSink, S, all_of, eventually, lose, open_submissions, totals

DAY = 24 * HOUR


@pytest.mark.parametrize("stepped", [-DAY, DAY])
def test_a_retry_waits_no_longer_because_billing_time_was_set(begun: Begun, stepped: int) -> None:
    """A step back of a day delayed it by a day."""
    sink = FakeSink(terms=Terms(max_batch=4, dedupe_horizon=10 * HOUR))
    sink.script.extend([lose])
    life = begun(sink, records=4)
    life.chance = 0.9
    life.deliver()
    life.clock.stepped = stepped
    life.clock.now += S
    life.deliver()
    assert len(sink.sent) == 2
    assert (all_of(life, "duplicate"), totals(sink)) == (True, {1})


def test_a_step_back_does_not_stretch_the_horizon(begun: Begun) -> None:
    """Also across a crash, for times that are kept are elapsed times."""
    sink = FakeSink(terms=Terms(max_batch=4, dedupe_horizon=10 * HOUR))
    sink.script.extend([lose])
    life = begun(sink, records=4)
    life.chance = 0.9
    life.deliver()
    life.kill()
    life.clock.stepped, life.clock.now = -DAY, life.clock.now + 9 * HOUR
    life.deliver()
    assert len(sink.sent) == 1
    assert all_of(life, "ambiguous")


def test_what_left_before_a_crash_is_as_old_as_it_is(begun: Begun) -> None:
    """Billing time was a day behind when it left, and right again when the agent is back."""
    sink = FakeSink(terms=Terms(max_batch=4, dedupe_horizon=10 * HOUR))
    life = begun(sink, records=4)
    life.clock.stepped, sink.gate = -DAY, asyncio.Event()

    async def dies() -> None:
        running = asyncio.create_task(life.drain().run())
        await eventually(lambda: sink.flying == 1)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    asyncio.run(dies())
    life.kill()
    life.clock.stepped, sink.gate = 0, None
    life.deliver()
    assert (len(sink.sent), all_of(life, "delivered")) == (2, True)


@pytest.mark.parametrize("stepped", [-DAY, 0, DAY])
def test_a_sink_that_knows_no_ids_is_sent_nothing_twice_whatever_the_clock_does(begun: Begun, stepped: int) -> None:
    """Horizon 0 needs no clock."""
    sink = FakeSink(terms=Terms(max_batch=4, dedupe_horizon=0))
    sink.upstream.knows = False
    sink.script.extend([lose])
    life = begun(sink, records=4)
    life.step = lambda _: setattr(life.clock, "stepped", stepped)  # type: ignore[method-assign,assignment]
    life.deliver()
    life.kill()
    life.deliver()
    assert (all_of(life, "ambiguous"), totals(sink)) == (True, {1})


def test_what_may_be_too_old_waits_until_the_clock_is_confirmed(begun: Begun) -> None:
    """The others go on; it is neither sent nor given up, and nobody is asked before it is known."""
    sink = FakeSink(terms=Terms(max_batch=1, dedupe_horizon=10 * HOUR))
    sink.script.extend([lose])
    life = begun(sink, records=1)
    life.chance = 0.9
    life.deliver()
    life.clock.now += S
    life.clock.ahead = DAY
    life.deliver()
    assert len(sink.sent) == 1
    assert life.turns[-1][1].settled[0].why == UNSURE
    assert [attempts for attempts, _ in open_submissions(life)] == [1]
    life.clock.now += UNSURE_SECONDS * S
    life.clock.ahead = 0
    life.deliver()
    assert (len(sink.sent), all_of(life, "duplicate")) == (2, True)


def test_a_sink_is_asked_for_the_date_while_something_waits_for_the_clock(begun: Begun) -> None:
    """Where nothing else is sent, no answer would ever confirm it: found by the campaign, after a power cut."""
    sink = FakeSink(terms=Terms(max_batch=1, dedupe_horizon=10 * HOUR))
    sink.script.extend([lose])
    life = begun(sink, records=1)
    life.chance = 0.9
    life.deliver()
    life.clock.now += S
    life.clock.ahead = DAY

    async def waits() -> None:
        drain = life.drain()
        running = asyncio.create_task(drain.run())
        await eventually(lambda: sink.asked == 1)
        life.clock.now += UNSURE_SECONDS * S
        drain.stir()
        await eventually(lambda: len(life.turns) > 2)
        drain.finish(taking=False)
        await running

    asyncio.run(waits())
    assert (sink.asked, len(sink.sent)) == (1, 1)
