"""SIGKILL at whatever instant: no unit lost, none counted twice, no line written twice (L2, L3)."""

import json
import os
import random
import re
import shutil
import tempfile
import zlib
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue

import apsw
import pytest
from msgspec import Struct

from tests.conftest import require
from tests.faults.deaths import Deaths
from tests.faults.report import histogram, publish
from tests.faults.script import GROUPS, LIVES, used

pytestmark = [pytest.mark.real, pytest.mark.fault]

KILL = "signal=SIGKILL"
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
WORKERS = 2


Kept = dict[str, set[tuple[object, ...]]]

# All that a life leaves behind and that a death under way must not change. Not the sequence numbers, for the records
# of one transaction may stand there in another order; nor when a pair of re-attribution was made.
QUERIES = {
    "records": "SELECT body, start, hex(key), n, kind, crc FROM record",
    "evidence": "SELECT r.body, unzip(e.body) FROM evidence e JOIN record r USING(seq)",
    "open windows and marks": "SELECT key, body FROM resource",
    "cursors": "SELECT source, body FROM cursor",
    "listing": "SELECT source, key FROM listing",
    "sinks": "SELECT id, role, position FROM sink",
    "delivered": "SELECT hex(d.id), r.body FROM delivered d LEFT JOIN record r USING(seq)",
    "under way": "SELECT sink, name FROM submission WHERE delivered IS NULL",
    "held, refused, done": "SELECT reason FROM held UNION SELECT reason FROM quarantine UNION SELECT why FROM audit",
    "meta": "SELECT name, value FROM meta WHERE name<>'commit'",
}
SEQ = re.compile(rb'"seq":[0-9]+,')


def kept(where: Path) -> Kept:
    """What is left in `where`. Raises AssertionError where a sink's own files contradict each other."""
    db = apsw.Connection(str(where / "data" / "spool.db"))
    assert db.execute("SELECT count(*) = coalesce(max(seq), 0) FROM record").get == 1
    db.create_scalar_function("unzip", zlib.decompress, 1)
    found: Kept = {name: {tuple(row) for row in db.execute(query)} for name, query in QUERIES.items()}
    db.close()
    for sink in ("out", "audit"):
        found[f"lines of {sink}"] = {(SEQ.sub(b"", line),) for line in delivered_lines(where, sink)}
    return found


def different(peace: Kept, left: Kept) -> list[str]:
    """What is in one of the two only; the order inside a JSON array or object says nothing."""
    found = []
    for name, one in peace.items():
        if left[name] != one:
            here, there = {plain(row) for row in one}, {plain(row) for row in left[name]}
            found += [f"lost from {name}: {row}" for row in here - there]
            found += [f"new in {name}: {row}" for row in there - here]
    return found


def plain(value: object) -> str:
    """A row as text, its JSON taken apart, in an order of our own."""
    if isinstance(value, dict):
        return str(sorted((name, plain(part)) for name, part in value.items()))
    if isinstance(value, list):
        return str(sorted(map(plain, value)))
    if isinstance(value, bytes) and value.startswith((b"{", b"[")):
        return plain(json.loads(value))
    return str([plain(part) for part in value]) if isinstance(value, tuple) else repr(value)


def delivered_lines(where: Path, sink: str) -> list[bytes]:
    """Every line that a shipper took or could take, each in one file only, and no file half made."""
    shipped = where / f"{sink}.shipped"
    assert [path.name for path in (where / sink).glob(".*")] == []
    files = [path for directory in (where / sink, shipped) for path in directory.glob("*.ndjson")]
    lines = [line for path in files for line in path.read_bytes().splitlines()]
    doubled = [line for line, count in Counter(lines).items() if count > 1]
    assert doubled == []
    return lines


def ship(where: Path) -> None:
    """Take every file that is visible, as a shipper would while the agent is down."""
    for sink in ("out", "audit"):
        shipped = where / f"{sink}.shipped"
        shipped.mkdir(exist_ok=True)
        for path in (where / sink).glob("*.ndjson"):
            path.rename(shipped / path.name)


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


def relive(worker: Deaths, undisturbed: Undisturbed, memory: Path, life: int, deaths: list[tuple[str, str, int]]) -> list[tuple[str, str]]:
    """Live a life through these deaths (call, fault, number), then to its end; how each attempt went.

    What is left must be what a life in peace leaves.
    """
    with tempfile.TemporaryDirectory(dir=memory) as directory:
        where = Path(shutil.copytree(undisturbed.before[life], Path(directory) / "life"))
        told = []
        for name, fault, number in deaths:
            told.append(worker.live(where, life, CALLS[name], fault, number))
            if number % 2 and fault == KILL:
                ship(where)
        if told[-1][0] == "lived" and len(deaths) == 1 and fault == KILL:
            return told
        assert worker.live(where, life)[0] == "lived"
        assert different(undisturbed.after[life], kept(where)) == [], f"life {life}, {deaths}: {told}"
        return told


@pytest.mark.timeout(600)
def test_a_kill_at_any_system_call_of_the_recorded_script_leaves_the_same_records(
    workers: "SimpleQueue[Deaths]", undisturbed: Undisturbed, memory: Path
) -> None:
    """Every write, sync, rename and unlink of three lives is a place to die, and none of them shows afterwards."""

    def die_everywhere(life: int, name: str) -> Counter[tuple[str, str]]:
        worker = workers.get()
        struck: Counter[tuple[str, str]] = Counter()
        number = 1
        try:
            while True:
                (outcome, phase), *_ = relive(worker, undisturbed, memory, life, [(name, KILL, number)])
                if outcome == "lived":
                    return struck
                assert outcome == "killed"
                struck[phase, name] += 1
                number += 1
        finally:
            workers.put(worker)

    with ThreadPoolExecutor(WORKERS) as pool:
        jobs = [pool.submit(die_everywhere, life, name) for name in CALLS for life in range(len(LIVES))]
        struck: Counter[tuple[str, str]] = sum((job.result() for job in jobs), Counter())
    for phase in ("sweep commit", "temp write", "prepare commit", "rename", "ack commit", "cut commit"):
        assert sum(n for (where, _), n in struck.items() if where == phase) > 0, phase
    lines = ["a SIGKILL at every system call that changes a file; each time the same records and lines as without:"]
    publish("kills of the recorded script", [*lines, *histogram(struck, "phase")])
