"""One pod's network namespace, read through a process in it.

The process's directory in /proc is held, not its `net/dev`: an open `net/dev` keeps the namespace, and whatever device
is in it, alive after the pod. A held directory keeps nothing, and answers no more once the process has ended.
"""

import errno
import os
from collections.abc import Mapping

from agent.errors import SourceError
from agent.model import Resource
from agent.sources.group import EXHAUSTED
from agent.sources.kubernetes.processes import Process, started

_READ = 65536  # bytes: the kernel gives a page at most, so it is read until nothing comes


class Interface:
    """One network interface of a sandbox: bytes it received and sent until `taken`."""

    __slots__ = ("identity", "index", "name", "of", "receive", "resource", "taken", "transmit")

    def __init__(self, index: str, name: str) -> None:
        self.index, self.name = index, name
        self.receive = self.transmit = self.taken = 0
        self.of: Resource | None = None  # the pod's resource from which its own was made
        self.resource: Resource | None = None
        self.identity = ""  # its counters'


class Sandbox:
    """What `process` sees. `told`: a sweep has spoken of it, so that its identity is fixed."""

    __slots__ = ("_fd", "_indices", "anchor", "ended", "inode", "interfaces", "process", "told")

    def __init__(self, proc: str, process: Process) -> None:
        """Take hold of the process. Raises OSError when it has ended, SourceError when no file can be opened."""
        self.process, self.told, self.anchor = process, False, ""
        self.interfaces: dict[str, Interface] = {}  # by index
        self.ended: list[Interface] = []  # taken out of the sandbox since they were last asked for
        self._indices: dict[str, str] = {}  # by name
        directory = f"{proc}/{process.pid}"
        try:
            self._fd = os.open(directory, os.O_PATH | os.O_DIRECTORY)
        except OSError as error:
            if error.errno in EXHAUSTED:
                raise SourceError(f"{directory}: {error.strerror}: raise LimitNOFILE") from error
            raise
        try:
            if started("", self._fd) != process:
                raise ProcessLookupError(errno.ESRCH, os.strerror(errno.ESRCH), directory)
            self.inode = os.stat("net/dev", dir_fd=self._fd).st_ino
        except OSError:
            self.close()
            raise

    @property
    def lost(self) -> bool:
        """Whether its process has ended."""
        return self._fd < 0

    def read(self, taken: int) -> None:
        """Keep the counters of now. Raises OSError when the process has ended, SourceError when not understood."""
        try:
            counted = counters(_whole("net/dev", self._fd))
            if counted.keys() != self._indices.keys():
                self._renumber(counted)
        except (IndexError, ValueError) as error:
            raise SourceError(f"/proc/{self.process.pid}/net/dev: not understood: {error}") from error
        for name, (receive, transmit) in counted.items():
            interface = self.interfaces[self._indices[name]]
            interface.receive, interface.transmit, interface.taken = receive, transmit, taken

    def shows(self, former: "Sandbox") -> bool:
        """Whether this, read just now, is the namespace of `former`: then its counters are those, gone on."""
        if self.inode != former.inode:
            return False  # an inode comes again, too; but counters of a new namespace are lower
        both = ((was, self.interfaces[i]) for i, was in former.interfaces.items() if i in self.interfaces)
        return all(now.receive >= was.receive and now.transmit >= was.transmit for was, now in both)

    def inherit(self, former: "Sandbox") -> None:
        """Go on under the identity of `former`, though its process has ended."""
        self.process, self.told, self.anchor = former.process, former.told, former.anchor
        ended = (interface for index, interface in former.interfaces.items() if index not in self.interfaces)
        self.ended = [*former.ended, *ended]

    def close(self) -> None:
        """Let go of the process; safe to call twice."""
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = -1

    def _renumber(self, names: Mapping[str, object]) -> None:
        """Interfaces came, went or were renamed: a counter is its index's."""
        known = indices(_whole("net/dev_mcast", self._fd))
        self._indices = {name: known.get(name, name) for name in names}
        before, self.interfaces = self.interfaces, {}
        for name, index in self._indices.items():
            interface = before.pop(index, None) or Interface(index, name)
            if interface.name != name:
                interface.name, interface.of = name, None
            self.interfaces[index] = interface
        self.ended += before.values()


def counters(raw: bytes) -> dict[str, tuple[int, int]]:
    """`net/dev`: by interface, bytes received and sent. Raises ValueError, IndexError when not understood.

    Without the loopback, which receives what it sent: another interface that took its name does not.
    """
    found: dict[str, tuple[int, int]] = {}
    for line in raw.splitlines()[2:]:
        name, _, fields = line.rpartition(b":")
        values = fields.split(None, 9)
        receive, transmit = int(values[0]), int(values[8])
        if name.strip() != b"lo" or receive != transmit:
            found[name.strip().decode("utf-8", "backslashreplace")] = receive, transmit
    return found


def indices(raw: bytes) -> dict[str, str]:
    """`net/dev_mcast`: by interface, its index; those without a multicast address are not there."""
    lines = (line.split() for line in raw.splitlines())
    return {fields[1].decode("utf-8", "backslashreplace"): fields[0].decode() for fields in lines if len(fields) > 1}


def _whole(name: str, directory: int) -> bytes:
    fd = os.open(name, os.O_RDONLY, dir_fd=directory)
    try:
        data = b""
        while part := os.read(fd, _READ):
            data += part
        return data
    finally:
        os.close(fd)
