"""ACCOUNTING §6: keys, ids, canonical bytes (law L3)."""

import json
import uuid
from collections.abc import Mapping

import pytest
from msgspec import structs

from agent.model import Dimension
from agent.record import NAMESPACE, UsageRecord, nanoseconds, rfc3339, seconds, with_seq
from tests.laws.scene import CPU_SECONDS, MINUTE, NOON, Line, S, customer, group, reading, swept

RECORD = UsageRecord(
    kind="usage",
    source="prod/node-a/3f9c",
    meter="cpu.time",
    policy="usage",
    dimension="cpu",
    customer="acme",
    group={"namespace": "acme-prod", "app": "web"},
    start=NOON,
    end=NOON + 300 * S,
    quantity=300_123_456_789,
    base_unit="ns",
    basis="cgroup",
    covered=300 * S,
)


def test_the_id_is_a_uuid5_of_the_canonical_key_and_n() -> None:
    """L3: written out by hand, so that a change of the recipe cannot pass unseen."""
    key = (
        '[1,"prod/node-a/3f9c","cpu.time","usage","acme","cpu",[["app","web"],["namespace","acme-prod"]],'
        f"{NOON},{NOON + 300 * S},7]"
    )
    assert RECORD.id(7) == str(uuid.uuid5(NAMESPACE, key))


def test_the_order_of_the_group_does_not_matter() -> None:
    """§6: sorted typed group."""
    turned = structs.replace(RECORD, group={"app": "web", "namespace": "acme-prod"})
    assert (turned.id(0), turned.key(), turned.body(0)) == (RECORD.id(0), RECORD.key(), RECORD.body(0))


@pytest.mark.parametrize(
    "change",
    [
        {"source": "prod/node-b/3f9c"},
        {"meter": "io.read"},
        {"kind": "unattributed"},
        {"customer": None},
        {"dimension": "other"},
        {"group": {"namespace": "acme-prod"}},
        {"start": NOON + 1},
        {"end": NOON + 301 * S},
    ],
)
def test_everything_in_the_key_changes_the_id(change: Mapping[str, object]) -> None:
    """§6: (recipe, source, meter, kind, customer, dimension, group, start, end), n."""
    other = structs.replace(RECORD, **change)
    assert other.id(0) != RECORD.id(0)
    assert other.key() != RECORD.key()


def test_n_changes_the_id_and_not_the_key() -> None:
    """L7: deltas of one key."""
    assert len({RECORD.id(n) for n in range(10)}) == 10


@pytest.mark.parametrize("change", [{"quantity": 1}, {"flags": ("partial",)}, {"metadata": {"a": 1}}, {"covered": 0}])
def test_what_is_not_in_the_key_does_not_change_the_id(change: Mapping[str, object]) -> None:
    """L3: so that the same id with another body can be told, and quarantined."""
    assert structs.replace(RECORD, **change).id(0) == RECORD.id(0)


def test_a_group_cannot_forge_another_records_key() -> None:
    """L11: separators inside labels are text; the key is structured."""
    one = structs.replace(RECORD, group={"a": "b", "c": "d"})
    two = structs.replace(RECORD, group={"a": 'b"],["c","d'})
    assert one.id(0) != two.id(0)


def test_the_body_is_canonical_json() -> None:
    """§6: sorted keys, no spaces, times with nine digits, quantities as decimal text."""
    body = RECORD.body(0)
    fields = json.loads(body)
    assert body == json.dumps(fields, sort_keys=True, separators=(",", ":")).encode()
    assert fields["quantity"] == "300123456789"
    assert fields["start"] == "2027-01-15T08:00:00.000000000Z"
    assert fields["covered"] == "300.000000000"


@pytest.mark.parametrize("text", ["ü\u2028\x00", '"source":', '\\"source":"x', "\ud7ff😀"])
def test_hostile_text_keeps_the_line_canonical(text: str) -> None:
    """§6: a label is a tenant's text; the sequence number is put into the stored bytes without parsing them."""
    record = structs.replace(RECORD, group={"x": text, text: "y"}, metadata={"source": text, "z": {"source": text}})
    line = with_seq(record.body(3), 42)
    fields = json.loads(line)
    assert fields["seq"] == 42
    assert fields["source"] == record.source
    assert list(fields) == sorted(fields)
    del fields["seq"]
    assert fields == json.loads(record.body(3))


@pytest.mark.parametrize("quantity", [0, -1, 10**40, -(10**40)])
def test_a_body_parses_back_to_the_same_record(quantity: int) -> None:
    """L12: what is stored explains itself; `-` in front when negative, however long."""
    record = structs.replace(RECORD, quantity=quantity, flags=("held", "partial"), reason="x", bound=3, corrects="id")
    assert UsageRecord.parse(record.body(5)) == record
    assert UsageRecord.parse(record.body(5)).body(5) == record.body(5)


