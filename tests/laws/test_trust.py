"""DESIGN §5 and L11 on a cluster: how far each label is trusted, and that nobody bills another or escapes."""

import pytest

from agent.attribution import NODES_OWN, WAITING, Attribution, Customer, Owner, PodLabels, Rules, revise
from agent.model import Resource
from tests.laws.scene import NOON

CUSTOMERS = (
    Customer("named", ({"namespace": "named-*"},)),
    Customer("labelled", ({"namespace_labels": "tenant=labelled"},)),
    Customer("pooled", ({"node_labels": "pool=pooled"},)),
    Customer("other"),
    Customer("third"),
)
TRUSTING = PodLabels(("payer",), "namespace")


def pod(namespace: str = "ns", /, **labels: str) -> Resource:
    """A pod of a namespace; `ns_tenant`, `node_pool`, `pod_payer` become labels of each."""
    prefixes = {"ns": "namespace_label", "node": "node_label", "pod": "pod_label"}
    named = {"pod_uid": "u1", "namespace": namespace, "pod": "web"}
    for key, value in labels.items():
        of, _, name = key.partition("_")
        named[f"{prefixes[of]}.{name}" if of in prefixes else key] = value
    return Resource("k", f"{namespace}/web", labels=named)


def judged(resource: Resource, rules: Rules) -> tuple[Owner, int]:
    """Its owner, and how many conflicts were counted."""
    attribution = Attribution(revise(None, rules, 0), rules)
    return attribution.owner([resource], attribution.era(NOON)), attribution.conflicts.get("attribution_conflict", 0)


def test_trust_goes_from_names_to_namespace_to_node_labels() -> None:
    """Static config > namespace label > node label, whatever the order of customers."""
    rules = Rules(CUSTOMERS)
    every = {"ns_tenant": "labelled", "node_pool": "pooled"}
    assert judged(pod("named-1", **every), rules)[0].customer == "named"
    assert judged(pod("ns", **every), rules)[0].customer == "labelled"
    assert judged(pod("ns", node_pool="pooled"), rules)[0].customer == "pooled"
    assert judged(pod("ns"), rules)[0].kind == "unattributed"


def test_a_selector_ranks_as_the_least_trusted_of_what_it_looks_at() -> None:
    """A name beside a node's label is worth no more than the label."""
    mixed = Customer("mixed", ({"namespace": "ns", "node_labels": "pool=pooled"},))
    rules = Rules((mixed, *CUSTOMERS))
    assert judged(pod("ns", ns_tenant="labelled", node_pool="pooled"), rules)[0].customer == "labelled"
    assert judged(pod("ns", node_pool="pooled"), rules)[0].kind == "unattributed"  # equal rank: nobody


def test_labels_whose_value_is_a_customer_rank_with_their_kind() -> None:
    """`attribution.customer_labels`: a namespace's above a node's; a value that is nobody names nobody."""
    rules = Rules(CUSTOMERS, customer_labels=("namespace_label.payer", "node_label.payer"))
    assert judged(pod("ns", ns_payer="other", node_payer="third"), rules)[0].customer == "other"
    assert judged(pod("ns", ns_payer="mallory", node_payer="third"), rules)[0].customer == "third"
    assert judged(pod("ns", ns_payer="other", ns_tenant="labelled"), rules) == (
        Owner(
            "unattributed",
            None,
            "conflict: customers[labelled].match[0] namespace_labels=tenant=labelled; "
            "attribution.customer_labels namespace_label.payer=other",
        ),
        1,
    )


def test_a_pods_label_bills_whom_its_namespace_allows() -> None:
    """And then it is more particular than the namespace's own owner."""
    rules = Rules(CUSTOMERS, pod_labels=TRUSTING)
    assert judged(pod("ns", pod_payer="other", allowed_customers="third, other"), rules)[0].customer == "other"
    allowed = pod("ns", pod_payer="other", allowed_customers="other", ns_tenant="labelled")
    assert judged(allowed, rules)[0].customer == "other"


