"""HostSource on a make-believe /proc and /sys, and what it does where some of it is missing."""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest

from agent.errors import SourceError
from agent.model import NS_PER_S, Sweep
from agent.sources.host import METERS, HostSource
from tests.sources.machine import BOOT, Clock

NET_DEV = """Inter-|   Receive                         |  Transmit
 face |bytes    packets errs drop fifo frame comp mc|bytes    packets errs drop fifo colls carrier comp
    lo:    1 1 0 0 0 0 0 0     2 1 0 0 0 0 0 0
  eth0:{received} 1 0 0 0 0 0 0 {sent} 1 0 0 0 0 0 0
 veth1:   50 1 0 0 0 0 0 0    60 1 0 0 0 0 0 0
"""
DISKSTATS = """   8 0 sda 1 0 10 0 1 0 20 0 0 0 0
   8 1 sda1 1 0 9 0 1 0 9 0 0 0 0
 253 0 dm-0 1 0 10 0 1 0 20 0 0 0 0
"""
FILESYSTEMS = "nodev\tproc\nnodev\ttmpfs\n\text4\n\tsquashfs\nnodev\tzfs\n"
MOUNTS = """proc /proc proc rw 0 0
/dev/sda1 / ext4 rw 0 0
/dev/sda1 /my\\040data ext4 rw 0 0
/dev/loop1 /snap squashfs ro 0 0
tmpfs /run tmpfs rw 0 0
"""
MEMINFO = """MemTotal: 1000 kB
MemFree: 100 kB
MemAvailable: 400 kB
Buffers: 1 kB
Cached: 1 kB
Shmem: 1 kB
Active: 1 kB
Inactive: 1 kB
"""


class Host:
    """A root with the files that a host source reads."""

    def __init__(self, root: Path) -> None:
        self.root, self.clock = root, Clock()
        self.write("proc/sys/kernel/random/boot_id", f"{BOOT}\n")
        self.write("proc/stat", "cpu  100 30 50 1000 20 1 2 3 40 10\ncpu0 1 1 1 1\n")
        self.write("proc/meminfo", MEMINFO)
        self.write("proc/1/net/dev", NET_DEV.format(received=100, sent=200))
        self.write("proc/diskstats", DISKSTATS)
        self.write("proc/filesystems", FILESYSTEMS)
        self.write("proc/1/mounts", MOUNTS)
        for name in ("my data", "snap", "run"):
            (root / name).mkdir()
        self.write("sys/class/net/eth0/ifindex", "4\n")
        self.write("sys/class/net/eth0/device/uevent", "")
        self.write("sys/class/net/veth1/ifindex", "9\n")
        self.write("sys/block/sda/device/uevent", "")
        self.write("sys/block/sda/diskseq", "7\n")
        self.write("sys/block/sda/dev", "8:0\n")
        self.write("sys/block/dm-0/slaves/sda", "")
        self.write("sys/block/dm-0/dev", "253:0\n")

    def write(self, path: str, text: str) -> None:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def source(self) -> HostSource:
        return HostSource("host", str(self.root), clock=self.clock)


@pytest.fixture
def host(tmp_path: Path) -> Host:
    """A host with one NIC, one disk, one logical volume, one file system."""
    return Host(tmp_path)


def read(sweep: Sweep, meter: str, label: str | None = None) -> Mapping[str, int]:
    """Label's value (or name) → value of one meter."""
    return {
        reading.resource.labels[label] if label else reading.resource.name: sample.value
        for reading in sweep.readings
        for sample in reading.samples
        if sample.meter == meter
    }


def test_cpu_modes_add_up_and_count_guests_once(host: Host) -> None:
    """Guest time is inside user, guest_nice inside nice; ticks become whole nanoseconds."""
    tick = NS_PER_S // os.sysconf("SC_CLK_TCK")
    modes = read(host.source().sweep(), "host.cpu.time", "mode")
    ticks = {"user": 60, "nice": 20, "system": 50, "idle": 1000, "iowait": 20, "irq": 1, "softirq": 2, "steal": 3}
    assert modes == {mode: n * tick for mode, n in (ticks | {"guest": 40, "guest_nice": 10}).items()}
    assert sum(modes.values()) == (100 + 30 + 50 + 1000 + 20 + 1 + 2 + 3) * tick


def test_a_mode_that_the_kernel_takes_back_stands_still(host: Host) -> None:
    """iowait may fall: a fall would be a reset, and the rise after it counted twice."""
    source = host.source()
    before = read(source.sweep(), "host.cpu.time", "mode")["iowait"]
    host.write("proc/stat", "cpu  100 30 50 1000 19 1 2 3 40 10\n")
    assert read(source.sweep(), "host.cpu.time", "mode")["iowait"] == before


def test_memory_is_what_is_not_available(host: Host) -> None:
    """Not psutil's `used`, whose meaning has changed between its releases."""
    assert read(host.source().sweep(), "host.memory.used") == {"memory": 600 * 1024}


def test_network_is_that_of_pid_1_on_physical_interfaces(host: Host) -> None:
    """/proc/net would be the reader's own namespace; veth pairs show the same bytes again."""
    host.write("proc/net/dev", NET_DEV.format(received=1, sent=1))
    sweep = host.source().sweep()
    assert read(sweep, "host.network.receive_bytes", "interface") == {"eth0": 100}
    assert read(sweep, "host.network.transmit_bytes", "interface") == {"eth0": 200}
    (reading,) = [r for r in sweep.readings if "interface" in r.resource.labels]
    assert (reading.resource.key, reading.samples[0].identity) == ("host/5f0c2a11/nic#4", f"{BOOT}/nic/4")


