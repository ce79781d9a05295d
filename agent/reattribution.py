"""Unattributed usage that finds its owner while it is held (DESIGN §5). Pure.

A pair per owner, in one transaction: −q unattributed and +q customer, same window, next n. A residual has no labels
and is final. What was recorded of a pod before its metadata came is moved by the rules of its own time, to whomever it
belongs; what no rule gave to anybody is moved only to customers who reach back.
"""

from collections.abc import Iterator, Mapping, Sequence

import msgspec
from msgspec import structs

from agent.attribution import WAITING, Attribution, Owner
from agent.model import Dimension, Resource
from agent.record import UsageRecord
from agent.shares import group_of, takes
from agent.usage import split


def awaits_metadata(record: UsageRecord) -> bool:
    """Whether a record is of a pod of which nothing but the UID was known."""
    return record.kind == "unattributed" and record.metadata.get("reason") == WAITING.rule


def reattribute(
    record: UsageRecord, record_id: str, net: int, attribution: Attribution, dimension: Dimension
) -> list[UsageRecord]:
    """The pairs that move `net`, what is left of an unattributed record, to the owners that `attribution` now names.

    A record across an ownership boundary is split there by time, in integers (L6).
    """
    labels = {label: value for label, value in record.group.items() if label != "resource"}
    if not labels or net <= 0:
        return []
    resource = Resource(key="", name=record.group.get("resource", ""), labels=labels)
    found = list(_owners(record, net, resource, attribution))
    return _pairs(record, record_id, resource, [dimension], [(o, part) for o, part in found if o.customer is not None])


def introduce(
    record: UsageRecord,
    record_id: str,
    net: int,
    labels: Mapping[str, str],
    attribution: Attribution,
    dimensions: Sequence[Dimension],
) -> list[UsageRecord]:
    """The pairs that move `net` of a pod that nothing was known of, now that its `labels` are.

    `dimensions`: those in which it may be told.

    To a customer, to the system, or to nobody under the pod's own name.
    """
    if net <= 0:
        return []
    beside = {label: value for label, value in record.group.items() if label != "resource"}
    resource = Resource(key="", name=f"{labels['namespace']}/{labels['pod']}", labels={**beside, **labels})
    return _pairs(record, record_id, resource, dimensions, list(_owners(record, net, resource, attribution)))


def _owners(record: UsageRecord, net: int, resource: Resource, attribution: Attribution) -> Iterator[tuple[Owner, int]]:
    """Whose each part of it is, under the rules of its own time."""
    within = msgspec.convert(record.metadata.get("within", []), type=list[dict[str, str]])
    lineage = [resource, *(Resource(key="", name="", labels=of) for of in within)]
    edges = attribution.edges_within(record.start, record.end)
    for start, _, part in split(net, record.start, record.end, edges):
        if part:
            yield attribution.owner(lineage, attribution.era(start)), part


def _pairs(
    record: UsageRecord,
    record_id: str,
    resource: Resource,
    dimensions: Sequence[Dimension],
    parts: list[tuple[Owner, int]],
) -> list[UsageRecord]:
    pairs: list[UsageRecord] = []
    for owner, part in parts:
        to = owner.customer or owner.kind
        taken = structs.replace(record, quantity=-part, metadata={**record.metadata, "reattributed_to": to})
        told: dict[str, object] = {"reattributed_from": record_id, "resource": resource.name, "rule": owner.rule}
        if owner.kind == "unattributed":  # it may find an owner yet, and says so as any other does
            told["reason"] = owner.rule
            told |= {"within": record.metadata["within"]} if "within" in record.metadata else {}
        dimension = next((d for d in dimensions if takes(d, resource, owner)), dimensions[0])
        given = structs.replace(
            record,
            kind=owner.kind,
            customer=owner.customer,
            dimension=dimension.name,
            group=dict(group_of(resource, dimension, owner)),
            quantity=part,
            metadata=told,
        )
        pairs += [taken, given]
    return pairs
