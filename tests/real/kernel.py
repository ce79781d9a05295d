"""Real cgroups with real processes in them, and a source that is followed as the daemon does."""

import os
import select
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from agent.model import NS_PER_S
from agent.sources import Watched
from agent.sources.hierarchy import Layout
from tests.conftest import require

BURN = "import sys, time\nwhile time.process_time() < float(sys.argv[1]): pass"


class Kernel:
    """Groups made for one test, in every tree that CgroupSource reads, under `anchor`; all removed at the end."""

    def __init__(self, anchor: str) -> None:
        layout = Layout("/")
        trees = [*(layout.v1[c] for c in ("cpuacct", "memory", "blkio", "pids") if c in layout.v1), layout.unified]
        self.trees = [Path(tree.root) for tree in trees if tree is not None]
        self.cpu = self.trees[0] if "cpuacct" in layout.v1 else self.trees[-1]
        self.anchor = anchor
        self.make(anchor)

    def make(self, path: str) -> None:
        for tree in self.trees:
            (tree / path).mkdir()

    def remove(self, path: str) -> None:
        """Remove a group, as soon as the kernel has let go of its last process."""
        for tree in self.trees:
            for _ in range(200):
                try:
                    (tree / path).rmdir()
                except FileNotFoundError:
                    break
                except OSError:
                    time.sleep(0.005)
                else:
                    break

    def clean(self) -> None:
        for tree in self.trees:
            for directory in sorted((tree / self.anchor).glob("**/"), reverse=True):
                with suppress(OSError):
                    directory.rmdir()

    def burn(self, path: str, seconds: float) -> subprocess.Popen[bytes]:
        """A process that joins the group and uses so much CPU there."""
        join = "; ".join(f"echo $$ > {tree / path}/cgroup.procs" for tree in self.trees)
        command = ["sh", "-c", f'{join}; exec "$@"', "sh", sys.executable, "-S", "-E", "-c", BURN, str(seconds)]
        return subprocess.Popen(command)

    def counter(self, path: str) -> int:
        """The CPU counter of a group now, in nanoseconds."""
        with suppress(FileNotFoundError):
            return int((self.cpu / path / "cpuacct.usage").read_text())
        return int((self.cpu / path / "cpu.stat").read_text().split()[1]) * 1000


def fresh_anchor(prefix: str) -> str:
    """A name that nobody else has, where groups can be made; else the test is skipped."""
    require(os.geteuid() == 0 and os.access(Layout("/").base, os.W_OK), "making cgroups needs root")
    return f"{prefix}-{os.getpid()}-{time.monotonic_ns()}"


def follow(source: Watched, until: float) -> bool:
    """Read as the daemon does, when told and when due, until something died or the time is over."""
    while time.monotonic() < until:
        wait = source.next_read_within(time.clock_gettime_ns(time.CLOCK_BOOTTIME)) / NS_PER_S
        select.select([source.fileno()], [], [], max(0.0, min(wait, until - time.monotonic())))
        if source.read():
            return True
    return False


def cost(act: Callable[[], object]) -> float:
    """Milliseconds of this thread's CPU."""
    start = time.thread_time_ns()
    act()
    return (time.thread_time_ns() - start) / 1_000_000
