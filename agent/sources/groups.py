"""Metered groups, whatever they are called: found as they come, held open, read, and reported once more when they die.

Each second `read` takes the CPU counters of all metered groups, so that one that dies leaves its last value; `sweep`
takes every meter. CPU counters are read in one tight pass, parents before children: a parent then never shows less
than the sum of the children it was read before, but for what ran meanwhile (ACCOUNTING §2).
"""

import os
from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

from msgspec import structs

from agent.errors import SourceError
from agent.model import NS_PER_MS, NS_PER_S, Meter, Reading, Resource, Sample, Sweep
from agent.sources.devices import Devices
from agent.sources.group import EXHAUSTED, Group, exhausted
from agent.sources.hierarchy import Layout
from agent.sources.probe import GONE, Descriptors, formats
from agent.sources.tree import Node, Tree
from agent.sources.watch import Watch

READ_EVERY = NS_PER_S
YOUNG_READ_EVERY = 100 * NS_PER_MS  # a group that lives half a second is read about five times
YOUNG = NS_PER_S  # how long a group counts as young
WALK_EVERY = 60  # sweeps
REFRESH_EVERY = 60 * NS_PER_S  # labels and late controllers; up to twice that, spread by inode


class Scheme(Protocol):
    """What one kind of source makes of the directories below its anchors."""

    def metered(self, node: Node) -> bool:
        """Whether the group is read for itself; else what it uses is its parent's."""

    def descends(self, node: Node) -> bool:
        """Whether the directories in it are taken in, too; else one that comes or goes there only stirs it."""

    def named(self, group: Group) -> tuple[str, Mapping[str, str]]:
        """What people call it, and its labels, as things stand."""

    def stated(self, group: Group) -> Iterable[Sample]:
        """Samples that are in none of its files."""

    def forget_old(self) -> None:
        """Drop what was remembered and has not been asked for; called at each walk."""


class Groups:
    """The groups under `anchors` that `scheme` meters, read as `agent.sources.Watched` says.

    `books=False`: each stands alone, without parent and anchor. `wanted` and `aspects` ("limit", "request") say which
    meters and which levels in files are read at all; an anchor's CPU time always is. An anchor inside another is an
    ordinary group of the outer one's books.
    """

    def __init__(
        self,
        id: str,  # noqa: A002 - the Protocol's word
        meters: tuple[Meter, ...],
        scheme: Scheme,
        layout: Layout,
        devices: Devices,
        anchors: Iterable[str],
        *,
        boot: str,
        clock: Callable[[], int],
        books: bool,
        wanted: frozenset[str],
        aspects: frozenset[str],
    ) -> None:
        self.id, self.meters = id, meters
        self._scheme, self._boot, self._clock, self._books, self._wanted = scheme, boot, clock, books, wanted
        self._layout, self._devices = layout, devices
        self._formats = formats(layout, devices, wanted, aspects)
        self._descriptors = Descriptors()
        self._watch = Watch()
        named = tuple(anchors)
        self._anchors = frozenset(named)
        outermost = [a for a in dict.fromkeys(named) if not any(a.startswith(f"{b}/") for b in named)]
        self._tree = Tree(f"{id}/{boot[:8]}", layout, outermost, self._watch, scheme.descends)
        self._groups: dict[Node, Group] = {}
        self._ordered: list[Group] | None = None
        self._young: dict[Group, int] = {}  # → when it was born
        self._gone: list[Group] = []  # died since the last sweep
        self.stirred: list[Group] = []  # those in which something came or went, of the last call
        self.buried: list[Group] = []  # those that the last sweep reported as gone
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

    @property
    def living(self) -> Mapping[Node, Group]:
        """The groups that are metered now."""
        return self._groups

    @property
    def young(self) -> Iterable[Group]:
        """Those of them that were born less than a second ago."""
        return self._young.keys()

    def name_again(self) -> list[Resource]:
        """Ask for all names and labels at once, those of the dead that wait, too. What living ones were called before.

        Else each is asked for when it comes and about once a minute.
        """
        former = []
        for group in (*self._groups.values(), *self._gone):
            was = group.resource
            self._name(group)
            if group.resource is not was and group.node in self._groups:
                former.append(was)
        return former

    def read(self) -> bool:
        """Keep the CPU counters of what lives: of the young at each call, of all not oftener than each half second.

        True while a group's last readings wait for a sweep. Never raises for a file: the next sweep does.
        """
        self.stirred = []
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
        self.stirred = []
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
        self.buried, self._gone = self._gone, []
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
        self._scheme.forget_old()
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
        moved = [group for node in dict.fromkeys(stirred) if (group := self._groups.get(node)) is not None]
        self.stirred += moved
        self._read_counters(moved, whole=True)
        for node in lost:
            group = self._groups.pop(node, None)
            if group is not None:
                self._bury(group)

    def _metered(self, node: Node) -> bool:
        # What a renamed group used so far is booked under its old name; its parent has what follows.
        return not node.renamed and self._scheme.metered(node)

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
        """Give the group its name, labels and place in the tree; the same Resource object while none changes."""
        parent, anchor = self._place(group.node) if self._books else (None, None)
        if (group.resource.parent, group.resource.anchor) != (parent, anchor):
            group.resource = structs.replace(group.resource, parent=parent, anchor=anchor)
        self._name(group)

    def _name(self, group: Group) -> None:
        resource = group.resource
        name, labels = self._scheme.named(group)
        if (resource.name, resource.labels) != (name, labels):
            group.resource = structs.replace(resource, name=name, labels=labels)

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
        return self._with_counter(group, group.kept.values())

    def _with_counter(self, group: Group, others: Iterable[Sample]) -> tuple[Sample, ...]:
        counted = "cpu.time" in self._wanted or group.node.name in self._anchors
        counter = (Sample("cpu.time", group.identity, group.value, group.taken),) if counted else ()
        return (*counter, *others, *self._scheme.stated(group))

    def _raise_trouble(self) -> None:
        if self._trouble is not None:
            raise self._trouble


def _spread(node: Node) -> int:
    """How long until a group's labels are looked at again: not all in one sweep."""
    return REFRESH_EVERY + node.inode % 60 * NS_PER_S
