"""Law L10 where a sink has forgotten ids and can be read back: what may have arrived is looked for, then settled.

Found: delivered. Two looks that see nothing, long enough after the connection was closed and apart: sent again. Else a
person decides.
"""

from collections import deque
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.clock import Moment
from agent.delivery.judgement import APART, UNREAD, Doubt, Seen, ripe, weigh
from agent.sinks import Answer, Look, Terms
from agent.spool.deliveries import deliveries
from agent.spool.ledger import named
from agent.spool.ledger import opened as reading
from agent.spool.outbox import Submission
from tests.delivery.fakes import (
    Clock,
    Doomed,
    FakeSink,
    KilledError,
    Life,
    all_of,
    down,
    lose,
    submission,
    swallow,
    take,
)
from tests.spool.ledger import DAY, NOON, S, record

DELAY = 600 * S


class Forgetful(FakeSink):
    """A sink that knows no ids. It shows what it took after `shows` ns; `blind`: so many looks fail."""

    def __init__(self, clock: Clock, shows: int = DELAY) -> None:
        super().__init__(terms=Terms(max_batch=10, dedupe_horizon=0, visibility_delay=DELAY))
        self.upstream.knows = False
        self.clock, self.shows, self.blind = clock, shows, 0
        self.seen_from: dict[int, int] = {}
        self.looks: list[int] = []

    async def send(self, submission: Submission) -> Answer:
        before = sum(self.upstream.taken.values())
        try:
            return await super().send(submission)
        finally:  # also where the agent dies of it
            if sum(self.upstream.taken.values()) > before:
                for item in submission.items:
                    self.seen_from.setdefault(item.seq, self.clock.now + self.shows)

    async def look(self, submission: Submission) -> Look:
        self.step("before it was looked for")
        self.looks.append(self.clock.now)
        if self.blind:
            self.blind -= 1
            return Look(why="503", failed=True)
        seqs = [item.seq for item in submission.items]
        found = {seq: "its id" for seq in seqs if self.seen_from.get(seq, 1 << 62) <= self.clock.now}
        self.step("after it was looked for")
        return Look(found=found, why=f"{len(found)} of {len(seqs)}")


