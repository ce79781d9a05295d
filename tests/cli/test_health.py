"""The parts that `doctor` looks at: disk, clock, kernel, cgroups and spool, each on a machine of our own making."""

import os
import resource
from pathlib import Path

import pytest

from agent.cli.health import Check, groups, keeping, machine, place
from agent.clock import BUILD_TIME, ClockState
from agent.model import NS_PER_S
from tests.cli.conftest import Stage
from tests.cli.ready import configured, found, load, ready

BOOTTIME = 1_000 * NS_PER_S
WALL = BUILD_TIME + 100 * NS_PER_S


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A machine with one metered group."""
    return ready(tmp_path)


# -- disk ------------------------------------------------------------------------------------------------------------


def test_a_slow_disk_is_told_with_its_latency(home: Path) -> None:
    """Each fdatasync takes 60 ms by this clock."""
    ticks = iter(range(0, 10**12, 60_000_000))
    checks = found(place.disk(load(configured(home)), sync=lambda _: None, clock=lambda: next(ticks)))
    latency = checks["commit latency"]
    assert (latency.result, latency.found) == ("fails", "20 fdatasyncs: 60.00 ms in the middle, 60.00 ms at most")


def test_a_disk_that_refuses_to_sync_fails(home: Path) -> None:
    """EIO: usage could not be kept."""

    def refuse(_: int) -> None:
        raise OSError(5, "Input/output error")

    latency = found(place.disk(load(configured(home)), sync=refuse))["commit latency"]
    assert (latency.need, latency.result) == ("required", "fails")


def test_too_little_room_is_told(home: Path) -> None:
    """A cap beyond the disk is no promise; a reserve beyond it is refused."""
    path = configured(home)
    path.write_text(path.read_text().replace("200MiB", "900000TiB"))
    assert found(place.disk(load(path)))["room up to the cap"].result == "fails"


@pytest.mark.parametrize(
    ("kind", "result"), [("ext4", "ok"), ("xfs", "ok"), ("tmpfs", "fails"), ("nfs4", "fails"), ("overlay", "fails")]
)
def test_a_file_system_that_does_not_last_is_told(home: Path, kind: str, result: str) -> None:
    """By mountinfo: the innermost mount around the directory."""
    mounts = f"1 0 8:1 / / rw - ext4 /dev/vda rw\n2 1 0:5 / {home} rw,nosuid shared:1 - {kind} none rw\n"
    assert found(place.disk(load(configured(home)), mounts=mounts))["file system"].result == result


# -- clock and kernel ------------------------------------------------------------------------------------------------


def clocked(wall: int, kept: ClockState | None, *, synchronised: bool = True) -> dict[str, Check]:
    """What is said of the clock when it shows this."""
    return found(machine.clock(wall, BOOTTIME, synchronised=synchronised, kept=kept, boot="b"))


def test_a_clock_that_shows_what_cannot_be_fails() -> None:
    """1970, on a board without a battery."""
    assert clocked(5 * NS_PER_S, None)["date"].result == "fails"
    assert clocked(WALL, None)["date"].result == "ok"


def test_a_clock_that_nobody_keeps_true_is_told() -> None:
    """Usage is still measured right; a step of it would wait for a person."""
    assert clocked(WALL, None, synchronised=False)["synchronised"].result == "fails"


def test_a_step_that_waits_for_a_person_fails() -> None:
    """Until somebody says who is right, no window closes."""
    kept = ClockState("b", WALL - BOOTTIME)
    assert clocked(WALL, kept)["billing time"].result == "ok"
    stepped = clocked(WALL + 3600 * NS_PER_S, ClockState("b", WALL - BOOTTIME, pending=3600 * NS_PER_S))["billing time"]
    assert stepped.result == "fails"
    assert "+3600 s" in stepped.found
    assert "clock accept" in stepped.cure


def test_the_anchor_of_another_boot_says_nothing() -> None:
    """Billing time begins anew with the next start."""
    assert "billing time" not in clocked(WALL, ClockState("a", 0))


def test_the_limits_of_the_kernel_are_held_against_the_groups(tmp_path: Path) -> None:
    """A node of a thousand groups needs watches and descriptors for them."""
    inotify = tmp_path / "proc/sys/fs/inotify"
    inotify.mkdir(parents=True)
    (inotify / "max_user_watches").write_text("1000\n")
    (inotify / "max_user_instances").write_text("128\n")
    checks = found(machine.kernel(1_000, None, tmp_path, limits=(1024, 1024)))
    results = {what: check.result for what, check in checks.items()}
    assert results == {"inotify watches": "fails", "inotify instances": "ok", "open files": "fails"}


def test_the_limits_of_the_agent_that_runs_count_not_the_shells(tmp_path: Path) -> None:
    """A service has its own."""
    (tmp_path / "proc/77").mkdir(parents=True)
    (tmp_path / "proc/77/limits").write_text("Limit  Soft  Hard  Units\nMax open files            1024  65536  files\n")
    check = found(machine.kernel(10, 77, tmp_path))["open files"]
    assert check.found.startswith("65,536 (the agent's, pid 77)")
    assert found(machine.kernel(10, 78, tmp_path))["open files"].result == "unseen"
    assert f"{resource.getrlimit(resource.RLIMIT_NOFILE)[1]:,}" in found(machine.kernel(1, None))["open files"].found


def test_time_services_are_known_by_their_traces(tmp_path: Path) -> None:
    """For whoever wonders why the clock is not kept."""
    (tmp_path / "run/chrony").mkdir(parents=True)
    assert machine.services(tmp_path).found == "chrony"


# -- cgroups ---------------------------------------------------------------------------------------------------------


def test_groups_and_their_files_are_counted(home: Path) -> None:
    """One group, with memory's files; the anchor itself is no customer's."""
    checks, directories = groups.cgroups(load(configured(home)))
    by = found(checks)
    assert directories == 2
    assert by["include customers.slice/*"].found == "1 groups"
    assert by["memory.working_set"].result == "ok"
    assert by["hierarchies of cgroups"].found.startswith("v2 at ")


def test_a_controller_that_is_off_fails_with_how_to_switch_it_on(home: Path) -> None:
    """Else its usage would be billed as nothing, in silence."""
    (home / "host/sys/fs/cgroup/customers.slice/acme/memory.current").unlink()
    check = found(groups.cgroups(load(configured(home)))[0])["memory.working_set"]
    assert (check.need, check.result) == ("required", "fails")
    assert "MemoryAccounting=yes" in check.cure


def test_an_anchor_that_is_not_there_is_told(home: Path) -> None:
    """It may come with its first unit; a typo never does."""
    path = configured(home)
    path.write_text(path.read_text().replace("customers.slice/*", "custmers.slice/*"))
    checks = found(groups.cgroups(load(path))[0])
    assert (checks["anchor custmers.slice"].need, checks["anchor custmers.slice"].result) == ("optional", "fails")
    assert checks["memory.working_set"].result == "unseen"


def test_an_anchor_that_others_may_write_fails(home: Path) -> None:
    """Who can make groups there can take a customer's name (L11)."""
    (home / "host/sys/fs/cgroup/customers.slice").chmod(0o777)
    checks = found(groups.cgroups(load(configured(home)))[0])
    assert checks["anchor customers.slice"].result == "fails"
    assert checks["names"].found.startswith("1 of 1 groups")


