"""`python -m tests.cluster.boot DIRECTORY`: the first process of a node, in namespaces that were just made for it.

It lays the node's own view of the machine (mounts, network, kernel settings), says so in DIRECTORY/ready, and reaps.
"""

import os
import signal
import subprocess
import sys
from pathlib import Path

from tests.cluster.addresses import NODE_IP, OUTSIDE_IP
from tests.cluster.hierarchies import ACCOUNTED, mounted

# What a kubelet wants of the machine's kernel. The node is shown files that say so already, and the machine's own
# settings stay as they are: after an oops, 1 here would restart it.
SETTINGS = {
    "vm/overcommit_memory": 1,
    "vm/panic_on_oom": 0,
    "kernel/panic": 10,
    "kernel/panic_on_oops": 1,
    "kernel/keys/root_maxkeys": 1_000_000,
    "kernel/keys/root_maxbytes": 25_000_000,
}
# Where a node keeps its state; the machine's own directories are out of its sight. In /run lies nothing that lasts.
STATE = ("/var/lib", "/var/log")


def mounts(directory: Path) -> None:
    """A private copy of the machine's mounts with the node's own state, control groups and settings laid over it."""
    _call("mount", "--make-rslave", "/")
    for line in reversed(Path("/proc/self/mountinfo").read_text().splitlines()):
        point, kind = line.split()[4], line.split(" - ")[1].split()[0]
        if kind in ("overlay", "nsfs") and point != "/":  # held here, somebody's container could not be removed
            subprocess.run(["umount", "--lazy", point], check=False, stderr=subprocess.DEVNULL)
    _control_groups()
    for path in STATE:
        own = directory / path.lstrip("/")
        own.mkdir(parents=True, exist_ok=True)
        _call("mount", "--bind", str(own), path)
    _call("mount", "-t", "tmpfs", "-o", "mode=755", "node", "/run")
    for name in ("containerd", "netns"):
        Path("/run", name).mkdir()
    for setting, value in SETTINGS.items():
        shown = directory / "sys" / setting
        shown.parent.mkdir(parents=True, exist_ok=True)
        shown.write_text(f"{value}\n")
        if (real := Path("/proc/sys", setting)).exists():
            _call("mount", "--bind", str(shown), str(real))
    _call("mount", "--make-rshared", "/")  # a pod's volume is mounted by the kubelet and seen by containerd


def _control_groups() -> None:
    """Each hierarchy anew, so that the node's group is its root; with it /sys, which shows the network's devices."""
    hierarchies = mounted()
    _call("umount", "--recursive", "/sys")
    _call("mount", "-t", "sysfs", "sysfs", "/sys")
    if "" not in hierarchies or hierarchies[""] != Path("/sys/fs/cgroup"):
        _call("mount", "-t", "tmpfs", "-o", "mode=755", "cgroup", "/sys/fs/cgroup")
    for name, point in hierarchies.items():
        point.mkdir(exist_ok=True)
        options = "none," + name if name.startswith("name=") else name
        _call("mount", *(["-t", "cgroup", "-o", options] if name else ["-t", "cgroup2"]), "cgroup", str(point))
    for name, point in hierarchies.items():
        if ACCOUNTED & set(name.split(",")):
            (point / "init.scope").mkdir(exist_ok=True)
            (point / "init.scope/cgroup.procs").write_text("0")


def network() -> None:
    """A network card, with a second host at its other end that traffic can go to; nothing reaches the machine's own."""
    outside = subprocess.Popen(["unshare", "--net", "sh", "-c", "echo; exec sleep infinity"], stdout=subprocess.PIPE)
    assert outside.stdout is not None
    outside.stdout.readline()  # it is in its namespace now
    there = ["nsenter", "-t", str(outside.pid), "-n"]
    for line in (
        "ip link set lo up",
        f"ip link add eth0 type veth peer name out0 netns {outside.pid}",
        f"ip addr add {NODE_IP}/24 dev eth0",
        "ip link set eth0 up",
        f"ip route add default via {OUTSIDE_IP}",
    ):
        _call(*line.split())
    for line in (
        "ip link set lo up",
        f"ip addr add {OUTSIDE_IP}/24 dev out0",
        "ip link set out0 up",
        f"ip route add default via {NODE_IP}",
    ):
        _call(*there, *line.split())
    for setting in ("net/ipv4/ip_forward", "net/ipv4/conf/all/route_localnet"):
        Path("/proc/sys", setting).write_text("1")


def _call(*argv: str) -> None:
    subprocess.run(argv, check=True)


def main(directory: Path) -> None:
    """Never returns: the node lives as long as this process."""
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    mounts(directory)
    network()
    (directory / "ready").touch()
    while True:
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            signal.pause()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
