"""Laws of the summary basis, whatever a kubelet shows: never more than what was used, and all of it once it is shown.

The model: a pod uses CPU in its cgroup. A kubelet shows readings of it that are late, older, zero, missing, the sum of
the containers alone, listed twice, under a lost or a later start. The agent restarts, and its disk is full at times.
"""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.sources.kubernetes.summaries import Agent, S, at, pod

SHOWN = (
    "fresh",
    "fresh",
    "stale",
    "older",
    "zero",
    "sum",
    "absent",
    "no cpu",
    "twice",
    "no start",
    "restart",
    "full disk",
    "no answer",
    "new sandbox",
)
Step = tuple[str, int]
steps = st.lists(st.tuples(st.sampled_from(SHOWN), st.integers(0, 40)), max_size=25)


class Truth:
    """One pod, and what the kubelet makes of it."""

    def __init__(self, agent: Agent, *, started: int, used: int) -> None:
        self.agent = agent
        self.started, self.used = started, used
        self.read: list[tuple[int, int]] = []  # (boottime in s, ns) of housekeepings
        self.shown = (started, 0)
        self.met = False

    @property
    def now(self) -> int:
        return self.agent.clock // S

    def use(self, more: int) -> None:
        self.used += more * S // 8

    def entry(self, how: str) -> list[dict[str, Any]]:
        """What the answer has of it."""
        if how in ("fresh", "twice", "no start", "full disk", "new sandbox"):
            self.shown = (self.now - 2, self.used)
            self.read.append(self.shown)
        if how == "absent":
            return []
        if how == "no cpu":
            return [pod(started=at(self.started))]
        if how == "zero":
            return [pod(started=at(self.started), cpu=(at(self.now - 1), 0))]
        if how == "sum":
            part = self.used * 3 // 4
            return [pod(started=at(self.started), cpu=(at(self.now - 1), part), containers=part)]
        time, value = self.read[len(self.read) // 2] if how == "older" and self.read else self.shown
        if how == "new sandbox" and self.met:  # before, nobody can tell that it is not a pod from before our time
            self.started = self.now - 3
        start = None if how == "no start" and self.met else at(self.started)
        self.met = True
        said = pod(started=start, cpu=(at(time), value))
        return [said, pod(started=at(self.started), cpu=(at(self.started), 0))] if how == "twice" else [said]

    def live(self, step: Step, after: Callable[[], None] = lambda: None) -> None:
        how, more = step
        self.use(more)
        if how == "restart":
            self.agent.restart()
            return
        self.agent.clock += 15 * S
        if how == "no answer":
            return
        self.agent.ask(*self.entry(how))
        self.agent.sweep(commits=how != "full disk")
        after()


@given(steps)
@settings(max_examples=200)
def test_a_new_pod_is_billed_for_what_it_used(script: list[Step]) -> None:
    """From zero, and never more than it has used; exactly that when it is shown afresh."""
    agent = Agent()
    agent.hear()
    truth = Truth(agent, started=agent.clock // S + 1, used=0)

    def law() -> None:
        assert agent.billed() <= truth.used

    for step in script:
        truth.live(step, law)
    truth.live(("fresh", 8))
    truth.live(("fresh", 8))
    assert agent.billed() == truth.used
    assert all(u.quantity >= 0 for u in agent.usages)


@given(steps, st.booleans())
@settings(max_examples=200)
def test_an_old_pod_is_billed_for_what_it_used_since_it_was_first_seen(script: list[Step], away: bool) -> None:
    """Also where the first look found it in a back-off, or its counter not known yet. Never more; all, if seen well."""
    agent = Agent()
    truth = Truth(agent, started=500, used=1000 * S)
    before = truth.used
    if away:
        agent.hear(pod(2, cpu=(at(1000), 7)))
    else:
        truth.live(("fresh", 0))

    def law() -> None:
        assert agent.billed() <= truth.used - before

    for step in script:
        truth.live(step, law)
    truth.live(("fresh", 8))
    truth.live(("fresh", 8))
    law()
    if not away:
        assert agent.billed() == truth.used - before


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 100), st.integers(0, 3)), min_size=1, max_size=30))
def test_any_fall_under_one_start_is_made_good_and_never_billed(script: list[tuple[int, int, int]]) -> None:
    """Values that fall to anything, for however long, and with whatever times."""
    agent = Agent()
    used = 100
    agent.hear(pod(cpu=(at(1010), used)))
    for more, percent, late in script:
        used += more
        now = agent.clock // S + 15
        agent.hear(pod(cpu=(at(now - 20 * late), used * percent // 100)))
        assert agent.billed() <= used - 100
    agent.hear(pod(cpu=(at(agent.clock // S + 14), used)))
    assert agent.billed() == used - 100


@given(st.lists(st.tuples(st.sampled_from(("shown", "absent", "restart")), st.integers(1, 60)), max_size=30))
def test_a_pod_that_is_given_up_and_returns_never_pays_twice(script: list[tuple[str, int]]) -> None:
    """Absent for hours, over restarts: less may be billed than was used, never more."""
    agent = Agent()
    agent.hear()
    used, started = 0, agent.clock // S + 1
    for how, minutes in script:
        used += minutes * S
        if how == "restart":
            agent.restart()
        for _ in range(minutes if how == "absent" else 1):
            shown = [pod(started=at(started), cpu=(at(agent.clock // S + 59), used))] if how == "shown" else []
            agent.hear(*shown, after=60)
        assert agent.billed() <= used


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(1, 40)), min_size=1, max_size=20))
def test_spans_follow_each_other_and_hold_all_of_the_time(script: list[tuple[int, int]]) -> None:
    """Durations are the blocks' own: from the first reading to the last, no second twice and none left out."""
    agent = Agent()
    agent.hear(pod(cpu=(at(1005), 5)))
    value, time = 5, 1005
    for more, later in script:
        value, time = value + more, time + later
        agent.clock = max(agent.clock, (time + 1) * S)
        agent.hear(pod(cpu=(at(time), value)), after=1)
    spans = [(start, end) for start, end, _ in agent.spans()]
    assert spans[0][0] == 1005
    assert spans[-1][1] == time
    assert all(left[1] == right[0] for left, right in pairwise(spans))
