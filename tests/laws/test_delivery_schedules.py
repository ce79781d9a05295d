"""Laws L3, L8, L9, L10 by Hypothesis: schedules of what a billing system, crashes, reloads and time do to deliveries.

The total at the other end is the true one, or the difference lies in records that wait for a person, each with its
reason.
"""

import asyncio
import json
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from itertools import chain, cycle, repeat
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Struct, structs

from agent.delivery.quantity import Measure
from agent.delivery.rendering import Route
from agent.record import UsageRecord
from agent.sinks import Terms
from agent.spool.schema import STUCK
from tests.laws.billing import FATES, HOUR, PER, Billing, BillingSink, Life, OpenBillingSink, Timeless, base, now
from tests.spool.ledger import DAY, NOON, S, record

pytestmark = pytest.mark.timeout(300)  # many examples on a slow machine

Owed = dict[tuple[str, str], Fraction]  # by customer and dimension, in base units


class Outcome(Struct, frozen=True):
    """What became of one record, as a person is shown it."""

    seq: int
    id: str
    owner: tuple[str, str]
    worth: Fraction  # base units: as it was told, or all of it where it never was
    outcome: str | None
    why: str | None


class End(Struct, frozen=True):
    """What the spool says when nothing is left to send."""

    used: Owed
    carried: Owed
    outcomes: tuple[Outcome, ...]

    def of(self, *outcomes: str) -> list[Outcome]:
        """The records that met one of these."""
        return [record for record in self.outcomes if record.outcome in outcomes]


def usage(number: int, customer: str, dimension: str, quantity: int) -> UsageRecord:
    """What a customer used in the `number`-th minute."""
    return structs.replace(record(number, customer=customer, quantity=quantity), dimension=dimension)


def route(version: int, unit: str = "ns", scale: int = 0, orphans: Sequence[str] = ()) -> Route:
    """A configuration: it calls customers and dimensions by names of its own, and tells them in a unit."""
    taken = {"cpu", "disk"} - set(orphans)
    return Route(
        measures={name: Measure(f"{name}@{version}", unit, PER[unit], scale) for name in taken},
        customers={name: f"{name}@{version}" for name in ("acme", "beta")},
        orphans=orphans,
    )


def ended(life: Life) -> End:
    """Read the spool as `spool ls` would."""
    used: Owed = {}
    outcomes = []
    rows = life.spool.db.execute(
        "SELECT r.seq, r.body, i.payload, i.outcome, i.why FROM record AS r LEFT JOIN item AS i USING(seq) ORDER BY 1"
    )
    for seq, body, payload, outcome, why in rows:
        of, said = UsageRecord.parse(body), json.loads(body)
        owner = of.customer or "", of.dimension
        used[owner] = used.get(owner, Fraction(0)) + of.quantity
        worth = Fraction(of.quantity) if payload is None else base(json.loads(payload))
        outcomes.append(Outcome(seq, said["id"], owner, worth, outcome, why))
    rest = life.spool.db.execute("SELECT customer, dimension, value, grain FROM remainder")
    return End(used, {(c, d): Fraction(int(v), int(g)) for c, d, v, g in rest}, tuple(outcomes))


