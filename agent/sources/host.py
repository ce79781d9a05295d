"""The machine as a whole: CPU by mode, memory, physical network interfaces and disks, file systems, uptime.

psutil where it tells the truth. Not for CPU (it returns floats), not for the network (in a pod, /proc/net is the
reader's own namespace; that of the machine is PID 1's) and not for the list of mounts (the same).
"""

import os
import re
from collections.abc import Callable, Iterator, Mapping

import psutil

from agent.errors import SourceError
from agent.model import NS_PER_MS, NS_PER_S, Meter, Reading, Resource, Sample, Sweep
from agent.sources.devices import Devices
from agent.sources.hierarchy import printable
from agent.sources.kernel import boot_id, boottime

METERS = (
    Meter(
        "host.cpu.time",
        "ns",
        "counter",
        "none",
        "/proc/stat, line `cpu`: ticks × 1 s ÷ CLK_TCK, by `mode`; user without guest, nice without guest_nice",
        "As fine as a tick (10 ms). The kernel may take idle and iowait back a little; that is not shown.",
    ),
    Meter("host.memory.used", "byte·ms", "gauge", "none", "/proc/meminfo: MemTotal − MemAvailable"),
    *(
        Meter(
            f"host.network.{way}_bytes",
            "byte",
            "counter",
            "none",
            f"/proc/1/net/dev, {way} bytes of each `interface` that has a /sys/class/net/*/device; "
            "where none has, of all but lo",
        )
        for way in ("receive", "transmit")
    ),
    *(
        Meter(
            f"host.disk.{way}_bytes",
            "byte",
            "counter",
            "none",
            f"/proc/diskstats, sectors {way} × 512 of each whole `disk` that has a /sys/block/*/device; "
            "where none has, of all but ram, zram and those over other disks",
        )
        for way in ("read", "write")
    ),
    Meter(
        "host.filesystem.used",
        "byte·ms",
        "gauge",
        "none",
        "statvfs: (f_blocks − f_bfree) × f_frsize of each file system on a block device, at its first `mountpoint`",
        "Not of loop mounts, whose bytes lie in another file system.",
    ),
    Meter("host.uptime", "ms", "counter", "none", "CLOCK_BOOTTIME since boot, suspends included"),
)

_MODES = ("user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal", "guest", "guest_nice")
_OCTAL = re.compile(r"\\([0-7]{3})")  # how the kernel writes blanks in mount tables


