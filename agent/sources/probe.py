"""What a group's files say: which files hold which meter, on v1 and v2, how they are parsed, and how they are held.

A `Format` is one file (or two) of one controller and the meters in it. A `Probe` is that format opened on one group:
held open while descriptors last (a `pread` costs 1 µs, open-read-close 7), opened for each reading beyond that.
"""

import errno
import os
import resource
from collections.abc import Callable

from msgspec import Struct

from agent.model import Sample
from agent.sources.devices import Devices
from agent.sources.hierarchy import Hierarchy, Layout

GONE = (errno.ENODEV, errno.ENOENT)  # a removed group's held file, and a file that is not there
READ = 4096  # bytes: memory.stat is below 2 KiB; what is longer is read on
SPARED = 256  # descriptors left to the rest of the process
UNLIMITED = 1 << 62  # v1 writes "no limit" as the largest multiple of the page size below 2**63

Values = tuple[int | None, ...]  # None: this meter has no value here (a limit of "max")


class Format(Struct, frozen=True):
    """One controller's file or files, and the meters that come out of them, in the order of `parse`'s values.

    `files` holds alternatives, the preferred first; each is read whole and handed to `parse` in order.
    """

    controller: str
    files: tuple[tuple[str, ...], ...]
    meters: tuple[str, ...]
    parse: Callable[..., Values]
    aspect: str = "usage"


def cpu_v1(raw: bytes) -> int:
    """`cpuacct.usage`: nanoseconds."""
    return int(raw)


def cpu_v2(raw: bytes) -> int:
    """`cpu.stat`: usage_usec × 1000. Raises ValueError when the line is not there."""
    start = raw.index(b"usage_usec ") + 11
    return int(raw[start : raw.index(b"\n", start)]) * 1000


def working_set(field: bytes) -> Callable[[bytes, bytes], Values]:
    """Usage − inactive page cache, not below zero: what the kubelet and cAdvisor call the working set."""
    key = b"\n" + field + b" "

    def parse(usage: bytes, stat: bytes) -> Values:
        start = stat.find(key)
        if start < 0:
            start = 0 if stat.startswith(key[1:]) else stat.index(key)  # the latter says what is missing
        start = stat.index(b" ", start) + 1
        return (max(0, int(usage) - int(stat[start : stat.index(b"\n", start)])),)

    return parse


def transfers_v1(devices: Devices) -> Callable[[bytes], Values]:
    """`MAJ:MIN Read N` and `MAJ:MIN Write N`, summed over all but stacked devices."""

    def parse(raw: bytes) -> Values:
        read = written = 0
        for line in raw.splitlines():
            fields = line.split()
            if len(fields) != 3 or fields[1] not in (b"Read", b"Write") or devices.stacked(fields[0].decode()):
                continue
            if fields[1] == b"Read":
                read += int(fields[2])
            else:
                written += int(fields[2])
        return read, written

    return parse


def transfers_v2(devices: Devices) -> Callable[[bytes], Values]:
    """`MAJ:MIN rbytes=N wbytes=N rios=N wios=N …`, summed over all but stacked devices."""

    def parse(raw: bytes) -> Values:
        total = {b"rbytes": 0, b"wbytes": 0, b"rios": 0, b"wios": 0}
        for line in raw.splitlines():
            number, *pairs = line.split()
            if devices.stacked(number.decode()):
                continue
            for pair in pairs:
                name, _, value = pair.partition(b"=")
                if name in total:
                    total[name] += int(value)
        return tuple(total.values())

    return parse


def level(raw: bytes) -> Values:
    """One number; `max`, and what v1 writes for it, is none."""
    value = raw.strip()
    return (None if value == b"max" or int(value) >= UNLIMITED else int(value),)


def protected(lowest: bytes, low: bytes) -> Values:
    """The larger of memory.min and memory.low; none when both are zero."""
    sizes = [size for size in (*level(lowest), *level(low)) if size]
    return (max(sizes) if sizes else None,)


