"""SIGKILL at whatever instant: no unit lost, none counted twice, no line written twice (L2, L3)."""

import itertools
import json
import os
import random
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue

import pytest
from msgspec import Struct

from tests.conftest import require
from tests.faults.deaths import Deaths
from tests.faults.leftovers import Kept, delivered_lines, different, kept, ship
from tests.faults.process import Agent, Delivered, configuration, in_flight
from tests.faults.report import histogram, publish, table
from tests.faults.script import GROUPS, LIVES, used
from tests.faults.victim import AT_WORK, KILL, Victim
from tests.real.burners import anchor

pytestmark = [pytest.mark.real, pytest.mark.fault]

# Everything that changes a file or makes it durable; strace kills at entry, so before the call has done anything.
CALLS = {
    "pwrite64": "pwrite64",
    "fdatasync": "fdatasync",
    "fsync": "fsync",
    "write": "write",
    "rename": "/^rename(at2?)?$",
    "unlink": "/^unlink(at)?$",
    "ftruncate": "ftruncate",
    "openat": "openat",
}
STRIDE = 7  # of pwrite64: most of them write one page of a transaction that ends with an fdatasync
WORKERS = 2


class Undisturbed(Struct, frozen=True):
    """The script played without a death: what stood before each life, and what it left."""

    before: list[Path]
    after: list[Kept]


@pytest.fixture(scope="module")
def workers() -> Iterator["SimpleQueue[Deaths]"]:
    """Processes that live and die; in memory, for a SIGKILL loses no page that was written."""
    require(shutil.which("strace") is not None, "strace is not installed")
    queue: SimpleQueue[Deaths] = SimpleQueue()
    every = [Deaths() for _ in range(WORKERS)]
    for worker in every:
        queue.put(worker)
    yield queue
    for worker in every:
        worker.close()


@pytest.fixture(scope="module")
def memory() -> Iterator[Path]:
    """A directory in memory."""
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None) as directory:
        yield Path(directory)


@pytest.fixture(scope="module")
def undisturbed(workers: "SimpleQueue[Deaths]", memory: Path) -> Undisturbed:
    """Play the script once, in peace, and check that it is true to what was recorded."""
    worker = workers.get()
    before, after = [], []
    now = memory / "peace"
    now.mkdir()
    for number, life in enumerate(LIVES):
        if number and life.boot != LIVES[number - 1].boot:
            shutil.rmtree(now / "run")  # a boot empties it
        before.append(shutil.copytree(now, memory / f"before-{number}"))
        assert worker.live(now, number)[0] == "lived"
        after.append(kept(Path(shutil.copytree(now, memory / f"after-{number}"))))
    workers.put(worker)
    records = [json.loads(line) for line in delivered_lines(now, "audit")]
    booked = sum(int(r["quantity"]) for r in records if r["dimension"] == "cpu")
    last = {life.boot: life.seconds[-1] for life in LIVES}
    assert booked == sum(used(*key, last[key[0]]) for key in GROUPS)
    assert sorted(r["seq"] for r in records) == list(range(1, len(records) + 1))
    assert {r["kind"] for r in records} == {"usage", "unattributed", "gap"}
    assert {json.loads(line)["kind"] for line in delivered_lines(now, "out")} == {"usage"}
    return Undisturbed(before, after)


Fault = tuple[str, str, int]  # the call, what strace injects, into the how-many-th


def relive(
    worker: Deaths, undisturbed: Undisturbed, memory: Path, life: int, faults: Sequence[Fault]
) -> list[tuple[str, str]]:
    """Live a life through these faults, each in an attempt of its own, then in peace to its end; how each one ended.

    What is left must be what a life in peace leaves.
    """
    with tempfile.TemporaryDirectory(dir=memory) as directory:
        where = Path(shutil.copytree(undisturbed.before[life], Path(directory) / "life"))
        told = []
        for name, fault, number in faults:
            told.append(worker.live(where, life, CALLS[name], fault, number))
            if number % 2:
                ship(where)
        if told[-1][0] != "untouched":
            assert worker.live(where, life)[0] == "lived"
        assert different(undisturbed.after[life], kept(where)) == [], f"life {life}, {faults}: {told}"
        return told