@pytest.mark.parametrize("ns", [0, 1, NOON, NOON - 1, 253_402_300_799 * S + 999_999_999])
def test_times_are_exact_to_the_nanosecond(ns: int) -> None:
    """§6: RFC 3339 UTC with nine digits, and back."""
    assert nanoseconds(rfc3339(ns)) == ns
    assert len(rfc3339(ns)) == len("2027-01-15T08:00:00.000000000Z")


def test_seconds_are_exact() -> None:
    """§6: `covered` in seconds with nine digits."""
    assert [seconds(ns) for ns in (0, 1, 300 * S, 10**18 + 1)] == [
        "0.000000000",
        "0.000000001",
        "300.000000000",
        "1000000000.000000001",
    ]


def test_the_same_sweeps_make_the_same_bytes_whatever_the_order_of_the_configuration() -> None:
    """L3: no dictionary's order and no chance is in a record."""

    def bodies(*, turned: bool) -> set[bytes]:
        customers = [customer("acme", unit="a*"), customer("beta", unit="b*")]
        dimensions = [CPU_SECONDS, Dimension("by-unit", "cpu.time", group_by=("unit", "slice"))]
        if turned:
            customers.reverse()
            dimensions.reverse()
        line = Line(*customers, dimensions=dimensions)
        units = [group(name, inode=i, unit=name) for i, name in enumerate(("a1", "a2", "b1"))]
        for at in (0, MINUTE):
            line.sweep(swept(at, [reading(u, at, cpu=at) for u in (units[::-1] if turned else units)]))
        return {record.body(0) for record in line.records}

    assert bodies(turned=True) == bodies(turned=False)
    assert len(bodies(turned=True)) == 5


def test_an_unattributed_record_names_its_resource_and_keeps_its_labels() -> None:
    """§5: so that it can find its owner; why it has none is said."""
    line = Line()
    for at in (0, MINUTE):
        line.sweep(swept(at, [reading(group("s/x", group("s"), unit="x"), at, cpu=at)]))
    (record,) = line.records
    assert record.group == {"resource": "s/x", "unit": "x"}
    assert record.metadata == {"reason": "no rule matched"}


def test_a_residual_has_no_labels() -> None:
    """§5: a residual has none and is final."""
    line = Line()
    for at in (0, MINUTE):
        line.sweep(swept(at, [reading(group("s", unit="s"), at, cpu=at)]))
    assert line.records[0].group == {"resource": "s"}


def test_two_incarnations_with_different_labels_do_not_share_an_unattributed_record() -> None:
    """§5, L11: labels decide the later owner; what the one used must not go to the other's."""
    line, anchor = Line(), group("s")
    old, new = group("s/x", anchor, inode=7, unit="x", uid="1"), group("s/x", anchor, inode=8, unit="x", uid="2")
    line.sweep(swept(0, [reading(anchor, 0, cpu=0), reading(old, 0, cpu=0)]))
    line.sweep(
        swept(
            30 * S,
            [reading(anchor, 30 * S, cpu=30), reading(new, 30 * S, cpu=20), reading(old, 20 * S, cpu=10, gone=True)],
        )
    )
    line.sweep(swept(MINUTE, [reading(anchor, MINUTE, cpu=30), reading(new, MINUTE, cpu=20)]))
    found = {(r.group.get("uid"), r.quantity) for r in line.records}
    assert found == {("1", 10), ("2", 20)}


def test_usage_of_different_rules_for_one_customer_is_one_record() -> None:
    """§6: the rule is evidence, not identity."""
    line = Line(customer("acme", unit="a?"))
    units = [group(name, inode=i, unit=name) for i, name in enumerate(("a1", "a2"))]
    for at in (0, MINUTE):
        line.sweep(swept(at, [reading(u, at, cpu=at) for u in units]))
    assert [(r.customer, r.quantity) for r in line.records] == [("acme", 2 * MINUTE)]


def test_evidence_says_which_counters_moved_from_what_to_what() -> None:
    """L12: quantity = moved − inner − Δin_flight for each resource, and their sum is the record's."""
    line, anchor = Line(customer("acme", unit="a*")), group("s", unit="a")
    child = group("s/c", anchor, unit="a-child")
    line.sweep(swept(0, [reading(anchor, 0, cpu=100), reading(child, 0, cpu=10)]))
    line.sweep(swept(30 * S, [reading(anchor, 30 * S, cpu=130), reading(child, 30 * S, cpu=21)]))
    commit = line.sweep(swept(MINUTE, [reading(anchor, MINUTE, cpu=140), reading(child, MINUTE, cpu=30)]))
    (closed,) = commit.closed
    parts = {e.resource.name: e.share for e in closed.evidence}
    assert {n: (s.first, s.last, s.moved, s.inner, s.quantity) for n, s in parts.items()} == {
        "s": (100, 140, 40, 20, 20),
        "s/c": (10, 30, 20, 0, 20),
    }
    assert closed.record.quantity == sum(s.quantity for s in parts.values()) == 40
    assert parts["s/c"].owner.rule == "customers[acme].match[0] unit=a*"
