"""What CgroupSource reads of v1, v2 and hybrid machines, in which order, and what it says where it cannot."""

import os
import resource
from pathlib import Path

import msgspec
import pytest

from agent.errors import SourceError
from agent.sources.cgroups import METERS, CgroupSource
from tests.sources.machine import BOOT, Machine, named, names, values


def open_files() -> int:
    """How many descriptors this process holds."""
    return len(list(Path("/proc/self/fd").iterdir()))


def test_v1_reads_every_meter_from_its_own_hierarchy(v1: Machine) -> None:
    """Values, units and identities, each of the directory its controller has."""
    v1.group(
        "a",
        {
            "cpuacct.usage": "123456789\n",
            "memory.usage_in_bytes": "5000\n",
            "memory.stat": "inactive_file 1\ntotal_inactive_file 2000\ntotal_active_file 9\n",
            "blkio.throttle.io_service_bytes_recursive": "8:0 Read 10\n8:0 Write 20\n8:16 Read 1\nTotal 31\n",
            "blkio.throttle.io_serviced_recursive": "8:0 Read 3\n8:0 Write 4\n8:0 Sync 7\nTotal 7\n",
            "pids.current": "6\n",
        },
    )
    source = v1.source([], ["a"])
    (reading,) = source.sweep().readings
    assert values(reading) == {
        "cpu.time": 123456789,
        "memory.working_set": 3000,
        "io.read_bytes": 11,
        "io.write_bytes": 20,
        "io.read_ops": 3,
        "io.write_ops": 4,
        "pids": 6,
        "alive.time": 1,
    }
    assert set(values(reading)) == {meter.name for meter in METERS}
    identities = {sample.meter: sample.identity for sample in reading.samples}
    for meter, tree in {"cpu.time": "cpuacct", "memory.working_set": "memory", "io.read_ops": "blkio"}.items():
        assert identities[meter] == f"{BOOT}/{tree}/{(v1.trees[tree] / 'a').stat().st_ino}"
    source.close()


def test_v2_reads_every_meter_from_the_one_tree(v2: Machine) -> None:
    """Microseconds become nanoseconds; inactive_file need not be preceded by anything."""
    v2.group(
        "a",
        {
            "cpu.stat": "usage_usec 123456\nuser_usec 1\n",
            "memory.current": "5000\n",
            "memory.stat": "inactive_file 2000\nanon 9\n",
            "io.stat": "8:0 rbytes=10 wbytes=20 rios=3 wios=4 dios=9\n8:16 \n8:32 rbytes=1 wbytes=0 rios=1 wios=0\n",
            "pids.current": "6\n",
        },
    )
    source = v2.source([], ["a"])
    (reading,) = source.sweep().readings
    assert values(reading) == {
        "cpu.time": 123456000,
        "memory.working_set": 3000,
        "io.read_bytes": 11,
        "io.write_bytes": 20,
        "io.read_ops": 4,
        "io.write_ops": 4,
        "pids": 6,
        "alive.time": 1,
    }
    assert reading.samples[0].identity == f"{BOOT}/unified/{(v2.base / 'a').stat().st_ino}"
    source.close()


def test_hybrid_counts_cpu_where_the_anchor_exists(tmp_path: Path) -> None:
    """systemd puts a unit into cpuacct only with CPUAccounting, but always into `unified`."""
    machine = Machine(tmp_path, "hybrid")
    machine.group("both")
    machine.group("systemd-only", {"memory.usage_in_bytes": "7\n"}, only=("unified", "memory"))
    machine.write("both", {"cpuacct.usage": "1001\n", "cpu.stat": "usage_usec 1\n"})
    machine.write("systemd-only", {"cpu.stat": "usage_usec 2\n"})
    source = machine.source([], ["both", "systemd-only"])
    sweep = source.sweep()
    assert values(named(sweep, "both"))["cpu.time"] == 1001
    assert values(named(sweep, "systemd-only"))["cpu.time"] == 2000
    assert values(named(sweep, "systemd-only"))["memory.working_set"] == 7  # a v1 controller stays where it is
    source.close()


