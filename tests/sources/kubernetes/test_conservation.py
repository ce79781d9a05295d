"""Golden: the churn that real nodes had (captures/conservation-*.json), metered to the nanosecond.

There, polling each 15 s saw half of it. Here the pods of those runs live again on a make-believe node: made, started,
ended and removed as realkube §3 measured it, with the CPU that they were seen to use.
"""

import json
import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Struct

from agent.model import NS_PER_MS, NS_PER_S
from agent.usage import Cursor, Track, measure
from tests.sources.kubernetes.node import Node, uid

CAPTURES = Path(__file__).parent / "captures"
CPU = frozenset({"cpu.time"})


class Life(Struct):
    """One pod: when it is made, how long its container runs after 0.4 s of setting up, and how much CPU it uses."""

    made: int
    runs: int
    uses: int

    @property
    def ended(self) -> int:
        return self.made + 400 * NS_PER_MS + self.runs

    @property
    def removed(self) -> int:
        return self.ended + 1400 * NS_PER_MS  # at the earliest

    def used(self, now: int) -> int:
        """Its counter."""
        return self.uses * min(max(now - self.made, 0), self.ended - self.made) // (self.ended - self.made)


def meter(node: Node, lives: list[Life]) -> tuple[dict[str, int], int, int]:
    """Let them live, sweep each 15 s and when one dies: what was booked by pod, what not, and what the anchor moved."""
    source = node.source(wanted=CPU)
    tracks, cursor = dict[str, Track](), None
    booked, rest = dict[str, int](), 0
    alive: dict[int, str] = {}
    start = node.clock.now
    last = max(life.removed for life in lives) + 16 * NS_PER_S
    events = {time for life in lives for time in (life.made, life.removed)}
    for now in sorted(events.union(range(0, last, NS_PER_S))):
        node.clock.now = start + now
        for number, life in enumerate(lives):
            if number in alive and now >= life.removed:
                node.machine.remove(alive.pop(number))
            elif life.made <= now < life.removed:
                if number not in alive:
                    alive[number] = node.pod(uid(number), "besteffort")
                node.machine.usage(alive[number], life.used(now))
        node.machine.usage(node.anchor, sum(life.used(now) for life in lives))
        if source.read() or now % (15 * NS_PER_S) == 0:
            sweep = source.sweep()
            out = measure(
                sweep, cursor, tracks, {m.name: m for m in source.meters}, anchor=0, interval=10**12, from_zero=False
            )
            cursor = Cursor(sweep.boot, sweep.stamp, out.at, sweep.listing, sweep.basis, sweep.scope)
            for usage in out.usages:
                of = usage.resource.labels.get("pod_uid")
                if of is None:
                    rest += usage.quantity
                else:
                    booked[of] = booked.get(of, 0) + usage.quantity
            assert all(balance.overrun == 0 for balance in out.balances)
    source.close()
    return booked, rest, sum(life.uses for life in lives)


@pytest.mark.parametrize("capture", ["conservation-burst", "conservation-burst-2", "conservation-20s"])
def test_every_pod_is_booked_what_its_counter_ended_with(tmp_path: Path, capture: str) -> None:
    """As many pods as there were, of the CPU that they had: Σ is what the anchor moved, and nothing is left over."""
    run = json.loads((CAPTURES / f"{capture}.json").read_text())
    cpu, chance = run["churn_pod_cpu_s_by_inotify"], random.Random(run["kubepods_delta_s"])
    lives = [
        Life(
            NS_PER_S + int(number * run["every_s"] * 1000) * NS_PER_MS,
            (20_000 if capture.endswith("20s") else 600) * NS_PER_MS,
            int(chance.triangular(cpu["min"], cpu["max"], cpu["median"]) * NS_PER_S),
        )
        for number in range(run["churn_pods"])
    ]
    booked, rest, moved = meter(Node(tmp_path, "v1"), lives)
    assert booked == {uid(number): life.uses for number, life in enumerate(lives)}
    assert (sum(booked.values()), rest) == (moved, 0)
    assert run["direct_cgroup_1s_first_sight_full"]["lost_%"] == 0.0, "as the real node saw it"


@settings(max_examples=8, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 400), st.integers(0, 200), st.integers(0, 10**10)), min_size=1, max_size=12))
def test_any_churn_is_booked_in_full(
    tmp_path_factory: pytest.TempPathFactory, lives: list[tuple[int, int, int]]
) -> None:
    """Whatever comes and goes when, on any of the layouts."""
    node = Node(tmp_path_factory.mktemp("node"), "v1")
    pods = [Life(made * 100 * NS_PER_MS, runs * 100 * NS_PER_MS, uses) for made, runs, uses in lives]
    booked, rest, moved = meter(node, pods)
    assert {of: used for of, used in booked.items() if used} == {uid(n): p.uses for n, p in enumerate(pods) if p.uses}
    assert (sum(booked.values()), rest) == (moved, 0)
    node.machine.wipe()
