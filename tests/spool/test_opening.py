"""DESIGN §6, ACCOUNTING §§2, 9: whose the file is, and what is done with one that is not ours or not sound."""

import json
import os
import shutil
from pathlib import Path

import apsw
import pytest

from agent.errors import CannotStartError
from agent.spool import schema
from agent.spool.identity import fingerprint
from agent.spool.lock import AnchorLocks, Lock
from agent.spool.store import reader
from tests.laws.life import Life
from tests.laws.scene import S
from tests.spool.ledger import MACHINE, NOON, append, ledger, minutes, opened, record


def held(path: Path) -> list[tuple[int, int, str]]:
    """What waits for a person."""
    db = schema.connect(str(path / "data/spool.db"))
    rows: list[tuple[int, int, str]] = list(db.execute("SELECT first, last, reason FROM held"))
    db.close()
    return rows


def test_directory_and_files_are_ours_alone(tmp_path: Path) -> None:
    """DESIGN §6: directory 0700, files 0600, whatever the umask."""
    old = os.umask(0)
    try:
        spool = opened(tmp_path)
        append(spool, record())
        files = {p.name: p.stat().st_mode & 0o777 for p in (tmp_path / "data").iterdir()}
        assert (tmp_path / "data").stat().st_mode & 0o777 == 0o700
        assert set(files.values()) == {0o600}
        assert {"spool.db", "spool.db-wal", "lock", "witness"} <= files.keys()
        spool.close()
    finally:
        os.umask(old)


def test_an_empty_directory_that_was_made_for_us_becomes_ours_alone(tmp_path: Path) -> None:
    """A kubelet makes a hostPath with 0755; what somebody keeps things in is left as it is."""
    for name, kept in (("made", ()), ("used", ("something",))):
        data = tmp_path / name / "data"
        data.mkdir(parents=True)
        data.chmod(0o755)
        for file in kept:
            (data / file).touch()
        opened(tmp_path / name).close()
    assert (tmp_path / "made/data").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "used/data").stat().st_mode & 0o777 == 0o755


def test_the_settings_that_durability_needs_are_in_force(tmp_path: Path) -> None:
    """DESIGN §6: WAL and synchronous=FULL, read back."""
    spool = opened(tmp_path)
    assert (spool.db.pragma("journal_mode"), spool.db.pragma("synchronous")) == ("wal", 2)
    spool.close()


def test_a_second_agent_is_refused_at_once_with_exit_code_3(tmp_path: Path) -> None:
    """L2: the message names the key, the directory, the holder and the cure."""
    spool = opened(tmp_path)
    with pytest.raises(CannotStartError) as refused:
        opened(tmp_path)
    spool.close()
    data = tmp_path / "data"
    assert refused.value.exit_code == 3
    assert str(refused.value) == (
        f"agent.data_dir {data} is in use by another agent (pid {os.getpid()}). "
        "Stop it, or give this one its own data_dir."
    )


def test_a_closed_spool_may_be_opened_again(tmp_path: Path) -> None:
    """The lock goes with its holder; closing twice is safe."""
    spool = opened(tmp_path)
    spool.close()
    spool.close()
    opened(tmp_path).close()


def test_a_refused_opening_leaves_no_lock(tmp_path: Path) -> None:
    """A start that failed must not make the next one fail."""
    opened(tmp_path).close()
    db = schema.connect(str(tmp_path / "data/spool.db"))
    db.pragma("user_version", 99)
    db.close()
    with pytest.raises(CannotStartError, match="format 99 was written by a later release"):
        opened(tmp_path)
    Lock(tmp_path / "data/lock", "x", "y").close()


def test_an_anchor_lock_is_waited_for(tmp_path: Path) -> None:
    """ACCOUNTING §2: an agent that is being replaced may let go in time; meanwhile systemd is told."""
    first = AnchorLocks(tmp_path, 0, lambda: None)
    first.hold(["a.slice"])
    second = AnchorLocks(tmp_path, 60, first.close)
    second.hold(["a.slice"])
    with pytest.raises(CannotStartError, match=r"anchor a.slice is in use .* give the two different anchors"):
        first.hold(["a.slice"])
    second.close()


