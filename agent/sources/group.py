"""One metered group, held open: its CPU counter, read each second, and the probes of its other meters."""

import errno
import os
from collections.abc import Callable

from agent.errors import SourceError
from agent.model import Resource, Sample
from agent.sources.hierarchy import Layout
from agent.sources.probe import GONE, Descriptors, Format, Probe, cpu_v1, cpu_v2
from agent.sources.tree import Node

_CPU_FILE = {"cpuacct": "cpuacct.usage", "unified": "cpu.stat"}
_PARSE_CPU: dict[str, Callable[[bytes], int]] = {"cpuacct": cpu_v1, "unified": cpu_v2}
CPU_READ = 512  # bytes: cpu.stat's first line is the usage
EXHAUSTED = (errno.EMFILE, errno.ENFILE)


class Group:
    """One incarnation of a metered directory. `value` was its CPU counter at `taken`; `kept` has the other meters'."""

    __slots__ = (
        "fd",
        "identity",
        "kept",
        "node",
        "owner",
        "parse",
        "probes",
        "refresh_at",
        "resource",
        "taken",
        "value",
    )

    def __init__(self, node: Node, boot: str) -> None:
        """Open the CPU counter of this very incarnation. Raises FileNotFoundError when it is gone already."""
        where = os.open(node.directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            found = os.fstat(where)
            if found.st_ino != node.inode:
                raise FileNotFoundError(errno.ENOENT, "replaced by another group", node.directory)
            self.fd = os.open(_CPU_FILE[node.hierarchy.name], os.O_RDONLY, dir_fd=where)
        finally:
            os.close(where)
        self.node, self.owner = node, found.st_uid
        self.resource = Resource(node.key, node.name)
        self.parse = _PARSE_CPU[node.hierarchy.name]
        self.identity = f"{boot}/{node.hierarchy.name}/{node.inode}"
        self.value = self.taken = 0
        self.probes: dict[Format, Probe] = {}
        self.kept: dict[tuple[str, str], Sample] = {}  # by meter and aspect
        self.refresh_at = 0

    def read_counter(self, taken: int) -> None:
        """Keep the CPU counter of now. Raises OSError when the group is gone, ValueError when it is not understood."""
        self.value = self.parse(os.pread(self.fd, CPU_READ, 0))
        self.taken = taken

    def open_probes(
        self, formats: list[Format], layout: Layout, boot: str, wanted: frozenset[str], descriptors: Descriptors
    ) -> None:
        """Open what is not open yet: a controller's directory may come after the group's first.

        Raises SourceError when descriptors run out.
        """
        for form in formats:
            hierarchy = layout.controller(form.controller)
            if form in self.probes or hierarchy is None:
                continue
            try:
                self.probes[form] = Probe(form, hierarchy, self.node.path, boot, wanted, descriptors)
            except OSError as error:
                if error.errno in EXHAUSTED:
                    raise exhausted(descriptors) from error
                for meter in form.meters:  # its controller is not on: the last it said holds no longer
                    self.kept.pop((meter, form.aspect), None)

    def read_probes(self, taken: int) -> list[Sample]:
        """The other meters' samples, kept too. Raises SourceError when a file is there but cannot be used."""
        samples: list[Sample] = []
        gone: list[Format] = []
        for form, probe in self.probes.items():
            try:
                samples += probe.read(taken)
            except (OSError, ValueError) as error:
                if not isinstance(error, OSError) or error.errno not in GONE:
                    raise SourceError(f"{self.node.directory}: {', '.join(form.meters)}: {error}") from error
                gone.append(form)  # the controller left this group, or the group is going: no sample
        for form in gone:
            self.probes.pop(form).close()
        for sample in samples:
            self.kept[sample.meter, sample.aspect] = sample
        return samples

    def close(self) -> None:
        """Let go of every file; safe to call twice."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
        for probe in self.probes.values():
            probe.close()
        self.probes = {}


def exhausted(descriptors: Descriptors) -> SourceError:
    """What to say when no more files can be opened."""
    return SourceError(
        f"too many cgroups for {descriptors.limit} open files: raise LimitNOFILE, or meter fewer groups with `include`"
    )
