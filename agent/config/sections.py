"""The sections of the file, as typed values. The text under each key becomes its description in the JSON Schema.

Nothing here looks from one section into another: `check.py` does.
"""

import socket
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import ConfigDict, Field, PrivateAttr, StrictBool

from agent.attribution import PODS_OWN_WORD, Customer, PodLabels, Rules
from agent.config.owners import Attribution, CustomerEntry, Shared
from agent.config.scalars import (
    CustomerId,
    DimensionName,
    Directory,
    Duration,
    GroupLabel,
    Label,
    LabelKey,
    Listen,
    Policy,
    Size,
    written,
)
from agent.config.section import Section
from agent.config.sinks import SinkEntry, Told
from agent.config.sources import SourceEntry
from agent.model import Choice, Dimension


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
    """Labels that split a customer's usage into records of their own: unit, slice, cgroup, uid; interface, disk,
    mountpoint, mode of the host's meters; namespace, pod, pod_uid, owner, extended_resource, and namespace_label.KEY,
    node_label.KEY, pod_label.KEY. Default none: one record for each customer and window."""
    mode: Literal["window"] = "window"
    """How usage becomes records. `window`, the default and all that polled meters know: one for each window."""
    customer: CustomerId | None = None
    """The customer who pays for the whole meter, for totals of a host that is theirs. Default: by `customers`."""
    shared: Shared | None = None
    """Overrides `attribution.shared` for this meter. Default: what is said there."""
    dimension_from: LabelKey | None = None
    """The label of pods that chooses among the entries of this meter that say the same: by the dimension's name, or
    what a sink calls it. What names none goes to the first of them. Trusted as `attribution.pod_labels` are. Default
    none."""

    @property
    def name(self) -> str:
        """The dimension's name, written or derived."""
        return self.dimension or self.meter.replace(".", "_")


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
    sources: tuple[SourceEntry, ...] = ()
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
        ages = [sink.max_age * 3 // 4 for sink in self.sinks if isinstance(sink, Told) and sink.max_age]
        return min(self.attribution.unattributed.hold, *ages) if ages else self.attribution.unattributed.hold

    def dimensions(self) -> tuple[Dimension, ...]:
        """`meters`, as the pure stages read them."""

        def bearer(entry: MeterEntry) -> str | None:
            system = (entry.shared or self.attribution.shared).system
            return None if system == "exclude" else system

        return tuple(
            Dimension(
                entry.name,
                entry.meter,
                entry.policy,
                entry.group_by,
                entry.customer,
                bearer(entry),
                self._choice(entry),
            )
            for entry in self.meters
        )

    def _choice(self, entry: MeterEntry) -> Choice | None:
        if entry.dimension_from is None:
            return None
        alike = [e for e in self.meters if (e.meter, e.dimension_from) == (entry.meter, entry.dimension_from)]
        others = frozenset().union(*(self._told(e.name) for e in alike[1:])) if entry is alike[0] else None
        always = self.attribution.pod_labels.trust == "always"
        label = f"pod_label.{entry.dimension_from}"
        return Choice(label, self._told(entry.name), others, always, f"{PODS_OWN_WORD} ")

    def _told(self, dimension: str) -> frozenset[str]:
        """What a dimension is called, by us and by sinks."""
        return frozenset({dimension, *(sink.told(dimension) for sink in self.sinks if isinstance(sink, Told))})

    def pod_label_keys(self) -> frozenset[str]:
        """The labels of pods that anything here looks at."""
        groups = {label for entry in self.meters for label in entry.group_by if label.startswith("pod_label.")}
        chosen = {entry.dimension_from for entry in self.meters if entry.dimension_from is not None}
        return frozenset({*self.attribution.pod_labels.keys, *chosen, *(g.partition(".")[2] for g in groups)})

    def reads_node_labels(self) -> bool:
        """Whether anything here looks at the labels of the node."""
        matches = [match for customer in self.customers for match in customer.match] + list(self.attribution.system)
        grouped = any(label.startswith("node_label.") for entry in self.meters for label in entry.group_by)
        named = self.attribution.customer_labels.node is not None
        return grouped or named or any(match.node_labels is not None for match in matches)

    def rules(self) -> Rules:
        """`customers` and `attribution`, as attribution reads them."""
        return Rules(
            customers=tuple(
                Customer(c.id, tuple(m.selector() for m in c.match), c.since, c.until, c.reattribute)
                for c in self.customers
            ),
            customer_labels=self.attribution.customer_labels.labels(),
            system=tuple(m.selector() for m in self.attribution.system),
            pod_labels=PodLabels(self.attribution.pod_labels.keys, self.attribution.pod_labels.trust),
            aliases=self._aliases(),
        )

    def _aliases(self) -> dict[str, str]:
        """What exactly one customer is called by some sink, and nobody's own id is → that customer."""
        named: dict[str, set[str]] = {}
        for customer in self.customers if self.attribution.pod_labels.keys else ():
            for name in customer.ids.values():
                named.setdefault(name, set()).add(customer.id)
        own = {customer.id for customer in self.customers}
        return {name: min(ids) for name, ids in named.items() if len(ids) == 1 and name not in own}


def json_schema() -> dict[str, Any]:
    """JSON Schema of the file as people write it: durations, sizes and times as text."""
    return Config.model_json_schema(by_alias=True, mode="validation")
