"""ACCOUNTING §2: sweeps, the tree, and books that close (law L1)."""

import pytest

from agent.model import NS_PER_MS, Reading, Resource, Sample
from agent.usage import TICK, settle
from tests.laws.scene import (
    CORES,
    MINUTE,
    NOON,
    Line,
    Measuring,
    S,
    booked,
    customer,
    group,
    reading,
    swept,
)

ANCHOR = group("c.slice")
ACME = group("c.slice/acme.slice", ANCHOR, unit="acme.slice")
JOB = group("c.slice/acme.slice/job", ACME, inode=2)
BETA = group("c.slice/beta.slice", ANCHOR, inode=3, unit="beta.slice")
CUSTOMERS = (customer("acme", unit="acme.slice"), customer("beta", unit="beta.slice"))


def at(resource: Resource, value: int, taken: int, *, gone: bool = False) -> Reading:
    """A reading of CPU time at its own instant."""
    return Reading(resource, (Sample("cpu.time", resource.key, value, taken),), gone)


def test_every_delta_of_a_sweep_shares_one_span_so_that_a_window_never_books_9_2_of_6_0_seconds() -> None:
    """§2: [split each by its own span and 9.2 s are booked of 6.0].

    Sweeps at 45 s and 75 s. The anchor moved 6.0 s, of which a job born at 59 s used all and died at 60.5 s. By its own
    span two thirds of the job's 6 s lie before the edge; by the sweep's span a half, as of the anchor's.
    """
    line = Line(*CUSTOMERS)
    line.sweep(swept(45 * S, [at(ANCHOR, 0, 45 * S), at(ACME, 0, 45 * S)]))
    commit = line.sweep(
        swept(
            75 * S,
            [at(ANCHOR, 6 * S, 75 * S), at(ACME, 6 * S, 75 * S), at(JOB, 6 * S, 60 * S + S // 2, gone=True)],
        )
    )
    assert sum(r.quantity for r in line.records) == 3 * S
    assert line.open("acme") + line.open(None) == 3 * S
    (balance,) = commit.balances
    assert (balance.moved, balance.booked, balance.change) == (6 * S, 6 * S, 0)


def test_a_newborns_usage_from_zero_spans_the_sweep_too() -> None:
    """§2: every delta of a sweep, a newborn's and the residual's too, spans [previous stamp, this stamp)."""
    measure = Measuring()
    measure(swept(10 * S, [at(ANCHOR, 0, 10 * S)]))
    out = measure(swept(20 * S, [at(ANCHOR, 9, 20 * S + 1), at(ACME, 7, 20 * S + 2)]))
    assert {(u.resource.name, u.start, u.end) for u in out.usages} == {
        (ANCHOR.name, NOON + 10 * S, NOON + 20 * S),
        (ACME.name, NOON + 10 * S, NOON + 20 * S),
    }


def test_other_meters_use_their_samples_own_times() -> None:
    """§2: only `books: exact` meters share the sweep's span."""
    measure = Measuring()
    measure(swept(10 * S, [reading(ACME, 11 * S, io=5)]))
    out = measure(swept(20 * S, [reading(ACME, 23 * S, io=9)]))
    assert [(u.start, u.end, u.quantity) for u in out.usages] == [(NOON + 11 * S, NOON + 23 * S, 4)]


def test_a_parent_read_last_would_over_book_and_read_first_does_not() -> None:
    """§2: parent-last over-booked 18.7 ms in 6 s; parent-first leaves the skew in flight and pays it back.

    The job runs all the time. Read 18.7 ms after its parent, it is ahead by so much: the books hold that as in_flight,
    and once everything is still the sum is the anchor's, to the nanosecond.
    """
    skew, measure = 18_700_000, Measuring()
    measure(swept(0, [at(ANCHOR, 0, 0), at(ACME, 0, 0), at(JOB, 0, 0)]))
    out = measure(swept(6 * S, [at(ANCHOR, 6 * S, 6 * S), at(ACME, 6 * S, 6 * S), at(JOB, 6 * S + skew, 6 * S + skew)]))
    (balance,) = out.balances
    assert (balance.booked, balance.in_flight, balance.overrun) == (6 * S + skew, -skew, 0)
    done = 6 * S + skew
    out = measure(swept(12 * S, [at(r, done, 12 * S) for r in (ANCHOR, ACME, JOB)]))
    (balance,) = out.balances
    assert (balance.moved, balance.booked, balance.in_flight) == (skew, 0, 0)


def test_a_parent_read_last_shows_as_unowned_usage_that_its_children_book_again() -> None:
    """§2, why the order matters: what the parent has beyond its children is booked to its owner at once.

    Parent-last, the same 18.7 ms are booked to the parent's owner now and to the child's in the next sweep. The debt
    makes it good only when the parent has usage of its own again; parent-first, nobody is booked too much at all.
    """
    skew, measure = 18_700_000, Measuring()
    measure(swept(0, [at(ANCHOR, 0, 0), at(ACME, 0, 0)]))
    out = measure(swept(6 * S, [at(ANCHOR, 6 * S + skew, 6 * S + skew), at(ACME, 6 * S, 6 * S)]))
    assert booked(out) == {ANCHOR.name: skew, ACME.name: 6 * S}
    out = measure(swept(12 * S, [at(r, 6 * S + skew, 12 * S) for r in (ANCHOR, ACME)]))
    assert booked(out) == {ANCHOR.name: 0, ACME.name: skew}
    assert out.balances[0].in_flight == -skew


@pytest.mark.parametrize(("charged", "overrun"), [(3_985_000, 0), (CORES * TICK, 0), (CORES * TICK + 1, 1)])
def test_in_flight_is_bounded_by_a_read_and_a_tick_on_every_core(charged: int, overrun: int) -> None:
    """§2: the kernel charges per tick (3.985 ms were seen against 0.084); beyond read time + tick: `books_overrun`."""
    measure = Measuring()
    measure(swept(0, [at(ANCHOR, 0, 0), at(ACME, 0, 0)]))
    out = measure(swept(S, [at(ANCHOR, 0, S), at(ACME, charged, S)]))
    assert out.balances[0].in_flight == -charged
    assert out.balances[0].overrun == overrun


def test_a_dead_childs_tail_stays_with_its_customers_slice() -> None:
    """§2: a customer's slice keeps the total of its short-lived units, also what the last reading missed."""
    line = Line(*CUSTOMERS)
    line.sweep(swept(0, [at(ANCHOR, 0, 0), at(ACME, 0, 0)]))
    line.sweep(swept(15 * S, [at(ANCHOR, 80, 15 * S), at(ACME, 80, 15 * S), at(JOB, 50, 14 * S, gone=True)]))
    line.sweep(swept(MINUTE, [at(ANCHOR, 80, MINUTE), at(ACME, 80, MINUTE)]))
    assert line.billed("acme") == 80
    assert line.billed(None) == 0


def test_a_child_that_was_never_read_is_in_its_customers_slice_all_the_same() -> None:
    """§2: a group may vanish the moment it empties; a parent that belongs to one customer keeps it exact."""
    line = Line(*CUSTOMERS)
    line.sweep(swept(0, [at(ANCHOR, 0, 0), at(ACME, 0, 0)]))
    line.sweep(swept(MINUTE, [at(ANCHOR, 33, MINUTE), at(ACME, 33, MINUTE)]))
    assert (line.billed("acme"), line.billed(None)) == (33, 0)


def test_a_dead_childs_tail_at_an_unowned_parent_is_unattributed() -> None:
    """§2: at an unowned node it is `unattributed`, and the books close over it."""
    line = Line(*CUSTOMERS)
    line.sweep(swept(0, [at(ANCHOR, 0, 0), at(ACME, 0, 0)]))
    line.sweep(swept(15 * S, [at(ANCHOR, 30, 15 * S), at(ACME, 25, 14 * S, gone=True)]))
    line.cut()
    assert (line.billed("acme"), line.billed(None)) == (25, 5)


def test_a_child_that_died_unseen_leaves_its_tail_to_the_parent_and_is_booked_once() -> None:
    """§2: absent from the listing without a last reading (it died while the agent was down)."""
    measure = Measuring()
    measure(swept(0, [at(ANCHOR, 0, 0), at(ACME, 0, 0), at(JOB, 0, 0)]))
    measure(swept(S, [at(ANCHOR, 40, S), at(ACME, 40, S), at(JOB, 40, S)]))
    out = measure(swept(2 * S, [at(ANCHOR, 47, 2 * S), at(ACME, 47, 2 * S)]))
    assert booked(out) == {ANCHOR.name: 0, ACME.name: 7}
    assert JOB.key in out.ended


def test_a_dying_child_leaves_its_debt_to_its_parent() -> None:
    """§2: in_flight does not die with the node that carries it, or its usage would be booked twice."""
    leaf, measure = group("c.slice/acme.slice/job/leaf", JOB, inode=9), Measuring()
    nodes = (ANCHOR, ACME, JOB, leaf)
    measure(swept(0, [at(r, 0, 0) for r in nodes]))
    measure(swept(S, [*(at(r, 10, S) for r in (ANCHOR, ACME, JOB)), at(leaf, 16, S)]))  # leaf is 6 ahead
    readings = [*(at(r, 16, 2 * S) for r in (ANCHOR, ACME)), at(JOB, 10, S, gone=True), at(leaf, 16, S, gone=True)]
    out = measure(swept(2 * S, readings))
    assert sum(booked(out).values()) == 0
    assert out.balances[0].in_flight == 0


def test_a_last_reading_below_a_parent_that_was_not_read_is_not_booked_again() -> None:
    """L1: [2 booked of 1]. A child's last reading outlives its parent's: a reload left the parent out."""
    measure = Measuring()
    measure(swept(0, [at(r, 0, 0) for r in (ANCHOR, ACME, JOB)]))
    out = measure(swept(S, [at(ANCHOR, 5, S), at(JOB, 5, S, gone=True)]))
    assert booked(out) == {ANCHOR.name: 0, JOB.name: 5}


def test_an_anchor_that_dies_closes_to_a_gap_with_its_bound() -> None:
    """§2: what it counted between its last reading and its end is unknown, at most the time on every core."""
    line = Line(*CUSTOMERS)
    line.sweep(swept(0, [at(ANCHOR, 0, 0)]))
    line.sweep(swept(15 * S, [at(ANCHOR, 90, 14 * S, gone=True)]))
    (gap,) = [r for r in line.records if r.kind == "gap"]
    assert (gap.group, gap.reason, gap.bound, gap.quantity) == ({"anchor": ANCHOR.name}, "anchor_gone", CORES * S, 0)
    assert (gap.start, gap.end) == (NOON + 14 * S, NOON + 15 * S)
    line.cut()
    assert line.billed(None) == 90


def test_an_anchor_with_a_new_inode_starts_its_own_books() -> None:
    """§2: the second incarnation counts from zero, and its books close by themselves."""
    measure, again = Measuring(), group("c.slice", inode=55)
    measure(swept(0, [at(ANCHOR, 100, 0)]))
    out = measure(swept(15 * S, [at(again, 7, 15 * S), at(ANCHOR, 110, 14 * S, gone=True)]))
    (balance,) = out.balances
    assert balance.booked == balance.moved == 17
    out = measure(swept(16 * S, [at(again, 9, 16 * S)]))
    assert out.balances[0].moved == out.balances[0].booked == 2


def test_a_dead_anchors_debt_is_no_debt_of_its_successor() -> None:
    """§2: new inode, own books: in_flight begins at zero and cannot raise `books_overrun`."""
    measure, again = Measuring(), group("c.slice", inode=55)
    measure(swept(0, [at(ANCHOR, 0, 0), at(ACME, 0, 0)]))
    measure(swept(S, [at(ANCHOR, 0, S), at(ACME, 9 * NS_PER_MS, S)]))
    measure(swept(2 * S, [at(ANCHOR, 0, S, gone=True), at(ACME, 9 * NS_PER_MS, S, gone=True)]))
    out = measure(swept(3 * S, [at(again, 5, 3 * S)]))
    assert [(b.in_flight, b.overrun) for b in out.balances] == [(0, 0)]


def test_a_match_owns_its_whole_subtree() -> None:
    """§2: the job below acme's slice has no label of its own that matches."""
    line = Line(*CUSTOMERS)
    line.sweep(swept(0, [at(r, 0, 0) for r in (ANCHOR, ACME, JOB)]))
    line.sweep(swept(MINUTE, [at(ANCHOR, 9, MINUTE), at(ACME, 8, MINUTE), at(JOB, 5, MINUTE)]))
    assert (line.billed("acme"), line.billed(None)) == (8, 1)


def test_nested_different_customers_bill_the_outer_owner_and_are_counted() -> None:
    """§2: the inner group matches nothing."""
    inner = group("c.slice/acme.slice/beta", ACME, inode=4, unit="beta.slice")
    line = Line(*CUSTOMERS)
    line.sweep(swept(0, [at(r, 0, 0) for r in (ANCHOR, ACME, inner)]))
    line.sweep(swept(MINUTE, [at(ANCHOR, 9, MINUTE), at(ACME, 9, MINUTE), at(inner, 9, MINUTE)]))
    assert (line.billed("acme"), line.billed("beta")) == (9, 0)
    assert line.attribution.conflicts["nested_claim"] >= 1


def test_nesting_inside_one_customer_is_legal_and_billed_once() -> None:
    """§2: legal inside one customer or under an unowned parent."""
    inner = group("c.slice/acme.slice/sub", ACME, inode=4, unit="acme.slice")
    line = Line(*CUSTOMERS)
    line.sweep(swept(0, [at(r, 0, 0) for r in (ANCHOR, ACME, inner)]))
    line.sweep(swept(MINUTE, [at(ANCHOR, 9, MINUTE), at(ACME, 9, MINUTE), at(inner, 6, MINUTE)]))
    assert line.billed("acme") == 9
    assert line.attribution.conflicts == {}


def test_a_group_that_a_tenant_could_have_named_matches_nothing() -> None:
    """§2: uid 65534 made `acme-web.service` in a delegated directory; without labels its nearest ancestor owns it."""
    forged = group("c.slice/beta.slice/acme.slice", BETA, inode=6)  # named so, but labels are empty
    line = Line(*CUSTOMERS, customer("name", cgroup="**/acme.slice"))
    line.sweep(swept(0, [at(r, 0, 0) for r in (ANCHOR, BETA, forged)]))
    line.sweep(swept(MINUTE, [at(ANCHOR, 9, MINUTE), at(BETA, 9, MINUTE), at(forged, 9, MINUTE)]))
    assert {r.customer for r in line.records} == {"beta"}


def test_an_unowned_unit_is_unattributed_and_system_is_what_config_names_so() -> None:
    """§2: each under its own kind; neither is a customer's."""
    cron = group("c.slice/cron", ANCHOR, inode=7, unit="cron.service")
    stray = group("c.slice/stray", ANCHOR, inode=8, unit="stray.service")
    line = Line(*CUSTOMERS, system=[{"unit": "cron.*"}])
    line.sweep(swept(0, [at(r, 0, 0) for r in (ANCHOR, cron, stray)]))
    line.sweep(swept(MINUTE, [at(ANCHOR, 9, MINUTE), at(cron, 4, MINUTE), at(stray, 5, MINUTE)]))
    assert {(r.kind, r.quantity) for r in line.records} == {("system", 4), ("unattributed", 5)}


def test_settle_books_the_rise_above_all_it_ever_booked() -> None:
    """§2's mark: a lower bound, so reading skew never over-books."""
    assert settle(10, 4, 0) == (6, 0)
    assert settle(10, 14, 0) == (0, -4)
    assert settle(10, 3, -4) == (3, 0)
    assert settle(1, 0, -4) == (0, -3)
