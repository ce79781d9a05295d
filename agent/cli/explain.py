"""`metering-agent explain`: why a record says what it says (L12), from what the spool keeps and nothing else.

The rule may be gone from the configuration, and the cgroup from the kernel: evidence holds what they were.
"""

import uuid

from msgspec import Struct

from agent.cli.part import Part
from agent.cli.pod import OfPod, pod
from agent.errors import AgentError
from agent.spool import ledger
from agent.spool.deliveries import Delivery, deliveries
from agent.spool.ledger import Entry, Ledger

NEWEST = 10  # windows of a customer or resource that are listed


class Delta(Struct, frozen=True):
    """One record of a key."""

    n: int
    seq: int
    id: str
    quantity: int
    closed: int


class Explained(Struct, frozen=True):
    """A record with all that is known of it. `parts` is None where its readings are not kept (any more).

    `origin` is the unattributed record whose usage this one gives to, or takes back for, a customer; `parts` are then
    that record's.
    """

    entry: Entry
    parts: tuple[Part, ...] | None
    deltas: tuple[Delta, ...]
    deliveries: tuple[Delivery, ...]
    origin: Entry | None = None

    @property
    def measured(self) -> Entry:
        """The record whose readings `parts` are."""
        return self.origin or self.entry


class Total(Struct, frozen=True):
    """A sum over records."""

    dimension: str
    records: int
    quantity: int
    base_unit: str


class Customer(Struct, frozen=True):
    """What was recorded for a customer: the sum of all records that are kept, by dimension, and the newest of them."""

    customer: str
    start: int
    end: int
    totals: tuple[Total, ...]
    newest: tuple[Entry, ...]


class OfResource(Struct, frozen=True):
    """The newest records that a resource is part of, oldest first, each with its part."""

    resource: str
    labels: dict[str, str]
    newest: tuple[tuple[Entry, Part], ...]


Told = Explained | Customer | OfResource | OfPod


def guess(db: Ledger, name: str) -> Told:
    """A record's id or number, else a customer of whom there are records, else a resource or pod. Raises AgentError."""
    if ledger.names_record(name):
        return record(db, name)
    if ledger.entries(db, customer=name, limit=1):
        return customer(db, name)
    if found := ledger.of_resource(db, name, 1):
        return pod(db, name) if found[0][1].resource.labels.get("pod") else resource(db, name)
    raise AgentError(f"{name}: no record, customer, resource or pod of that name is in this spool. See `spool ls`.")


def record(db: Ledger, name: str) -> Explained:
    """The record with this id or sequence number. Raises AgentError."""
    entry = ledger.named(db, name)
    same_key = ledger.deltas(db, entry)
    evidence = ledger.evidence(db, entry.seq)
    origin = None
    if evidence is None:  # a re-attribution measured nothing: what it moves was measured in an earlier record
        given = entry.record.metadata.get("reattributed_from")
        taken = entry.record.metadata.get("reattributed_to")
        origin = ledger.find(db, uuid.UUID(str(given))) if given else same_key[0] if taken else None
        evidence = ledger.evidence(db, origin.seq) if origin is not None else None
    policy = entry.record.policy
    return Explained(
        entry=entry,
        parts=None if evidence is None else tuple(Part.of(part, policy) for part in evidence),
        deltas=tuple(Delta(d.n, d.seq, d.id, d.record.quantity, d.closed) for d in same_key),
        deliveries=tuple(deliveries(db, entry)),
        origin=origin,
    )


def customer(db: Ledger, name: str) -> Customer:
    """Everything that is kept of this customer. Raises AgentError."""
    entries = ledger.entries(db, customer=name)
    if not entries:
        raise AgentError(f"{name}: no record of this customer is in this spool. See `metering-agent spool ls`.")
    totals: dict[str, Total] = {}
    for entry in entries:
        r = entry.record
        known = totals.get(r.dimension, Total(r.dimension, 0, 0, r.base_unit))
        totals[r.dimension] = Total(r.dimension, known.records + 1, known.quantity + r.quantity, r.base_unit)
    return Customer(
        customer=name,
        start=min(e.record.start for e in entries),
        end=max(e.record.end for e in entries),
        totals=tuple(totals[dimension] for dimension in sorted(totals)),
        newest=tuple(entries[-NEWEST:]),
    )


def resource(db: Ledger, name: str) -> OfResource:
    """The newest records of this resource, by name or key. Raises AgentError."""
    found = ledger.of_resource(db, name, NEWEST)
    if not found:
        raise AgentError(f"{name}: no reading of this resource is kept in this spool. Zero usage makes no record.")
    newest = tuple((entry, Part.of(evidence, entry.record.policy)) for entry, evidence in found)
    return OfResource(newest[-1][1].resource, newest[-1][1].labels, newest)
