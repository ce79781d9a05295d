"""cgroups: what systemd units, slices and any other group of processes used, on v1, v2 and hybrid.

Each second `read` takes the CPU counters of all metered groups, so that one that dies leaves its last value; `sweep`
takes every meter. CPU counters are read in one tight pass, parents before children: a parent then never shows less
than the sum of the children it was read before, but for what ran meanwhile (ACCOUNTING §2).
"""

import os
from collections.abc import Callable, Iterable

from msgspec import structs

from agent.errors import SourceError
from agent.model import NS_PER_MS, NS_PER_S, Meter, Reading, Sample, Sweep
from agent.pattern import matches
from agent.sources.devices import Devices
from agent.sources.group import EXHAUSTED, Group, exhausted
from agent.sources.hierarchy import Layout
from agent.sources.kernel import boot_id, boottime
from agent.sources.ownership import Ownership
from agent.sources.probe import GONE, Descriptors, formats
from agent.sources.tree import Node, Tree
from agent.sources.units import Units
from agent.sources.watch import Watch

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

READ_EVERY = NS_PER_S
YOUNG_READ_EVERY = 100 * NS_PER_MS  # a group that lives half a second is read about five times
YOUNG = NS_PER_S  # how long a group counts as young
WALK_EVERY = 60  # sweeps
REFRESH_EVERY = 60 * NS_PER_S  # labels and late controllers; up to twice that, spread by inode


