"""ACCOUNTING §3: who starts at zero, and who only baselines."""

from pathlib import Path

from agent.model import Sweep
from tests.laws.life import Life
from tests.laws.scene import CORES, MINUTE, NOON, Measuring, S, booked, group, reading, swept
from tests.sources.machine import Machine

ANCHOR = group("a.slice")
UNIT = group("a.slice/u", ANCHOR)


def test_what_was_absent_from_the_last_listing_counts_from_zero() -> None:
    """§3: new, whatever its timestamps say."""
    measure = Measuring()
    measure(swept(0, [reading(ANCHOR, 0, cpu=5)]))
    out = measure(swept(S, [reading(ANCHOR, S, cpu=45), reading(UNIT, S, cpu=40)]))
    assert booked(out) == {"a.slice": 0, "a.slice/u": 40}


def test_a_running_group_that_enters_the_configuration_baselines() -> None:
    """§3: the listing held it, unmatched; what it used until now is its parent's."""
    measure = Measuring()
    measure(swept(0, [reading(ANCHOR, 0, cpu=100)], others=[UNIT.key]))
    out = measure(swept(S, [reading(ANCHOR, S, cpu=130), reading(UNIT, S, cpu=90)]))
    assert booked(out) == {"a.slice": 30}
    out = measure(swept(2 * S, [reading(ANCHOR, 2 * S, cpu=140), reading(UNIT, 2 * S, cpu=96)]))
    assert booked(out) == {"a.slice": 4, "a.slice/u": 6}


def test_a_group_that_left_the_configuration_and_returns_baselines_again() -> None:
    """§3 re-enters: what it used while it was not metered was booked to its parent, and is not booked again."""
    measure = Measuring()
    measure(swept(0, [reading(ANCHOR, 0, cpu=0), reading(UNIT, 0, cpu=0)]))
    measure(swept(S, [reading(ANCHOR, S, cpu=20)], others=[UNIT.key]))
    out = measure(swept(2 * S, [reading(ANCHOR, 2 * S, cpu=30), reading(UNIT, 2 * S, cpu=30)]))
    assert booked(out) == {"a.slice": 10}


def test_a_group_of_no_parent_that_left_the_configuration_and_returns_baselines_again() -> None:
    """§3 re-enters, where no parent was read meanwhile: the time outside the configuration is nobody's to bill."""
    measure, disk = Measuring(), group("sda")
    measure(swept(0, [reading(disk, 0, io=0)]))
    measure(swept(S, [], others=[disk.key]))
    out = measure(swept(2 * S, [reading(disk, 2 * S, io=500)]))
    assert booked(out, "io.read") == {}


def test_the_first_listing_of_an_epoch_baselines() -> None:
    """§3: [else a lost spool bills the morning twice]."""
    out = Measuring()(swept(S, [reading(ANCHOR, S, cpu=100), reading(UNIT, S, cpu=90)]))
    assert out.usages == []


def test_a_newborn_below_a_group_that_only_enters_now_leaves_the_books_closed() -> None:
    """L1 at a first sight: its parent's mark begins here. Whether it counts from zero is not decided by this test."""
    measure, child = Measuring(), group("a.slice/u/c", UNIT)
    measure(swept(0, [reading(ANCHOR, 0, cpu=100)], others=[UNIT.key]))
    out = measure(swept(S, [reading(ANCHOR, S, cpu=130), reading(UNIT, S, cpu=90), reading(child, S, cpu=20)]))
    assert sum(booked(out).values()) == out.balances[0].moved == 30


def test_a_young_boot_that_nobody_metered_counts_from_zero(tmp_path: Path) -> None:
    """§3: first listing of an epoch, boot younger than `fresh_boot`, no `metered` file."""
    life = Life(tmp_path, boottime=60 * S)
    life.kernel.burn("a.slice/u", 40)
    life.start().sweep()
    assert life.total() == 40


def test_an_old_boot_baselines_in_a_new_epoch(tmp_path: Path) -> None:
    """§3: without the exception, the whole uptime would be billed at once."""
    life = Life(tmp_path, boottime=3600 * S)
    life.kernel.burn("a.slice/u", 40)
    life.start().sweep()
    assert life.total() == 0


def test_a_spool_that_is_lost_on_a_young_boot_does_not_bill_its_morning_twice(tmp_path: Path) -> None:
    """§3: `metered` in the run directory says that somebody metered this boot already."""
    life = Life(tmp_path, boottime=60 * S)
    life.kernel.burn("a.slice/u", 40)
    life.start().sweep()
    life.stop()
    life.lose_spool()
    life.kernel.burn("a.slice/u", 2)
    life.start().sweep()
    assert life.total() == 0


def test_metered_is_written_before_the_first_commit_of_a_boot(tmp_path: Path) -> None:
    """§3: a crash between the two may lose the morning, but never bills it twice."""
    life = Life(tmp_path, boottime=60 * S)
    life.kernel.burn("a.slice/u", 40)
    life.start()
    life.veto_commits()
    life.sweep_that_fails()
    assert life.source.id in (life.run_dir / "metered").read_text()


def test_a_new_boot_in_a_known_epoch_counts_from_zero(tmp_path: Path) -> None:
    """§3: nothing of this boot was billed yet; and it starts where the boot does."""
    life = Life(tmp_path, boottime=3600 * S)
    life.start().sweep()
    life.stop()
    life.reboot(boottime=7200 * S)  # long after: the agent was not started at boot
    life.kernel.burn("a.slice/u", 70)
    life.start().sweep()
    assert life.total() == 70


