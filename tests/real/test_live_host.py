"""The agent on this machine's own kernel: what it delivers is what the kernel counted, to the nanosecond."""

import time
from pathlib import Path

import pytest

from tests.faults.process import Agent, Delivered, configuration, in_flight
from tests.faults.report import publish, table
from tests.real.burners import NS_PER_S, anchor

pytestmark = pytest.mark.real


@pytest.mark.timeout(120)
def test_every_customer_is_billed_what_the_kernel_counted_for_their_own_groups(tmp_path: Path) -> None:
    """A: a slice with a dying crowd inside. B: one group. C, D: groups without a slice, gone at once. And nobody's."""
    with anchor() as top:
        a, b, nobody = top.child("a.slice"), top.child("b.slice"), top.child("nobody")
        own = a.child("steady")
        customers = {"a": [a.name], "b": [b.name], "c": [f"{top.name}/c-*"], "d": [f"{top.name}/d-*"]}
        agent = Agent(configuration(tmp_path, top.name, customers)).ready()
        baseline = {group.name: group.used() for group in (top, a, b, nobody)}
        assert set(baseline.values()) == {0}  # nothing ran there before the agent's first sight
        for group in (own, b, nobody):
            group.burn_steadily()
        deaths_of_a, deaths_of_c, deaths_of_nobody = [], [], []
        for n in range(12):
            deaths_of_a.append(a.live_shortly(f"job-{n}", 0.1))
            deaths_of_c.append(top.live_shortly(f"c-{n}", 0.1))
            deaths_of_nobody.append(top.live_shortly(f"n-{n}", 0.03))
            time.sleep(0.2)
        death_of_d = top.live_shortly("d-long", 1.5)
        for group in (own, b, nobody):
            group.end()
        truth = {"a": a.used(), "b": b.used(), "c": sum(deaths_of_c), "d": death_of_d}
        truth_of_nobody = nobody.used() + sum(deaths_of_nobody)
        moved = top.used()
        assert agent.stop() == 0, agent.said()

    delivered, audit = Delivered(tmp_path / "out"), Delivered(tmp_path / "audit")
    for directory in (delivered, audit):
        directory.check()
    billed = {customer: delivered.total("usage", customer) for customer in truth}
    unattributed, debt = audit.total("unattributed"), in_flight(tmp_path / "data")
    missed = {customer: truth[customer] - billed[customer] for customer in ("c", "d")}
    residual = unattributed - truth_of_nobody - sum(missed.values())
    rows = {
        f"customer {c}": {"kernel": truth[c], "billed": billed[c], "difference": billed[c] - truth[c]} for c in truth
    }
    rows["nobody"] = {"kernel": truth_of_nobody, "billed": unattributed, "difference": unattributed - truth_of_nobody}
    rows["in flight"] = {"kernel": 0, "billed": debt, "difference": debt}
    rows["anchor"] = {"kernel": moved, "billed": sum(billed.values()) + unattributed + debt, "difference": 0}
    lines = [
        *table(rows, "ns of CPU"),
        f"a: {len(deaths_of_a)} groups lived and died inside its slice",
        f"c: {len(deaths_of_c)} groups, each gone as it ended; unread, so unattributed: {missed['c']}",
        f"d: one group of 1.5 s, gone as it ended; unread, so unattributed: {missed['d']}",
        f"residual beyond all that: {residual}, {residual / moved:.4%} of the anchor",
    ]
    publish("live host", lines)
    assert sum(billed.values()) + unattributed + debt == moved
    assert billed["a"] == truth["a"] >= NS_PER_S
    assert billed["b"] == truth["b"] > 0
    assert 0 <= missed["c"] < truth["c"]
    assert 0 <= missed["d"] <= NS_PER_S
    assert abs(residual) * 1000 <= moved
    assert audit.total("usage", "a") == billed["a"]  # a copy has what billing has, and the rest beside it
    assert "overrun" not in agent.said()
