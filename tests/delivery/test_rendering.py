"""One record as one sink is to be sent it, frozen once (laws L3, L7; DESIGN §7, ACCOUNTING §7)."""

import json
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import pytest
from msgspec import structs

from agent.delivery.quantity import Measure
from agent.delivery.rendering import HOUR, Instant, Rendering, Route, instant
from agent.model import Kind
from agent.record import UsageRecord, with_seq
from agent.sinks import Terms
from agent.spool.outbox import Draft, Submission, Unsent
from agent.spool.rounding import Carried
from tests.delivery.fakes import FakeSink, KilledError, Life, lose
from tests.spool.ledger import MOMENT, NOON, S, minutes, record

EVERYTHING: tuple[Kind, ...] = ("usage", "unattributed", "system", "idle", "gap", "manual", "correction")
THOUSANDS = Measure("requests-k", "thousand", 1_000)


@pytest.fixture
def life(tmp_path: Path) -> Iterator[Life]:
    """One billing sink over an empty spool."""
    one = Life(tmp_path, FakeSink(terms=Terms(max_batch=100, negative=True)))
    yield one
    one.spool.close()


def rendering(life: Life, route: Route | None = None, now: int = NOON) -> Rendering:
    """For the life's first sink."""
    return Rendering(life.sinks[0], route or life.route, life.outbox, life.standing, now)


def told(life: Life, one: UsageRecord, route: Route | None = None) -> dict[str, object]:
    """What the back end would read of it."""
    draft = rendering(life, route)(1, one.kind, one.body(0))
    assert isinstance(draft, Draft)
    found: dict[str, object] = json.loads(draft.payload)
    return found


def frozen(life: Life, route: Route | None = None) -> list[Submission]:
    """The next submission, in a transaction of its own."""
    with life.outbox.transaction():
        return life.outbox.freeze(
            life.standing, rendering(life, route), batches=1, max_batch=100, max_bytes=1 << 30, now=MOMENT
        )


def values(submissions: list[Submission]) -> list[str]:
    """What was told of each record."""
    return [json.loads(item.payload)["value"] for one in submissions for item in one.items]


@pytest.mark.parametrize("kind", EVERYTHING)
@pytest.mark.parametrize("role", ["billing", "copy"])
def test_a_billing_sink_gets_what_is_billed_and_a_copy_everything(tmp_path: Path, kind: Kind, role: str) -> None:
    """L7: no gap, nothing unattributed, no idle or system time ever reaches a bill."""
    life = Life(tmp_path, FakeSink(role=role))
    rendered = rendering(life)(1, kind, record(kind=kind).body(0))
    assert isinstance(rendered, Draft) == (role == "copy" or kind in ("usage", "manual", "correction"))
    life.spool.close()


def test_a_dimension_that_no_sink_takes_is_noted_once_and_not_sent(life: Life) -> None:
    """DESIGN §7: unrouted, by the one sink that notes orphans; for the others it is no concern."""
    elsewhere = Route(measures={"other": THOUSANDS})
    assert rendering(life, elsewhere)(1, "usage", record().body(0)) is None
    rendered = rendering(life, structs.replace(elsewhere, orphans={"cpu"}))(1, "usage", record().body(0))
    assert isinstance(rendered, Unsent)
    assert (rendered.outcome, rendered.why) == ("unrouted", "no sink takes cpu")


def test_what_a_sink_cannot_take_is_rejected_with_what_a_person_must_know(tmp_path: Path) -> None:
    """L7, L8: held with its numbers, never sent and never dropped."""
    terms = Terms(max_batch=10, max_bytes=400, max_age=HOUR)
    life = Life(tmp_path, FakeSink(terms=terms))
    negative = structs.replace(record(quantity=-7), kind="correction", corrects="some-id")
    big = structs.replace(record(), dimension="d" * 400)
    unrenderable = structs.replace(record(), metadata={"padding": "unrenderable"})
    old = record(-100)
    found = [rendering(life)(1, one.kind, one.body(0)) for one in (negative, big, unrenderable, old)]
    why = [one.why for one in found if isinstance(one, Unsent) and one.outcome == "rejected"]
    assert len(why) == 4
    for part, text in zip(["-7 ns", "the sink takes 400", "no such padding", "none beyond 3600 s"], why, strict=True):
        assert part in text
    assert "some-id" in why[0]
    life.spool.close()


