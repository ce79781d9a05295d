"""DESIGN §6: bits rot, files are cut, tails are zeroed. It starts, hides no loss, sends nothing twice, and goes on.

One small spool, damaged at every 512 bytes of the database and of its WAL. Its records stand at two sinks in every way
that there is: delivered, frozen and attempted, frozen and never attempted, waiting, not looked at yet.
"""

import copy
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import apsw
import pytest
from msgspec import Struct

from agent.errors import SpoolUnusableError
from agent.spool.epoch import MEASURING
from agent.spool.suspicion import suspect
from agent.spool.verify import fsck
from tests.laws.life import Life
from tests.laws.scene import NOON, S
from tests.spool.owed import freeze, settle

pytestmark = pytest.mark.timeout(180)

STEP = 512
SINKS = ("billing", "files")
Key = tuple[str, int]


class Truth(Struct):
    """The spool before the damage: its files, bodies by number, standings by sink and number."""

    life: Life
    files: dict[str, bytes]
    run: dict[str, bytes]
    bodies: dict[int, bytes]
    standings: dict[Key, str]
    measuring: dict[str, list[tuple[object, ...]]]
    used: int


def standings(life: Life) -> dict[Key, str]:
    """Where every record of the ledger stands at every sink. Exactly one of these holds."""
    found: dict[Key, str] = {}
    held = list(life.spool.db.execute("SELECT first, last FROM held"))
    items: dict[tuple[int, int], str | None] = {
        (sink, seq): outcome for sink, seq, outcome in life.spool.db.execute("SELECT sink, seq, outcome FROM item")
    }
    tainted = "SELECT i.sink, i.seq FROM item AS i JOIN submission AS s ON s.id=i.submission WHERE s.tainted NOT NULL"
    attempted = set(life.spool.db.execute(f"{tainted} AND i.outcome IS NULL"))
    for (seq,) in list(life.spool.db.execute("SELECT seq FROM record")):
        for sink in life.outbox.sinks().values():
            key = (sink.number, seq)
            if key in items:
                state = items[key] or ("attempted" if key in attempted else "owed")
            elif any(first <= seq <= last for first, last in held):
                state = "held"
            else:
                state = "owed" if seq > sink.position else "passed over"
            found[sink.id, seq] = state
    return found


def measuring(life: Life) -> dict[str, list[tuple[object, ...]]]:
    """Marks and open windows."""
    return {table: list(life.spool.db.execute(f"SELECT * FROM {table}")) for table in MEASURING}


@pytest.fixture(scope="module")
def memory() -> Iterator[Path]:
    """A directory that costs no fsync, where there is one: thousands are made, and none is what is tested here."""
    shm = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=shm if shm.is_dir() else None) as path:
        yield Path(path)


@pytest.fixture(scope="module")
def truth(memory: Path) -> Iterator[Truth]:
    """A spool whose database was checkpointed, and whose WAL holds what came after."""
    life = Life(memory / "truth")
    life.path.mkdir()
    life.start().sweep()
    for sink, role in (("billing", "billing"), ("files", "copy")):
        life.outbox.register(sink, "fake", role, b"{}", since=0)
    for minute in range(8):
        life.kernel.burn("a.slice/u", 7 + minute)
        life.sweep(after=60 * S)
    first, second = freeze(life.outbox, "billing", batches=2, max_batch=2)
    freeze(life.outbox, "files", max_batch=3)
    with life.outbox.transaction():
        life.outbox.leaving([first, second], NOON)
        settle(life.outbox, first)
    life.spool.db.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
    with life.outbox.transaction():
        settle(life.outbox, second, 3)
    for _ in range(2):
        life.kernel.burn("a.slice/u", 100)
        life.sweep(after=45 * S)
    freeze(life.outbox, "billing", max_batch=2)
    yield Truth(
        life,
        {name: (life.data_dir / name).read_bytes() for name in ("spool.db", "spool.db-wal", "witness")},
        {path.name: path.read_bytes() for path in life.run_dir.iterdir()},
        dict(life.spool.db.execute("SELECT seq, body FROM record")),
        standings(life),
        measuring(life),
        life.total(),
    )
    life.spool.close()


def begun(truth: Truth, path: Path, damaged: str, damage: Callable[[bytearray], None]) -> Life:
    """The life of an agent that finds the spool damaged."""
    life = copy.copy(truth.life)
    life.kernel = copy.deepcopy(truth.life.kernel)
    life.data_dir, life.run_dir = path / "data", path / "run"
    for directory, files in ((life.data_dir, truth.files), (life.run_dir, truth.run)):
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir()
        for name, content in files.items():
            changed = bytearray(content)
            if name == damaged:
                damage(changed)
            (directory / name).write_bytes(changed)
    try:
        life.start()
    except SpoolUnusableError:
        life.start()  # as the daemon does: what could not be read is looked at as a whole now
    if life.spool.restored is None and fsck(life.data_dir).problems:  # in what no start reads: found as it is read
        life.spool.close()
        suspect(life.data_dir, "a page could not be read")
        life.start()
        assert life.spool.restored is not None
    return life


