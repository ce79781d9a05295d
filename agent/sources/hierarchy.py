"""Where the cgroup hierarchies are mounted, on v1, v2 and hybrid, and which one holds a group's CPU counter.

Pure v2 has one tree. v1 has a tree per controller, and Debian, Red Hat and SUSE differ in how they join `cpu` and
`cpuacct`. Hybrid is v1 with a v2 tree beside it (`unified`), which has no controllers but counts CPU all the same:
systemd puts every unit there, and in `cpuacct` only those with CPUAccounting.
"""

import os

from msgspec import Struct


class Hierarchy(Struct, frozen=True):
    """One mounted tree. `name` is part of every counter identity: a v1 controller, or `unified` for v2."""

    name: str
    root: str

    def directory(self, path: str) -> str:
        """Where the group `path` is in the file system; the empty path is the root group."""
        return f"{self.root}/{path}" if path else self.root


class Layout:
    """The hierarchies below `{root}/sys/fs/cgroup`, as they stood when this was made: mounts do not move."""

    def __init__(self, root: str = "/") -> None:
        base = os.path.join(root, "sys/fs/cgroup")
        try:
            names = sorted(os.listdir(base))
        except OSError:
            names = []
        self.base = base
        self.v1: dict[str, Hierarchy] = {}
        self.unified: Hierarchy | None = None
        if "cgroup.controllers" in names:
            self.unified = Hierarchy("unified", base)
            return
        for name in names:
            mount = os.path.join(base, name)
            if os.path.exists(os.path.join(mount, "cgroup.controllers")):
                self.unified = Hierarchy("unified", mount)
            elif os.path.isdir(mount):
                for controller in name.split(","):  # "cpu,cpuacct", "cpuacct,cpu", "net_cls,net_prio"
                    self.v1.setdefault(controller, Hierarchy(controller, mount))

    def controller(self, name: str) -> Hierarchy | None:
        """The tree in which a controller other than CPU accounting has its files; None where none can have them."""
        return self.v1.get(name) or self.unified

    def cpu(self, path: str) -> Hierarchy | None:
        """The tree in which the group `path` has its CPU counter now; None while it exists in neither."""
        for hierarchy in (self.v1.get("cpuacct"), self.unified):
            if hierarchy is not None and os.path.isdir(hierarchy.directory(path)):
                return hierarchy
        return None


def printable(path: str) -> str:
    """A path as text that JSON and SQLite can hold: bytes that are not UTF-8 are spelled out, backslash x f f."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")
