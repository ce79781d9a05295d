"""DESIGN §6: what a damaged spool still says comes over, and what it no longer says is told."""

import shutil
from pathlib import Path

import apsw
import pytest

from agent.errors import SpoolUnusableError
from agent.spool.outbox import Outbox
from agent.spool.verify import fsck
from tests.laws.scene import MINUTE
from tests.spool.damage import PAGE, damaged, delivering, flip, pages_of, stopped, whys
from tests.spool.ledger import NOON, append, ledger, minutes, opened, record
from tests.spool.owed import due, freeze, outcomes, registered, standing, verbatim


def test_what_was_attempted_is_ambiguous_and_what_never_left_is_still_owed(tmp_path: Path) -> None:
    """DESIGN §6: unsent never-attempted rows stay, attempted ones are ambiguous; delivered ones stay delivered."""
    outbox = delivering(tmp_path)
    frozen = due(outbox)
    after = Outbox(damaged(tmp_path, outbox.spool, "evidence"))
    assert outcomes(after) == {
        **dict.fromkeys((1, 2, 3, 4), "delivered"),
        **dict.fromkeys((5, 6), "ambiguous"),
        **dict.fromkeys((7, 8), None),
    }
    assert due(after) == [s for s in frozen if s.first == 7]
    assert standing(after).position == 8
    assert after.backlog(standing(after))[0] == 6
    assert list(after.spool.db.execute("SELECT * FROM held")) == []
    after.spool.close()


def test_no_number_is_given_again(tmp_path: Path) -> None:
    """L3: neither a record's, a sink's nor a submission's, though the table that counts them is lost."""
    outbox = delivering(tmp_path)
    outbox.spool.db.execute("INSERT INTO evidence VALUES(40, x'00')")  # of a record that is gone
    outbox.remove(registered(outbox, "former"))
    spool = damaged(tmp_path, outbox.spool, "sqlite_sequence")
    assert append(spool, record(99)) == [41]
    after = Outbox(spool)
    assert registered(after, "new").number == 2  # nothing of `former` is left that could be taken for it
    assert freeze(after)[0].id == 5
    spool.close()


def test_a_lost_first_page_costs_nothing(tmp_path: Path) -> None:
    """It holds the schema, and that is ours."""
    outbox = delivering(tmp_path)
    before = ledger(outbox.spool)
    stopped(outbox.spool)
    flip(tmp_path, 1)
    spool = opened(tmp_path, now=NOON + 7)
    assert ledger(spool) == before
    assert outcomes(Outbox(spool))[1] == "delivered"
    assert whys(spool, "salvage") == ["12 records are whole"]
    spool.close()


def test_lost_records_are_told_by_number_and_time(tmp_path: Path) -> None:
    """DESIGN §6: the sequence proves which are missing; audit and quarantine say so, and fsck does."""
    spool = opened(tmp_path)
    for minute in range(60):
        append(spool, record(minute, padding=500), now=NOON + minute * MINUTE)
    leaf = pages_of(spool, "record")[3]
    stopped(spool)
    flip(tmp_path, leaf)
    spool = opened(tmp_path, now=NOON + 7)
    numbers = [seq for seq, *_ in ledger(spool)]
    missing = sorted(set(range(1, 61)) - set(numbers))
    assert 0 < len(missing) < 10
    (said,) = [reason for (reason,) in spool.db.execute("SELECT reason FROM quarantine")]
    lost = f"records {missing[0]} to {missing[-1]}: their bytes are lost; closed between 2027-01-15T08:"
    assert said.startswith(lost)
    assert f"{len(numbers)} records are whole, {len(missing)} are lost" in whys(spool, "salvage")[0]
    spool.close()
    assert any(f"records {missing[0]} to {missing[-1]}: missing" in line for line in fsck(tmp_path / "data").problems)


def test_records_that_retention_took_are_not_told_as_lost(tmp_path: Path) -> None:
    """The sequence alone cannot tell; the number that retention came to can."""
    spool = opened(tmp_path)
    append(spool, *minutes(range(9)))
    spool.db.execute("DELETE FROM record WHERE seq <= 4")
    spool.db.execute("INSERT INTO meta VALUES('expired', x'34')")
    spool = damaged(tmp_path, spool, "audit")
    assert whys(spool, "salvage") == ["5 records are whole; rows are missing in: audit"]
    spool.close()


