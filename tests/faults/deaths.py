"""Lives of the recorded script, each in a process of its own, killed at a system call that strace counts.

`python -m tests.faults.deaths` has imported everything and forks once for each line `WHERE LIFE [CALL FAULT N]` that
it reads. FAULT is what strace injects into the N-th CALL. The answer is how the life ended and its last phase:
`killed`, `failed` (with an error), `lived` (to its end), or `untouched` (the same, and there was no N-th call).
"""

import mmap
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from agent.errors import AgentError
from tests.faults.script import play

ROOT = Path(__file__).parents[2]


class Deaths:
    """The other end of that process."""

    def __init__(self) -> None:
        argv = [sys.executable, "-m", "tests.faults.deaths"]
        self._process = subprocess.Popen(argv, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def live(self, where: Path, life: int, call: str = "", fault: str = "", number: int = 0) -> tuple[str, str]:
        """Play a life; how it ended, and its last phase."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(where, life, *((call, fault, number) if call else ()), file=self._process.stdin, flush=True)
        outcome, _, phase = self._process.stdout.readline().rstrip("\n").partition(" ")
        return outcome, phase

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait()


class Phase:
    """What a life last said it was about to do, in memory that outlives its process and costs no system call."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, 64)

    def tell(self, phase: str) -> None:
        self._memory[:] = phase.encode().ljust(64)

    def read(self) -> str:
        return self._memory[:].decode().strip()


@contextmanager
def traced(pid: int, fault: list[str], log: Path) -> Iterator[None]:
    """strace is attached and injects `fault` (CALL FAULT N) until the process has ended."""
    if not fault:
        yield
        return
    call, what, number = fault
    inject = f"inject={call}:{what}:when={number}"
    argv = ["strace", "-qq", "-o", str(log), "-e", f"trace={call}", "-e", inject, "-p", str(pid)]
    tracer = subprocess.Popen(argv)
    status = Path(f"/proc/{pid}/status")
    while "TracerPid:\t0\n" in status.read_text():
        if tracer.poll() is not None:
            raise RuntimeError(f"strace ended with {tracer.returncode}: {' '.join(argv)}")
        time.sleep(0.001)
    yield
    tracer.wait()


def live(where: Path, life: int, fault: list[str]) -> str:
    """Fork a life, trace it, and say how it ended."""
    phase = Phase()
    gate, opener = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(opener)
        os.read(gate, 1)
        try:
            play(where, life, phase.tell)
        except AgentError:
            os._exit(1)  # said on purpose: the agent would end here, and be started again
        except BaseException:  # noqa: BLE001 - nothing may leave a fork but by os._exit
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    os.close(gate)
    log = where / "strace"
    with traced(pid, fault, log):
        os.close(opener)
        _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return f"killed {phase.read()}"
    if os.WEXITSTATUS(status):
        return f"failed {phase.read()}"
    return f"{'lived' if not fault or '(INJECTED)' in log.read_text() else 'untouched'} {phase.read()}"


if __name__ == "__main__":
    for line in sys.stdin:
        directory, number, *fault = line.split()
        print(live(Path(directory), int(number), fault), flush=True)