@pytest.mark.parametrize("claim", ["other", "named", "mallory", ""])
@pytest.mark.parametrize("allowed", [None, "", "third", "others", "other2,third"])
def test_a_pods_label_alone_neither_charges_another_nor_escapes(claim: str, allowed: str | None) -> None:
    """L11: who can only edit pods changes nothing about who pays, and the attempt is counted."""
    rules = Rules(CUSTOMERS, pod_labels=TRUSTING)
    annotation = {} if allowed is None else {"allowed_customers": allowed}
    for namespace, labels in (("named-1", {}), ("ns", {"ns_tenant": "labelled"}), ("ns", {"node_pool": "pooled"})):
        honest, _ = judged(pod(namespace, **labels, **annotation), rules)
        found, conflicts = judged(pod(namespace, **labels, **annotation, pod_payer=claim), rules)
        assert found == honest
        assert conflicts == 1
    assert judged(pod("ns", **annotation, pod_payer=claim), rules)[0].kind == "unattributed"


def test_what_the_operator_names_outranks_what_a_namespace_allows() -> None:
    """Static config is above everything."""
    rules = Rules(CUSTOMERS, pod_labels=TRUSTING)
    assert judged(pod("named-1", pod_payer="other", allowed_customers="other"), rules)[0].customer == "named"


def test_a_cluster_whose_pods_are_trusted_ranks_them_last() -> None:
    """`trust: always`: the operator's word that nobody but the operator makes pods."""
    rules = Rules(CUSTOMERS, pod_labels=PodLabels(("payer",), "always"), aliases={"cus_7": "third"})
    assert judged(pod("ns", pod_payer="other"), rules)[0].customer == "other"
    assert judged(pod("ns", pod_payer="cus_7"), rules)[0].customer == "third"
    assert judged(pod("ns", pod_payer="other", node_pool="pooled"), rules)[0].customer == "pooled"


def test_trust_never_reads_nothing() -> None:
    """Not even to count it."""
    rules = Rules(CUSTOMERS, pod_labels=PodLabels(("payer",), "never"))
    assert judged(pod("ns", pod_payer="other", allowed_customers="other"), rules) == (judged(pod("ns"), rules)[0], 0)


def test_two_labels_of_one_pod_that_name_two_customers_are_a_conflict() -> None:
    """Order never decides."""
    rules = Rules(CUSTOMERS, pod_labels=PodLabels(("payer", "owner"), "namespace"))
    found, conflicts = judged(pod("ns", pod_payer="other", pod_owner="third", allowed_customers="other third"), rules)
    assert (found.kind, conflicts) == ("unattributed", 1)


def test_of_a_pod_that_is_only_a_uid_nothing_is_guessed() -> None:
    """A selector with `!` must not take what has no labels yet."""
    rules = Rules((Customer("all", ({"namespace_labels": "!trial"}, {"node_labels": "!trial"})),))
    assert judged(Resource("k", "podu1", labels={"pod_uid": "u1"}), rules)[0] == WAITING
    assert judged(pod("ns"), rules)[0].rule == "customers[all].match[0] namespace_labels=!trial"
    assert judged(Resource("k", "x", labels={"cgroup": "x"}), rules)[0].kind == "unattributed"


def test_a_slice_of_the_node_itself_is_the_systems_unless_somebody_owns_it() -> None:
    """The books of a node: pods beside what the node needs for itself."""
    rules = Rules((Customer("acme", ({"cgroup": "acme.slice"},)),))
    assert judged(Resource("k", "system.slice", labels={"cgroup": "system.slice", "system": "node"}), rules)[0] == (
        NODES_OWN
    )
    assert judged(Resource("k", "acme.slice", labels={"cgroup": "acme.slice", "system": "node"}), rules)[
        0
    ].customer == ("acme")
