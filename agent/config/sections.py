"""The sections of the file, as typed values. The text under each key becomes its description in the JSON Schema.

Nothing here looks from one section into another: `check.py` does.
"""

import socket
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, PrivateAttr, StrictBool

from agent.attribution import Customer, Rules, Selector
from agent.config.scalars import (
    Anchor,
    Bearer,
    CgroupPattern,
    CustomerId,
    DimensionName,
    Directory,
    Duration,
    Identifier,
    Instant,
    Label,
    Listen,
    NamePattern,
    Policy,
    Property,
    PropertyValue,
    Size,
    Uid,
    VendorName,
    written,
)
from agent.config.section import Section
from agent.config.sinks import CloudEvents, SinkEntry
from agent.model import Dimension
from agent.pattern import anchor_of

GroupLabel = Literal["unit", "slice", "cgroup", "uid", "interface", "disk", "mountpoint", "mode"]


class Clock(Section):
    """How far the wall clock is believed."""

    accept_after: Duration = written("24h")
    """How long a step of the wall clock must stay, unconfirmed, before billing time follows it. Default 24h: longer
    than a person needs to see the alarm, shorter than a day's records can wait."""


class Agent(Section):
    """Who this agent is, where it keeps its data, and how often it measures."""

    cluster: Label = "default"
    """The first part of every record's source. Default `default`. `${NAME}` is read from the environment."""
    node: Label = Field(default_factory=socket.gethostname, validate_default=True)
    """The second part of every record's source. Default: the host name. `${NAME}` is read from the environment."""
    data_dir: Directory = written("/var/lib/metering-agent")
    """Directory of the spool, mode 0700. It must outlive restarts, for unsent usage lies there. Default
    /var/lib/metering-agent. `${NAME}` is read from the environment."""
    run_dir: Directory = written("/run/metering-agent")
    """Directory that only root writes and that a boot empties: anchor locks and the witness lie there. Default
    /run/metering-agent. `${NAME}` is read from the environment."""
    window: Duration = written("5m")
    """Length of a billing window, 10s to 1h; it divides a day and is a multiple of sample_interval. Default 5m: fine
    enough for hourly bills, and 288 records a day for each customer and dimension."""
    sample_interval: Duration = written("15s")
    """Time between two sweeps, at least 1s. It sets how finely gauges are followed and how much a power cut can cost.
    Default 15s, the interval of the field."""
    fresh_boot: Duration = written("10m")
    """A boot younger than this that nobody has metered is billed from its first counters on. Default 10m: time enough
    for the agent to be installed and started on a new machine."""
    shutdown_budget: Duration = written("20s")
    """How long a shutdown may take, sending included; then the rest waits in the spool. Default 20s, below the 30s
    after which Kubernetes kills."""
    clock: Clock = written({})
    """How far the wall clock is believed."""


class Telemetry(Section):
    """What the agent says about itself."""

    listen: Listen = written("127.0.0.1:9108")
    """Address and port of /metrics, /healthz and /readyz, or `off`; port 0 takes a free one. Default 127.0.0.1:9108:
    nobody else can reach it. `${NAME}` is read from the environment."""
    customer_labels: StrictBool = False
    """Whether metrics carry customers' ids. Default false: names of customers belong to nobody who can scrape."""


class Host(Section):
    """The machine as a whole: CPU by mode, memory, network, disks, filesystems, uptime."""

    kind: Literal["host"]
    """`host`."""
    id: Identifier = "host"
    """Names the source in metrics and records' evidence. Default: its kind."""
    root: Directory = written("/")
    """Where the metered host's file system is mounted. Default `/`. `${NAME}` is read from the environment."""


class Cgroups(Section):
    """Control groups: systemd units and slices, containers, or any other directory of the hierarchy."""

    kind: Literal["cgroups"]
    """`cgroups`."""
    id: Identifier = "cgroups"
    """Names the source in metrics and records' evidence. Default: its kind."""
    root: Directory = written("/")
    """Where the metered host's file system is mounted. Default `/`. `${NAME}` is read from the environment."""
    include: Annotated[tuple[CgroupPattern, ...], Field(min_length=1)]
    """Which groups to meter, as paths below the cgroup root: `*` and `?` stay within a directory, `**` does not. No
    default: what is metered is a decision."""
    anchors: tuple[Anchor, ...] = ()
    """Directories whose books must close: usage inside them that belongs to nobody is recorded as unattributed.
    Default: the literal directories before the first wildcard of each `include`."""

    def closed(self) -> tuple[str, ...]:
        """The anchors in use: those named, else the outermost of those derived; "" among them is the root (refused)."""
        if self.anchors:
            return self.anchors
        derived = sorted({anchor_of(glob) for glob in self.include})
        return tuple(a for a in derived if not any(a.startswith(outer + "/") for outer in derived))


class Shared(Section):
    """Who bears what belongs to no customer."""

    system: Bearer = "exclude"
    """Usage that `attribution.system` matches: a customer's id, who bears it, or `exclude`. Default exclude: it is
    recorded as `system` and billed to nobody."""


