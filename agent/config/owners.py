"""The sections that decide whose usage is: `customers` and `attribution`."""

from typing import Literal

from pydantic import Field, StrictBool

from agent.attribution import Selector
from agent.config.scalars import (
    Bearer,
    CgroupPattern,
    CustomerId,
    Duration,
    Identifier,
    Instant,
    LabelKey,
    LabelSelector,
    NamePattern,
    Property,
    PropertyValue,
    Uid,
    VendorName,
    written,
)
from agent.config.section import Section


class Shared(Section):
    """Who bears what belongs to no customer."""

    system: Bearer = "exclude"
    """Usage that `attribution.system` matches: a customer's id, who bears it, or `exclude`. Default exclude: it is
    recorded as `system` and billed to nobody."""


class Match(Section):
    """Labels that root controls, each with a pattern; a resource matches when all of them do."""

    unit: NamePattern | None = None
    """The systemd unit, such as `acme-*.service`."""
    slice: NamePattern | None = None
    """The systemd slice the unit lies in, such as `acme.slice`."""
    cgroup: CgroupPattern | None = None
    """The path below the cgroup root, such as `customers.slice/acme.slice`; everything inside it matches too."""
    uid: Uid | None = None
    """The user id that owns the user session or unit, such as 1000."""
    unit_property: PropertyValue | None = None
    """An `X-` property in the unit file and its value, such as `X-Customer=acme`."""
    namespace: NamePattern | None = None
    """The pod's namespace, such as `acme-*`."""
    namespace_labels: LabelSelector | None = None
    """A selector over the labels of the pod's namespace, such as `tenant=acme`, `tier in (gold, silver)` or `!trial`.
    """
    node_labels: LabelSelector | None = None
    """A selector over the labels of the node, such as `pool=acme`."""

    def selector(self) -> Selector:
        """Label → pattern, or set of labels → selector. A property becomes the label `property.X-…`."""
        names = ("unit", "slice", "cgroup", "uid", "namespace", "namespace_labels", "node_labels")
        patterns = {name: getattr(self, name) for name in names}
        selector = {label: pattern for label, pattern in patterns.items() if pattern is not None}
        if self.unit_property is not None:
            name, _, value = self.unit_property.partition("=")
            selector[f"property.{name}"] = value
        return selector


class CustomerEntry(Section):
    """One customer: who, what is theirs, and since when."""

    id: CustomerId
    """Names the customer in records, for ever. No default."""
    name: str | None = None
    """What people call the customer, for tables. Default: the id."""
    match: tuple[Match, ...] = ()
    """What is theirs: any of these. Default nothing: then only a meter's `customer` or a label names them."""
    since: Instant | None = Field(None, alias="from")
    """The customer acts from this date or RFC 3339 time on. Default, and for a time past: from when the file is
    loaded."""
    until: Instant | None = None
    """The customer acts until just before this date or RFC 3339 time. Default: for ever."""
    ids: dict[Identifier, VendorName] = Field(default_factory=dict)
    """What sinks call the customer, by the sink's id. Default: the customer's id."""
    reattribute: StrictBool = False
    """Whether a past `from` reaches back to usage that is still held as unattributed. Default false: what was
    unattributed stays so unless somebody asks."""


class CustomerLabels(Section):
    """Labels whose value is a customer's id; a customer's `match` on names ranks above them."""

    namespace: LabelKey | None = None
    """The label of namespaces that holds a customer's id, such as `billing/customer`. Default none."""
    node: LabelKey | None = None
    """The label of nodes that holds a customer's id: a pool that is one customer's. Default none."""

    unit_property: Property | None = None
    """The `X-` property of unit files that holds a customer's id, such as `X-Customer`. Default none."""

    def labels(self) -> tuple[str, ...]:
        """The labels of resources that this names."""
        named = (("property.", self.unit_property), ("namespace_label.", self.namespace), ("node_label.", self.node))
        return tuple(f"{prefix}{key}" for prefix, key in named if key is not None)


class PodLabelsSection(Section):
    """Labels of pods, which whoever may make a pod can write."""

    keys: tuple[LabelKey, ...] = ()
    """The labels of pods that may hold a customer's id, or what a sink calls them. Default none: nothing is read."""
    trust: Literal["never", "namespace", "always"] = "namespace"
    """`namespace`, the default: only where the namespace's `allow_annotation` lists that customer. `always`: everyone
    who can make a pod in this cluster may charge anyone. `never`: not at all."""
    allow_annotation: LabelKey = "billing/allowed-customers"
    """The annotation of namespaces that lists the customers whom its pods may name, by commas. Default
    billing/allowed-customers."""


class Unattributed(Section):
    """What happens to usage that nobody owns."""

    hold: Duration = written("72h")
    """How long unattributed usage can still be given to a customer. Default 72h: a long weekend."""


class Attribution(Section):
    """How usage finds its owner beside the customers' own `match`."""

    customer_labels: CustomerLabels = written({})
    """Labels whose value is a customer's id. Default none."""
    pod_labels: PodLabelsSection = written({})
    """Labels of pods, which tenants write. Default: not read."""
    system: tuple[Match, ...] = ()
    """What belongs to the operator: any of these is recorded as `system`. Default nothing."""
    shared: Shared = written({})
    """Who bears what belongs to no customer. Default: nobody."""
    unattributed: Unattributed = written({})
    """What happens to usage that nobody owns."""