class CgroupSource:
    """The groups under `anchors` whose path fits a pattern of `include`, and the anchors themselves.

    `root` is where the machine's /proc and /sys are. `books=False` is for a user's own delegated group: `include` is
    one path, metered alone, outside any books and without the question who could write its name. `wanted` and
    `aspects` ("limit", "request") say which meters and levels are read at all. An anchor inside another is an
    ordinary group of the outer one's books.
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
        self.id = id
        self.meters: tuple[Meter, ...] = (
            METERS if books else tuple(structs.replace(meter, books="none") for meter in METERS)
        )
        self._boot = boot if boot is not None else boot_id(root)
        self._clock, self._books = clock, books
        self._wanted = wanted if wanted is not None else frozenset(meter.name for meter in METERS)
        include, named = tuple(include), tuple(anchors) if books else tuple(include)
        self._include = include if books else ()
        self._anchors = frozenset(named)
        self._layout, self._devices = Layout(root), Devices(root)
        self._units = Units(root, clock)
        self._ownership = Ownership(self._layout, self._units, root_uid)
        self._formats = formats(self._layout, self._devices, self._wanted, aspects)
        self._descriptors = Descriptors()
        self._watch = Watch()
        outermost = [a for a in dict.fromkeys(named) if not any(a.startswith(f"{b}/") for b in named)]
        self._tree = Tree(f"{id}/{self._boot[:8]}", self._layout, outermost, self._watch)
        self._groups: dict[Node, Group] = {}
        self._ordered: list[Group] | None = None
        self._young: dict[Group, int] = {}  # → when it was born
        self._gone: list[Group] = []  # died since the last sweep
        self._trouble: SourceError | None = None
        self._sweeps = 0
        self._read_at: int | None = None

    def fileno(self) -> int:
        """Readable when a group came or went, or one (v2) became empty."""
        return self._watch.fileno()

    def next_read_within(self, now: int) -> int:
        """Nanoseconds until `read` is due again: 1 s, or 0.1 s while a metered group is younger than 1 s."""
        self._young = {group: born for group, born in self._young.items() if now - born < YOUNG}
        return YOUNG_READ_EVERY if self._young else READ_EVERY

    def read(self) -> bool:
        """Keep the CPU counters of what lives: of the young at each call, of all not oftener than each half second.

        True while a group's last readings wait for a sweep. Never raises for a file: the next sweep does.
        """
        self._catch_up()
        now = self._clock()
        if self._read_at is None or now - self._read_at >= READ_EVERY // 2:
            self._read_at = now
            self._read_counters(list(self._groups.values()))
        else:
            self._read_counters(list(self._young))
        return bool(self._gone)

    def sweep(self) -> Sweep:
        """Every meter of every group. Raises SourceError when one could not be read: then nothing of it counts."""
        if self._layout.unified is None and "cpuacct" not in self._layout.v1:
            raise SourceError(f"{self._layout.base}: no cgroup hierarchy with CPU accounting is mounted there")
        if self._trouble is not None or self._watch.blind or self._sweeps % WALK_EVERY == 0:
            self._walk()
        self._sweeps += 1
        self._catch_up()
        self._refresh()
        self._raise_trouble()
        groups, listing = self._in_order(), self._tree.listing()
        stamp = self._clock()
        self._read_at = stamp
        self._read_counters(groups)
        self._raise_trouble()
        readings = [Reading(group.resource, self._samples(group)) for group in groups if group.node in self._groups]
        if self._gone:
            self._gone.sort(key=lambda group: group.node.path.count("/"))  # parents before children
            readings += [Reading(group.resource, self._last_samples(group), gone=True) for group in self._gone]
            listing -= {group.node.key for group in self._gone}
        self._raise_trouble()
        sweep = Sweep(self.id, self._boot, stamp, readings, listing, os.cpu_count() or 1, scope=self._anchors)
        self._gone = []
        return sweep

    def close(self) -> None:
        """Release every file and watch; safe to call twice."""
        for group in self._groups.values():
            group.close()
        self._groups, self._young, self._ordered = {}, {}, None
        self._watch.close()

    def _walk(self) -> None:
        self._trouble = None
        self._devices.forget()
        self._units.forget_old()
        self._tree.walk()
        self._admit()
        for node in self._tree.order():  # what could not be opened when it was found
            if node not in self._groups and self._metered(node):
                self._open(node)

    def _catch_up(self) -> None:
        if self._sweeps == 0 and not self._groups:
            return self._walk()
        self._tree.follow()
        self._admit()
        return None

    def _admit(self) -> None:
        """Open the groups that the tree found, let go of those it lost, read again those that became empty."""
        tree = self._tree
        entered, lost, stirred = tree.entered, tree.lost, tree.stirred
        tree.entered, tree.lost, tree.stirred = [], [], []
        for node in entered:
            if self._metered(node):
                self._open(node)
        self._read_counters([g for node in stirred if (g := self._groups.get(node)) is not None], whole=True)
        for node in lost:
            group = self._groups.pop(node, None)
            if group is not None:
                self._bury(group)

    def _metered(self, node: Node) -> bool:
        if node.renamed:
            return False  # its usage so far is booked under its old name; its parent has what follows
        return node.name in self._anchors or any(matches(pattern, node.name) for pattern in self._include)

    def _open(self, node: Node) -> None:
        """Meter this group from now on, beginning with a reading: it may not live to see the next."""
        now = self._clock()
        try:
            group = Group(node, self._boot)
        except OSError as error:
            if error.errno in EXHAUSTED:
                self._trouble = exhausted(self._descriptors)
            elif error.errno not in GONE:
                self._trouble = SourceError(f"{node.directory}: {error.strerror}")
            return
        self._groups[node], self._ordered = group, None
        self._label(group)
        self._tree.watch_population(node)
        self._open_probes(group)
        self._read_counters([group], whole=True)
        if self._sweeps and group.node in self._groups:
            self._young[group] = now  # its labels are looked at again in the first sweep: chown comes after mkdir
        else:
            group.refresh_at = now + _spread(node)

    def _read_counters(self, groups: list[Group], *, whole: bool = False) -> None:
        """Keep the counters of now; a group whose file answers no more has died, and its last value is its last."""
        clock, dead = self._clock, []
        for group in groups:
            try:
                group.read_counter(clock())
                if whole:
                    group.read_probes(group.taken)
            except OSError as error:
                if error.errno in GONE:
                    dead.append(group)
                else:
                    self._trouble = SourceError(f"{group.node.directory}: {error.strerror}")
            except ValueError as error:
                self._trouble = SourceError(f"{group.node.directory}: CPU counter: {error}")
            except SourceError as error:
                self._trouble = error
        for group in dead:
            if self._groups.pop(group.node, None) is not None:
                self._bury(group)
                self._tree.recheck(group.node)
        if dead:
            self._admit()

    def _bury(self, group: Group) -> None:
        group.close()
        self._young.pop(group, None)
        self._ordered = None
        if group.taken:
            self._gone.append(group)

    def _refresh(self) -> None:
        now = self._clock()
        for group in list(self._groups.values()):
            if group.refresh_at > now:
                continue
            group.refresh_at = now + _spread(group.node)
            try:
                group.owner = os.stat(group.node.directory).st_uid
            except OSError:
                continue  # it is going: the labels it had are its last
            self._label(group)
            self._open_probes(group)

    def _open_probes(self, group: Group) -> None:
        try:
            group.open_probes(self._formats, self._layout, self._boot, self._wanted, self._descriptors)
        except SourceError as error:
            self._trouble = error

    def _label(self, group: Group) -> None:
        """Give the group its labels and its place in the tree; the same Resource object while neither changes."""
        node, old = group.node, group.resource
        labels = self._ownership.labels(node.hierarchy, node.path, group.owner, trusted=not self._books)
        parent, anchor = self._place(node) if self._books else (None, None)
        if (old.labels, old.parent, old.anchor) != (labels, parent, anchor):
            group.resource = structs.replace(old, labels=labels, parent=parent, anchor=anchor)

    def _place(self, node: Node) -> tuple[str | None, str]:
        """The key of the nearest metered group above, and the name of the anchor."""
        parent = None
        while node.parent is not None:
            node = node.parent
            if parent is None and node in self._groups:
                parent = node.key
        return parent, node.name

    def _in_order(self) -> list[Group]:
        """The metered groups, parents before children, each under its nearest metered ancestor of now."""
        if self._ordered is None:
            self._ordered = [g for node in self._tree.order() if (g := self._groups.get(node)) is not None]
            for group in self._ordered:
                parent = self._place(group.node)[0] if self._books else None
                if parent != group.resource.parent:
                    group.resource = structs.replace(group.resource, parent=parent)
        return self._ordered

    def _samples(self, group: Group) -> tuple[Sample, ...]:
        now = self._clock()
        try:
            others = group.read_probes(now)
        except SourceError as error:
            self._trouble = error
            others = []
        return self._with_counter(group, others)

    def _last_samples(self, group: Group) -> tuple[Sample, ...]:
        return self._with_counter(group, list(group.kept.values()))

    def _with_counter(self, group: Group, others: list[Sample]) -> tuple[Sample, ...]:
        samples = []
        if "cpu.time" in self._wanted or group.node.name in self._anchors:
            samples.append(Sample("cpu.time", group.identity, group.value, group.taken))
        if "alive.time" in self._wanted:
            others.append(Sample("alive.time", group.identity, 1, group.taken))
        return (*samples, *others)

    def _raise_trouble(self) -> None:
        if self._trouble is not None:
            raise self._trouble


def _spread(node: Node) -> int:
    """How long until a group's labels are looked at again: not all in one sweep."""
    return REFRESH_EVERY + node.inode % 60 * NS_PER_S