class MeterEntry(Section):
    """One thing to bill: which meter, under which name, counted how."""

    meter: str
    """What is measured; `metering-agent meters` lists all of them. No default."""
    dimension: DimensionName | None = None
    """What the billing system calls it; unique in this file. Default: the meter's name with `_` for `.`."""
    policy: Policy = "usage"
    """Which quantity counts: `usage`, `request`, `limit`, or `max(a, b)` of two of them, taken for each
    sample_interval. Default usage."""
    group_by: tuple[GroupLabel, ...] = ()
    """Labels that split a customer's usage into records of their own. Default none: one record for each customer and
    window."""
    mode: Literal["window"] = "window"
    """How usage becomes records. `window`, the default and all that polled meters know: one for each window."""
    customer: CustomerId | None = None
    """The customer who pays for the whole meter, for totals of a host that is theirs. Default: by `customers`."""
    shared: Shared | None = None
    """Overrides `attribution.shared` for this meter. Default: what is said there."""

    @property
    def name(self) -> str:
        """The dimension's name, written or derived."""
        return self.dimension or self.meter.replace(".", "_")


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

    def selector(self) -> Selector:
        """Label → pattern. A property becomes the label `property.X-…`."""
        patterns = {"unit": self.unit, "slice": self.slice, "cgroup": self.cgroup, "uid": self.uid}
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
    """Labels whose value is a customer's id; a customer's `match` ranks above them."""

    unit_property: Property | None = None
    """The `X-` property of unit files that holds a customer's id, such as `X-Customer`. Default none."""


class Unattributed(Section):
    """What happens to usage that nobody owns."""

    hold: Duration = written("72h")
    """How long unattributed usage can still be given to a customer. Default 72h: a long weekend."""


class Attribution(Section):
    """How usage finds its owner beside the customers' own `match`."""

    customer_labels: CustomerLabels = written({})
    """Labels whose value is a customer's id. Default none."""
    system: tuple[Match, ...] = ()
    """What belongs to the operator: any of these is recorded as `system`. Default nothing."""
    shared: Shared = written({})
    """Who bears what belongs to no customer. Default: nobody."""
    unattributed: Unattributed = written({})
    """What happens to usage that nobody owns."""


class Spool(Section):
    """The one durable file."""

    max_bytes: Size = written("4GiB")
    """Most that the spool may take on disk. Default 4GiB: 250 busy resources for 90 days."""
    reserve: Size = written("16MiB")
    """Space kept inside the file for the hours after the disk has filled. Default 16MiB."""
    retention: Duration = written("90d")
    """How long delivered records are kept, to answer a dispute. Default 90d."""
    evidence_retention: Duration = written("90d")
    """How long the readings behind each record are kept, for `explain`. Default 90d."""


class Config(Section):
    """The configuration of the metering agent."""

    model_config = ConfigDict(json_schema_extra={"required": ["sources", "meters"]})

    agent: Agent = written({})
    """Who this agent is, where it keeps its data, and how often it measures."""
    telemetry: Telemetry = written({})
    """What the agent says about itself."""
    sources: tuple[Annotated[Host | Cgroups, Field(discriminator="kind")], ...] = ()
    """Where usage comes from; at least one. `metering-agent sources` lists the kinds."""
    meters: tuple[MeterEntry, ...] = ()
    """What is measured and billed; at least one."""
    customers: tuple[CustomerEntry, ...] = ()
    """Who is billed. Default nobody: all usage is unattributed."""
    attribution: Attribution = written({})
    """How usage finds its owner beside the customers' own `match`."""
    sinks: tuple[SinkEntry, ...] = ()
    """Where records go. Default nowhere: they stay in the spool."""
    spool: Spool = written({})
    """The one durable file."""

    _notices: tuple[str, ...] = PrivateAttr(())
    _written_sinks: Mapping[str, bytes] = PrivateAttr({})

    @property
    def written_sinks(self) -> Mapping[str, bytes]:
        """Each sink's section as it was written, as JSON, by id: what the spool keeps of it."""
        return self._written_sinks

    @property
    def notices(self) -> tuple[str, ...]:
        """What is allowed but may surprise, one line each."""
        return self._notices

    def noting(self, notices: tuple[str, ...], written_sinks: Mapping[str, bytes] | None = None) -> "Config":
        """The same configuration with these notices, and with what its sinks were written as."""
        copy = self.model_copy()
        copy._notices = notices  # noqa: SLF001 - our own, before anybody else holds the copy
        if written_sinks is not None:
            copy._written_sinks = written_sinks  # noqa: SLF001
        return copy

    def hold(self) -> int:
        """How long unattributed usage can find an owner, ns: while every sink still takes usage of that age."""
        ages = [sink.max_age * 3 // 4 for sink in self.sinks if isinstance(sink, CloudEvents) and sink.max_age]
        return min(self.attribution.unattributed.hold, *ages) if ages else self.attribution.unattributed.hold

    def dimensions(self) -> tuple[Dimension, ...]:
        """`meters`, as the pure stages read them."""

        def bearer(entry: MeterEntry) -> str | None:
            system = (entry.shared or self.attribution.shared).system
            return None if system == "exclude" else system

        return tuple(
            Dimension(entry.name, entry.meter, entry.policy, entry.group_by, entry.customer, bearer(entry))
            for entry in self.meters
        )

    def rules(self) -> Rules:
        """`customers` and `attribution`, as attribution reads them."""
        label = self.attribution.customer_labels.unit_property
        return Rules(
            customers=tuple(
                Customer(c.id, tuple(m.selector() for m in c.match), c.since, c.until, c.reattribute)
                for c in self.customers
            ),
            customer_labels=(f"property.{label}",) if label else (),
            system=tuple(m.selector() for m in self.attribution.system),
        )


def json_schema() -> dict[str, Any]:
    """JSON Schema of the file as people write it: durations, sizes and times as text."""
    return Config.model_json_schema(by_alias=True, mode="validation")