@pytest.mark.parametrize("mount", ["cpu,cpuacct", "cpuacct,cpu"])
def test_joined_cpu_mounts_are_found(tmp_path: Path, mount: str) -> None:
    """Distributions differ in how they join the two."""
    machine = Machine(tmp_path, "v1", {"cpu": mount, "cpuacct": mount})
    (machine.base / mount / "a").mkdir()
    (machine.base / mount / "a/cpuacct.usage").write_text("5\n")
    source = machine.source([], ["a"])
    (reading,) = source.sweep().readings
    assert values(reading) == {"cpu.time": 5, "alive.time": 1}
    assert reading.samples[0].identity.startswith(f"{BOOT}/cpuacct/")
    source.close()


def test_an_absent_controller_gives_no_sample(v1: Machine) -> None:
    """Nothing known is not zero; and the controller is found when it comes."""
    v1.group("a", only=("cpuacct", "pids"))
    source = v1.source([], ["a"])
    assert set(values(source.sweep().readings[0])) == {"cpu.time", "pids", "alive.time"}
    for tree in ("memory", "blkio", "cpu"):
        (v1.trees[tree] / "a").mkdir()
    (v1.trees["memory"] / "a/memory.usage_in_bytes").write_text("9\n")
    (v1.trees["memory"] / "a/memory.stat").write_text("total_inactive_file 0\n")
    v1.clock.pass_seconds(120)
    assert values(source.sweep().readings[0])["memory.working_set"] == 9
    source.close()


def test_io_falls_back_to_counters_without_descendants(v1: Machine) -> None:
    """Kernels before the recursive files have the plain ones."""
    v1.group("a", only=("cpuacct", "blkio"))
    for file in (v1.trees["blkio"] / "a").iterdir():
        file.rename(file.with_name(file.name.removesuffix("_recursive")))
    v1.write("a", {"blkio.throttle.io_service_bytes": "8:0 Read 4\nTotal 4\n"})
    source = v1.source([], ["a"])
    assert values(source.sweep().readings[0])["io.read_bytes"] == 4
    source.close()


def test_a_working_set_is_never_negative(machine: Machine) -> None:
    """The two files are read one after the other, and the cache may have grown between."""
    machine.group("a")
    machine.write("a", {"memory.stat": "x 0\ntotal_inactive_file 9\ninactive_file 9\n"})
    source = machine.source([], ["a"])
    assert values(source.sweep().readings[0])["memory.working_set"] == 0
    source.close()


def test_a_transfer_through_a_stacked_device_counts_once(v2: Machine) -> None:
    """LVM (253:0 over 8:0) and loop (7:0 over a file) show the same bytes as the disk below."""
    v2.write_file("sys/dev/block/253:0/slaves/sda", "")
    v2.write_file("sys/dev/block/7:0/loop/backing_file", "/disk.img\n")
    (v2.root / "sys/dev/block/7:0/slaves").mkdir()
    (v2.root / "sys/dev/block/8:0/slaves").mkdir(parents=True)
    rows = "".join(f"{device} rbytes=100 wbytes=0 rios=1 wios=0\n" for device in ("8:0", "253:0", "7:0"))
    v2.group("a", {"io.stat": rows})
    source = v2.source([], ["a"])
    assert values(source.sweep().readings[0])["io.read_bytes"] == 100
    source.close()


def test_a_long_file_is_read_whole(v2: Machine) -> None:
    """io.stat of a machine with a thousand disks does not fit into one read."""
    v2.group("a", {"io.stat": "".join(f"8:{n} rbytes=1 wbytes=0 rios=1 wios=0\n" for n in range(1000))})
    source = v2.source([], ["a"])
    assert values(source.sweep().readings[0])["io.read_bytes"] == 1000
    source.close()


