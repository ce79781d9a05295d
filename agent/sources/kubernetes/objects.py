"""Objects of the API, with only the fields that are read. Unknown fields are passed over; types are strict.

Names are the API's own (`rename="camel"`). A list or map that is empty may be absent or null: Go writes both.
"""

from collections.abc import Mapping, Sequence
from typing import Literal

from msgspec import Raw, Struct, field

Quantities = Mapping[str, str]  # resource → quantity, as written


class Reference(Struct, frozen=True):
    """One owner of an object."""

    kind: str
    name: str
    controller: bool | None = None


class Metadata(Struct, frozen=True, rename="camel"):
    """What every object has. `created` is RFC 3339 in UTC with whole seconds, so it sorts as text."""

    name: str
    uid: str
    namespace: str = ""
    resource_version: str = ""
    created: str | None = field(default=None, name="creationTimestamp")
    labels: Mapping[str, str] | None = None
    owners: Sequence[Reference] | None = field(default=None, name="ownerReferences")


class Annotated(Metadata, frozen=True):
    """The metadata of what only a platform's own people annotate."""

    annotations: Mapping[str, str] | None = None


class Thing(Struct, frozen=True):
    """A namespace or a node: nothing but its metadata is read (PartialObjectMetadata)."""

    metadata: Annotated


class Mirrored(Struct, frozen=True):
    """Of a pod's annotations those that the kubelet gives to the mirror of a static one. Tenants write the others."""

    config: str | None = field(default=None, name="kubernetes.io/config.hash")
    mirror: str | None = field(default=None, name="kubernetes.io/config.mirror")


class PodMetadata(Metadata, frozen=True):
    """The metadata of a pod."""

    annotations: Mirrored | None = None


class Resources(Struct, frozen=True):
    """Requests and limits of a container or a pod."""

    requests: Quantities | None = None
    limits: Quantities | None = None


class Container(Struct, frozen=True, rename="camel"):
    """A container as it is wished for. `restart_policy` is "Always" for a native sidecar among the init containers."""

    name: str
    resources: Resources | None = None
    restart_policy: str | None = None


class ContainerStatus(Struct, frozen=True, rename="camel"):
    """A container as it is: the requests that the node admitted, and what is in force."""

    name: str
    resources: Resources | None = None
    allocated_resources: Quantities | None = None


class PodSpec(Struct, frozen=True, rename="camel"):
    """What a pod asks for."""

    containers: Sequence[Container]
    init_containers: Sequence[Container] | None = None
    host_network: bool | None = None
    overhead: Quantities | None = None
    resources: Resources | None = None


class PodStatus(Struct, frozen=True, rename="camel"):
    """What a pod has."""

    container_statuses: Sequence[ContainerStatus] | None = None
    init_container_statuses: Sequence[ContainerStatus] | None = None
    allocated_resources: Quantities | None = None


class Pod(Struct, frozen=True):
    """A pod, whole but for what nobody here reads."""

    metadata: PodMetadata
    spec: PodSpec
    status: PodStatus = PodStatus()


class Cause(Struct, frozen=True):
    """One cause that a Status gives."""

    reason: str = ""


class Details(Struct, frozen=True):
    """What a Status gives beside its words."""

    causes: Sequence[Cause] | None = None


class Status(Struct, frozen=True):
    """What the API server says instead of an object."""

    message: str = ""
    reason: str = ""
    code: int = 0
    details: Details | None = None


class Event(Struct, frozen=True):
    """One line of a watch. The object of an ERROR is a Status."""

    type: Literal["ADDED", "MODIFIED", "DELETED", "BOOKMARK", "ERROR"]
    object: Raw


class Versioned(Struct, frozen=True, rename="camel"):
    """The part of a bookmark's metadata that is read."""

    resource_version: str


class Bookmark(Struct, frozen=True):
    """How far a watch has come, when nothing happened."""

    metadata: Versioned


class ListMeta(Struct, frozen=True, rename="camel"):
    """What a list says of itself. `continue_` names the next page."""

    resource_version: str = ""
    continue_: str | None = field(default=None, name="continue")
