"""The sections of `sources`, one class a kind. The text under each key becomes its description in the JSON Schema."""

from typing import Annotated, Literal

from pydantic import Field, StrictBool

from agent.config.scalars import (
    Anchor,
    CgroupPattern,
    Directory,
    Duration,
    FilePath,
    Fingerprint,
    Identifier,
    Url,
    written,
)
from agent.config.section import Section
from agent.pattern import anchor_of


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


class Kubelet(Section):
    """The node's kubelet, which `basis: summary` asks."""

    url: Url = written("https://127.0.0.1:10250")
    """Where its authenticated port is. Default https://127.0.0.1:10250; in a pod https://${NODE_IP}:10250.
    `${NAME}` is read from the environment."""
    ca_file: FilePath | None = None
    """Authorities that its certificate is checked against. Default: those of the pod's service account."""
    pin: Fingerprint | None = None
    """SHA-256 of its certificate, in hex, for one that no authority signed; nothing else is then believed. Default
    none."""
    token_file: FilePath | None = None
    """The token that is shown to it, read again when it changes. Default: that of the pod's service account."""


class Kubernetes(Section):
    """The pods of one node, `agent.node`: what a DaemonSet meters."""

    kind: Literal["kubernetes"]
    """`kubernetes`."""
    id: Identifier = "kubernetes"
    """Names the source in metrics and records' evidence. Default: its kind."""
    root: Directory = written("/")
    """Where the node's /proc and /sys are mounted; /host in the chart. Default `/`. `${NAME}` is read from the
    environment."""
    basis: Literal["cgroup", "summary"] = "cgroup"
    """What pods are read from. `cgroup`, the default: their control groups, each second, to the nanosecond. `summary`:
    the kubelet, where the node's cgroups cannot be mounted; what short pods used is then missed."""
    network: StrictBool = True
    """Whether pods' network traffic is read, from their processes' /proc. Default true."""
    max_lateness: Duration = written("2m")
    """How long windows wait for this source when another that feeds the same meter is ahead. Default 2m."""
    metadata_wait: Duration = written("30s")
    """How long a window stays open for pods of which the API server has not told yet. Default 30s; after it their
    usage is recorded as unattributed, and moved when they are known."""
    anchors: tuple[Anchor, ...] = written(["kubepods", "kubepods.slice"])
    """The control group that holds the pods: of those named, what exists. Default kubepods, kubepods.slice: what the
    kubelet makes with either of its cgroup drivers."""
    system: tuple[Anchor, ...] = ()
    """Other slices of the node, such as system.slice: their books close too, and are recorded as `system`. Default
    none."""
    kubeconfig: FilePath | None = None
    """How to reach the API server from outside of the cluster. Default: as a pod does, by its service account."""
    kubelet: Kubelet = written({})
    """The node's kubelet, which `basis: summary` asks."""

    def closed(self) -> tuple[str, ...]:
        """The control groups that it alone may meter on this kernel."""
        return (*self.anchors, *self.system)


def measures(section: "SourceSection", meter: str) -> bool:
    """Whether a source of this section can measure a meter that its kind knows."""
    return not isinstance(section, Kubernetes) or section.basis == "cgroup" or not meter.startswith(("io.", "pids"))


SourceSection = Host | Cgroups | Kubernetes
SourceEntry = Annotated[SourceSection, Field(discriminator="kind")]
