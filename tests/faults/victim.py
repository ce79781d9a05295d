"""The real agent as it is killed: at random instants, and by strace at a system call; and where death struck."""

import os
import random
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from agent.spool.schema import connect
from tests.faults.process import Agent

KILL = "signal=SIGKILL"  # strace kills at a call's entry: it has not done anything

# Where strace has an agent die: the call, and the how-many-th of its thread. Records wait only after a window's end,
# and are delivered right after a start: the drains' commits follow those of opening and of the first sweep.
AT_WORK = "aimed at a commit"
AIMS: dict[str, tuple[str, Sequence[int]]] = {
    AT_WORK: ("fdatasync", [1, 2, 3]),
    "aimed at a drain's commit": ("fdatasync", range(8, 15)),
    "aimed at a rename": ("/^rename(at2?)?$", [1]),
    "aimed at the sink's syncs": ("fsync", [2, 3]),  # the first of its thread may be the spool's, at its opening
}
TRACED = "fsync,fdatasync,/^rename(at2?)?$"


class Victim:
    """The real agent, killed again and again on one data directory."""

    def __init__(self, directory: Path, config: Path, dice: random.Random) -> None:
        self._directory, self._config, self._dice = directory, config, dice
        self._log, self._trace = directory / "agent.log", directory / "strace"
        self._said = 0  # how much of the log was there before this life
        self.struck: Counter[tuple[str, str]] = Counter()

    def at_random(self) -> None:
        """Kill it at some instant of its start, or of its first seconds of work."""
        agent = self._start([])
        if self._dice.random() < 0.6:
            agent.wait_for("READY=1")
        time.sleep(self._dice.uniform(0, 1.2))
        agent.kill()
        self.struck[self._found(), "at random"] += 1

    def aimed(self, aim: str) -> None:
        """Have it die at a system call; if it has not come there after a while, at that instant.

        A sweep commits each second, so that strace can be attached at leisure; what a sink does comes with the start.
        """
        call, numbers = AIMS[aim]
        options = f"-f -qq -y -e trace={TRACED} -e inject={call}:{KILL}:when={self._dice.choice(numbers)}"
        strace = ["strace", *options.split(), "-o", str(self._trace)]
        agent = self._start([] if aim == AT_WORK else strace)
        pid = agent.process.pid
        tracer = agent.process
        if aim == AT_WORK:
            agent.wait_for("READY=1")
            tracer = subprocess.Popen([*strace, "-p", str(pid)])
        died = True
        try:
            agent.process.wait(4)
        except subprocess.TimeoutExpired:
            died = False
            children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
            os.kill(pid if tracer is not agent.process else int(children[0]), signal.SIGKILL)
        agent.wait()
        tracer.wait()
        self.struck[(self._traced(), aim) if died else (self._found(), "at random")] += 1

    def _start(self, under: Sequence[str]) -> Agent:
        self._said = self._log.stat().st_size
        return Agent(self._config, under=under, log=self._log)

    def least_struck(self) -> str:
        """The aim that death has met least often so far: how often one is hit depends on the machine's speed."""
        met = Counter(aim for _, aim in self.struck.elements())
        return min(AIMS, key=lambda aim: (met[aim], self._dice.random()))

    def aimed_enough(self) -> bool:
        """Whether death struck commits and renames three times each."""
        where = Counter(phase for phase, _ in self.struck.elements())
        commits = ("sweep or freeze commit", "leaving commit", "settle commit")
        return where["rename"] >= 3 and sum(where[commit] for commit in commits) >= 3

    def _traced(self) -> str:
        """What strace saw it die at, and of what by the calls before."""
        calls = [
            line for line in self._trace.read_text().splitlines() if re.search(r" (f(data)?sync|rename\w*)\(", line)
        ]
        *before, last = calls
        if "event=started" not in self._told():
            return "open"
        if "/data" in last and "spool.db-wal" not in last:
            return "checkpoint"
        # A commit's cause is what came right before it: a sink's files, or else something of the agent's own.
        sink = self._sink_of(last) or self._sink_of(before[-1] if before else "")
        own = [" rename" in line for line in before if sink is not None and self._sink_of(line) == sink]
        if "/data" in last:
            if sink is None:
                return "sweep or freeze commit"
            return "settle commit" if own[-2:] == [True, False] else "leaving commit"
        if " rename" in last:
            return "rename"
        return "after rename" if own[-1:] == [True] else "temp write"

    def _sink_of(self, call: str) -> str | None:
        """The sink in whose directory a call was made."""
        return next((name for name in ("out", "audit") if f"{self._directory}/{name}" in call), None)

    def _found(self) -> str:
        """Where a death without a witness must have struck, by what it left."""
        if "event=started" not in self._told():
            return "open"
        with tempfile.TemporaryDirectory() as copy:
            for path in (self._directory / "data").glob("spool.db*"):
                shutil.copy(path, copy)
            db = connect(f"{copy}/spool.db")
            frozen = list(db.execute("SELECT name, attempts FROM submission WHERE settled IS NULL"))
            db.close()
        temporary = {path.name for sink in ("out", "audit") for path in (self._directory / sink).glob(".*.tmp")}
        for name, attempts in frozen:
            if attempts:
                return "rename" if f".records-{name}.ndjson.tmp" in temporary else "after rename"
        return "temp write" if frozen else "between"

    def _told(self) -> str:
        """What this life wrote into its log."""
        return self._log.read_bytes()[self._said :].decode()