def test_age_counts_from_the_end_of_the_window(tmp_path: Path) -> None:
    """At the limit it is taken still."""
    life = Life(tmp_path, FakeSink(terms=Terms(max_batch=10, max_age=HOUR)))
    end = record().end
    body = record().body(0)
    assert isinstance(rendering(life, now=end + HOUR)(1, "usage", body), Draft)
    assert isinstance(rendering(life, now=end + HOUR + 1)(1, "usage", body), Unsent)
    life.spool.close()


def test_a_customer_is_told_by_the_sinks_own_id(life: Life) -> None:
    """Names: `customers[].ids`, the dimension's id, its unit."""
    route = Route(measures={"cpu": structs.replace(THOUSANDS, scale=1)}, customers={"acme": "cus_123"})
    found = told(life, record(quantity=1_250), route)
    assert (found["customer"], found["dimension"], found["unit"], found["value"]) == (
        "cus_123",
        "requests-k",
        "thousand",
        "1.2",
    )
    assert told(life, record(customer="other"), route)["customer"] == "other"
    assert found["id"] == record(quantity=1_250).id(0)


def test_without_dimensions_of_its_own_a_sink_is_told_base_units(life: Life) -> None:
    """And needs no rounding, so that no remainder is written."""
    found = told(life, record(quantity=10**30))
    assert (found["dimension"], found["unit"], found["value"]) == ("cpu", "ns", "1" + "0" * 30)
    assert life.outbox.remainder(life.standing, "acme", "cpu") == (0, 1)


@pytest.mark.parametrize(("policy", "wanted"), [("start", 600), ("mid", 750), ("end", 900), ("hour", 0)])
def test_the_one_time_that_most_sinks_know(life: Life, policy: Instant, wanted: int) -> None:
    """DESIGN §7: start, mid, end, or the hour that it lies in."""
    hour = NOON - NOON % HOUR
    one = structs.replace(record(), start=hour + 600 * S, end=hour + 900 * S)
    assert instant(one, policy) - hour == wanted * S
    assert told(life, one, Route(timestamp=policy))["at"] == hour + wanted * S


def test_a_verbatim_sink_is_sent_the_ledgers_own_line(tmp_path: Path) -> None:
    """Which need not lie in the spool twice; with a unit of its own it is rendered as for any other."""
    life = Life(tmp_path, FakeSink(terms=Terms(max_batch=10, verbatim=True, negative=True)))
    body = record(quantity=-5).body(0)
    draft = rendering(life)(9, "usage", body)
    assert isinstance(draft, Draft)
    assert (draft.payload, draft.kept) == (with_seq(body, 9), False)
    assert told(life, record(quantity=-5_000), Route(measures={"cpu": THOUSANDS}))["value"] == "-5"
    life.spool.close()


def test_what_rounding_leaves_goes_to_the_customers_next_record(life: Life) -> None:
    """ACCOUNTING §7: per sink, customer and dimension; also when the next comes in another transaction."""
    route = Route(measures={"cpu": THOUSANDS})
    life.append(record(0, quantity=400), record(1, quantity=400), record(2, customer="other", quantity=400))
    assert values(frozen(life, route)) == ["0", "1", "0"]
    assert life.outbox.remainder(life.standing, "acme", "cpu") == (-200, 1)
    life.append(record(3, quantity=700))
    assert values(frozen(life, route)) == ["0"]
    assert life.outbox.remainder(life.standing, "acme", "cpu") == (500, 1)
    assert life.outbox.remainder(life.standing, "other", "cpu") == (400, 1)


