"""Whatever the schedule of faults: the back end's total is the true one, or the difference is visibly held.

`make prop-sinks SINK=paigo N=500` runs N schedules of one sink, or of every one, and prints what they came to.
"""

import os
from collections.abc import Sequence

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.sinks.adapters import ADAPTERS
from tests.sinks.property import CUSTOMERS, DIMENSIONS, Schedule, Tally, holds, run

pytestmark = pytest.mark.timeout(600)  # many examples on a slow machine

COUNT = int(os.environ.get("PROP_SINKS", "0"))
NAMES = [name for name in ADAPTERS if os.environ.get("PROP_SINK", "") in ("", name)]
HOUR = 3600.0
EXAMPLES = settings(max_examples=COUNT) if COUNT else settings()

owners = st.tuples(st.sampled_from(sorted(CUSTOMERS)), st.sampled_from(sorted(DIMENSIONS)))
uses = st.lists(owners, min_size=1, max_size=9)
turns = st.lists(st.sampled_from([*[""] * 6, "dies before", "dies after"]), max_size=20)
gaps = st.lists(st.sampled_from([0.0, 60.0, 2 * HOUR]), max_size=4)


@pytest.mark.parametrize("name", NAMES)
def test_the_back_ends_total_is_the_true_one_or_the_difference_is_held(name: str) -> None:
    """L2, L8, L9, L10 for every kind of sink."""
    adapter, tally = ADAPTERS[name], Tally()

    @settings(EXAMPLES, suppress_health_check=list(HealthCheck), deadline=None)
    @given(uses=uses, faults=st.lists(st.sampled_from(adapter.faults or [""]), max_size=14), turns=turns, gaps=gaps)
    def law(uses: Sequence[tuple[str, str]], faults: list[str], turns: list[str], gaps: list[float]) -> None:
        fates, totals = run(adapter, Schedule(uses, faults if adapter.faults else [], turns, gaps))
        holds(adapter, fates, totals, tally)

    law()
    print(
        f"\n{name}: {tally.schedules} schedules of {tally.records} records: {tally.lost} lost, {tally.doubled} doubled,"
        f" {tally.held} held"
    )