def test_a_record_whose_bytes_changed_goes_to_quarantine(tmp_path: Path) -> None:
    """The CRC is of the bytes as they were made: a page may be whole and a record not."""
    spool = opened(tmp_path)
    append(spool, *minutes(range(3)))
    spool.db.execute("UPDATE record SET body=x'00' WHERE seq=2")
    spool.close()
    spool = opened(tmp_path, now=NOON + 7)
    assert [seq for seq, *_ in ledger(spool)] == [1, 3]
    kept = dict(spool.db.execute("SELECT reason, body FROM quarantine"))
    assert kept["record 2: CRC does not match its bytes"] == b"\0"
    spool.close()


def test_what_cannot_be_known_of_a_sink_is_ambiguous_there(tmp_path: Path) -> None:
    """Never owed in silence: it may have been delivered. What lies beyond its position is owed, surely."""
    spool = damaged(tmp_path, delivering(tmp_path).spool, "item")
    after = Outbox(spool)
    assert outcomes(after) == dict.fromkeys(range(1, 9), "ambiguous")
    assert due(after) == []
    assert after.backlog(standing(after))[0] == 4
    spool.close()


def test_of_a_billing_sink_only_what_is_billed_can_be_ambiguous(tmp_path: Path) -> None:
    """L7: the others were never offered to it, nor was what closed before it began, nor what is held."""
    outbox = Outbox(opened(tmp_path))
    append(outbox.spool, *minutes(range(2)))
    registered(outbox, since=None)
    append(outbox.spool, record(2), record(3, "unattributed"), record(4))
    freeze(outbox)
    outbox.spool.db.execute("INSERT INTO held VALUES(5, 5, 'late', 0)")
    after = Outbox(damaged(tmp_path, outbox.spool, "item"))
    assert outcomes(after) == {3: "ambiguous"}
    after.spool.close()


@pytest.mark.parametrize("table", ["sink", "held", "meta"])
def test_where_nothing_says_who_is_owed_what_all_is_held(tmp_path: Path, table: str) -> None:
    """Neither lost nor sent twice: a person decides."""
    outbox = delivering(tmp_path)
    outbox.spool.db.execute("INSERT INTO held VALUES(99, 99, 'x', 0)")
    after = Outbox(damaged(tmp_path, outbox.spool, table))
    assert list(after.spool.db.execute("SELECT first, last FROM held WHERE last=12")) == [(1, 12)]
    registered(after)  # as a start does
    assert (freeze(after), due(after)) == ([], [])
    after.spool.close()


def test_a_frozen_item_without_its_submission_is_ambiguous(tmp_path: Path) -> None:
    """Whether it was attempted stood there."""
    after = Outbox(damaged(tmp_path, delivering(tmp_path).spool, "submission"))
    assert {seq for seq, outcome in outcomes(after).items() if outcome == "ambiguous"} == {5, 6, 7, 8}
    after.spool.close()


def test_what_was_frozen_can_be_sent_though_its_record_is_lost(tmp_path: Path) -> None:
    """L8: the payload is enough. A line of the ledger that is lost cannot be sent, and says so."""
    outbox = delivering(tmp_path)
    registered(outbox, "lines")
    freeze(outbox, "lines", render=verbatim, max_batch=3)
    after = Outbox(damaged(tmp_path, outbox.spool, "record"))
    assert ledger(after.spool) == []
    assert [[item.payload for item in s.items] for s in due(after)] == [[b"told 7", b"told 8"]]
    assert outcomes(after, "lines") == dict.fromkeys((1, 2, 3), "rejected")
    assert due(after, sink="lines") == []
    assert after.stuck(standing(after, "lines")) == {"rejected": 3}
    after.spool.close()


@pytest.mark.parametrize("place", [1, 3 * PAGE + 900])
def test_the_old_file_stays_as_it_was_found_with_its_wal(tmp_path: Path, place: int) -> None:
    """DESIGN §6: set aside, never deleted; nothing is checkpointed into it, by the look that condemned it neither."""
    spool = delivering(tmp_path).spool
    spool.db.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
    append(spool, record(12))
    copy = tmp_path / "copy"
    shutil.copytree(tmp_path / "data", copy / "data")
    spool.close()
    (copy / "data/spool.db-shm").unlink()
    with (copy / "data/spool.db").open("r+b") as file:
        file.seek(place)
        file.write(b"rot")
    kept = {name: (copy / "data" / name).read_bytes() for name in ("spool.db", "spool.db-wal")}
    spool = opened(copy, now=NOON + 7, run_dir=tmp_path / "run")
    for name, content in kept.items():
        aside = name.replace("spool.db", f"spool.db.corrupt-{NOON + 7}")
        assert (copy / "data" / aside).read_bytes() == content
    assert len(ledger(spool)) == 13
    spool.close()


