"""Counters that a trial knows beforehand: a pure function of the time since a boot, shared with the agents of a trial.

One anchor with two customers, somebody's usage that nobody pays, the anchor's own, and jobs that come and go inside a
customer's group, faster than the agent looks.
"""

import mmap
import struct
import time

from agent.model import Meter, Reading, Resource, Sample, Sweep
from agent.sources import cgroups, kernel
from tests.campaign.oracle import Owner

PER_MS = {"t/acme": 401_009, "t/beta": 211_007, "t/nobody": 97_003, "t": 13_001}  # ns of CPU that each uses itself
JOB, JOB_MS = 37_003, 700  # of a job inside t/acme, and how long one lives
WALL = time.time_ns  # the clock that counters go by, whatever an agent is made to see
BOOTTIME = time.clock_gettime_ns
_WORDS = struct.Struct("<6q")
PHASES = ("spool", "loop", "files")  # who says what they are about to do: the threads of an agent
WIDTH = 32


def used(path: str, ms: int) -> int:
    """What a group used in so many ms of a boot, all inside it included."""
    if path == "t":
        return sum(used(child, ms) for child in PER_MS if child != "t") + PER_MS["t"] * ms
    return PER_MS[path] * ms + (JOB * ms if path == "t/acme" else 0)


def owned(ms: int) -> dict[Owner, int]:
    """The truth: what each owner used."""
    found: dict[Owner, int] = {"acme": used("t/acme", ms), "beta": used("t/beta", ms)}
    return found | {None: used("t", ms) - sum(found.values())}


class Shared:
    """Memory that outlives an agent and costs no system call: its counters' time, what it committed, what it does."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, 4096)
        self.reboot()

    def reboot(self) -> None:
        """Every counter at zero, from now on."""
        self.booted = BOOTTIME(time.CLOCK_BOOTTIME)  # what an agent's clock of this boot leaves out
        self._write(WALL(), 0, 0, 0, 0, 0)
        self.quiet()

    def end(self) -> None:
        """Nothing is used from now on, if not before."""
        began, ended, *rest = self._read()
        self._write(began, ended or WALL(), *rest)

    def ms(self, now: int) -> int:
        """How long things have been used at an instant of the clock."""
        began, ended, *_ = self._read()
        return max(0, (min(now, ended) if ended else now) - began) // 1_000_000

    def acknowledge(self, at: int, records: int) -> None:
        """A sweep that was read at `at` is committed, and so are that many records."""
        began, ended, _, known, commits, _ = self._read()
        self._write(began, ended, at, max(known, records), commits + 1, 0)

    @property
    def acknowledged(self) -> int:
        """When the last committed sweep was read; 0 before the first of a boot."""
        return self._read()[2]

    @property
    def records(self) -> int:
        """How many records were committed."""
        return self._read()[3]

    @property
    def commits(self) -> int:
        """How many sweeps were committed."""
        return self._read()[4]

    def tell(self, who: str, phase: str) -> None:
        """A thread is about to do this."""
        at = 1024 + WIDTH * PHASES.index(who)
        self._memory[at : at + WIDTH] = phase.encode().ljust(WIDTH)

    def phase(self, *order: str) -> str:
        """What it does now, by the first of these threads that says; by default spool, files, loop."""
        told = [self.told(who) for who in order or ("spool", "files", "loop")]
        return next((phase for phase in told if phase), "between")

    def told(self, who: str) -> str:
        """What a thread said last; empty: that it is done."""
        at = 1024 + WIDTH * PHASES.index(who)
        return self._memory[at : at + WIDTH].decode().strip()

    def quiet(self) -> None:
        """No agent lives."""
        for who in PHASES:
            self.tell(who, "")

    def _read(self) -> tuple[int, ...]:
        return _WORDS.unpack_from(self._memory)

    def _write(self, *words: int) -> None:
        _WORDS.pack_into(self._memory, 0, *words)


class Scripted:
    """The source that reads them. A job's last value is what was read while it lived, as the kernel lets one read."""

    def __init__(self, source: str, shared: Shared, boot: str) -> None:
        self.id, self._shared, self._boot = source, shared, boot
        self.meters: tuple[Meter, ...] = tuple(m for m in cgroups.METERS if m.name == "cpu.time")
        self.read_at = 0
        self._jobs: dict[int, int] = {}

    def sweep(self) -> Sweep:
        """Everything now."""
        self.read_at = WALL()
        ms, stamp = self._shared.ms(self.read_at), kernel.boottime()
        readings = [self._reading("t", 0, used("t", ms), stamp)]
        readings += [self._reading(path, 0, used(path, ms), stamp) for path in PER_MS if path != "t"]
        current = ms // JOB_MS
        self._jobs[current] = JOB * (ms - current * JOB_MS)
        for job in sorted(self._jobs):
            gone = job != current
            readings.append(self._reading("t/acme/job", job + 1, self._jobs[job], stamp, gone=gone))
        self._jobs = {current: self._jobs[current]}
        listing = frozenset(reading.resource.key for reading in readings if not reading.gone)
        return Sweep(self.id, self._boot, stamp, readings, listing, cores=2)

    def close(self) -> None:
        """Nothing is held."""

    def _reading(self, path: str, number: int, value: int, stamp: int, *, gone: bool = False) -> Reading:
        above = path.rpartition("/")[0]
        parent = f"{self._boot}/{above}#0" if above else None
        key = f"{self._boot}/{path}#{number}"
        resource = Resource(key, path, parent, "t", {"cgroup": path})
        return Reading(resource, (Sample("cpu.time", key, value, stamp),), gone=gone)
