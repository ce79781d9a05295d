"""A kubelet's `/stats/summary`, as far as it is read: k8s.io/kubelet/pkg/apis/stats/v1alpha1.

Strict in what is read and blind to the rest: `usageNanoCores` is a rate, volumes are whole file systems or shared, and
the node's own blocks are not the pods'. Every block has its own `time`, in whole seconds of the node's wall clock.
"""

from datetime import UTC, datetime
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from agent.errors import SourceError

Time = Annotated[datetime, Meta(tz=True)] | None

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Cpu(Struct, rename="camel", frozen=True):
    """CPU time since the object was made. 0 means that nobody has counted yet."""

    time: Time = None
    usage_core_nano_seconds: int | None = None


class Memory(Struct, rename="camel", frozen=True):
    """Memory in use without what the kernel can take back at once."""

    time: Time = None
    working_set_bytes: int | None = None


class Interface(Struct, rename="camel", frozen=True):
    """Bytes of one interface of a pod's network, since it was made."""

    name: str = ""
    rx_bytes: int | None = None
    tx_bytes: int | None = None


class Network(Interface, rename="camel", frozen=True):
    """The default interface, and all of them."""

    time: Time = None
    interfaces: tuple[Interface, ...] | None = None

    @property
    def counted(self) -> tuple[Interface, ...]:
        """Each interface that has a name, once."""
        named = {interface.name: interface for interface in (self, *(self.interfaces or ())) if interface.name}
        return tuple(named.values())


class Container(Struct, rename="camel", frozen=True):
    """One running container."""

    cpu: Cpu | None = None


class PodRef(Struct, frozen=True):
    """Whom it is about. The uid of a static pod is its config hash."""

    name: str
    namespace: str
    uid: str


class Pod(Struct, rename="camel", frozen=True):
    """One pod with a running container; the others are not listed. `start_time` is when its sandbox was made."""

    pod_ref: PodRef
    start_time: Time = None
    cpu: Cpu | None = None
    memory: Memory | None = None
    network: Network | None = None
    containers: tuple[Container, ...] | None = None

    @property
    def started(self) -> int:
        """When its sandbox was made, ns of the wall clock; 0 when the kubelet does not say."""
        return wall_ns(self.start_time)

    @property
    def of_containers(self) -> int:
        """The CPU time of its running containers: what the kubelet says instead of the pod's own when that fails it."""
        counted = (container.cpu for container in self.containers or ())
        return sum(cpu.usage_core_nano_seconds or 0 for cpu in counted if cpu is not None)


class Summary(Struct, frozen=True):
    """The whole answer."""

    pods: tuple[Pod, ...] | None

    @property
    def by_uid(self) -> dict[str, Pod]:
        """Each pod once. Of two entries with one uid the later sandbox is the pod, and the later reading the news."""
        found: dict[str, Pod] = {}
        for pod in self.pods or ():
            known = found.get(pod.pod_ref.uid)
            if known is None or _age(pod) > _age(known):
                found[pod.pod_ref.uid] = pod
        return found


def decode(text: bytes) -> Summary:
    """Raises SourceError for what is no summary, or only the beginning of one."""
    try:
        return msgspec.json.decode(text, type=Summary)
    except msgspec.MsgspecError as error:
        raise SourceError(f"a summary that is not understood: {error}") from error


def wall_ns(time: datetime | None) -> int:
    """Nanoseconds since the epoch; 0 for none, and for the year 1 that stands for none."""
    if time is None or time <= _EPOCH:
        return 0
    since = time - _EPOCH
    return ((since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds) * 1_000


def _age(pod: Pod) -> tuple[int, int]:
    return pod.started, wall_ns(pod.cpu.time) if pod.cpu is not None else 0