def test_two_damages_at_one_instant_get_two_names(tmp_path: Path) -> None:
    """Nothing that was set aside is overwritten."""
    for _ in range(2):
        spool = damaged(tmp_path, opened(tmp_path), "audit")
        spool.close()
    assert {p.name for p in (tmp_path / "data").glob("*[0-9]")} == {f"spool.db.corrupt-{NOON + n}" for n in (7, 8)}


def test_an_old_file_that_is_put_back_is_found_out(tmp_path: Path) -> None:
    """§9: a later epoch has run here; the run directory knows it, if nothing else does."""
    damaged(tmp_path, delivering(tmp_path).spool, "evidence").close()
    data = tmp_path / "data"
    (data / "witness").unlink()
    (data / f"spool.db.corrupt-{NOON + 7}").rename(data / "spool.db")
    spool = opened(tmp_path, now=NOON + 8)
    assert "a later epoch" in (spool.restored or "")
    spool.close()


def test_a_salvaged_spool_is_not_salvaged_or_doubted_again(tmp_path: Path) -> None:
    """It never loops: killed before its first commit, it is as sound as any."""
    spool = damaged(tmp_path, delivering(tmp_path).spool, "evidence")
    epoch = spool.identity.epoch
    spool.close()
    again = opened(tmp_path)
    assert (again.identity.epoch, again.restored) == (epoch, None)
    again.close()


@pytest.mark.parametrize("moved", ["nothing", "the database", "the database and its WAL"])
def test_a_crash_amid_the_exchange_goes_on(tmp_path: Path, moved: str) -> None:
    """The complete new file takes its place, and no WAL of the old one is ever read into it."""
    spool = opened(tmp_path / "new")
    append(spool, *minutes(range(3)))
    stopped(spool)
    outbox = delivering(tmp_path / "old")
    data = tmp_path / "data"
    shutil.copytree(tmp_path / "old/data", data)
    old = {name: (data / name).read_bytes() for name in ("spool.db", "spool.db-wal")}
    (tmp_path / "new/data/spool.db").rename(data / "spool.db.salvaged-5")
    for suffix in {"nothing": [], "the database": [""], "the database and its WAL": ["", "-wal"]}[moved]:
        (data / f"spool.db{suffix}").rename(data / f"spool.db.corrupt-5{suffix}")
    spool = opened(tmp_path)
    assert len(ledger(spool)) == 3
    assert {name: (data / name.replace("db", "db.corrupt-5", 1)).read_bytes() for name in old} == old
    assert not list(data.glob("*salvag*"))
    spool.close()
    outbox.spool.close()


def test_a_salvage_that_was_killed_begins_anew(tmp_path: Path) -> None:
    """What is not complete is not used."""
    spool = delivering(tmp_path).spool
    (tmp_path / "data/spool.db.salvaging").write_bytes(b"half of something")
    spool = damaged(tmp_path, spool, "evidence")
    assert len(ledger(spool)) == 12
    spool.close()


def test_a_salvage_without_room_is_tried_again_and_touches_nothing(tmp_path: Path) -> None:
    """DESIGN §6: it never crash-loops, and never asks a person to delete data."""
    spool = delivering(tmp_path).spool
    (tmp_path / "data/spool.db.salvaging").mkdir()  # so that no file can be made there
    with pytest.raises(SpoolUnusableError, match="it is tried again"):
        damaged(tmp_path, spool, "evidence")
    assert not list((tmp_path / "data").glob("*.corrupt-*"))
    (tmp_path / "data/spool.db.salvaging").rmdir()
    spool = opened(tmp_path, now=NOON + 8)
    assert len(ledger(spool)) == 12
    spool.close()


def test_a_file_of_format_1_is_salvaged_and_its_backlog_held(tmp_path: Path) -> None:
    """It was never released; whose its records are and what was sent of them, it says in other words."""
    source = opened(tmp_path / "source")
    append(source, *minutes(range(3)))
    rows = list(source.db.execute("SELECT * FROM record"))
    source.close()
    (tmp_path / "data").mkdir(mode=0o700)
    old = apsw.Connection(str(tmp_path / "data/spool.db"), vfs="unix")
    old.pragma("journal_mode", "wal")
    old.execute(
        "CREATE TABLE record(seq INTEGER PRIMARY KEY AUTOINCREMENT, start, key, n, kind, closed, crc, body);"
        "CREATE TABLE sink(id TEXT PRIMARY KEY, kind, role, position) WITHOUT ROWID; PRAGMA user_version=1"
    )
    old.executemany("INSERT INTO record VALUES(?,?,?,?,?,?,?,?)", rows)
    old.close()
    spool = opened(tmp_path)
    assert len(ledger(spool)) == 3
    assert list(spool.db.execute("SELECT first, last FROM held")) == [(1, 3)]
    spool.close()


# -- marks -----------------------------------------------------------------------------------------------------------