def test_where_no_interface_is_physical_all_but_lo_count(host: Host) -> None:
    """A container's own network has only a veth."""
    shutil.rmtree(host.root / "sys/class/net/eth0/device")
    assert set(read(host.source().sweep(), "host.network.receive_bytes", "interface")) == {"eth0", "veth1"}


def test_only_whole_disks_count(host: Host) -> None:
    """A partition and a logical volume show what their disk shows."""
    sweep = host.source().sweep()
    assert read(sweep, "host.disk.read_bytes", "disk") == {"sda": 10 * 512}
    assert read(sweep, "host.disk.write_bytes", "disk") == {"sda": 20 * 512}
    (reading,) = [r for r in sweep.readings if "disk" in r.resource.labels]
    assert reading.samples[0].identity == f"{BOOT}/disk/7"


def test_a_disk_without_diskseq_is_known_by_its_numbers(host: Host) -> None:
    """Before Linux 5.15."""
    (host.root / "sys/block/sda/diskseq").unlink()
    (reading,) = [r for r in host.source().sweep().readings if "disk" in r.resource.labels]
    assert reading.resource.key.endswith("disk#8:0")


def test_where_no_disk_is_physical_stacked_ones_still_do_not_count(host: Host) -> None:
    """Some virtual machines show their disks without a bus."""
    shutil.rmtree(host.root / "sys/block/sda/device")
    assert set(read(host.source().sweep(), "host.disk.read_bytes", "disk")) == {"sda"}


def test_each_file_system_counts_once_below_the_root(host: Host) -> None:
    """A bind mount is not another file system, an image in a file is inside one; the path is the mounted host's."""
    used = read(host.source().sweep(), "host.filesystem.used", "mountpoint")
    total = os.statvfs(host.root)
    assert set(used) == {"/"}
    assert abs(used["/"] - (total.f_blocks - total.f_bfree) * total.f_frsize) < 1 << 30
    host.write("proc/1/mounts", "\n".join(line for line in MOUNTS.splitlines() if " / " not in line))
    assert set(read(host.source().sweep(), "host.filesystem.used", "mountpoint")) == {"/my data"}


def test_uptime_is_boottime(host: Host) -> None:
    """In milliseconds."""
    assert read(host.source().sweep(), "host.uptime") == {"uptime": 1_000_000}


def test_every_meter_is_read_and_belongs_to_no_books(host: Host) -> None:
    """The catalogue and the readings agree."""
    sweep = host.source().sweep()
    meters = {sample.meter for reading in sweep.readings for sample in reading.samples}
    assert meters == {meter.name for meter in METERS}
    assert {meter.books for meter in METERS} == {"none"}
    assert all(r.resource.parent is None and r.resource.anchor is None for r in sweep.readings)
    assert all(type(sample.value) is int for reading in sweep.readings for sample in reading.samples)


def test_the_same_device_is_the_same_object(host: Host) -> None:
    """And another disk under the old name is another resource."""
    source = host.source()
    one, two = source.sweep(), source.sweep()
    assert one.listing is two.listing
    assert all(a.resource is b.resource for a, b in zip(one.readings, two.readings, strict=True))
    host.write("sys/block/sda/diskseq", "8\n")
    assert source.sweep().listing - two.listing == {"host/5f0c2a11/disk#8"}


def test_what_is_missing_has_no_samples(host: Host) -> None:
    """A machine without disks, or a /proc/1 that is hidden from us."""
    shutil.rmtree(host.root / "proc/1")
    shutil.rmtree(host.root / "sys/block")
    (host.root / "proc/diskstats").unlink()
    meters = {sample.meter for r in host.source().sweep().readings for sample in r.samples}
    assert meters == {"host.cpu.time", "host.memory.used", "host.uptime"}


def test_when_nothing_can_be_read_the_error_names_the_root(tmp_path: Path) -> None:
    """A wrong `root` must not look like an idle machine."""
    with pytest.raises(SourceError, match=r"boot_id.*root"):
        HostSource("host", str(tmp_path))
    with pytest.raises(SourceError, match=r"proc: nothing to read\. `root`"):
        HostSource("host", str(tmp_path), boot=BOOT).sweep()


def test_a_file_that_makes_no_sense_fails_the_sweep(host: Host) -> None:
    """Rather than leave a wrong number."""
    host.write("proc/stat", "cpu  1 x 3\n")
    with pytest.raises(SourceError, match="not understood by cpu"):
        host.source().sweep()


def test_only_wanted_meters_are_given(host: Host) -> None:
    """What nobody bills is not sampled."""
    source = HostSource("host", str(host.root), clock=host.clock, wanted=frozenset({"host.network.receive_bytes"}))
    assert [[s.meter for s in r.samples] for r in source.sweep().readings] == [["host.network.receive_bytes"]]


def test_this_very_machine_can_be_read() -> None:
    """Whoever runs the tests, as root or not, in a container or not."""
    sweep = HostSource("host").sweep()
    modes = read(sweep, "host.cpu.time", "mode")
    assert modes["user"] > 0
    assert modes["idle"] > 0
    assert read(sweep, "host.memory.used")["memory"] > 0
    assert all(sweep.stamp <= sample.taken for reading in sweep.readings for sample in reading.samples)
