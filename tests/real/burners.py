"""Real cgroups that burn real CPU, read as the kernel counts it: the truth that the agent's records are held against.

An anchor of our own at the hierarchy's root, without systemd: v1 cpuacct where it is mounted, else cgroup v2.
"""

import os
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.conftest import require

NS_PER_S = 1_000_000_000
V1 = [Path("/sys/fs/cgroup/cpuacct"), Path("/sys/fs/cgroup/cpu,cpuacct")]
V2 = [Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup/unified")]

# Burn for 8 ms out of 80, until told to end by the end of its input: it cannot outlive the test.
STEADY = """\
import select, time
while not select.select([0], [], [], 0.072)[0]:
    end = time.process_time() + 0.008
    while time.process_time() < end: pass
"""
# Burn so many seconds of CPU and end.
ONCE = """\
import sys, time
while time.process_time() < float(sys.argv[1]): pass
"""


class Group:
    """One directory of the CPU hierarchy. `name` is its path below the root, as configuration writes it."""

    def __init__(self, root: Path, name: str) -> None:
        self.name, self._root, self._directory = name, root, root / name
        self._directory.mkdir()
        self._running: list[subprocess.Popen[bytes]] = []

    def child(self, name: str) -> "Group":
        """A new group below this one."""
        return Group(self._root, f"{self.name}/{name}")

    def used(self) -> int:
        """The kernel's own counter, in nanoseconds."""
        v1 = self._directory / "cpuacct.usage"
        if v1.exists():
            return int(v1.read_text())
        return int((self._directory / "cpu.stat").read_text().split()[1]) * 1000

    def burn(self, *argv: str) -> subprocess.Popen[bytes]:
        """A process that is in this group from before its first instruction of Python."""
        join = ["sh", "-c", 'echo $$ > "$0" && exec "$@"', str(self._directory / "cgroup.procs")]
        process = subprocess.Popen([*join, sys.executable, "-I", "-S", "-c", *argv], stdin=subprocess.PIPE)
        self._running.append(process)
        return process

    def burn_steadily(self) -> None:
        """About a tenth of a core until `end`."""
        self.burn(STEADY)

    def burn_once(self, seconds: float) -> None:
        """So much CPU, and wait for it."""
        self.burn(ONCE, str(seconds)).wait()

    def end(self) -> int:
        """End what runs here, wait until the kernel has let go of it, and say what the group used in its life."""
        for process in self._running:
            assert process.stdin is not None
            process.stdin.close()
        for process in self._running:
            process.wait(10)
        self._running = []
        return self.used()

    def remove(self) -> None:
        """Remove the directory; the kernel may take a moment to notice that it is empty."""
        deadline = time.monotonic() + 5
        while True:
            try:
                self._directory.rmdir()
            except FileNotFoundError:
                return
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.002)
            else:
                return

    def live_shortly(self, name: str, seconds: float) -> int:
        """A group below this one that burns so much CPU and vanishes as it ends; what it used, by the kernel."""
        group = self.child(name)
        group.burn_once(seconds)
        used = group.end()
        group.remove()
        return used

    def tree(self) -> list[Path]:
        """This directory and all below it, children first."""
        return sorted(self._directory.glob("**/"), key=lambda path: -len(path.parts))

    def clean(self) -> None:
        """End and remove everything, whatever the test left."""
        for directory in self.tree():
            for pid in (directory / "cgroup.procs").read_text().split():
                with suppress(ProcessLookupError):
                    os.kill(int(pid), 9)  # only what runs in our own group: we put it there
        for directory in self.tree():
            for _ in range(500):
                with suppress(OSError):
                    directory.rmdir()
                    break
                time.sleep(0.01)


def cpu_hierarchy() -> Path | None:
    """Where CPU is counted, if we may make groups there."""
    mounted = [p for p in V1 if (p / "cpuacct.usage").exists()] + [p for p in V2 if (p / "cgroup.procs").exists()]
    return mounted[0] if mounted and os.access(mounted[0], os.W_OK) else None


@contextmanager
def anchor() -> Iterator[Group]:
    """An anchor of our own, with nothing in it; all of it is gone afterwards."""
    root = cpu_hierarchy()
    require(root is not None and os.geteuid() == 0, "making cgroups needs root and a CPU hierarchy that is writable")
    assert root is not None
    group = Group(root, f"mtr-test-{os.getpid()}-{secrets.token_hex(3)}")
    try:
        yield group
    finally:
        group.clean()
