"""The values that travel along the line (`agent/__init__.py` draws it). Every quantity is an int.

Times are nanoseconds. Two clocks appear and are never mixed: `taken` and `stamp` are CLOCK_BOOTTIME of one boot;
`start`, `end` and `at` are billing time, nanoseconds since the epoch in UTC (`agent/clock.py` joins them).
"""

from collections.abc import Mapping
from typing import Literal

from msgspec import Struct

Kind = Literal["usage", "unattributed", "system", "idle", "gap", "manual", "correction"]

NS_PER_S = 1_000_000_000
NS_PER_MS = 1_000_000


class Meter(Struct, frozen=True):
    """What is measured. `books` says whether a parent's counter proves the sum of its children (DESIGN §2).

    `exact`: Σ children + residual = parent, as integers. `bound`: a parent exists, but its counter is not exact for
    the children (`note` says which way and how far). `none`: there is no such parent, and nothing is subtracted.
    """

    name: str
    unit: str  # base unit of the quantity: "ns", "byte", "byte·ms", "pid·ms", "unit·ms", "ms", "op"
    kind: Literal["counter", "gauge"]
    books: Literal["exact", "bound", "none"]
    formula: str  # file and field, per kernel layout: the meter catalogue prints it
    note: str = ""


class Sample(Struct, frozen=True, gc=False):
    """One reading of one counter or level.

    `identity` belongs to the counter (ACCOUNTING §1): only a new one starts at zero. `aspect` is "usage" for the
    meter itself; "limit" and "request" are levels in base units per millisecond, for the policies of those names.
    """

    meter: str
    identity: str
    value: int
    taken: int
    aspect: Literal["usage", "limit", "request"] = "usage"


class Resource(Struct, frozen=True, array_like=True):
    """One incarnation of something that uses: a cgroup directory, a disk, a network interface.

    `key` never recurs (boot, path and inode are in it); `name` is what people call it. `parent` is the key of the
    nearest metered ancestor. `anchor` names the anchor whose books hold it; an anchor is its own anchor.
    `labels` are those that root controls, and only they are matched; empty where a tenant could have written them.
    """

    key: str
    name: str
    parent: str | None = None
    anchor: str | None = None
    labels: Mapping[str, str] = {}


class Reading(Struct, frozen=True, gc=False):
    """What one sweep saw of one resource. `gone`: these are its last readings, kept from before it vanished.

    Without samples nothing is known this time, and every mark stays. `born` says whether counters without a mark began
    at zero or ran before they were first seen; None: the listing says it.
    """

    resource: Resource
    samples: tuple[Sample, ...]
    gone: bool = False
    born: bool | None = None


class Sweep(Struct, frozen=True):
    """One pass over a source, parents before children. `stamp` was taken just before the first read.

    `listing` holds the key of *every* resource that exists, metered or not: what a later sweep finds absent from it
    is new (ACCOUNTING §3). It is the same object as in the sweep before when nothing came or went. `scope` names the
    anchors that were listed, existing or not: what lies below one that was not listed before only baselines. `falls`
    says what a lower value means: "reset" for kernel files, "dip" for counters that come back (remote series), "stated"
    for those that also state each reset, as another identity (kubelet), so that none is ever inferred.
    `remember` is what the source wants back after a restart, by key (None forgets): it is committed with the sweep.
    `introduced` has the labels of pods of which only the UID was known before, by UID, alive or not.
    """

    source: str
    boot: str
    stamp: int
    readings: list[Reading]
    listing: frozenset[str]
    cores: int = 1
    basis: str = "cgroup"
    falls: Literal["reset", "dip", "stated"] = "reset"
    scope: frozenset[str] = frozenset()
    remember: Mapping[str, bytes | None] = {}
    introduced: Mapping[str, Mapping[str, str]] = {}


class Dimension(Struct, frozen=True):
    """One entry of the configuration's `meters`: which meter feeds which billing dimension, and how."""

    name: str
    meter: str
    policy: str = "usage"  # usage | limit | request | max(a,b) of them
    group_by: tuple[str, ...] = ()
    customer: str | None = None  # the whole meter is one customer's (host totals)
    system: str | None = None  # the customer who bears `system` usage of this dimension; None: nobody
    choice: "Choice | None" = None


class Choice(Struct, frozen=True):
    """How one of several dimensions that share a meter's usage is chosen: by a label of the resource.

    `names` are the values that mean this one. The usage of what names none of them goes to the first, which is the one
    that has `others`: all that the rest are called. A pod's label is believed as far as pods' labels are (`always`),
    or where one of them named the customer (`vouching`, how such a rule begins).
    """

    label: str
    names: frozenset[str]
    others: frozenset[str] | None = None
    always: bool = False
    vouching: str = ""

    def takes(self, labels: Mapping[str, str], rule: str) -> bool:
        """Whether the usage of a resource, whose owner was found by `rule`, is of this dimension."""
        believed = self.always or rule.startswith(self.vouching)
        value = labels.get(self.label) if believed else None
        return value in self.names or (self.others is not None and value not in self.others)


class Usage(Struct, frozen=True, gc=False):
    """A quantity over `[start, end)` for one resource: a difference of counters, or the integral of a gauge.

    Its evidence: quantity = moved − inner − Δin_flight, where the counter went from `first` to `last`, `inner` is what
    its metered children moved, and Δin_flight is zero for leaves. `levels` are what the resource's limit and request
    were over the whole span, in base units per millisecond.
    """

    resource: Resource
    meter: str
    start: int
    end: int
    quantity: int
    moved: int
    inner: int
    first: int
    last: int
    flags: tuple[str, ...] = ()
    levels: tuple[tuple[str, int], ...] = ()


class Gap(Struct, frozen=True):
    """What is known not to be known: coverage missing over `[start, end)`, with an upper bound where one exists."""

    meter: str
    group: Mapping[str, str]
    start: int
    end: int
    reason: str
    bound: int | None = None


class Balance(Struct, frozen=True):
    """The books of one anchor and meter in one sweep: booked + Δin_flight = moved, exactly (L1).

    `overrun` is how far |in_flight| exceeds what reading skew can explain; it must be zero.
    """

    anchor: str
    meter: str
    moved: int
    booked: int
    in_flight: int
    change: int
    overrun: int
