"""What the kernel says of a process: CPU time, memory, and through strace its fsyncs."""

import os
import shutil
import signal
import subprocess
import time
from contextlib import ExitStack
from pathlib import Path

STOP_SECONDS = 30


def cpu_ns(pid: int) -> int:
    """CPU time of a whole process, dead threads included, in ns: its clock of clock_getcpuclockid(3)."""
    return time.clock_gettime_ns((~pid << 3) | 2)


def status(field: str, pid: int | str = "self") -> int:
    """A size from /proc/PID/status in bytes: VmRSS is what is resident, VmHWM the most there has been."""
    return _kib(Path(f"/proc/{pid}/status").read_text(), field)


def pss(pid: int) -> int:
    """Proportional size in bytes: pages shared with other processes count as a share."""
    return _kib(Path(f"/proc/{pid}/smaps_rollup").read_text(), "Pss")


def reset_high_water() -> None:
    """Make VmHWM of this process what is resident now."""
    Path("/proc/self/clear_refs").write_text("5")


def _kib(text: str, field: str) -> int:
    line = next(line for line in text.splitlines() if line.startswith(f"{field}:"))
    return int(line.split()[1]) * 1024


def started(command: list[str], log: Path, stack: ExitStack) -> subprocess.Popen[bytes]:
    """Start a program that `stack` ends; what it says goes to `log`."""
    with log.open("w") as said:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=said, stderr=said, start_new_session=True)
    stack.callback(_stop, process)
    return process


def alive(process: "subprocess.Popen[bytes]") -> int:
    """Its pid. Raises RuntimeError when it has ended: a zombie's figures would be somebody's."""
    if process.poll() is not None:
        raise RuntimeError(f"{process.args!r} ended with {process.returncode}")
    return process.pid


def _stop(process: "subprocess.Popen[bytes]") -> None:
    """Ask it to end, and what runs under it (strace hands on no signal); after a while make it."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        if process.poll() is None:
            os.killpg(process.pid, number)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            continue
        return


class Syncs:
    """Counts the fsync and fdatasync calls of a program that is run behind `command`."""

    def __init__(self, log: Path) -> None:
        self._log = log
        self.missing = None if shutil.which("strace") else "not counted: strace is missing"

    def command(self) -> list[str]:
        """What to put before the program. The kernel stops it only at the two calls (seccomp)."""
        return ["strace", "-f", "--seccomp-bpf", "-qq", "-ttt", "-e", "trace=fsync,fdatasync", "-o", str(self._log)]

    def between(self, began: float, ended: float) -> int:
        """How many there were between two wall clock times, in seconds."""
        lines = [line.split(maxsplit=2) for line in self._log.read_text().splitlines()]
        return sum(
            began <= float(at) <= ended
            for _, at, what in lines
            if what.startswith(("fsync(", "fdatasync("))  # not the second half of one that was interrupted
        )