def test_no_hierarchy_at_all_fails(tmp_path: Path) -> None:
    """As in a container without the host's /sys."""
    checks = found(groups.cgroups(load(configured(tmp_path)))[0])
    assert checks["hierarchies of cgroups"].result == "fails"


# -- spool -----------------------------------------------------------------------------------------------------------


def looked(stage: Stage, later: int = 0) -> tuple[list[Check], ClockState | None, int | None]:
    """At the spool, so many seconds after the last sweep."""
    wall, boottime = stage._now()
    after = later * NS_PER_S
    return keeping.spool(load(configured(stage.home)), wall + after, boottime + after, "boot")


def test_an_agent_that_runs_and_sweeps_no_more_fails(stage: Stage) -> None:
    """Alive is not enough: every source must have been committed lately, in this boot."""
    assert found(looked(stage)[0])["last sweep of cgroups"].found == "0 s ago"
    assert found(looked(stage, 60)[0])["last sweep of cgroups"].result == "fails"
    cfg = load(configured(stage.home))
    other = found(keeping.spool(cfg, *stage._now(), "another boot")[0])["last sweep of cgroups"]
    assert (other.result, other.found) == ("fails", "none in this boot")


def test_what_waits_in_the_spool_is_told(stage: Stage) -> None:
    """The agent that runs on it, its records, and a backlog that grew old."""
    checks, kept, agent = looked(stage, 10)
    by = found(checks)
    assert agent == os.getpid()
    assert by["file"].result == "ok"
    assert "3 records" in by["file"].found
    assert by["owed to files"].result == "ok"
    assert kept is not None
    late = found(looked(stage, 7200)[0])["owed to files"]
    assert (late.result, "sink ls" in late.cure) == ("fails", True)


def test_nothing_is_locked_by_looking(stage: Stage) -> None:
    """An agent that starts meanwhile must find the lock free; one that runs is not disturbed."""
    stage.spool.close()
    assert looked(stage)[2] is None


def test_an_unsound_spool_fails_and_nobody_is_told_to_delete_it(stage: Stage) -> None:
    """The next start salvages."""
    stage.spool.close()
    (stage.home / "data/spool.db").write_bytes(b"nonsense" * 1000)
    check = found(looked(stage)[0])["file"]
    assert (check.need, check.result) == ("required", "fails")
    assert "Delete nothing" in check.cure


def test_records_that_wait_for_a_person_are_told(stage: Stage) -> None:
    """Held ones of all sinks, and what one sink cannot settle."""
    db = stage.spool.db
    db.execute("INSERT INTO held VALUES(2, 3, 'restored', 0)")
    db.execute("INSERT INTO item(sink, seq, outcome, at, why) VALUES(1, 1, 'ambiguous', 0, 'no answer')")
    by = found(looked(stage)[0])
    assert (by["held"].result, by["held"].found) == ("fails", "2 records")
    assert (by["stuck at files"].result, by["stuck at files"].found) == ("fails", "1 ambiguous")
