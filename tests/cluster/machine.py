"""What of the machine a cluster could leave changed: compared from before it came to after it went."""

import os
import socket
from pathlib import Path

from tests.cluster.hierarchies import PREFIX, mounted

# Where Kubernetes, containerd and CNI plugins keep things, each with what is in it.
PLACES = ("/etc/cni", "/opt", "/run", "/run/netns", "/var/lib", "/var/lib/cni", "/var/lib/kubelet", "/var/log")
VOLATILE = ("kernel/ns_last_pid", "kernel/random")  # change by themselves
NAMESPACES = ("cgroup", "mnt", "net", "pid")


def state(tag: str) -> dict[str, set[str]]:
    """Mounts, network devices, kernel settings, places and the control groups of cluster `tag`, as sets of texts."""
    return {
        "mounts": set(Path("/proc/self/mountinfo").read_text().splitlines()),
        "devices": {name for _, name in socket.if_nameindex()},
        "settings": _settings(),
        "places": {str(path) for place in PLACES for path in Path(place).glob("*")},
        "groups": {str(path) for mount in mounted().values() for path in mount.glob(f"{PREFIX}{tag}")},
    }


def namespaces(pid: int) -> set[str]:
    """The namespaces of a process, as links of /proc name them: `net:[4026531840]`."""
    return {str(Path(f"/proc/{pid}/ns/{kind}").readlink()) for kind in NAMESPACES}


def inhabitants(spaces: set[str]) -> list[int]:
    """The processes that are in one of these namespaces."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if namespaces(int(process.name)) & spaces:
                found.append(int(process.name))
        except OSError:  # it has ended
            continue
    return found


def _settings() -> set[str]:
    found = set()
    for folder, _, files in os.walk("/proc/sys"):
        for file in files:
            path = Path(folder, file)
            name = str(path.relative_to("/proc/sys"))
            if name.startswith(VOLATILE):
                continue
            try:
                if path.stat().st_mode & 0o200:  # the others only tell
                    found.add(f"{name} = {path.read_text()}")
            except (OSError, UnicodeDecodeError):
                continue
    return found
