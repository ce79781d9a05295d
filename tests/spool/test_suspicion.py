"""DESIGN §6: marks go on only where they are proven, and what is suspected is read whole."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from agent.errors import SpoolError
from agent.record import record_id
from agent.spool.outbox import Draft, Outbox, Rendered
from agent.spool.rounding import Carried, Rounding
from agent.spool.space import BLOB
from agent.spool.suspicion import suspected
from agent.spool.verify import SLICE, fsck
from tests.laws.life import Life
from tests.laws.scene import MINUTE, S
from tests.spool.damage import PAGE, delivering, flip, pages_of, root, stopped, whys
from tests.spool.ledger import NOON, append, ledger, minutes, opened
from tests.spool.owed import due, freeze, outcomes, registered, standing


def metered(path: Path) -> Life:
    """An agent with a closed window of 60 behind it and an open one of 12; it closed 10 s after the window's end."""
    life = Life(path)
    life.start().sweep()
    life.kernel.burn("a.slice/u", 70)
    life.sweep(after=MINUTE + 10 * S)
    life.kernel.burn("a.slice/u", 2)
    life.sweep(after=20 * S)
    return life


def broken(life: Life, table: str) -> None:
    """Stopped, damaged, noticed."""
    number = root(life.spool, table)
    stopped(life.spool)
    with (life.data_dir / "spool.db").open("r+b") as file:
        file.seek(number * PAGE - 100)
        file.write(b"rot")
    (life.data_dir / "suspect").write_text("")


def witness(life: Life, change: Callable[[int], int]) -> None:
    """Let the witness speak of another commit."""
    for path in (life.data_dir / "witness", *life.run_dir.glob("witness-*")):
        epoch, seen = json.loads(path.read_text())
        path.write_text(json.dumps([epoch, change(seen)]))


def test_marks_that_agree_with_the_witness_go_on(tmp_path: Path) -> None:
    """ACCOUNTING §3: nothing is missing, and nothing is billed twice; the new epoch's records have their own ids."""
    life = metered(tmp_path)
    broken(life, "evidence")
    life.kernel.burn("a.slice/u", 100)
    life.pass_time(20 * S)
    life.start().sweep()
    assert life.spool.restored is not None
    assert life.total() == 172
    life.sweep(after=MINUTE)
    assert [r.kind for r in life.records() if r.kind == "gap"] == []
    assert len({r.source for r in life.records()}) == 2


@pytest.mark.parametrize("change", [-1, 1])
def test_marks_that_do_not_agree_are_dropped_and_leave_a_gap(tmp_path: Path, change: int) -> None:
    """DESIGN §6: a witness that says less than it should is as little an agreement as one that says more."""
    life = metered(tmp_path)
    broken(life, "evidence")
    witness(life, lambda seen: seen + change)
    life.kernel.burn("a.slice/u", 100)
    life.start().sweep()
    assert life.total() == 60
    assert [r.reason for r in life.records() if r.kind == "gap"] == ["new_epoch"]
    assert bool(list(life.spool.db.execute("SELECT * FROM held"))) == (change > 0)


@pytest.mark.parametrize("table", ["cursor", "listing", "resource"])
def test_a_lost_mark_or_open_window_leaves_a_gap_since_the_window_began(tmp_path: Path, table: str) -> None:
    """What an open window held is inside the gap, not only what came after the last sweep."""
    life = metered(tmp_path)
    broken(life, table)
    life.pass_time(20 * S)
    life.start().sweep()
    (gap,) = [r for r in life.records() if r.kind == "gap"]
    assert (gap.start, gap.end) == (NOON + MINUTE, life.wall)
    assert str(gap.metadata["because"]).startswith("unsound spool set aside")
    assert life.total() == 60


# -- what is held gives back what rounding took ------------------------------------------------------------------------


def rounded(seq: int, _kind: str, body: bytes) -> Rendered:
    """A record of 1 as 0, all of it carried."""
    carried = Rounding("0", "u", 10, Carried(seq - 1, 1), Carried(seq, 1))
    return Draft(seq, record_id(body).bytes, b"0", rounding=msgspec.json.encode(carried))


