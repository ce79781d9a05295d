"""Unattributed usage that finds its owner while it is held (DESIGN §5). Pure.

A pair per owner, in one transaction: −q unattributed and +q customer, same window, next n. A residual has no labels
and is final.
"""

import msgspec
from msgspec import structs

from agent.attribution import Attribution
from agent.model import Dimension, Resource
from agent.record import UsageRecord
from agent.usage import split


def reattribute(
    record: UsageRecord, record_id: str, net: int, attribution: Attribution, dimension: Dimension
) -> list[UsageRecord]:
    """The pairs that move `net`, what is left of an unattributed record, to the owners that `attribution` now names.

    A record across an ownership boundary is split there by time, in integers (L6).
    """
    labels = {label: value for label, value in record.group.items() if label != "resource"}
    if not labels or net <= 0:
        return []
    within = msgspec.convert(record.metadata.get("within", []), type=list[dict[str, str]])
    lineage = [Resource(key="", name="", labels=of) for of in (labels, *within)]
    edges = attribution.edges_within(record.start, record.end)
    pairs: list[UsageRecord] = []
    for start, _, part in split(net, record.start, record.end, edges):
        owner = attribution.owner(lineage, attribution.era(start))
        if owner.customer is None or not part:
            continue
        group = {label: labels.get(label, "") for label in dimension.group_by}
        metadata = {"reattributed_from": record_id, "rule": owner.rule}
        taken = structs.replace(record, quantity=-part, metadata={**record.metadata, "reattributed_to": owner.customer})
        given = structs.replace(
            record, kind="usage", customer=owner.customer, group=group, quantity=part, metadata=metadata
        )
        pairs += [taken, given]
    return pairs
