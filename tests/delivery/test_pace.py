"""DESIGN §7: one retry policy for every sink. Capped exponential, full jitter, Retry-After, a circuit, a rate."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.delivery.pace import CAP, FIRST, TRIPS, Pace
from tests.delivery.fakes import S

NEARLY_ONE = 1 - 1e-9


def paced(chance: float = NEARLY_ONE, concurrency: int = 8, rate: int | None = None) -> Pace:
    """With a chance that is always the same."""
    return Pace(concurrency, rate, lambda: chance)


def tripped(pace: Pace, now: int = 0) -> int:
    """Fail until the circuit opens; when it may close."""
    for _ in range(TRIPS):
        pace.failed(now, 1, None, blocked=False)
    return pace.opens_at


def test_there_is_room_for_as_many_as_may_be_under_way() -> None:
    """Concurrency is a bound."""
    pace = paced(concurrency=3)
    assert [pace.room(0, under_way) for under_way in range(5)] == [3, 2, 1, 0, 0]


def test_failures_in_a_row_open_the_circuit_for_all() -> None:
    """One failure waits by itself; five say that the back end is not there."""
    pace = paced()
    for _ in range(TRIPS - 1):
        pace.failed(0, 1, None, blocked=False)
        assert (pace.room(0, 0), pace.tripped) == (8, False)
    pace.failed(0, 1, None, blocked=False)
    assert (pace.room(0, 0), pace.tripped) == (0, True)


def test_an_open_circuit_lets_one_try_and_a_success_closes_it() -> None:
    """A back end that comes back is not met by all at once until it has answered."""
    pace = paced()
    at = tripped(pace)
    assert (pace.room(at - 1, 0), pace.room(at, 0), pace.room(at, 1)) == (0, 1, 0)
    pace.failed(at, 2, None, blocked=False)
    again = pace.opens_at
    assert (pace.room(again - 1, 0), pace.room(again, 0)) == (0, 1)
    assert again - at > at
    pace.succeeded()
    assert (pace.room(again, 0), pace.tripped) == (8, False)


def test_a_success_between_failures_keeps_the_circuit_closed() -> None:
    """In a row, not in sum."""
    pace = paced()
    for _ in range(10 * TRIPS):
        pace.failed(0, 1, None, blocked=False)
        pace.succeeded()
    assert pace.room(0, 0) == 8


def test_what_was_under_way_when_the_circuit_opened_does_not_open_it_further() -> None:
    """Thirty-two that fail together are one outage, not thirty-two: the next try comes within a second."""
    pace = paced(concurrency=32)
    for _ in range(32):
        pace.failed(0, 1, None, blocked=False)
    assert pace.opens_at <= FIRST << 1


@pytest.mark.parametrize("chance", [0.0, NEARLY_ONE])
def test_retry_after_is_obeyed_by_the_submission_and_by_all_others(chance: float) -> None:
    """Jitter may lengthen it, never shorten it."""
    pace = paced(chance)
    assert pace.failed(5 * S, 1, 30 * S, blocked=False) >= 30 * S
    assert (pace.room(35 * S - 1, 0), pace.room(35 * S, 0)) == (0, 8)


def test_an_answer_that_comes_beside_a_retry_after_does_not_undo_it() -> None:
    """It began before the back end asked for a pause."""
    pace = paced()
    pace.failed(0, 1, 30 * S, blocked=False)
    pace.succeeded()
    assert pace.room(29 * S, 0) == 0


def test_a_shorter_retry_after_does_not_undo_a_longer_one() -> None:
    """Of several answers the longest pause holds."""
    pace = paced()
    pace.failed(0, 1, 30 * S, blocked=False)
    pace.failed(0, 1, 2 * S, blocked=False)
    assert pace.opens_at == 30 * S


def test_a_sink_that_is_blocked_is_tried_by_one_at_once() -> None:
    """Wrong credentials are not repaired by trying them eight at a time."""
    pace = paced()
    pace.failed(0, 1, None, blocked=True)
    assert (pace.room(0, 0), pace.tripped) == (0, True)
    assert pace.room(pace.opens_at, 0) == 1


@given(st.floats(0, 1, exclude_max=True), st.integers(0, 10_000))
def test_a_wait_is_anything_up_to_the_exponential_and_never_beyond_the_cap(chance: float, attempts: int) -> None:
    """Full jitter; also after a week of failures."""
    wait = paced(chance).failed(0, attempts, None, blocked=False)
    assert 0 <= wait <= min(CAP, FIRST * 2 ** min(attempts, 60))
    assert paced(0.0).failed(0, attempts, None, blocked=False) == 0


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 400)), max_size=60))
def test_no_outage_keeps_a_sink_shut_longer_than_the_cap(story: list[tuple[bool, int]]) -> None:
    """However long it lasted: it is tried again within five minutes."""
    pace, now = paced(), 0
    for works, pause in story:
        if works:
            pace.succeeded()
        else:
            pace.failed(now, 3, None, blocked=False)
        assert pace.opens_at <= now + CAP
        now += pause * S


def test_slots_are_as_far_apart_as_the_rate_says() -> None:
    """Submissions per second, and no burst after a silence."""
    pace = paced(rate=10)
    assert [pace.slot(S) for _ in range(3)] == [S, S + S // 10, S + 2 * S // 10]
    assert [pace.slot(9 * S) for _ in range(2)] == [9 * S, 9 * S + S // 10]
    free = paced()
    assert [free.slot(S) for _ in range(3)] == [S, S, S]