class Searching:
    """A life with such a sink."""

    def __init__(self, path: Path, kind: type[Life] = Life, shows: int = DELAY) -> None:
        clock = Clock()
        self.sink = Forgetful(clock, shows)
        self.life = kind(path, self.sink)
        self.life.clock = clock
        self.life.chance = 0.5

    def wait(self, ns: int) -> None:
        """Time passes, in steps of a quarter of the delay."""
        until = self.life.clock.now + ns
        while self.life.clock.now < until:
            self.life.clock.now = min(until, self.life.clock.now + DELAY // 4)
            self.life.deliver()


@pytest.fixture
def searching(tmp_path: Path) -> Searching:
    """One record is owed."""
    made = Searching(tmp_path)
    made.life.append(record(1))
    return made


def test_what_arrived_is_found_and_not_sent_again(searching: Searching) -> None:
    """One look, when its time has come, and no more."""
    searching.sink.script = deque([lose])
    searching.life.deliver()
    searching.wait(4 * DELAY)
    assert all_of(searching.life, "delivered")
    assert len(searching.sink.sent) == 1
    assert searching.sink.looks == [NOON + DELAY]  # not before, and no more than needed


def test_what_did_not_arrive_is_sent_again_after_two_looks(searching: Searching) -> None:
    """As far apart as usage may stay unseen, and with the same bytes."""
    searching.sink.script = deque([swallow])
    searching.life.deliver()
    searching.wait(DELAY)
    assert (len(searching.sink.sent), len(searching.sink.looks)) == (1, 1)  # one empty look is not enough
    searching.wait(DELAY)
    assert all_of(searching.life, "delivered")
    assert searching.sink.looks == [NOON + DELAY, NOON + 2 * DELAY]
    first, second = searching.sink.payloads
    assert first == second
    assert set(searching.sink.upstream.taken.values()) == {1}


def test_what_is_seen_late_is_found_by_the_second_look(tmp_path: Path) -> None:
    """The first look came before the sink showed it."""
    late = Searching(tmp_path, shows=DELAY + 1)
    late.life.append(record(1))
    late.sink.script = deque([lose])
    late.life.deliver()
    late.wait(2 * DELAY)
    assert all_of(late.life, "delivered")
    assert len(late.sink.sent) == 1


def test_a_look_that_fails_tells_nothing(searching: Searching) -> None:
    """It is repeated, and counts neither way."""
    searching.sink.script = deque([swallow])
    searching.life.deliver()
    searching.sink.blind = 3
    searching.wait(6 * DELAY)
    assert all_of(searching.life, "delivered")
    assert len(searching.sink.sent) == 2
    assert len(searching.sink.looks) == 5


def test_what_cannot_be_read_back_for_a_day_is_for_a_person(searching: Searching) -> None:
    """L10: it is never sent again without a word from the sink."""
    searching.sink.script = deque([swallow])
    searching.life.deliver()
    searching.sink.blind = 1 << 30
    searching.wait(2 * DAY)
    assert all_of(searching.life, "ambiguous")
    assert len(searching.sink.sent) == 1


def test_what_the_agent_died_with_is_looked_for_and_the_wait_begins_at_the_start(searching: Searching) -> None:
    """The kernel closed the connection when the process ended; nobody knows when that was."""
    life = searching.life

    def die(_sink: FakeSink, _submission: Submission) -> Answer:
        life.dead = True
        return take(_sink, _submission)

    searching.sink.script = deque([die])
    with pytest.raises(KilledError):
        life.deliver()
    life.clock.now += DELAY
    life.kill()
    life.deliver()
    assert searching.sink.looks == []
    searching.wait(DELAY)
    assert all_of(life, "delivered")
    assert len(searching.sink.sent) == 1


def test_an_attempt_that_never_left_leaves_no_doubt(searching: Searching) -> None:
    """It is simply sent again."""
    searching.sink.script = deque([down])
    searching.life.deliver()
    searching.wait(DELAY)
    assert all_of(searching.life, "delivered")
    assert searching.sink.looks == []


def test_explain_tells_that_it_is_looked_for_and_how_it_was_recognised(tmp_path: Path) -> None:
    """L12, from what the spool keeps."""
    searching = Searching(tmp_path)
    searching.life.append(record(1))
    searching.sink.script = deque([lose])
    searching.life.deliver()
    with reading(tmp_path / "data") as db:
        (open_,) = deliveries(db, named(db, "1"))
    assert (open_.state, open_.sought) == ("leaving", True)
    searching.wait(DELAY)
    with reading(tmp_path / "data") as db:
        (done,) = deliveries(db, named(db, "1"))
    assert (done.state, done.why) == ("delivered", "read back: its id")
    assert [a.outcome for a in done.attempts] == ["ambiguous", "found"]


@pytest.mark.parametrize("fate", [lose, swallow])
def test_killed_at_any_step_it_is_billed_once(tmp_path: Path, fate: object) -> None:
    """Each step of the whole life is the last once; another agent goes on."""
    for last in range(1, 40):
        path = tmp_path / f"{last}"
        path.mkdir()
        doomed = Searching(path, Doomed)
        assert isinstance(doomed.life, Doomed)
        doomed.life.last = last
        doomed.sink.step = doomed.life.step
        doomed.sink.script = deque([fate])  # type: ignore[list-item]
        doomed.life.append(record(1))
        for _ in range(20):
            try:
                doomed.life.deliver()
            except KilledError:
                doomed.life.kill()
            doomed.life.clock.now += DELAY // 2
        assert all_of(doomed.life, "delivered"), last
        assert set(doomed.sink.upstream.taken.values()) == {1}, last


# -- the rule, by itself ---------------------------------------------------------------------------------------------


def test_a_wait_of_unknown_length_begins_anew() -> None:
    """After a restart of the machine with a clock that nobody has confirmed, and where time seems to have gone back."""
    doubt = Doubt(NOON)
    assert ripe(doubt, DELAY, Moment(0, NOON + S)) == NOON + DELAY
    assert ripe(doubt, DELAY, Moment(0, NOON - 1)) is None
    assert ripe(doubt, DELAY, Moment(0, NOON + S, 0, NOON + 1)) is None
    assert ripe(doubt, DELAY, Moment(0, NOON + S, 0, 0, NOON + 1)) is None


def test_looks_are_apart_even_where_usage_is_seen_at_once() -> None:
    """A kernel may still be sending what a closed connection had taken."""
    assert ripe(Doubt(NOON, NOON), 0, Moment(0, NOON)) == NOON + APART


def test_what_only_the_second_look_sees_makes_the_first_worthless() -> None:
    """Of a batch: the rest may be shown later still."""
    seen = weigh(submission([1, 2]), Look(found={1: "id"}, why=""), Doubt(NOON, NOON), NOON + DELAY)
    assert {seq: outcome for seq, (outcome, _) in seen.settled.items()} == {1: "delivered", 2: "ambiguous"}


@given(
    looks=st.lists(st.tuples(st.sampled_from(["nothing", "failed", "some", "all"]), st.integers(0, 3)), max_size=9),
    size=st.integers(1, 4),
)
def test_doubt_is_cleared_only_by_two_looks_that_told_all_and_saw_nothing(
    looks: Sequence[tuple[str, int]], size: int
) -> None:
    """L10: whatever the looks say, and in which order."""
    doubt, now, empty = Doubt(NOON), NOON, 0
    left = tuple(range(1, size + 1))
    for what, apart in looks:
        now += DELAY + apart * DAY // 4
        found = {"some": left[: len(left) // 2], "all": left}.get(what, ())
        look = Look(found=dict.fromkeys(found, "id"), why="", failed=what == "failed")
        seen: Seen = weigh(submission(left), look, doubt, now)
        assert {seq for seq, (outcome, _) in seen.settled.items() if outcome == "delivered"} == set(found)
        remaining = tuple(seq for seq in left if seq not in seen.settled)
        empty += what in ("nothing", "some") and not (what == "some" and doubt.empty is not None and found)
        if not remaining:
            return
        if seen.doubt is None:
            assert empty >= 2
            assert not look.found
            assert not look.failed
            return
        assert not (look.failed and now - NOON >= UNREAD)
        doubt, left = seen.doubt, remaining
