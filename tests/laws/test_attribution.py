"""ACCOUNTING §5: whose it is. Rank, ties, effective dates, labels that change, and whole meters."""

from agent.attribution import BEGINNING, Attribution, Customer, Owner, Rules, revise
from agent.model import Dimension, Resource
from tests.laws.scene import CPU_SECONDS, MINUTE, NOON, Line, S, customer, group, reading, swept

HOUR = 3600 * S


def judged(rules: Rules, *lineage: Resource, at: int = NOON) -> Owner:
    """Who owns the first of `lineage` when these rules were always in force."""
    attribution = Attribution(revise(None, rules, 0), rules)
    return attribution.owner(lineage, attribution.era(at))


def owner_at(rules: Rules, loaded: int, at: int, *earlier: tuple[Rules, int]) -> str | None:
    """Who owns unit `a` at `at` after `earlier` and then `rules` were loaded."""
    versions = revise(None, Rules((customer("someone-else", unit="z"),)), 0)
    for older, when in earlier:
        versions = revise(versions, older, when)
    attribution = Attribution(revise(versions, rules, loaded), rules)
    return attribution.owner([group("a", unit="a")], attribution.era(at)).customer


def test_a_match_outranks_a_label_that_names_a_customer() -> None:
    """DESIGN §5: static config above everything else."""
    rules = Rules((customer("acme", unit="a"), customer("beta", unit="b")), customer_labels=("owner",))
    assert judged(rules, group("a", unit="a", owner="beta")).customer == "acme"
    assert judged(rules, group("x", unit="x", owner="beta")).customer == "beta"


def test_a_label_that_names_no_customer_names_nobody() -> None:
    """L11: a value is taken only if it is a configured customer's id."""
    rules = Rules((customer("acme", unit="a"),), customer_labels=("owner",))
    assert judged(rules, group("x", unit="x", owner="mallory")).kind == "unattributed"


def test_equal_rank_is_unattributed_and_counted_whatever_the_order() -> None:
    """§5: order never decides."""
    both = (customer("acme", unit="a*"), customer("beta", unit="*a"))
    for customers in (both, both[::-1]):
        attribution = Attribution(revise(None, Rules(customers), 0), Rules(customers))
        found = attribution.owner([group("a", unit="a")], 0)
        assert (found.kind, found.customer) == ("unattributed", None)
        assert "acme" in found.rule
        assert "beta" in found.rule
        assert attribution.conflicts == {"attribution_conflict": 1}


def test_two_labels_that_name_two_customers_are_a_conflict_too() -> None:
    """§5: the rank of labels has ties of its own."""
    rules = Rules((customer("acme", unit="1"), customer("beta", unit="2")), customer_labels=("k", "l"))
    assert judged(rules, group("x", unit="x", k="acme", l="beta")).kind == "unattributed"


def test_a_conflict_inside_system_is_not_the_systems() -> None:
    """§5: two customers claim it; that nobody is billed must show as unattributed, whatever lies around it."""
    rules = Rules((customer("acme", unit="a"), customer("beta", unit="a")), system=({"unit": "s"},))
    system = group("s", unit="s")
    assert judged(rules, group("s/a", system, unit="a"), system).kind == "unattributed"


def test_one_customer_matching_twice_is_no_conflict() -> None:
    """§5: `match` is any-of."""
    rules = Rules((Customer("acme", ({"unit": "a"}, {"unit": "a*"})),))
    assert judged(rules, group("a", unit="a")).rule == "customers[acme].match[0] unit=a"


def test_all_labels_of_a_selector_must_match() -> None:
    """DESIGN §9: one entry of `match` is a conjunction."""
    rules = Rules((customer("acme", unit="a", slice="s"),))
    assert judged(rules, group("a", unit="a")).customer is None
    assert judged(rules, group("a", unit="a", slice="s")).customer == "acme"


def test_in_an_empty_history_rules_act_from_the_beginning() -> None:
    """§5: nothing was decided before, so the first configuration judges the young boot's morning too."""
    rules = Rules((customer("acme", unit="a"),))
    assert judged(rules, group("a", unit="a"), at=BEGINNING).customer == "acme"


def test_a_customer_without_from_acts_from_load_time() -> None:
    """§5."""
    rules = Rules((customer("acme", unit="a"),))
    assert owner_at(rules, NOON, NOON - 1) is None
    assert owner_at(rules, NOON, NOON) == "acme"


def test_a_customer_with_a_past_from_acts_from_load_time() -> None:
    """§5: else an edit rewrites the past."""
    rules = Rules((Customer("acme", ({"unit": "a"},), since=NOON - 9 * HOUR),))
    assert owner_at(rules, NOON, NOON - 1) is None
    assert owner_at(rules, NOON, NOON) == "acme"


def test_a_customer_with_a_future_from_acts_from_then() -> None:
    """§5: effective-dated; `until` ends it."""
    rules = Rules((Customer("acme", ({"unit": "a"},), since=NOON + HOUR, until=NOON + 2 * HOUR),))
    hours = [owner_at(rules, NOON, NOON + h * HOUR - d) for h, d in ((1, 1), (1, 0), (2, 1), (2, 0))]
    assert hours == [None, "acme", "acme", None]


