"""`dimension_from`: entries of one meter share its usage by a pod's label, and no unit falls between them."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.attribution import PODS_OWN_WORD, Customer, PodLabels, Rules
from agent.model import Choice, Dimension
from tests.laws.life import Life, plan
from tests.laws.scene import MINUTE, S

LABEL = "pod_label.paigoDimensionId"
NAMES = {"cpu": frozenset({"cpu", "0f6e"}), "premium": frozenset({"premium", "77aa"}), "bulk": frozenset({"bulk"})}


def entries(*, always: bool = False, policy: str = "usage") -> tuple[Dimension, ...]:
    """Three dimensions among which the label chooses, and one that takes everything."""
    others = NAMES["premium"] | NAMES["bulk"]
    choices = {
        name: Choice(LABEL, names, others if name == "cpu" else None, always, f"{PODS_OWN_WORD} ")
        for name, names in NAMES.items()
    }
    chosen = (Dimension(name, "cpu.time", policy, choice=choice) for name, choice in choices.items())
    return (*chosen, Dimension("all", "cpu.time", policy))


def node(path: Path, dimensions: tuple[Dimension, ...]) -> Life:
    """A node whose pods' own labels may name acme, and whose namespace `fixed` is globex's."""
    life = Life(path, plan=plan(dimensions=dimensions, metadata_wait=30 * S))
    customers = (Customer("acme"), Customer("globex", ({"namespace": "fixed"},)))
    life.plan = plan(*customers, dimensions=dimensions, metadata_wait=30 * S)
    life.plan = type(life.plan)(
        **{name: getattr(life.plan, name) for name in life.plan.__struct_fields__}
        | {"rules": Rules(customers, pod_labels=PodLabels(("payer",), "namespace"))}
    )
    life.kernel.remove("a.slice/u")
    life.start().sweep()
    return life


def pod(life: Life, uid: str, namespace: str, value: str | None) -> None:
    """A pod that is acme's by its own label where its namespace allows that, with a dimension's label or none."""
    labels = {"pod_uid": uid, "namespace": namespace, "pod": uid, "pod_label.payer": "acme"}
    labels |= {"allowed_customers": "acme"} if namespace == "free" else {}
    labels |= {} if value is None else {LABEL: value}
    life.kernel.make(f"a.slice/{uid}", **labels)


@pytest.mark.parametrize("policy", ["usage", "max(request,usage)"])
@pytest.mark.parametrize(
    ("namespace", "value", "dimension"),
    [
        ("free", None, "cpu"),
        ("free", "nonsense", "cpu"),
        ("free", "0f6e", "cpu"),
        ("free", "77aa", "premium"),
        ("free", "premium", "premium"),
        ("free", "bulk", "bulk"),
        ("fixed", "bulk", "cpu"),  # nobody vouches for this pod's labels
        ("lost", "bulk", "cpu"),
    ],
)
def test_the_label_chooses_where_the_pods_own_word_counts(
    tmp_path: Path, namespace: str, value: str | None, dimension: str, policy: str
) -> None:
    """By our name or a sink's; what names none, or is not believed, goes to the first."""
    life = node(tmp_path, entries(policy=policy))
    pod(life, "1", namespace, value)
    life.kernel.burn("a.slice/1", 500)
    life.sweep(after=15 * S)
    life.sweep(after=MINUTE)
    assert {r.dimension: r.quantity for r in life.records()} == {dimension: 500, "all": 500}


def test_trust_always_believes_it_of_every_pod(tmp_path: Path) -> None:
    """The operator's word that nobody else makes pods."""
    life = node(tmp_path, entries(always=True))
    pod(life, "1", "fixed", "bulk")
    life.kernel.burn("a.slice/1", 500)
    life.sweep(after=2 * MINUTE)
    assert {r.dimension for r in life.records()} == {"bulk", "all"}


@pytest.mark.parametrize("late", [10 * S, 3 * MINUTE])
def test_a_pod_that_is_known_late_is_told_where_its_label_says(tmp_path: Path, late: int) -> None:
    """Whether its window is still open, or closed as waiting."""
    life = node(tmp_path, entries())
    life.kernel.make("a.slice/1", pod_uid="1")
    life.kernel.burn("a.slice/1", 500)
    life.sweep(after=15 * S)
    life.sweep(after=late)
    labels = {"pod_uid": "1", "namespace": "free", "pod": "x", "pod_label.payer": "acme", "allowed_customers": "acme"}
    life.source.introduced["1"] = life.kernel.nodes["a.slice/1"].labels = {**labels, LABEL: "bulk"}
    life.sweep(after=S)
    life.sweep(after=2 * MINUTE)
    for dimension, owed in (("cpu", {}), ("bulk", {"acme": 500}), ("all", {"acme": 500})):
        assert life.balance(dimension) == owed


@given(st.none() | st.sampled_from(["cpu", "0f6e", "premium", "77aa", "bulk", "x", ""]), st.booleans(), st.booleans())
def test_exactly_one_of_the_entries_takes_a_resource(value: str | None, vouched: bool, always: bool) -> None:
    """L2: in no two places, and in none too few."""
    labels = {} if value is None else {LABEL: value}
    rule = f"{PODS_OWN_WORD} payer=acme" if vouched else "customers[x].match[0]"
    chosen = [d for d in entries(always=always) if d.choice is not None and d.choice.takes(labels, rule)]
    assert len(chosen) == 1
