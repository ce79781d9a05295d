"""What can be measured of a pod."""

from agent.model import Meter
from agent.sources import cgroups

NETWORK = ("network.receive_bytes", "network.transmit_bytes")
EXTENDED = "extended.requested"

_NETWORK_NOTE = (
    "Not of a pod in the host's network, whose interfaces are the node's. What nobody asked for counts too "
    "(broadcasts), and what goes through an interface that a pod made itself counts at both. A pod that ends all at "
    "once, sandbox included, ends with the last reading, which is at most one sample interval old."
)

METERS = (
    *cgroups.METERS,
    *(
        Meter(
            name,
            "byte",
            "counter",
            "none",
            f"/proc/PID/net/dev of the pod's oldest process, {name.partition('.')[2].partition('_')[0]} bytes of each "
            "`interface` but lo",
            _NETWORK_NOTE,
        )
        for name in NETWORK
    ),
    Meter(
        EXTENDED,
        "unit·ms",
        "gauge",
        "none",
        "spec: whole units requested of each `extended_resource` (nvidia.com/gpu), while the pod's group exists",
    ),
)

_UNPROVEN = (
    "No parent's counter proves it: what a pod used after its last summary, and pods that lived between two, are in no "
    "record."
)
_TOLD_NETWORK_NOTE = (
    "Of each `interface` of the pod's own network, once its metadata says that it is not the node's. Received bytes "
    "hold what the network floods to everybody."
)

SUMMARY = (
    Meter(
        "cpu.time",
        "ns",
        "counter",
        "none",
        "/stats/summary: pods[].cpu.usageCoreNanoSeconds",
        f"The pod's own cgroup, read by the kubelet each 10 to 30 s. {_UNPROVEN}",
    ),
    Meter(
        "memory.working_set",
        "byte·ms",
        "gauge",
        "none",
        "/stats/summary: pods[].memory.workingSetBytes",
        "Not while no container of the pod runs.",
    ),
    *(
        Meter(
            name,
            "byte",
            "counter",
            "none",
            f"/stats/summary: pods[].network.interfaces[].{field}",
            f"{_TOLD_NETWORK_NOTE} {_UNPROVEN}",
        )
        for name, field in zip(NETWORK, ("rxBytes", "txBytes"), strict=True)
    ),
    Meter("alive.time", "ms", "gauge", "none", "1 while the kubelet lists the pod", "Not while no container runs."),
    Meter(
        EXTENDED,
        "unit·ms",
        "gauge",
        "none",
        "units of each `extended_resource` that the pod requests",
        "While the kubelet lists the pod.",
    ),
)
