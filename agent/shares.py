"""What one resource adds to one open record: it grows while the window is open, and is its evidence when it closes.

Pure. Persisted with the resource, in one packed row.
"""

from collections.abc import Iterable, Mapping

from msgspec import Struct

from agent.attribution import Owner
from agent.model import Dimension, Resource

Group = tuple[tuple[str, str], ...]


class Share(Struct, array_like=True):
    """What one resource adds to one open record, with what explains it."""

    dimension: str
    start: int
    end: int
    owner: Owner
    group: Group
    quantity: int = 0
    moved: int = 0
    inner: int = 0
    first: int = 0
    last: int = 0
    spans: list[list[int]] = []  # observed, merged, in order
    flags: list[str] = []

    @property
    def key(self) -> tuple[object, ...]:
        """What tells it from the resource's other shares."""
        owner = self.owner
        return (self.dimension, self.start, self.end, owner.kind, owner.customer, owner.rule, self.group)

    def observe(self, start: int, end: int) -> None:
        """Add an observed span."""
        spans = self.spans
        if spans and spans[-1][1] == start:
            spans[-1][1] = end
        else:
            self.spans = union([*spans, [start, end]])

    def join(self, other: "Share") -> None:
        """Take in what another share of the same record holds."""
        if other.spans and (not self.spans or other.spans[0] < self.spans[0]):
            self.first = other.first
        if other.spans and (not self.spans or other.spans[-1] > self.spans[-1]):
            self.last = other.last
        self.quantity += other.quantity
        self.moved += other.moved
        self.inner += other.inner
        self.spans = union([*self.spans, *other.spans])
        self.flags = sorted({*self.flags, *other.flags})


class Cell(Struct, array_like=True):
    """Usage within one policy cell at constant levels, not yet evaluated; it will add to the share of its window."""

    dimension: str
    start: int
    end: int
    window: tuple[int, int]
    owner: Owner
    group: Group
    levels: tuple[tuple[str, int], ...]
    usage: int = 0
    observed: int = 0  # ms
    flags: tuple[str, ...] = ()

    @property
    def key(self) -> tuple[object, ...]:
        """What tells it from the resource's other cells."""
        owner = (self.owner.kind, self.owner.customer, self.owner.rule)
        return (self.dimension, self.start, self.window, owner, self.group, self.levels)

    def join(self, other: "Cell") -> None:
        """Take in what another cell of the same key holds."""
        self.usage += other.usage
        self.observed += other.observed
        self.flags = tuple(sorted({*self.flags, *other.flags}))


class Evidence(Struct, frozen=True, array_like=True):
    """One resource's part of a record, kept for `explain` (L12)."""

    resource: Resource
    share: Share


def evaluate(policy: str, usage: int, observed_ms: int, levels: Mapping[str, int]) -> int:
    """A policy over one cell at constant levels: `usage`, `request`, `limit`, or `max(a,b)` of them.

    An absent level counts as zero: a resource without a limit has none to bill.
    """
    if policy == "usage":
        return usage
    if policy.startswith("max("):
        return max(evaluate(part.strip(), usage, observed_ms, levels) for part in policy[4:-1].split(","))
    return levels.get(policy, 0) * observed_ms


def union(spans: Iterable[list[int]]) -> list[list[int]]:
    """Spans merged where they touch, in order."""
    merged: list[list[int]] = []
    for start, end in sorted(spans):
        if merged and start <= merged[-1][1]:
            merged[-1][1] = max(end, merged[-1][1])
        else:
            merged.append([start, end])
    return merged


def group_of(resource: Resource, dimension: Dimension, owner: Owner) -> Group:
    """What tells records of one window, dimension and owner apart."""
    if owner.kind == "unattributed":  # its labels decide a later owner; a residual (an anchor's own) has none
        labels = {} if resource.name == resource.anchor else resource.labels
        return (("resource", resource.name), *sorted(labels.items()))
    return tuple((label, resource.labels.get(label, "")) for label in dimension.group_by)


def takes(dimension: Dimension, resource: Resource, owner: Owner) -> bool:
    """Whether a resource's usage of the dimension's meter is told in this dimension."""
    return dimension.choice is None or dimension.choice.takes(resource.labels, owner.rule)


def alike(dimension: Dimension, of_meter: Mapping[str, list[Dimension]]) -> list[Dimension]:
    """The dimensions among which a resource's label chooses; just this one where none does."""
    if dimension.choice is None:
        return [dimension]
    return [other for other in of_meter[dimension.meter] if other.choice is not None]