def test_every_counter_is_read_after_those_of_what_it_lies_in(machine: Machine) -> None:
    """L1: read the other way round, what children use meanwhile would be booked twice."""
    for path in ("a", "a/b", "a/b/c", "a/d"):
        machine.group(path)
    ticks = iter(range(machine.clock.now, machine.clock.now + 1_000_000))
    source = machine.source(["a/**"], ["a"])
    source._clock = lambda: next(ticks)
    source.sweep()
    taken = [reading.samples[0].taken for reading in source.sweep().readings]
    assert taken == sorted(taken)
    assert len(set(taken)) == len(taken)
    source.close()


def test_without_spare_descriptors_the_same_is_read(machine: Machine) -> None:
    """Only CPU counters must be held open; the others are opened each time."""
    machine.group("a")
    machine.write("a", {"pids.current": "3\n"})
    source = machine.source([], ["a"])
    source._descriptors.left = 0
    held = open_files()
    assert values(source.sweep().readings[0])["pids"] == 3
    assert open_files() == held + 1
    source.close()


def test_when_files_run_out_the_error_says_what_to_raise(machine: Machine) -> None:
    """A group that cannot be held open must not silently become its parent's usage."""
    machine.group("a")
    source = machine.source(["a/*"], ["a"])
    source.sweep()
    machine.group("a/b")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest_free = os.dup(0)  # the limit is on numbers, and earlier tests may have left holes
    os.close(lowest_free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free, hard))
    try:
        with pytest.raises(SourceError, match="raise LimitNOFILE"):
            source.sweep()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert names(source.sweep()) == ["a", "a/b"]
    source.close()


def test_limits_and_requests_are_read_when_asked_for(tmp_path: Path) -> None:
    """Levels in base units per millisecond; `max` is no level at all."""
    v1, v2 = Machine(tmp_path / "1"), Machine(tmp_path / "2", "v2")
    v1.group("a", {"cpu.cfs_quota_us": "150000\n"})
    (v1.trees["memory"] / "a/memory.limit_in_bytes").write_text("1048576\n")
    for name, limit in (("a", "50000 100000\n"), ("b", "max 100000\n")):
        v2.group(name)
        (v2.base / name / "cpu.max").write_text(limit)
        (v2.base / name / "memory.max").write_text("max\n")
        (v2.base / name / "memory.min").write_text("0\n")
        (v2.base / name / "memory.low").write_text("4096\n" if name == "a" else "0\n")
    aspects = frozenset({"limit", "request"})
    old, new = v1.source([], ["a"], aspects=aspects), v2.source([], ["a", "b"], aspects=aspects)
    assert values(old.sweep().readings[0], "limit") == {"cpu.time": 1_500_000, "memory.working_set": 1048576}
    sweep = new.sweep()
    assert values(named(sweep, "a"), "limit") == {"cpu.time": 500_000}
    assert values(named(sweep, "a"), "request") == {"memory.working_set": 4096}
    assert values(named(sweep, "b"), "limit") == values(named(sweep, "b"), "request") == {}
    old.close()
    new.close()


def test_only_wanted_meters_are_read_but_an_anchor_always_counts_cpu(machine: Machine) -> None:
    """The books need the anchor's CPU time, whatever is billed."""
    machine.group("a")
    machine.group("a/b")
    source = machine.source(["a/*"], ["a"], wanted=frozenset({"pids"}))
    sweep = source.sweep()
    assert set(values(named(sweep, "a"))) == {"cpu.time", "pids"}
    assert set(values(named(sweep, "a/b"))) == {"pids"}
    source.close()


