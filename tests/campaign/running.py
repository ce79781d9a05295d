"""Runs trials on a few workers; one that hangs costs its own process only."""

import os
import select
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue

import msgspec

from tests.campaign.row import Trial, Verdict

ROOT = Path(__file__).parents[2]
MEMORY = Path("/dev/shm")
WORKERS = 2
PATIENCE = 180.0  # seconds for one trial
Job = tuple[str, int]  # row, seed


class Worker:
    """A process that makes trials; what it mounts is its own and goes with it."""

    def __init__(self, where: Path) -> None:
        """`where`: for its trials' directories; one that is killed leaves them."""
        self._where = where
        self._process = self._begun()

    def _begun(self) -> "subprocess.Popen[bytes]":
        private = ["unshare", "--mount", "--propagation", "private", "--"]
        argv = ["setpriv", "--pdeathsig=KILL", *private, sys.executable, "-m", "tests.campaign.worker"]
        environ = os.environ | {"TMPDIR": str(self._where)}
        return subprocess.Popen(argv, cwd=ROOT, env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def attempt(self, job: Job) -> Trial:
        """One trial."""
        process, (row, seed) = self._process, job
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(f"{row} {seed}\n".encode())
        process.stdin.flush()
        ready, *_ = select.select([process.stdout], [], [], PATIENCE)
        line = process.stdout.readline() if ready else b""
        if line:
            return msgspec.json.decode(line, type=Trial)
        self.close()
        self._process = self._begun()
        why = "it hung" if not ready else "its worker ended"
        return Trial(row, seed, Verdict(0, 1, 0, {}, (why,)), {}, PATIENCE)

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()


def run(jobs: Iterable[Job], told: Callable[[Trial], None], workers: int = WORKERS) -> Iterator[Trial]:
    """Make these trials, a few at a time. `told` hears of each as it ends; they come back in order."""
    memory = tempfile.TemporaryDirectory(
        prefix="campaign-", dir=MEMORY if MEMORY.is_dir() else None, ignore_cleanup_errors=True
    )
    free: SimpleQueue[Worker] = SimpleQueue()
    every = [Worker(Path(memory.name)) for _ in range(workers)]
    for worker in every:
        free.put(worker)

    def one(job: Job) -> Trial:
        worker = free.get()
        try:
            trial = worker.attempt(job)
        finally:
            free.put(worker)
        told(trial)
        return trial

    try:
        with ThreadPoolExecutor(workers) as pool:
            yield from pool.map(one, jobs)
    finally:
        for worker in every:
            worker.close()
        memory.cleanup()