def test_reattribute_reaches_back_to_from_and_no_further() -> None:
    """§5: `reattribute: true` reaches back."""
    rules = Rules((Customer("acme", ({"unit": "a"},), since=NOON - HOUR, reattribute=True),))
    assert owner_at(rules, NOON, NOON - HOUR) == "acme"
    assert owner_at(rules, NOON, NOON - HOUR - 1) is None


def test_a_changed_match_judges_each_span_by_the_rules_of_its_time() -> None:
    """§5: the old entry goes on judging the past."""
    old, new = Rules((customer("acme", unit="a"),)), Rules((customer("acme", unit="b"),))
    assert owner_at(new, NOON, NOON - 1, (old, NOON - HOUR)) == "acme"
    assert owner_at(new, NOON, NOON, (old, NOON - HOUR)) is None


def test_a_removed_customer_ends_at_load_time_and_may_return() -> None:
    """§5: three loads, three eras."""
    acme, nobody = Rules((customer("acme", unit="a"),)), Rules()
    loads = ((acme, NOON - 2 * HOUR), (nobody, NOON - HOUR))
    assert [owner_at(acme, NOON, NOON - h * HOUR, *loads) for h in (3, 2, 1, 0)] == [None, "acme", None, "acme"]


def test_a_customer_that_returns_after_the_clock_went_back_stays() -> None:
    """§5 with §4: removed at a wrong 15:00, restored at 14:00 after the correction; 15:00 must not end it again."""
    acme = Rules((customer("acme", unit="a"),))
    loads = ((acme, NOON - HOUR), (Rules(), NOON + HOUR))
    assert owner_at(acme, NOON, NOON + 2 * HOUR, *loads) == "acme"


def test_loading_the_same_configuration_again_changes_nothing() -> None:
    """§5: a restart is no change of a customer."""
    rules = Rules((customer("acme", unit="a"), Customer("beta", ({"unit": "b"},), until=NOON - HOUR)))
    versions = revise(None, rules, NOON - 2 * HOUR)
    assert revise(versions, rules, NOON) == versions


def test_usage_across_a_change_of_rules_is_split_by_time() -> None:
    """L6: 0–60 s at one core; acme's from 20 s."""
    line = Line()
    rules = Rules((Customer("acme", ({"unit": "a"},), since=NOON + 20 * S),))
    attribution = Attribution(revise(None, rules, 0), rules)
    line.books.attribution = attribution
    unit = group("a", unit="a")
    for at in (0, MINUTE):
        line.sweep(swept(at, [reading(unit, at, cpu=at)]))
    assert (line.billed("acme"), line.billed(None)) == (40 * S, 20 * S)


def test_a_relabelled_span_goes_to_the_old_owner_flagged() -> None:
    """DESIGN §5: a change acts when it is observed; the span since the last observation is `owner_uncertain`."""
    line, anchor = Line(customer("acme", unit="a"), customer("beta", unit="b")), group("s")
    before, after = group("s/x", anchor, unit="a"), group("s/x", anchor, unit="b")
    for at, unit, value in ((0, before, 0), (30, before, 30), (45, after, 45), (60, after, 60)):
        line.sweep(swept(at * S, [reading(anchor, at * S, cpu=value), reading(unit, at * S, cpu=value)]))
    assert [(r.customer, r.quantity, r.flags) for r in line.records] == [
        ("acme", 45, ("owner_uncertain", "partial")),
        ("beta", 15, ("partial",)),
    ]


def test_a_change_of_labels_that_changes_no_owner_is_not_uncertain() -> None:
    """DESIGN §5: the flag is about the owner."""
    line = Line(customer("acme", unit="a"))
    for at, extra in ((0, "1"), (30, "2"), (60, "2")):
        line.sweep(swept(at * S, [reading(group("x", unit="a", version=extra), at * S, cpu=at)]))
    assert [(r.customer, r.flags) for r in line.records] == [("acme", ())]


def test_a_parents_new_label_acts_on_its_children_when_it_is_observed() -> None:
    """§2 with §5: the owner of a subtree changes as one."""
    line = Line(customer("acme", unit="a"), customer("beta", unit="b"))
    before, after = group("s", unit="a"), group("s", unit="b")
    for at, top, value in ((0, before, 0), (30, after, 30), (60, after, 60)):
        line.sweep(swept(at * S, [reading(top, at * S, cpu=value), reading(group("s/x", top), at * S, cpu=value)]))
    assert (line.billed("acme"), line.billed("beta")) == (30, 30)


def test_a_whole_meter_may_be_one_customers() -> None:
    """DESIGN §9: `meters[].customer`, for host totals."""
    line = Line(dimensions=[Dimension("cpu", "cpu.time", customer="acme")])
    for at in (0, 60):
        line.sweep(swept(at * S, [reading(group("host"), at * S, cpu=at)]))
    assert line.billed("acme") == 60


def test_shared_system_usage_is_borne_by_whom_the_dimension_names() -> None:
    """DESIGN §5: `exclude` or `customer: X`, per meter."""
    dimensions = [CPU_SECONDS, Dimension("cpu-shared", "cpu.time", system="house")]
    line = Line(dimensions=dimensions, system=[{"unit": "cron"}])
    for at in (0, 60):
        line.sweep(swept(at * S, [reading(group("cron", unit="cron"), at * S, cpu=at)]))
    assert {(r.dimension, r.kind, r.customer) for r in line.records} == {
        ("cpu", "system", None),
        ("cpu-shared", "usage", "house"),
    }
