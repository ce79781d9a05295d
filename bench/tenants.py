"""Real cgroups with a real process in each, which uses CPU, memory and disk when told to.

Where the kernel does not count a v1 group's transfers (seen on Linux 6.18), the four `io` meters stay at zero.
"""

import ctypes
import gc
import mmap
import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import NoReturn, Self

from agent.sources.hierarchy import Layout

CONTROLLERS = ("cpuacct", "memory", "blkio", "pids")  # of v1
ENABLED = "+cpu +memory +io +pids"  # the same of v2
PREFIX = "mtr-bench-"  # and the pid of who made it
BLOCK = 4096
SPIN = 500  # rounds of nothing: about 20 µs
_PR_SET_PDEATHSIG = 1


def unable() -> str | None:
    """Why no cgroups can be made here, or None."""
    if os.geteuid() != 0:
        return "making cgroups needs root"
    return None if _mounts() else "no writable cgroup hierarchy is mounted"


class Tenants:
    """`count` groups below `anchor`, ten of them for each customer. Use as a context.

    A group is called `t<customer>-<number>`, or what `called` makes of customer and number.
    """

    def __init__(self, count: int, data: Path, called: Callable[[int, int], str] = "t{:02}-{:03}".format) -> None:
        self.anchor = f"{PREFIX}{os.getpid()}"
        self.names = [called(number % -(-count // 10), number) for number in range(count)]
        self.leader = 0  # process group of all of them: SIGUSR1 to it makes each use something
        self.done = -1  # readable: one byte for each process that has
        self._mounts, self._children = _mounts(), list[int]()
        self._file = data / "tenants"

    def __enter__(self) -> Self:
        _remove_stale(self._mounts)
        self._file.write_bytes(bytes(BLOCK * len(self.names)))
        try:
            for mount in self._mounts:
                _make(mount / self.anchor)
                for name in self.names:
                    (mount / self.anchor / name).mkdir()
            self._start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _start(self) -> None:
        self.done, written = os.pipe()
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})  # a child must not miss it
        gc.collect()
        gc.freeze()  # a child that collects would copy every page
        for number, name in enumerate(self.names):
            pid = os.fork()
            if pid == 0:
                self._live(number, name, written)
            self._children.append(pid)
            self.leader = self.leader or pid
            os.setpgid(pid, self.leader)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        gc.unfreeze()
        os.close(written)
        settle(self.done, len(self.names))

    def _live(self, number: int, name: str, written: int) -> NoReturn:
        """A child's life: into its groups, then a little of everything at each signal."""
        try:
            gc.disable()
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            for mount in self._mounts:
                (mount / self.anchor / name / "cgroup.procs").write_text(str(os.getpid()))
            page = mmap.mmap(-1, BLOCK)
            with suppress(OSError):  # a file system without O_DIRECT: then no disk is used
                fd = os.open(self._file, os.O_RDONLY | os.O_DIRECT)
            while True:
                os.write(written, b".")
                signal.sigwait({signal.SIGUSR1})
                for _ in range(SPIN):
                    pass
                with suppress(OSError, NameError):
                    os.preadv(fd, [page], number * BLOCK)  # no writing, for the agent's fsyncs would wait for it
        finally:
            os._exit(1)

    def close(self) -> None:
        """End every process and remove every group; safe to call twice."""
        for pid in self._children:
            os.kill(pid, signal.SIGKILL)
        for pid in self._children:
            os.waitpid(pid, 0)
        self._children = []
        for mount in self._mounts:
            _remove(mount / self.anchor)
        if self.done >= 0:
            os.close(self.done)
            self.done = -1


def stir(leader: int, done: int, count: int) -> None:
    """Make each of `count` tenants use something, and wait until all have."""
    os.killpg(leader, signal.SIGUSR1)
    settle(done, count)


def settle(done: int, count: int) -> None:
    """Wait until `count` tenants sleep again. Raises RuntimeError when they have died."""
    while count > 0:
        said = len(os.read(done, count))
        if said == 0:
            raise RuntimeError("a tenant died")
        count -= said


def _mounts() -> list[Path]:
    """Where each of the hierarchies that matter is mounted, and can be written to."""
    layout = Layout()
    found = [layout.v1[name].root for name in CONTROLLERS if name in layout.v1] if "cpuacct" in layout.v1 else []
    if not found and layout.unified is not None:
        found = [layout.unified.root]
    return [Path(root) for root in dict.fromkeys(found) if os.access(root, os.W_OK)]


def _make(anchor: Path) -> None:
    anchor.mkdir()
    for group in (anchor.parent, anchor):
        with suppress(OSError):  # v1 has no such file; a v2 without one of them meters what it has
            (group / "cgroup.subtree_control").write_text(ENABLED)


def _remove_stale(mounts: list[Path]) -> None:
    """Remove what a bench left that was killed: its processes are gone, the empty groups are not."""
    for mount in mounts:
        for anchor in mount.glob(f"{PREFIX}*"):
            if not Path("/proc", anchor.name.removeprefix(PREFIX)).exists():
                _remove(anchor)


def _remove(anchor: Path) -> None:
    """Remove groups; the kernel lets go of the last process a moment after its death."""
    for directory in [*(anchor.iterdir() if anchor.is_dir() else ()), anchor]:
        for _ in range(500):
            if not directory.is_dir():
                break
            try:
                directory.rmdir()
            except OSError:
                time.sleep(0.01)