def quota_v1(quota: bytes, period: bytes) -> Values:
    """CPU limit in nanoseconds per millisecond; a negative quota is none."""
    return (int(quota) * 1_000_000 // int(period) if int(quota) >= 0 else None,)


def quota_v2(raw: bytes) -> Values:
    """`cpu.max`: quota and period in microseconds, as nanoseconds per millisecond; `max` is none."""
    quota, period = raw.split()
    return (None,) if quota == b"max" else quota_v1(quota, period)


def formats(layout: Layout, devices: Devices, wanted: frozenset[str], aspects: frozenset[str]) -> list[Format]:
    """The formats of this machine's layout that hold a wanted meter, or a wanted aspect of one. CPU time is apart."""
    read, write, blkio = ("io.read_bytes", "io.read_ops"), ("io.write_bytes", "io.write_ops"), "blkio.throttle."
    bytes_v1 = ((f"{blkio}io_service_bytes_recursive",), (f"{blkio}io_service_bytes",))
    ops_v1 = ((f"{blkio}io_serviced_recursive",), (f"{blkio}io_serviced",))
    memory, cpu = ("memory.working_set",), ("cpu.time",)
    found = [
        Format("memory", (("memory.usage_in_bytes", "memory.stat"),), memory, working_set(b"total_inactive_file"))
        if "memory" in layout.v1
        else Format("memory", (("memory.current", "memory.stat"),), memory, working_set(b"inactive_file")),
        *(
            (
                Format("blkio", bytes_v1, (read[0], write[0]), transfers_v1(devices)),
                Format("blkio", ops_v1, (read[1], write[1]), transfers_v1(devices)),
            )
            if "blkio" in layout.v1
            else (Format("blkio", (("io.stat",),), (read[0], write[0], read[1], write[1]), transfers_v2(devices)),)
        ),
        Format("pids", (("pids.current",),), ("pids",), level),
    ]
    if "limit" in aspects:
        found += [
            Format("cpu", (("cpu.cfs_quota_us", "cpu.cfs_period_us"),), cpu, quota_v1, "limit")
            if "cpu" in layout.v1
            else Format("cpu", (("cpu.max",),), cpu, quota_v2, "limit"),
            Format("memory", (("memory.limit_in_bytes",), ("memory.max",)), memory, level, "limit"),
        ]
    if "request" in aspects and "memory" not in layout.v1:
        found.append(Format("memory", (("memory.min", "memory.low"),), memory, protected, "request"))
    return [f for f in found if wanted.intersection(f.meters)]


class Descriptors:
    """How many files may be held open for speed alone. Takes the process up to its hard limit."""

    def __init__(self, spared: int = SPARED) -> None:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if soft != hard:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        self.limit = hard
        self.left = hard // 2 - spared  # the other half is for the CPU counters, which must be held

    def take(self, count: int) -> bool:
        """Whether `count` more may be held; they are then counted as taken."""
        if count > self.left:
            return False
        self.left -= count
        return True

    def give(self, count: int) -> None:
        """Count them as free again."""
        self.left += count


class Probe:
    """One format, opened on one group. Raises OSError from `read` when its files are gone."""

    __slots__ = ("_descriptors", "_fds", "_parse", "_paths", "_samples", "aspect", "identity")

    def __init__(
        self, form: Format, hierarchy: Hierarchy, path: str, boot: str, wanted: frozenset[str], held: Descriptors
    ) -> None:
        """Open it. Raises OSError (ENOENT) when the group has no such files."""
        self._parse, self.aspect, self._descriptors = form.parse, form.aspect, held
        self._samples = [(i, m) for i, m in enumerate(form.meters) if m in wanted]
        directory = hierarchy.directory(path)
        where = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        try:  # by the directory's descriptor, so that files and inode are of one incarnation
            self.identity = f"{boot}/{hierarchy.name}/{os.fstat(where).st_ino}"
            fds, names = _open_first(form.files, where)
        finally:
            os.close(where)
        self._paths = [f"{directory}/{name}" for name in names]
        self._fds: list[int] = fds
        if not held.take(len(fds)):
            self._fds = []
            for fd in fds:
                os.close(fd)

    def read(self, taken: int) -> list[Sample]:
        """The samples of this instant. Raises OSError when a file cannot be read, ValueError when not understood."""
        raws = [_whole(fd) for fd in self._fds] if self._fds else [_once(path) for path in self._paths]
        values, identity, aspect = self._parse(*raws), self.identity, self.aspect
        return [
            Sample(meter, identity, value, taken, aspect)  # type: ignore[arg-type]
            for i, meter in self._samples
            if (value := values[i]) is not None
        ]

    def close(self) -> None:
        """Let go of the files; safe to call twice."""
        self._descriptors.give(len(self._fds))
        for fd in self._fds:
            os.close(fd)
        self._fds = []


def _open_first(alternatives: tuple[tuple[str, ...], ...], where: int) -> tuple[list[int], tuple[str, ...]]:
    """The first alternative of which every file is there, opened. Raises OSError of the last that is not."""
    missing: OSError | None = None
    for names in alternatives:
        fds: list[int] = []
        try:
            for name in names:
                fds.append(os.open(name, os.O_RDONLY, dir_fd=where))  # noqa: PERF401 - those open must be known
        except OSError as error:
            missing = error
            for fd in fds:
                os.close(fd)
        else:
            return fds, names
    assert missing is not None
    raise missing


def _whole(fd: int) -> bytes:
    data = part = os.pread(fd, READ, 0)
    while len(part) == READ:
        part = os.pread(fd, READ, len(data))
        data += part
    return data


def _once(path: str) -> bytes:
    fd = os.open(path, os.O_RDONLY)
    try:
        return _whole(fd)
    finally:
        os.close(fd)