def test_two_anchors_never_share_a_lock(tmp_path: Path) -> None:
    """ACCOUNTING §2: one lock per anchor; `a/b` and `a-b` are two."""
    locks = AnchorLocks(tmp_path, 0, lambda: None)
    locks.hold(["a/b", "a-b"])
    locks.close()


def test_an_anchor_that_left_the_configuration_is_let_go(tmp_path: Path) -> None:
    """A reload hands it to whoever meters it now."""
    first, second = (AnchorLocks(tmp_path, 0, lambda: None) for _ in range(2))
    first.hold(["a", "b"])
    first.hold(["b"])
    second.hold(["a"])
    first.close()
    second.close()


def test_a_lock_file_that_is_a_link_is_refused(tmp_path: Path) -> None:
    """The run directory is root's, but a link there must not make us write elsewhere."""
    (tmp_path / "lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(CannotStartError, match="cannot open"):
        Lock(tmp_path / "lock", "lock", "cure")
    assert not (tmp_path / "elsewhere").exists()


def test_a_data_directory_that_is_a_file_is_refused_naming_key_and_cure(tmp_path: Path) -> None:
    """Bad input: exit 3 before anything starts."""
    (tmp_path / "data").write_text("")
    with pytest.raises(CannotStartError, match=r"agent.data_dir: .*/data: .* name another in agent.data_dir"):
        opened(tmp_path)


def test_a_run_directory_that_cannot_be_made_is_refused_naming_its_key(tmp_path: Path) -> None:
    """Bad input, the other directory."""
    (tmp_path / "file").write_text("")
    with pytest.raises(CannotStartError, match=r"agent.run_dir: "):
        opened(tmp_path, run_dir=tmp_path / "file/run")


def test_the_epoch_is_128_bits_and_stays(tmp_path: Path) -> None:
    """L3: made with the file."""
    spool = opened(tmp_path)
    epoch = spool.identity.epoch
    spool.close()
    again = opened(tmp_path)
    assert (again.identity.epoch, again.restored, len(epoch)) == (epoch, None, 32)
    again.close()


@pytest.mark.parametrize("other", [{"machine_id": "m2"}, {"machine_id": "m1", "instance_id": "i-2"}])
def test_a_cloned_spool_begins_a_new_epoch_and_holds_the_old_backlog(tmp_path: Path, other: dict[str, str]) -> None:
    """§9 foreign: machine-id or cloud instance id differs."""
    spool = opened(tmp_path)
    epoch = spool.identity.epoch
    append(spool, *minutes(range(3)))
    spool.close()
    spool = opened(tmp_path, fingerprint=other)
    assert spool.identity.epoch != epoch
    assert (spool.restored or "").startswith("cloned spool: ")
    assert [h[:2] for h in held(tmp_path)] == [(1, 3)]
    assert len(ledger(spool)) == 3
    spool.close()


@pytest.mark.parametrize("other", [{}, {"machine_id": "m1"}, {"instance_id": "i-1"}])
def test_absent_parts_of_a_fingerprint_are_ignored(tmp_path: Path, other: dict[str, str]) -> None:
    """§9: a container without machine-id is no other machine."""
    spool = opened(tmp_path)
    epoch = spool.identity.epoch
    spool.close()
    spool = opened(tmp_path, fingerprint=other)
    assert spool.identity.epoch == epoch
    spool.close()


def test_the_fingerprint_is_read_from_the_machines_own_files(tmp_path: Path) -> None:
    """DESIGN §6: machine-id and cloud instance id; an empty file is absent."""
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/machine-id").write_text("abc\n")
    (tmp_path / "run/cloud-init").mkdir(parents=True)
    (tmp_path / "run/cloud-init/.instance-id").write_text("\n")
    assert fingerprint(tmp_path) == {"machine_id": "abc"}


@pytest.mark.parametrize("survivor", ["data", "run"])
def test_a_restored_older_copy_begins_a_new_epoch(tmp_path: Path, survivor: str) -> None:
    """§9: the witness lies both beside the spool and in the run directory; either one betrays the copy."""
    spool = opened(tmp_path)
    epoch = spool.identity.epoch
    append(spool, *minutes(range(3)))
    spool.db.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
    shutil.copy(tmp_path / "data/spool.db", tmp_path / "backup")
    append(spool, *minutes(range(3, 5)))
    spool.close()
    shutil.copy(tmp_path / "backup", tmp_path / "data/spool.db")
    if survivor == "run":
        (tmp_path / "data/witness").unlink()
    else:
        shutil.rmtree(tmp_path / "run")
    spool = opened(tmp_path)
    assert spool.identity.epoch != epoch
    assert (spool.restored or "").startswith("restored spool: it ends at commit")
    assert [h[:2] for h in held(tmp_path)] == [(1, 3)]
    spool.close()


def test_a_restored_copy_used_twice_is_found_out_twice(tmp_path: Path) -> None:
    """§9: the second restoring of one backup, after the first led to a new epoch."""
    spool = opened(tmp_path)
    append(spool, record(0))
    spool.db.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
    shutil.copytree(tmp_path / "data", tmp_path / "backup")
    append(spool, record(1))
    spool.close()
    epochs = [spool.identity.epoch]
    for _ in range(2):
        shutil.rmtree(tmp_path / "data")
        shutil.copytree(tmp_path / "backup", tmp_path / "data")
        spool = opened(tmp_path)
        epochs.append(spool.identity.epoch)
        assert spool.restored is not None
        append(spool, record(2))
        spool.close()
    assert len(set(epochs)) == 3


def test_a_torn_or_missing_witness_says_nothing(tmp_path: Path) -> None:
    """§9: it is not synced; after a power cut it may be empty, and that starts no new epoch."""
    for broken in ("", '["', "\0" * 80, "{}", "[1]", '["x", "y", 3]'):
        spool = opened(tmp_path)
        epoch = spool.identity.epoch
        append(spool, record())
        spool.close()
        for witness in [tmp_path / "data/witness", *(tmp_path / "run").glob("witness*")]:
            witness.write_text(broken)
        spool = opened(tmp_path)
        assert (spool.identity.epoch, broken) == (epoch, broken)
        spool.close()


def test_the_witness_is_never_ahead_of_the_disk(tmp_path: Path) -> None:
    """DESIGN §6: written after COMMIT; a vetoed commit leaves it."""
    spool = opened(tmp_path)
    append(spool, record())
    before = (tmp_path / "data/witness").read_text()
    spool.db.set_commit_hook(lambda: True)
    with pytest.raises(Exception, match="nothing was written"):
        append(spool, record(1))
    assert (tmp_path / "data/witness").read_text() == before
    spool.db.set_commit_hook(None)
    append(spool, record(1))
    assert json.loads((tmp_path / "data/witness").read_text())[1] == json.loads(before)[1] + 1
    spool.close()


@pytest.mark.parametrize("damage", ["garbage", "truncated", "page"])
def test_an_unsound_file_is_set_aside_never_deleted(tmp_path: Path, damage: str) -> None:
    """DESIGN §6: the agent goes on in a new epoch; the old file stays as it was found."""
    spool = opened(tmp_path)
    epoch = spool.identity.epoch
    append(spool, *minutes(range(500)))
    spool.close()
    file = tmp_path / "data/spool.db"
    content = bytearray(file.read_bytes())
    if damage == "garbage":
        content[:] = b"not a database, certainly not" * 100
    elif damage == "truncated":
        del content[len(content) // 2 :]
    else:
        content[4096 * 3 : 4096 * 12] = os.urandom(4096 * 9)
    file.write_bytes(content)
    spool = opened(tmp_path, now=NOON + 5)
    assert (tmp_path / f"data/spool.db.corrupt-{NOON + 5}").read_bytes() == content
    assert spool.identity.epoch != epoch
    assert (spool.restored or "").startswith(f"unsound spool set aside as spool.db.corrupt-{NOON + 5}: ")
    append(spool, record())
    spool.close()


def test_a_sound_file_is_not_set_aside_after_a_kill(tmp_path: Path) -> None:
    """A WAL that was not checkpointed is no damage."""
    life = Life(tmp_path)
    life.start().sweep()
    life.kernel.burn("a.slice", 7)
    life.sweep(after=S)
    life.kill()
    life.start()
    assert life.spool.restored is None
    assert life.total() == 7


def test_new_epoch_by_a_person_rebaselines_holds_the_backlog_and_leaves_a_gap(tmp_path: Path) -> None:
    """§9: restoring a spool is done with `metering-agent spool new-epoch`."""
    life = Life(tmp_path)
    life.start().sweep()
    life.kernel.burn("a.slice/u", 7)
    life.sweep(after=60 * S)
    epoch, booked_until = life.spool.identity.epoch, life.wall
    life.spool.new_epoch("restored from tape", life.wall)
    life.spool.close()
    life.kernel.burn("a.slice/u", 1000)
    life.pass_time(60 * S)
    life.start().sweep()
    assert life.spool.identity.epoch != epoch
    assert life.total() == 7
    (gap,) = [r for r in life.records() if r.kind == "gap"]
    assert (gap.reason, gap.start, gap.end) == ("new_epoch", booked_until, life.wall)
    assert gap.metadata["because"] == "restored from tape"
    (first, last, reason) = next(iter(life.spool.db.execute("SELECT first, last, reason FROM held")))
    assert (first, last, reason) == (1, 1, "restored from tape")
    assert "new epoch" in [what for (what,) in life.spool.db.execute("SELECT what FROM audit")]


def test_the_gap_of_a_new_epoch_survives_a_first_commit_that_fails(tmp_path: Path) -> None:
    """§9: it is recorded with the first sweep that is committed, not the first that was tried; and once."""
    life = Life(tmp_path)
    life.start().sweep()
    life.stop()
    life.fingerprint = {"machine_id": "another"}
    life.pass_time(60 * S)
    life.start()
    life.veto_commits()
    life.sweep_that_fails()
    life.veto_commits(False)
    life.kill()
    life.start().sweep()
    life.sweep(after=S)
    assert [r.reason for r in life.records()] == ["new_epoch"]


def test_nothing_of_an_old_epoch_is_billed_in_the_new_one(tmp_path: Path) -> None:
    """§9: no mark, cursor or open window survives; a clone would else bill the original's usage."""
    life = Life(tmp_path)
    life.start().sweep()
    life.kernel.burn("a.slice/u", 500)
    life.sweep(after=S)  # in an open window of the original
    life.kill()
    life.fingerprint = {"machine_id": "another"}
    life.kernel.burn("a.slice/u", 500)
    life.start().sweep(after=S)
    life.kernel.burn("a.slice/u", 3)
    life.sweep(after=S)
    assert life.total() == 3


def test_a_reader_sees_whole_commits_beside_the_writer_and_cannot_write(tmp_path: Path) -> None:
    """DESIGN §6: in-process or another process, read-only."""
    spool = opened(tmp_path)
    append(spool, record(0))
    db = reader(tmp_path / "data")
    count = "SELECT count(*) FROM record"
    assert db.execute(count).get == 1
    with db:
        assert db.execute(count).get == 1
        append(spool, record(1))
        assert db.execute(count).get == 1  # its snapshot
    assert db.execute(count).get == 2
    with pytest.raises(apsw.ReadOnlyError):
        db.execute("DELETE FROM record")
    db.close()
    spool.close()


def test_a_reader_without_a_spool_says_so(tmp_path: Path) -> None:
    """Exit 3, and no empty file is left behind."""
    with pytest.raises(CannotStartError, match="no spool in"):
        reader(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_machine_without_any_id_may_start(tmp_path: Path) -> None:
    """§9: absent parts are ignored, all of them too."""
    spool = opened(tmp_path, fingerprint={})
    spool.close()
    spool = opened(tmp_path, fingerprint=MACHINE)
    assert spool.restored is None
    spool.close()