def test_what_rounding_left_stays_with_the_epoch_that_a_copy_was_made_of(tmp_path: Path) -> None:
    """ACCOUNTING §7: Σ submitted + Σ remainders = Σ usage, also when a clone holds what it had frozen."""
    outbox = Outbox(opened(tmp_path))
    sink = registered(outbox)
    append(outbox.spool, *minutes(range(4)))
    sent, _ = freeze(outbox, render=rounded, batches=2, max_batch=2)
    with outbox.transaction():
        outbox.leave(sink, "acme", "cpu", 4, 1, NOON)
        outbox.leaving([sent], NOON)
    outbox.spool.close()
    after = Outbox(opened(tmp_path, fingerprint={"machine_id": "other"}))
    assert outcomes(after) == {1: "ambiguous", 2: "ambiguous"}
    assert after.remainder(standing(after), "acme", "cpu") == (0, 1)
    assert whys(after.spool, "remainders") == ["left with the former epoch, in base units: acme cpu 4/1"]
    assert (standing(after).position, due(after), after.backlog(standing(after))[0]) == (4, [], 0)
    after.spool.close()


def test_what_waited_is_held_with_the_rest_in_a_restored_spool(tmp_path: Path) -> None:
    """§9: a clone sends nothing of the original's, however it stood."""
    outbox = Outbox(opened(tmp_path))
    sink = registered(outbox)
    append(outbox.spool, *minutes(range(4)))
    outbox.spool.db.execute("INSERT INTO item(sink, seq) VALUES(?, 1)", (sink.number,))
    outbox.spool.close()
    after = Outbox(opened(tmp_path, fingerprint={"machine_id": "other"}))
    assert (outcomes(after), freeze(after), after.more(standing(after))) == ({}, [], False)
    after.spool.close()


# -- noticing --------------------------------------------------------------------------------------------------------


def test_an_error_at_run_time_lets_the_next_start_read_everything(tmp_path: Path) -> None:
    """DESIGN §6: first I/O or corruption error, stop; what no start looks at is then looked at."""
    spool = opened(tmp_path)
    append(spool, *minutes(range(300)))
    number = root(spool, "evidence")
    stopped(spool)
    flip(tmp_path, number)
    spool = opened(tmp_path)
    assert spool.restored is None  # nothing that measuring needs
    with pytest.raises(SpoolError, match="The disk or the file fails"):
        spool.maintain(NOON + 10**18, 1, 1, 1)
    assert suspected(tmp_path / "data") is not None
    spool.close()
    spool = opened(tmp_path)
    assert "evidence" in (spool.restored or "")
    assert suspected(tmp_path / "data") is None
    spool.close()


def test_a_suspicion_that_was_wrong_is_forgotten(tmp_path: Path) -> None:
    """A disk that failed for a moment costs one long start, and no epoch."""
    delivering(tmp_path).spool.close()
    (tmp_path / "data/suspect").write_text("I/O error")
    spool = opened(tmp_path, reserve=2 * BLOB)
    assert (spool.restored, suspected(tmp_path / "data")) == (None, None)
    spool.close()
    (tmp_path / "data/suspect").write_text("again, with a reserve")
    spool = opened(tmp_path)
    assert spool.restored is None
    spool.close()


def test_a_page_of_zeros_is_noticed_once_suspected(tmp_path: Path) -> None:
    """Its checksum is that of a page nobody wrote, and SQLite takes it for good."""
    spool = opened(tmp_path)
    spool.db.execute("INSERT INTO evidence VALUES(1, ?)", (b"e" * 5000,))
    overflow = max(pages_of(spool, "evidence"))
    stopped(spool)
    with (tmp_path / "data/spool.db").open("r+b") as file:
        file.seek((overflow - 1) * PAGE)
        file.write(bytes(PAGE))
    (tmp_path / "data/suspect").write_text("")
    spool = opened(tmp_path)
    assert spool.restored is not None
    assert list(spool.db.execute("SELECT * FROM evidence")) == []
    spool.close()