def reported(life: Life, seq: int) -> bool:
    """Whether a person can see that this record is lost."""
    told = [reason for (reason,) in life.spool.db.execute("SELECT reason FROM quarantine")]
    spans = [tuple(map(int, found.groups())) for line in told if (found := re.match(r"records (\d+) to (\d+): ", line))]
    if any(first <= seq <= last for first, last in spans):
        return True
    audited = " ".join(why for (why,) in life.spool.db.execute("SELECT why FROM audit"))
    nothing_left = re.search(r"0 records are whole; rows are missing in: .*\brecord\b", audited)
    return bool(life.spool.meta("epoch_gap")) and ("restored spool" in audited or nothing_left is not None)


def check(truth: Truth, life: Life) -> str:
    """All that must hold, whatever the damage was. Returns what the opening came to."""
    anew = life.spool.identity.epoch != truth.life.spool.identity.epoch
    assert anew == (life.spool.restored is not None)
    bodies = dict(life.spool.db.execute("SELECT seq, body FROM record"))
    for seq, body in truth.bodies.items():
        assert bodies.get(seq, body) == body
        assert seq in bodies or reported(life, seq)
    for key, now in standings(life).items():
        was = truth.standings[key]
        if not anew:
            assert now == was
        elif was == "owed":
            assert now in ("owed", "held", "ambiguous")
        elif was == "attempted":
            assert now in ("held", "ambiguous")
        else:
            assert now in (was, "held", "ambiguous")
    if anew and not any(measuring(life).values()):
        assert life.spool.meta("epoch_gap")
    else:
        assert measuring(life) == truth.measuring
        assert not life.spool.meta("epoch_gap")
    kept = any(measuring(life).values())
    problems = [line for line in fsck(life.data_dir).problems if "missing" not in line]
    assert problems == []
    life.kernel.burn("a.slice/u", 1)
    life.sweep(after=30 * S)
    if kept and bodies.keys() == truth.bodies.keys():
        assert life.total() == truth.used + 1
    assert life.total() <= truth.used + 1
    assert kept or [r.reason for r in life.records() if r.kind == "gap"] == ["new_epoch"]
    seqs = [seq for seq, _, _ in life.rows() if seq not in truth.bodies]
    assert all(seq > max(bodies, default=0) for seq in seqs)
    return f"{(life.spool.restored or 'sound').split()[0]}, {'measuring on' if kept else 'measuring anew'}"


FILES = ("spool.db", "spool.db-wal")


def at_every_step(
    truth: Truth, path: Path, name: str, damage: Callable[[bytearray, int], None], step: int = STEP
) -> set[str]:
    """Damage the file at each step, start, check; what the openings came to."""
    seen: set[str] = set()
    for at in range(0, len(truth.files[name]), step):
        life = begun(truth, path, name, lambda content, at=at: damage(content, at))  # type: ignore[misc]
        try:
            seen.add(check(truth, life))
        except BaseException as error:
            error.add_note(f"{name} at {at}: {life.spool.restored}")
            raise
        finally:
            life.spool.close()
    return seen


@pytest.mark.parametrize("name", FILES)
def test_a_flipped_bit_anywhere(truth: Truth, memory: Path, name: str) -> None:
    """One bit of every 512 bytes, at a place that moves."""

    def flip(content: bytearray, at: int) -> None:
        content[min(at + at * 37 // STEP % STEP, len(content) - 1)] ^= 1 << at // STEP % 8

    seen = at_every_step(truth, memory, name, flip)
    assert (
        seen
        >= {
            "spool.db": {"unsound, measuring on", "unsound, measuring anew"},
            "spool.db-wal": {"restored, measuring anew"},
        }[name]
    )


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_ends_anywhere(truth: Truth, memory: Path, name: str) -> None:
    """Truncated to every multiple of 512, nothing included."""

    def cut(content: bytearray, at: int) -> None:
        del content[at:]

    at_every_step(truth, memory, name, cut)


@pytest.mark.parametrize("name", FILES)
def test_a_tail_of_zeros_from_anywhere(truth: Truth, memory: Path, name: str) -> None:
    """As some file systems leave a file after a power cut; each time at another place of a page."""

    def blank(content: bytearray, at: int) -> None:
        content[at:] = bytes(len(content) - at)

    at_every_step(truth, memory, name, blank, 5 * STEP)