def test_a_remainder_is_rolled_back_with_the_submission_it_came_from(life: Life) -> None:
    """Else the same usage would be rounded twice."""
    route = Route(measures={"cpu": THOUSANDS})
    life.append(record(0, quantity=1_400))

    def die() -> None:
        with life.outbox.transaction():
            life.outbox.freeze(life.standing, rendering(life, route), batches=1, max_batch=9, max_bytes=999, now=MOMENT)
            assert life.outbox.remainder(life.standing, "acme", "cpu") == (400, 1)
            raise KilledError

    with pytest.raises(KilledError):
        die()
    assert life.outbox.remainder(life.standing, "acme", "cpu") == (0, 1)
    assert values(frozen(life, route)) == ["1"]


def test_a_record_that_is_not_sent_leaves_no_remainder(life: Life) -> None:
    """Σ submitted + Σ remainders is the usage that was submitted."""
    route = Route(measures={"cpu": THOUSANDS})
    life.append(structs.replace(record(0, quantity=1_400), metadata={"padding": "unrenderable"}))
    assert frozen(life, route) == []
    assert life.outbox.remainder(life.standing, "acme", "cpu") == (0, 1)
    assert life.outcomes() == {1: "rejected"}


def test_how_a_value_came_about_is_kept_beside_it(life: Life) -> None:
    """L12: quantity + before = value · per + after."""
    route = Route(measures={"cpu": Measure("d", "third", 3, 2)})
    quantities = [1, 1, -7, 100, 10**20]
    life.append(*(record(number, quantity=q) for number, q in enumerate(quantities)))
    frozen(life, route)
    rows = life.spool.db.execute("SELECT rounding FROM item ORDER BY seq")
    kept = [json.loads(rounding) for (rounding,) in rows]
    carried = Carried()
    for quantity, row in zip(quantities, kept, strict=True):
        before, after = Carried(**row["before"]), Carried(**row["after"])
        assert before == carried
        left = quantity + Fraction(before.value, before.grain)
        assert left == Fraction(row["value"]) * row["per"] + Fraction(after.value, after.grain)
        carried = after


def test_a_change_of_the_configuration_never_touches_what_was_frozen(tmp_path: Path) -> None:
    """L3: the retry of an ambiguous submission is byte-identical after a reload and a restart; the next is new."""
    before = Route(measures={"cpu": THOUSANDS}, customers={"acme": "cus_1"})
    after = Route(measures={"cpu": Measure("new-id", "million", 1_000_000, 3)}, customers={"acme": "cus_2"})
    sink = FakeSink()
    sink.always = lose
    life = Life(tmp_path, sink, route=before)
    life.chance = 0.9
    life.append(*minutes(range(3)))
    life.deliver()
    ambiguous = sink.payloads[0]
    life.kill()
    life.route, life.clock.now = after, NOON + HOUR
    sink.always = FakeSink().always
    life.append(record(5))
    life.deliver()
    assert sink.payloads[-2] == ambiguous
    assert b"cus_1" in ambiguous[0]
    assert b"cus_2" in sink.payloads[-1][0]
    assert b"new-id" in sink.payloads[-1][0]
    assert life.outcomes() == {1: "duplicate", 2: "duplicate", 3: "duplicate", 4: "delivered"}
    life.spool.close()


def test_a_customer_whom_the_sink_does_not_know_waits_for_a_person(life: Life) -> None:
    """Our own id would be nobody there, or somebody else."""
    route = Route(customers={"acme": "cus_123"}, needs_ids=True)
    assert isinstance(rendering(life, route)(1, "usage", record().body(0)), Draft)
    stranger = structs.replace(record(), customer="stranger")
    rendered = rendering(life, route)(1, "usage", stranger.body(0))
    assert isinstance(rendered, Unsent)
    assert (rendered.outcome, rendered.why.partition(":")[0]) == ("rejected", "stranger has no id at this sink")