def test_rot_in_the_ledger_is_found_in_the_background(tmp_path: Path) -> None:
    """DESIGN §6: a slice a minute; what is found goes to quarantine, and the next start salvages the rest."""
    spool = opened(tmp_path)
    outbox = Outbox(spool)
    registered(outbox, since=None)
    append(spool, *minutes(range(SLICE + 5)))
    spool.db.execute("UPDATE record SET body=x'00' WHERE seq=?", (SLICE + 3,))
    spool.maintain(NOON, 10**18, 10**18, 1)
    assert suspected(tmp_path / "data") is None
    spool.maintain(NOON + MINUTE, 10**18, 10**18, 1)
    assert suspected(tmp_path / "data") is not None
    reasons = [reason for (reason,) in spool.db.execute("SELECT reason FROM quarantine")]
    assert reasons == [f"record {SLICE + 3}: CRC does not match its bytes"]
    spool.close()
    spool = opened(tmp_path)
    assert len(ledger(spool)) == SLICE + 4
    spool.close()


def test_a_spool_behind_its_witness_keeps_a_copy_of_its_wal(tmp_path: Path) -> None:
    """SQLite drops what follows a bad frame in silence; what may lie there is kept for a person."""
    life = metered(tmp_path)
    wal = life.data_dir / "spool.db-wal"
    content = bytearray(wal.read_bytes())
    content[-1000] ^= 1
    life.kill()
    (life.data_dir / "spool.db-wal").write_bytes(content)
    life.start()
    assert (life.spool.restored or "").startswith("restored spool: it ends at commit")
    assert any(path.read_bytes() == content for path in life.data_dir.glob("spool.db.corrupt-*-wal"))


# -- fsck ------------------------------------------------------------------------------------------------------------


def test_fsck_of_a_sound_spool_beside_its_writer(tmp_path: Path) -> None:
    """It says what it looked at."""
    outbox = delivering(tmp_path)
    report = fsck(tmp_path / "data")
    assert report.problems == []
    assert (report.facts["records"], report.facts["last number"], report.facts["open submissions"]) == (12, 12, 2)
    outbox.spool.close()


MADE_USAGE = '{"value":"1","per":1,"before":{"value":0,"grain":1},"after":{"value":1,"grain":1}}'


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        ("UPDATE record SET body=x'00' WHERE seq=12", "record 12: CRC does not match its bytes"),
        ("DELETE FROM record WHERE seq IN (11, 12)", "records 11 to 12: missing"),
        ("UPDATE submission SET settled=1", "record 5 at sink 1: it is open in no open submission"),
        ("UPDATE item SET outcome='dropped' WHERE seq IN (7, 8)", "submission 4: it is open, and holds nothing"),
        (
            "UPDATE item SET payload=NULL; DELETE FROM record WHERE seq=7",
            "record 7 at sink 1: it is owed, and its bytes",
        ),
        ("UPDATE sink SET position=99", "sink sink: it stands at 99, beyond the last record 12"),
        ("UPDATE known SET seq=9 WHERE seq=8", "record 9: it is known by another id than its own"),
        ("UPDATE meta SET value=x'31' WHERE name='commit'", "witness: commit"),
        ("INSERT INTO digest VALUES(1, 12, '2027-01-15', 12, x'00')", "digest of 2027-01-15: records 1 to 12 are not"),
        (
            f"UPDATE item SET rounding='{MADE_USAGE}'",
            "record 1 at sink 1: rounding lost or made usage",
        ),
    ],
)
def test_fsck_tells_what_does_not_fit(tmp_path: Path, damage: str, said: str) -> None:
    """Place, what and cure, for each law of the ledger."""
    outbox = delivering(tmp_path)
    append(outbox.spool)
    outbox.spool.db.execute(damage)
    problems = fsck(tmp_path / "data").problems
    assert any(line.startswith(said) for line in problems), problems
    outbox.spool.close()


def test_fsck_finds_a_flipped_bit_and_a_file_that_is_none(tmp_path: Path) -> None:
    """And names the cure."""
    spool = opened(tmp_path)
    append(spool, *minutes(range(30)))
    number = root(spool, "record_key")
    stopped(spool)
    flip(tmp_path, number)
    assert any("Restart the agent" in line for line in fsck(tmp_path / "data").problems)
    (tmp_path / "data/spool.db").write_bytes(os.urandom(8192))
    assert len(fsck(tmp_path / "data").problems) >= 1
