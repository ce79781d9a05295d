"""cgroups: what systemd units, slices and any other group of processes used, on v1, v2 and hybrid."""

from collections.abc import Callable, Iterable, Mapping

from msgspec import structs

from agent.model import Meter, Sample
from agent.pattern import matches
from agent.sources.devices import Devices
from agent.sources.group import Group
from agent.sources.groups import Groups
from agent.sources.hierarchy import Layout
from agent.sources.kernel import boot_id, boottime
from agent.sources.ownership import Ownership
from agent.sources.tree import Node
from agent.sources.units import Units

_IO_NOTE = (
    "A device over other devices (LVM, RAID, loop) is left out, for the disks below count the same transfer. Buffered "
    "writes count where the kernel charges the write-back: on v1 at the root, so there mostly to nobody. When a disk "
    "is removed its share leaves the counter, which is a fall and bills nothing. On v1 newer kernels count only disks "
    "that have a throttle; v2 counts always."
)

METERS = (
    Meter(
        "cpu.time",
        "ns",
        "counter",
        "exact",
        "v1, hybrid: cpuacct.usage (ns); v2, and groups that exist in `unified` only: cpu.stat usage_usec × 1000",
        "Ends with the last reading, at most 1 s before the group is removed; what it used after that is its parent's.",
    ),
    Meter(
        "memory.working_set",
        "byte·ms",
        "gauge",
        "bound",
        "v1: memory.usage_in_bytes − memory.stat total_inactive_file; v2: memory.current − memory.stat inactive_file; "
        "not below 0",
        "A parent also holds pages of its removed children, and is read up to milliseconds later than they are.",
    ),
    *(
        Meter(
            f"io.{way}_{what}",
            unit,
            "counter",
            "bound",
            f"v1: Σ over devices of {v1} in blkio.throttle.{file}_recursive (without _recursive before Linux 4.x); "
            f"v2: Σ over devices of io.stat {v2}",
            _IO_NOTE,
        )
        for what, unit, file in (("bytes", "byte", "io_service_bytes"), ("ops", "op", "io_serviced"))
        for way, v1, v2 in (
            ("read", "Read", "rbytes" if what == "bytes" else "rios"),
            ("write", "Write", "wbytes" if what == "bytes" else "wios"),
        )
    ),
    Meter(
        "pids", "pid·ms", "gauge", "bound", "pids.current", "Read up to milliseconds later in a parent than in a child."
    ),
    Meter("alive.time", "ms", "gauge", "none", "1 while the group's directory exists"),
)


class CgroupSource(Groups):
    """The groups under `anchors` whose path fits a pattern of `include`, and the anchors themselves.

    `root` is where the machine's /proc and /sys are. `books=False` is for a user's own delegated group: `include` is
    one path, metered alone, outside any books and without the question who could write its name.
    """

    def __init__(
        self,
        id: str,  # noqa: A002 - the Protocol's word
        root: str = "/",
        include: Iterable[str] = (),
        anchors: Iterable[str] = (),
        *,
        boot: str | None = None,
        clock: Callable[[], int] = boottime,
        books: bool = True,
        wanted: frozenset[str] | None = None,
        aspects: frozenset[str] = frozenset(),
        root_uid: int = 0,
    ) -> None:
        layout, units = Layout(root), Units(root, clock)
        named = tuple(anchors if books else include)
        wanted = wanted if wanted is not None else frozenset(meter.name for meter in METERS)
        super().__init__(
            id,
            METERS if books else tuple(structs.replace(meter, books="none") for meter in METERS),
            _Paths(
                frozenset(named),
                tuple(include) if books else (),
                Ownership(layout, units, root_uid),
                units,
                trusted=not books,
                alive="alive.time" in wanted,
            ),
            layout,
            Devices(root),
            named,
            boot=boot if boot is not None else boot_id(root),
            clock=clock,
            books=books,
            wanted=wanted,
            aspects=aspects,
        )


class _Paths:
    """Groups by their path: metered where a pattern fits, labelled with what root alone could write."""

    def __init__(
        self,
        anchors: frozenset[str],
        include: tuple[str, ...],
        ownership: Ownership,
        units: Units,
        *,
        trusted: bool,
        alive: bool,
    ) -> None:
        self._anchors, self._include, self._ownership, self._units = anchors, include, ownership, units
        self._trusted, self._alive = trusted, alive

    def metered(self, node: Node) -> bool:
        return node.name in self._anchors or any(matches(pattern, node.name) for pattern in self._include)

    def descends(self, node: Node) -> bool:  # noqa: ARG002 - a pattern may fit at any depth
        return True

    def named(self, group: Group) -> tuple[str, Mapping[str, str]]:
        node = group.node
        return node.name, self._ownership.labels(node.hierarchy, node.path, group.owner, trusted=self._trusted)

    def stated(self, group: Group) -> tuple[Sample, ...]:
        return (Sample("alive.time", group.identity, 1, group.taken),) if self._alive else ()

    def forget_old(self) -> None:
        self._units.forget_old()