class Harm:
    """What is done to the script, and where it struck: counts by (phase, call)."""

    def __init__(self, workers: "SimpleQueue[Deaths]", undisturbed: Undisturbed, memory: Path) -> None:
        self._workers, self._undisturbed, self._memory = workers, undisturbed, memory
        self.struck: Counter[tuple[str, str]] = Counter()

    def each(self, jobs: Iterable[tuple[int, Sequence[Fault]]]) -> None:
        """Relive lives through their faults, a few at a time."""
        with ThreadPoolExecutor(WORKERS) as pool:
            for _ in pool.map(self._one, jobs):
                pass

    def everywhere(self, fault: str, names: Mapping[str, int], offset: int = 0) -> None:
        """Inject `fault` into every call (or each so-many-th) of these names, in every life."""
        jobs = [(life, name, stride) for name, stride in names.items() for life in range(len(LIVES))]

        def until_untouched(job: tuple[int, str, int]) -> None:
            life, name, stride = job
            for number in itertools.count(1 + offset % stride, stride):
                if self._one((life, [(name, fault, number)])) == "untouched":
                    return

        with ThreadPoolExecutor(WORKERS) as pool:
            for _ in pool.map(until_untouched, jobs):
                pass

    def _one(self, job: tuple[int, Sequence[Fault]]) -> str:
        life, faults = job
        worker = self._workers.get()
        try:
            told = relive(worker, self._undisturbed, self._memory, life, faults)
        finally:
            self._workers.put(worker)
        for (name, _, _), (outcome, phase) in zip(faults, told, strict=True):
            if outcome != "untouched":
                self.struck[phase if outcome == "killed" else f"and then {outcome}", name] += 1
        return told[-1][0]


@pytest.fixture
def harm(workers: "SimpleQueue[Deaths]", undisturbed: Undisturbed, memory: Path) -> Harm:
    """A count that begins at nothing."""
    return Harm(workers, undisturbed, memory)


@pytest.fixture
def seed() -> int:
    """Another one each time, and printed."""
    return int(os.environ.get("SEED") or random.SystemRandom().randrange(10**6))


@pytest.mark.timeout(600)
def test_a_kill_at_any_system_call_of_the_recorded_script_leaves_the_same_records(harm: Harm, seed: int) -> None:
    """Every commit, sync, rename and unlink of three lives is a place to die, and none of them shows afterwards."""
    harm.everywhere(KILL, dict.fromkeys(CALLS, 1) | {"pwrite64": STRIDE}, seed)
    struck = Counter(phase for phase, _ in harm.struck.elements())
    commits = ("sweep commit", "freeze commit", "leaving commit", "settle commit", "cut commit")
    for phase in (*commits, "temp write", "rename"):
        assert struck[phase] >= 3, phase
    intro = f"SEED={seed}: SIGKILL at every system call that changes a file (pwrite64: at every {STRIDE}th); each time"
    intro += " the records, marks, evidence and lines of a run without:"
    publish("kills of the recorded script", [intro, *histogram(harm.struck, "phase")])


@pytest.mark.timeout(300)
def test_deaths_while_recovering_from_deaths_leave_the_same_records(harm: Harm, seed: int) -> None:
    """Recovery is killed too, up to four times in a row."""
    dice = random.Random(seed)
    reach = {"pwrite64": 300, "fdatasync": 30, "fsync": 20, "write": 6, "rename": 6, "unlink": 3, "openat": 30}

    def row() -> list[Fault]:
        names = dice.choices(list(reach), k=dice.randint(2, 4))
        return [(name, KILL, dice.randint(1, reach[name])) for name in names]

    harm.each((dice.randrange(len(LIVES)), row()) for _ in range(80))
    intro = f"SEED={seed}: 80 lives killed 2 to 4 times in a row, recovery included:"
    publish("kills of the recovery", [intro, *histogram(harm.struck, "phase")])