def test_parents_come_before_children_and_the_nearest_metered_one_is_the_parent(machine: Machine) -> None:
    """Unmetered directories between them are skipped; they are in the listing all the same."""
    for path in ("a", "a/x", "a/x/y", "a/x/y/z", "a/w", "other"):
        machine.group(path)
    source = machine.source(["a/*", "a/x/y/z"], ["a"])
    sweep = source.sweep()
    order = names(sweep)
    assert sorted(order) == ["a", "a/w", "a/x", "a/x/y/z"]
    assert order.index("a") < order.index("a/x") < order.index("a/x/y/z")
    by_name = {reading.resource.name: reading.resource for reading in sweep.readings}
    assert by_name["a"].parent is None
    assert by_name["a/x"].parent == by_name["a/w"].parent == by_name["a"].key
    assert by_name["a/x/y/z"].parent == by_name["a/x"].key
    assert {resource.anchor for resource in by_name.values()} == {"a"}
    assert {resource.key for resource in by_name.values()} < sweep.listing
    assert len(sweep.listing) == len({"a", "a/x", "a/x/y", "a/x/y/z", "a/w"}), "matched or not, every group is listed"
    source.close()


def test_an_anchor_inside_another_belongs_to_the_outer_books(machine: Machine) -> None:
    """Else its usage would be in two books."""
    machine.group("a")
    machine.group("a/b")
    source = machine.source([], ["a/b", "a"])
    inner = named(source.sweep(), "a/b").resource
    assert (inner.anchor, inner.parent is not None) == ("a", True)
    source.close()


def test_nothing_new_means_the_same_objects(machine: Machine) -> None:
    """Resources and the listing are compared by identity further down the line."""
    machine.group("a")
    source = machine.source([], ["a"])
    one, two = source.sweep(), source.sweep()
    assert one.listing is two.listing
    assert one.readings[0].resource is two.readings[0].resource
    source.close()


def test_stamp_is_before_every_reading(machine: Machine) -> None:
    """Exact books span from stamp to stamp."""
    machine.group("a")
    source = machine.source([], ["a"])
    tick = iter(range(10**6))
    source._clock = lambda: 10**12 + next(tick)
    sweep = source.sweep()
    assert all(sample.taken > sweep.stamp for sample in sweep.readings[0].samples)
    source.close()


def test_without_a_cgroup_hierarchy_the_error_says_where(tmp_path: Path) -> None:
    """For example a container that was not given the host's /sys."""
    source = CgroupSource("cg", str(tmp_path), [], ["a"], boot=BOOT)
    with pytest.raises(SourceError, match="sys/fs/cgroup"):
        source.sweep()
    source.close()


def test_without_books_one_group_stands_alone(machine: Machine) -> None:
    """`make run` of a user: its delegated group has its name from configuration, no anchor and no parent."""
    machine.group("user")
    machine.group("user/session")
    for tree in machine.trees.values():
        tree.chmod(0o777)
    source = machine.source(["user"], [], books=False)
    (reading,) = source.sweep().readings
    resource = reading.resource
    assert (resource.parent, resource.anchor, resource.labels) == (None, None, {"cgroup": "user"})
    assert {meter.books for meter in source.meters} == {"none"}
    source.close()


def test_names_that_are_not_text_still_fit_into_json(machine: Machine) -> None:
    """A cgroup's name is bytes; only a newline is refused by the kernel."""
    machine.group("a")
    odd = os.fsdecode(b"a/\xff\x1b[31m \xc3\xa9")
    machine.group(odd)
    source = machine.source(["a/*"], ["a"])
    reading = source.sweep().readings[1]
    assert reading.resource.name == "a/\\xff\x1b[31m é"
    assert msgspec.json.decode(msgspec.json.encode(reading), type=dict)
    machine.remove(odd)
    assert source.sweep().readings[1].gone
    source.close()


def test_closing_twice_is_safe(machine: Machine) -> None:
    """And leaves no file open."""
    machine.group("a")
    held = open_files()
    source = machine.source([], ["a"])
    source.sweep()
    source.close()
    source.close()
    assert open_files() == held
