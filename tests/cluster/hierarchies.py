"""The control groups of one node: a group of its own in each hierarchy, which the node sees as the hierarchy's root."""

import os
import time
from contextlib import suppress
from pathlib import Path

PREFIX = "metering-cluster-"
# As under systemd, a service has a group of its own in these, and is at the root of the others.
ACCOUNTED = {"cpu", "cpuacct", "memory", "pids", "blkio", "name=systemd", ""}


def mounted() -> dict[str, Path]:
    """Where each hierarchy of this process is mounted, by what a mount calls it: `cpuacct`, `name=systemd`, ``: v2."""
    found: dict[str, Path] = {}
    names = [line.split(":")[1] for line in Path("/proc/self/cgroup").read_text().splitlines()]
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        kind, _, options = after.split(maxsplit=2)
        for name in names:
            v1 = kind == "cgroup" and name and set(name.split(",")) <= set(options.split(","))
            if v1 or (kind == "cgroup2" and not name):
                found.setdefault(name, Path(before.split()[4]))
    return found


class Groups:
    """The groups called metering-cluster-TAG. The machine shows there what the node sees as roots."""

    def __init__(self, tag: str) -> None:
        self.tag = tag
        self._roots = {name: mount / f"{PREFIX}{tag}" for name, mount in mounted().items()}

    def path(self, controller: str) -> Path:
        """What the node sees as /sys/fs/cgroup/CONTROLLER; without a name, where v2 is."""
        return next(root for name, root in self._roots.items() if controller in name.split(","))

    @property
    def cpu(self) -> Path:
        """Where CPU time is counted: the node's /sys/fs/cgroup/cpuacct."""
        return self.path("cpuacct")

    def make(self) -> None:
        """The groups, empty; a CPU set must be given before a process can be in it."""
        for name, root in self._roots.items():
            root.mkdir(exist_ok=True)
            if name == "cpuset":
                for file in ("cpuset.cpus", "cpuset.mems"):
                    (root / file).write_text((root.parent / file).read_text())

    def entrances(self, group: str = "") -> list[Path]:
        """Where a process writes its pid to be in a group of the node, in each hierarchy; made if it is not there."""
        found = []
        for name, root in self._roots.items():
            directory = root / group if ACCOUNTED & set(name.split(",")) else root
            directory.mkdir(parents=True, exist_ok=True)
            found.append(directory / "cgroup.procs")
        return found

    def cpu_ns(self, group: str) -> int:
        """CPU time of a group of the node, in ns, by the kernel; 0 for one that is not there."""
        try:
            return int((self.cpu / group / "cpuacct.usage").read_text())
        except FileNotFoundError:
            return 0

    def remove(self, seconds: float = 60) -> None:
        """Remove all that is below; the kernel lets go of the last process a moment after its death."""
        deadline = time.monotonic() + seconds
        while left := [root for root in self._roots.values() if not _removed(root)]:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{left[0]} is in use after {seconds} s")
            time.sleep(0.1)


def abandoned() -> list[str]:
    """The tags of groups that a killed test run left: it begins them with its pid."""
    names = {path.name for mount in mounted().values() for path in mount.glob(f"{PREFIX}*")}
    pids = {name.removeprefix(PREFIX): name.removeprefix(PREFIX).partition("-")[0] for name in sorted(names)}
    return [tag for tag, pid in pids.items() if pid.isdecimal() and not Path("/proc", pid).exists()]


def _removed(root: Path) -> bool:
    for folder, _, _ in os.walk(root, topdown=False):
        with suppress(OSError):
            Path(folder).rmdir()
    return not root.exists()