def test_a_new_boot_that_was_metered_already_baselines(tmp_path: Path) -> None:
    """§3: known epoch, but another spool billed this boot's morning while this one's disk was away."""
    life = Life(tmp_path, boottime=3600 * S)
    life.start().sweep()
    life.stop()
    life.reboot(boottime=60 * S)
    life.kernel.burn("a.slice/u", 70)
    other, mine = tmp_path / "other", life.data_dir
    life.data_dir = other
    life.start().sweep()
    assert life.total() == 70
    life.stop()
    life.data_dir = mine
    life.start().sweep()
    assert life.total() == 0


def test_a_first_commit_that_fails_costs_the_boot_nothing(tmp_path: Path) -> None:
    """§3: `metered` is written, but the disk is full; what follows must neither bill twice nor lose silently."""
    life = Life(tmp_path, boottime=3600 * S)
    life.start().sweep()
    life.stop()
    life.reboot(boottime=60 * S)
    life.start()
    life.kernel.burn("a.slice/u", 70)
    life.veto_commits()
    life.sweep_that_fails()
    life.veto_commits(False)
    life.sweep(after=15 * S)
    assert life.total() == 70


def test_metered_of_an_earlier_boot_says_nothing(tmp_path: Path) -> None:
    """§3: a run directory that survived the boot (no tmpfs) must not cost its usage."""
    life = Life(tmp_path, boottime=3600 * S)
    life.start().sweep()
    life.stop()
    life.reboot(boottime=60 * S, keep_run_dir=True)
    life.kernel.burn("a.slice/u", 70)
    life.start().sweep()
    assert life.total() == 70


def test_a_reboot_leaves_a_gap_from_the_last_sweep_to_the_new_boot() -> None:
    """§3, L5: what was used after the last sweep of the old boot is unknown, at most the time on every core."""
    measure = Measuring()
    measure(swept(100 * S, [reading(ANCHOR, 100 * S, cpu=50)]))
    new = group("a.slice", inode=9)
    boot = NOON + 160 * S
    out = measure(swept(30 * S, [reading(new, 30 * S, cpu=7)], boot="boot-2"), from_zero=True, anchor=boot)
    (gap,) = out.gaps
    assert (gap.start, gap.end, gap.bound, gap.reason) == (NOON + 100 * S, boot, 60 * S * CORES, "reboot")
    assert [(u.start, u.end, u.quantity) for u in out.usages] == [(boot, boot + 30 * S, 7)]


def test_a_reboot_that_baselines_leaves_a_gap_up_to_the_baseline() -> None:
    """§3: what the new boot used before its baseline is billed to nobody; the gap must say so."""
    measure = Measuring()
    measure(swept(100 * S, [reading(ANCHOR, 100 * S, cpu=50)]))
    new = group("a.slice", inode=9)
    boot = NOON + 160 * S
    out = measure(swept(30 * S, [reading(new, 30 * S, cpu=7)], boot="boot-2"), from_zero=False, anchor=boot)
    (gap,) = out.gaps
    assert out.usages == []
    assert (gap.start, gap.end, gap.bound) == (NOON + 100 * S, boot + 30 * S, 90 * S * CORES)


def test_a_source_that_returns_to_the_configuration_on_a_later_boot_baselines(tmp_path: Path) -> None:
    """§3: it re-enters with everything running; a known epoch and an absent `metered` must not bill days from zero."""
    life = Life(tmp_path, boottime=3600 * S)
    life.start().sweep()
    life.adopt(feeds=())
    life.stop()
    life.reboot(boottime=7200 * S)
    life.start(feeds=())
    life.kernel.burn("a.slice/u", 70)
    life.adopt(feeds=("cgroups",))
    life.sweep()
    assert life.total() == 0


def test_a_source_that_is_new_on_an_old_boot_baselines(tmp_path: Path) -> None:
    """§3: it never had a listing; the epoch knows others, not it."""
    life = Life(tmp_path, boottime=3600 * S)
    life.start(feeds=())
    life.kernel.burn("a.slice/u", 70)
    life.adopt(feeds=("cgroups",))
    life.sweep()
    assert life.total() == 0


def test_groups_below_an_anchor_that_enters_the_configuration_baseline(tmp_path: Path) -> None:
    """§3: the listing holds *every* group, also outside the anchors, or a new anchor bills its whole past at once."""
    machine = Machine(tmp_path)
    for name in ("a.slice", "a.slice/u", "b.slice", "b.slice/v"):
        machine.group(name)
        machine.usage(name, 100 * S)
    measure = Measuring()

    def sweep(*anchors: str) -> Sweep:
        source = machine.source(["*.slice/*"], list(anchors), wanted=frozenset({"cpu.time"}))
        found = source.sweep()
        source.close()
        machine.clock.pass_seconds(15)
        return found

    measure(sweep("a.slice"))
    measure(sweep("a.slice"))
    out = measure(sweep("a.slice", "b.slice"))
    assert sum(booked(out).values()) == 0


def test_a_sweep_late_by_an_hour_loses_nothing() -> None:
    """L5: durations are the samples' own; the counter holds what the sweep missed, and the record says so."""
    measure = Measuring(interval=15 * S)
    measure(swept(0, [reading(ANCHOR, 0, cpu=0)]))
    out = measure(swept(3600 * S, [reading(ANCHOR, 3600 * S, cpu=77)]))
    assert [(u.quantity, u.end - u.start, u.flags) for u in out.usages] == [(77, 60 * MINUTE, ("interpolated",))]
