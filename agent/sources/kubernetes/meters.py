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