class HostSource:
    """One machine, whose /proc, /sys and file systems are under `root`. Each device is a resource of its own.

    What cannot be read (no disk, a hidden /proc) has no samples; when nothing can, `sweep` raises.
    """

    def __init__(
        self,
        id: str,  # noqa: A002 - the Protocol's word
        root: str = "/",
        *,
        boot: str | None = None,
        clock: Callable[[], int] = boottime,
        wanted: frozenset[str] | None = None,
    ) -> None:
        self.id = id
        self.meters = METERS
        self._root = root
        self._proc, self._sys = os.path.join(root, "proc"), os.path.join(root, "sys")
        self._boot = boot if boot is not None else boot_id(root)
        self._clock = clock
        self._wanted = wanted if wanted is not None else frozenset(meter.name for meter in METERS)
        self._devices = Devices(root)
        self._highest: dict[str, int] = {}  # ticks by mode
        self._resources: dict[str, Resource] = {}
        self._listing: frozenset[str] = frozenset()
        self._ticks_per_s = os.sysconf("SC_CLK_TCK")

    def sweep(self) -> Sweep:
        """Every device of the machine. Raises SourceError when none could be read."""
        psutil.PROCFS_PATH = self._proc
        stamp = self._clock()
        readings: list[Reading] = []
        for part in (self._cpu, self._memory, self._network, self._disks, self._filesystems, self._uptime):
            try:
                readings += [reading for reading in part() if reading.samples]
            except OSError:
                continue  # this machine does not have it, or hides it
            except (ValueError, KeyError, IndexError) as error:
                raise SourceError(f"{self._proc}: not understood by {part.__name__.strip('_')}: {error!r}") from error
        if self._wanted - {"host.uptime"} and not any(reading.resource.name != "uptime" for reading in readings):
            raise SourceError(f"{self._proc}: nothing to read. `root` must hold the /proc and /sys of the machine")
        keys = frozenset(reading.resource.key for reading in readings)
        if keys != self._listing:
            self._listing = keys
            self._resources = {r.resource.key: r.resource for r in readings}
        return Sweep(self.id, self._boot, stamp, readings, self._listing, os.cpu_count() or 1, basis="host")

    def close(self) -> None:
        """Nothing is held open."""

    def _cpu(self) -> Iterator[Reading]:
        with open(f"{self._proc}/stat", encoding="ascii") as file:
            fields = file.readline().split()
        taken = self._clock()
        ticks = dict(zip(_MODES, map(int, fields[1:]), strict=False))
        ticks["user"] -= ticks.get("guest", 0)
        ticks["nice"] -= ticks.get("guest_nice", 0)
        for mode, count in ticks.items():
            self._highest[mode] = max(count, self._highest.get(mode, 0))
            values = {"host.cpu.time": self._highest[mode] * NS_PER_S // self._ticks_per_s}
            yield self._reading("cpu", mode, mode, {"mode": mode}, values, taken)

    def _memory(self) -> Iterator[Reading]:
        memory = psutil.virtual_memory()
        yield self._reading("memory", "", "0", {}, {"host.memory.used": memory.total - memory.available}, self._clock())

    def _network(self) -> Iterator[Reading]:
        with open(f"{self._proc}/1/net/dev", encoding="utf-8", errors="backslashreplace") as file:
            lines = file.readlines()[2:]
        taken = self._clock()
        counted = {name.strip(): fields.split() for name, _, fields in (line.rpartition(":") for line in lines)}
        physical = [n for n in counted if os.path.exists(f"{self._sys}/class/net/{n}/device")]
        for name in physical or [n for n in counted if n != "lo"]:
            fields = counted[name]
            values = {"host.network.receive_bytes": int(fields[0]), "host.network.transmit_bytes": int(fields[8])}
            yield self._reading("nic", name, self._ifindex(name), {"interface": name}, values, taken)

    def _ifindex(self, name: str) -> str:
        """What tells this interface from the next one of its name; the name itself where sysfs is not to be seen."""
        try:
            with open(f"{self._sys}/class/net/{name}/ifindex", encoding="ascii") as file:
                return file.read().strip()
        except OSError:
            return name

    def _disks(self) -> Iterator[Reading]:
        try:
            counted = psutil.disk_io_counters(perdisk=True, nowrap=False)  # `nowrap` would add what it guesses
        except NotImplementedError:
            return  # no /proc/diskstats
        taken = self._clock()
        for name in self._devices.disks():
            disk = counted.get(name.replace("!", "/"))  # sysfs cannot have a slash in a name
            try:
                sequence = self._devices.identity(name)
            except OSError:
                continue  # pulled out just now
            if disk is not None:
                values = {"host.disk.read_bytes": disk.read_bytes, "host.disk.write_bytes": disk.write_bytes}
                yield self._reading("disk", name, sequence, {"disk": name}, values, taken)

    def _filesystems(self) -> Iterator[Reading]:
        seen: set[int] = set()
        for mountpoint in self._mountpoints():
            path = mountpoint if self._root == "/" else os.path.join(self._root, mountpoint.lstrip("/"))
            try:
                device = os.stat(path).st_dev
                if device in seen:
                    continue  # a bind mount of one already counted
                used = psutil.disk_usage(path).used
            except OSError:
                continue  # hidden from us, or unmounted just now
            seen.add(device)
            name, values = printable(mountpoint), {"host.filesystem.used": used}
            yield self._reading("filesystem", name, str(device), {"mountpoint": name}, values, self._clock())

    def _mountpoints(self) -> Iterator[str]:
        with open(f"{self._proc}/filesystems", encoding="ascii") as file:
            lines = [line.split("\t") for line in file.read().splitlines()]
        on_disk = {kind for flag, kind in lines if flag != "nodev" or kind == "zfs"}
        with open(f"{self._proc}/1/mounts", encoding="utf-8", errors="surrogateescape") as file:
            mounts = [line.split() for line in file]
        for device, mountpoint, kind, *_ in mounts:
            if kind in on_disk and not device.startswith("/dev/loop"):
                yield _OCTAL.sub(lambda octal: chr(int(octal[1], 8)), mountpoint)

    def _uptime(self) -> Iterator[Reading]:
        taken = self._clock()
        yield self._reading("uptime", "", "0", {}, {"host.uptime": taken // NS_PER_MS}, taken)

    def _reading(
        self, kind: str, name: str, incarnation: str, labels: Mapping[str, str], values: Mapping[str, int], taken: int
    ) -> Reading:
        """One device's reading; the same Resource object as long as it is the same device."""
        full = f"{kind}/{name.removeprefix('/')}" if name else kind
        key = f"{self.id}/{self._boot[:8]}/{kind}#{incarnation}"  # a rename changes the name, not the counter
        resource = self._resources.get(key)
        if resource is None or resource.name != full:
            resource = Resource(key, full, labels=labels)
        identity = f"{self._boot}/{kind}/{incarnation}"
        samples = (Sample(meter, identity, v, taken) for meter, v in values.items() if meter in self._wanted)
        return Reading(resource, tuple(samples))