@pytest.mark.timeout(300)
def test_an_error_of_the_disk_repeats_and_loses_nothing(harm: Harm, seed: int) -> None:
    """What could not be written, synced or renamed once is so by the next try, or by the next start, as it was."""
    harm.everywhere("error=EIO", {"write": 1, "fsync": 1, "rename": 1, "fdatasync": 1, "pwrite64": 29}, seed)
    publish("errors of the disk under the recorded script", [f"SEED={seed}", *histogram(harm.struck, "EIO")])


@pytest.mark.timeout(300)
def test_a_live_agent_killed_fifty_times_bills_what_the_kernel_counted(tmp_path: Path, seed: int) -> None:
    """Real groups burn on while the agent dies and starts again at once; in the end nothing is missing or doubled."""
    require(shutil.which("strace") is not None, "strace is not installed")
    dice = random.Random(seed)
    with anchor() as top:
        a, b, nobody = top.child("a.slice"), top.child("b.slice"), top.child("nobody")
        own = a.child("steady")
        config = configuration(tmp_path, top.name, {"a": [a.name], "b": [b.name]})
        first = Agent(config, log=tmp_path / "agent.log").ready()  # the first sight is of groups that used nothing
        assert top.used() == 0
        for group in (own, b, nobody):
            group.burn_steadily()
        first.kill()
        victim = Victim(tmp_path, config, dice)
        began = time.monotonic()
        deadline, kills = began + 220, 0
        while time.monotonic() < deadline and not (kills >= 50 and victim.aimed_enough()):
            if time.time() % 10 < 3:  # a window is over: its records are being delivered, or wait for that
                victim.aimed(victim.least_struck())
            elif kills % 5 == 0:
                victim.aimed(AT_WORK)
            else:
                victim.at_random()
            kills += 1
            a.live_shortly(f"job-{kills}", 0.02)
        took = time.monotonic() - began
        for group in (own, b, nobody):
            group.end()
        truth = {"a": a.used(), "b": b.used()}
        moved = top.used()
        last = Agent(config, log=tmp_path / "agent.log").ready()
        assert last.stop() == 0, last.said()

    billing, audit = Delivered(tmp_path / "out"), Delivered(tmp_path / "audit")
    for delivered in (billing, audit):
        delivered.check()
    billed = {customer: billing.total("usage", customer) for customer in truth}
    unattributed, debt = audit.total("unattributed"), in_flight(tmp_path / "data")
    rows: dict[str, dict[str, object]] = {
        f"customer {c}": {"kernel": truth[c], "billed": billed[c], "difference": billed[c] - truth[c]} for c in truth
    }
    whole = sum(billed.values()) + unattributed + debt
    rows["unattributed"] = {"kernel": "·", "billed": unattributed, "difference": "·"}
    rows["in flight"] = {"kernel": "·", "billed": debt, "difference": "·"}
    rows["anchor"] = {"kernel": moved, "billed": whole, "difference": whole - moved}
    intro = f"SEED={seed}: {kills} SIGKILLs in {took:.0f} s; {len(audit.lines)} lines, each id once, none in two files."
    publish(
        "kills of the live agent", [intro, *histogram(victim.struck, "death struck"), "", *table(rows, "ns of CPU")]
    )
    assert billed == truth
    assert whole == moved
    assert [r["seq"] for r in audit.records] == list(range(1, len(audit.records) + 1))
    assert [r["id"] for r in billing.records] == [r["id"] for r in audit.records if r["kind"] == "usage"]
    assert len({r["source"] for r in audit.records}) == 1  # no kill began an epoch
    assert {r["kind"] for r in audit.records} == {"usage", "unattributed"}  # nor left a gap
    assert "overrun" not in last.said()
    assert "Traceback" not in last.said()
    assert kills >= 50
    assert victim.aimed_enough()