async def lives(
    path: Path,
    billing: Billing,
    records: Sequence[UsageRecord],
    *,
    terms: Terms = Terms(max_batch=3, concurrency=2),  # noqa: B008 - frozen
    routes: Sequence[Route] = (),
    gaps: Sequence[float] = (),
    turns: Iterable[str] = (),
    sink: type[BillingSink] = BillingSink,
) -> End:
    """Agents follow each other over one spool until everything is settled.

    The records come in thirds, one with each of the first lives; `gaps` between lives are in seconds.
    """
    terms = structs.replace(terms, dedupe_horizon=None if billing.horizon is None else int(billing.horizon * S))
    deaths, third = iter(turns), -(-len(records) // 3)
    coming = chain((records[n : n + third] for n in range(0, len(records), third)), repeat(()))
    for configured, gap, more in zip(cycle(routes or [route(1)]), cycle(gaps or [0.0]), coming, strict=False):
        life = Life(path, billing, sink(billing, terms), configured, deaths)
        try:
            life.append(more)
            if await life.to_its_end() and life.outbox.last() == len(records):
                return ended(life)
        finally:
            life.spool.close()
        await asyncio.sleep(gap)
    raise AssertionError


def run(billing: Billing, records: Sequence[UsageRecord], **given: Any) -> End:
    """The same in no time, in a directory of its own."""
    with tempfile.TemporaryDirectory() as path, asyncio.Runner(loop_factory=Timeless) as runner:
        return runner.run(lives(Path(path), billing, records, **given))


def holds(end: End, billing: Billing) -> None:
    """The law."""
    counts, missing = billing.counts, Owed()
    assert billing.changed == []  # L3: every attempt carried the same bytes
    assert set(counts.values()) <= {1}  # L2: nothing is billed twice
    for one in end.outcomes:
        billed = counts[one.id] == 1
        if one.outcome in ("delivered", "duplicate"):
            assert billed, one
        else:  # L10: nothing is in between, and each says why
            assert one.outcome in STUCK, one
            assert one.why, one
        if one.outcome in ("conflict", "unrouted"):
            assert not billed, one
        if one.outcome == "rejected":
            assert not billed or "may have arrived" in (one.why or ""), one
        if not billed:
            missing[one.owner] = missing.get(one.owner, Fraction(0)) + one.worth
    told = billing.totals()
    for owner, used in end.used.items():
        assert used == sum(part.get(owner, Fraction(0)) for part in (told, missing, end.carried)), owner


names = st.sampled_from(["acme", "beta"])
dimensions = st.sampled_from(["cpu", "disk"])
uses = st.lists(st.tuples(names, dimensions, st.integers(-50, 10**14)), min_size=1, max_size=9)
routes = st.lists(
    st.builds(
        route,
        st.integers(1, 9),
        st.sampled_from(sorted(PER)),
        st.integers(0, 3),
        st.sampled_from([(), (), (), ("disk",)]),
    ),
    min_size=1,
    max_size=3,
)
worlds = st.fixed_dictionaries(
    {
        "terms": st.builds(
            Terms,
            max_batch=st.integers(1, 4),
            concurrency=st.integers(1, 3),
            negative=st.booleans(),
            splits=st.booleans(),
            max_age=st.sampled_from([None, None, DAY]),
        ),
        "routes": routes,
        "gaps": st.lists(st.sampled_from([0.0, 60.0, 2 * HOUR, 72 * HOUR]), max_size=4),
        "turns": st.lists(st.sampled_from([*[""] * 8, "dies before", "dies after"]), max_size=30),
    }
)


def minutes(uses: Sequence[tuple[str, str, int]]) -> list[UsageRecord]:
    """One record for each use, each of a minute of its own."""
    return [usage(number, *use) for number, use in enumerate(uses)]


@settings(max_examples=2 * settings.default.max_examples)  # type: ignore[union-attr]
@given(
    uses=uses,
    fates=st.lists(st.sampled_from(FATES), max_size=14),
    world=worlds,
    horizon=st.sampled_from([None, 0.0, HOUR, 48 * HOUR]),
    tells=st.booleans(),
    each=st.booleans(),
    poison=st.sets(st.integers(1, 9), max_size=2),
)
def test_the_billing_systems_total_is_the_true_one_or_the_difference_waits_for_a_person(
    uses: list[tuple[str, str, int]],
    fates: list[str],
    world: dict[str, Any],
    horizon: float | None,
    tells: bool,
    each: bool,
    poison: set[int],
) -> None:
    """Whatever happens, and with a dedupe horizon or without: nothing is doubled, and nothing is lost from sight."""
    billing = Billing(fates, horizon=horizon, tells=tells, each=each, poison=tuple(poison))
    end = run(billing, minutes(uses), **world)
    holds(end, billing)
    if horizon is None and world["terms"].splits:
        assert end.of("ambiguous") == []


@given(
    uses=uses,
    fates=st.lists(st.sampled_from(sorted(set(FATES) - {"claims", "sours"})), max_size=14),
    world=worlds,
    tells=st.booleans(),
    each=st.booleans(),
)
def test_the_totals_are_equal_where_ids_are_known_for_ever_and_nothing_is_refused(
    uses: list[tuple[str, str, int]], fates: list[str], world: dict[str, Any], tells: bool, each: bool
) -> None:
    """No person is needed: but for what rounding carries on, both ends say the same."""
    terms = structs.replace(world["terms"], negative=True, splits=True, max_age=None)
    told = [structs.replace(known, measures=route(1).measures, orphans=()) for known in world["routes"]]
    billing = Billing(fates, tells=tells, each=each)
    end = run(billing, minutes(uses), **world | {"terms": terms, "routes": told})
    holds(end, billing)
    assert billing.totals() == end.used
    assert end.of("delivered", "duplicate") == list(end.outcomes)


@given(
    uses=uses,
    fates=st.lists(st.sampled_from(FATES), max_size=14),
    world=worlds,
    each=st.booleans(),
)
def test_nothing_is_sent_twice_to_a_billing_system_that_knows_no_ids(
    uses: list[tuple[str, str, int]], fates: list[str], world: dict[str, Any], each: bool
) -> None:
    """L10, horizon 0: once it may have arrived, only a person can tell."""
    billing = Billing(fates, horizon=0, each=each)
    end = run(billing, minutes(uses), **world)
    holds(end, billing)
    assert not end.of("duplicate")


@settings(max_examples=settings.default.max_examples // 3)  # type: ignore[union-attr]
@given(
    uses=uses,
    fates=st.lists(st.sampled_from(sorted(set(FATES) - {"sours"})), max_size=14),
    world=worlds,
    delay=st.sampled_from([0, 600]),
    each=st.booleans(),
    poison=st.sets(st.integers(1, 9), max_size=2),
)
def test_a_billing_system_that_knows_no_ids_and_can_be_read_needs_no_person(
    uses: list[tuple[str, str, int]], fates: list[str], world: dict[str, Any], delay: int, each: bool, poison: set[int]
) -> None:
    """L10: what may have arrived is found or cleared, whatever happens; what is refused is rejected, and only that."""
    terms = structs.replace(world["terms"], visibility_delay=delay * S, splits=True)
    billing = Billing(fates, horizon=0, each=each, poison=tuple(poison))
    end = run(billing, minutes(uses), **world | {"terms": terms}, sink=OpenBillingSink)
    holds(end, billing)
    assert end.of("ambiguous") == []


def until(end: float, fate: str) -> Iterator[str]:
    """This fate, until so many seconds have passed."""
    while now() < NOON + end * S:
        yield fate


@pytest.mark.parametrize(
    ("fate", "horizon", "outcomes"),
    [
        ("unreached", 0.0, {"delivered"}),
        ("503 before", 32 * 24 * HOUR, {"delivered"}),
        ("503 before", 24 * HOUR, {"ambiguous"}),
        ("503 after", 32 * 24 * HOUR, {"delivered"}),
    ],
)
def test_a_billing_system_that_is_down_for_seven_days_costs_nothing(
    fate: str, horizon: float | None, outcomes: set[str]
) -> None:
    """L8: no age, no count of retries ends it; only what may have arrived before its horizon waits for a person."""
    billing = Billing(until(7 * 24 * HOUR, fate), horizon=horizon)
    end = run(billing, minutes([("acme", "cpu", 7)] * 9))
    holds(end, billing)
    assert {record.outcome for record in end.outcomes} == outcomes
    assert billing.seconds >= 7 * 24 * HOUR or not end.of("delivered")


def test_what_waited_for_its_turn_beyond_the_horizon_is_not_sent() -> None:
    """L10: taken for a retry in time, held up by another's long attempt or a suspended machine, and then too late."""
    billing = Billing(["lose", "silent"], horizon=HOUR)
    end = run(billing, minutes([("acme", "cpu", 1)] * 4), terms=Terms(max_batch=1, concurrency=1))
    holds(end, billing)
    assert end.of("ambiguous")


def test_a_retry_is_byte_identical_though_unit_dimension_and_customer_id_have_changed() -> None:
    """L3: a reload in the midst of an ambiguous send reaches only what was never sent, and rounding still adds up."""
    billing = Billing(["lose", "agent dies before"])
    records = minutes([("acme", "cpu", 100 * S)] * 6)
    told = [route(1, "core-hour", 2), route(2, "core-minute", 1), route(3)]
    end = run(billing, records, terms=Terms(max_batch=2), routes=told)
    holds(end, billing)
    assert end.of("delivered") == list(end.outcomes)
    names = [(event["customer"], event["dimension"], event["unit"]) for event in billing.taken]
    assert (
        names
        == [("acme@1", "cpu@1", "core-hour")] * 2
        + [("acme@2", "cpu@2", "core-minute")] * 2
        + [("acme@3", "cpu@3", "ns")] * 2
    )


def test_a_duplicate_of_a_first_attempt_is_a_conflict_and_of_a_later_one_is_delivery() -> None:
    """L9: what we never sent cannot be there already; a person is told, and nothing is billed for it."""
    billing = Billing(["claims", "lose"], tells=True)
    end = run(billing, minutes([("acme", "cpu", 1)] * 2), terms=Terms(max_batch=1))
    holds(end, billing)
    assert [record.outcome for record in end.outcomes] == ["conflict", "duplicate"]


@pytest.mark.parametrize("each", [True, False])
@pytest.mark.parametrize("fates", [[], ["lose"], ["413", "413"], ["half"], ["503 after", "vanish"]])
def test_a_poison_record_costs_only_itself(fates: list[str], *, each: bool) -> None:
    """L9: it is found by splitting where the answer is for the batch; the good ones around it are billed once."""
    billing = Billing(fates, each=each, poison=[2])
    end = run(billing, minutes([("acme", "cpu", 1)] * 9), terms=Terms(max_batch=9))
    holds(end, billing)
    assert [record.seq for record in end.of("rejected")] == [2]
    assert len(end.of("delivered", "duplicate")) == 8


def test_what_was_taken_and_would_be_refused_by_now_is_told_to_be_perhaps_there() -> None:
    """L10: whoever decides on it must not bill it again in good faith."""
    billing = Billing(["sours"])
    end = run(billing, minutes([("acme", "cpu", 1)]))
    holds(end, billing)
    assert [(record.outcome, record.why) for record in end.outcomes] == [
        ("rejected", "400: refused; an earlier attempt may have arrived")
    ]
