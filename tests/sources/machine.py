"""A make-believe machine under a temporary root: cgroup trees, unit files, /proc and /sys, laid out as real ones."""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from agent.model import NS_PER_S, Reading, Sweep
from agent.sources.cgroups import CgroupSource

BOOT = "5f0c2a11-7b1e-4a63-9a0e-000000000001"
V1 = ("cpuacct", "memory", "blkio", "pids", "cpu")

FILES_V1 = {
    "cpuacct": {"cpuacct.usage": "0\n"},
    "memory": {"memory.usage_in_bytes": "0\n", "memory.stat": "cache 0\ntotal_inactive_file 0\n"},
    "blkio": {
        "blkio.throttle.io_service_bytes_recursive": "Total 0\n",
        "blkio.throttle.io_serviced_recursive": "Total 0\n",
    },
    "pids": {"pids.current": "0\n"},
    "cpu": {"cpu.cfs_quota_us": "-1\n", "cpu.cfs_period_us": "100000\n"},
}
FILES_V2 = {
    "cpu.stat": "usage_usec 0\nuser_usec 0\n",
    "memory.current": "0\n",
    "memory.stat": "anon 0\ninactive_file 0\n",
    "io.stat": "",
    "pids.current": "0\n",
    "cgroup.events": "populated 1\nfrozen 0\n",
}


class Clock:
    """Boottime that moves only when told."""

    def __init__(self) -> None:
        self.now = 1000 * NS_PER_S

    def __call__(self) -> int:
        return self.now

    def pass_seconds(self, seconds: int) -> None:
        self.now += seconds * NS_PER_S


class Machine:
    """`layout`: "v1", "v2" or "hybrid". Directories are made 0755, so that only their owner can write there."""

    def __init__(self, root: Path, layout: str = "v1", mounts: dict[str, str] | None = None) -> None:
        self.root, self.clock = root, Clock()
        self.base = root / "sys/fs/cgroup"
        self.trees: dict[str, Path] = {}
        if layout != "v2":
            self.trees = {name: self.base / (mounts or {}).get(name, name) for name in V1}
            for tree in self.trees.values():
                tree.mkdir(parents=True, exist_ok=True)
        if layout != "v1":
            self.trees["unified"] = self.base if layout == "v2" else self.base / "unified"
            self.trees["unified"].mkdir(parents=True, exist_ok=True)
            (self.trees["unified"] / "cgroup.controllers").write_text("cpu io memory pids\n")
        for tree in self.trees.values():
            tree.chmod(0o755)
        self._trash = root / "trash"
        self._trash.mkdir()
        self._thrown = 0

    def group(
        self, path: str, files: Mapping[str, str] = MappingProxyType({}), *, only: tuple[str, ...] | None = None
    ) -> None:
        """Make a group in every tree (or `only` some), with the kernel's files; `files` says what is in them."""
        for name, tree in self.trees.items():
            if only is not None and name not in only:
                continue
            directory = tree / path
            directory.mkdir()
            directory.chmod(0o755)
            for file, text in (FILES_V2 if name == "unified" else FILES_V1[name]).items():
                (directory / file).write_text(files.get(file, text))

    def write(self, path: str, files: Mapping[str, str]) -> None:
        """Overwrite a group's files, wherever they are."""
        for file, text in files.items():
            for tree in self.trees.values():
                if (tree / path / file).exists():
                    (tree / path / file).write_text(text)

    def usage(self, path: str, nanoseconds: int) -> None:
        """Set a group's CPU counter."""
        self.write(path, {"cpuacct.usage": f"{nanoseconds}\n", "cpu.stat": f"usage_usec {nanoseconds // 1000}\n"})

    def remove(self, path: str) -> None:
        """Remove a group. Its inode is kept elsewhere, for a cgroup's inode does not come back as a disk's does."""
        for tree in self.trees.values():
            if (tree / path).exists():
                self._thrown += 1
                (tree / path).rename(self._trash / str(self._thrown))

    def source(
        self,
        include: list[str],
        anchors: list[str],
        *,
        books: bool = True,
        wanted: frozenset[str] | None = None,
        aspects: frozenset[str] = frozenset(),
    ) -> CgroupSource:
        """A source that reads this machine, on which the user of the test is root."""
        return CgroupSource(
            "cg",
            str(self.root),
            include,
            anchors,
            boot=BOOT,
            clock=self.clock,
            books=books,
            wanted=wanted,
            aspects=aspects,
            root_uid=os.getuid(),
        )

    def write_file(self, path: str, text: str) -> Path:
        """A file anywhere below the root, its directories made."""
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        return file

    def boot_systemd(self) -> None:
        """From here on systemd owns slices and what is in them."""
        (self.root / "run/systemd/system").mkdir(parents=True)

    def wipe(self) -> None:
        """Drop what was removed."""
        shutil.rmtree(self._trash)


def values(reading: Reading, aspect: str = "usage") -> dict[str, int]:
    """Meter → value of one reading."""
    return {sample.meter: sample.value for sample in reading.samples if sample.aspect == aspect}


def named(sweep: Sweep, name: str) -> Reading:
    """The one reading of the resource of this name."""
    (found,) = [reading for reading in sweep.readings if reading.resource.name == name]
    return found


def names(sweep: Sweep) -> list[str]:
    """Who was read, in order; `†` marks the gone."""
    return [reading.resource.name + "†" * reading.gone for reading in sweep.readings]
