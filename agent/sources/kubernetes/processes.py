"""Which process of a pod is the oldest, by /proc alone.

From another PID namespace `cgroup.procs` lists nothing, so /proc/*/cgroup is read instead. One pass serves all pods
that are looked for, and passes by whom it has seen before: a process that lives for a while already starts no pod.
"""

import os
from collections.abc import Callable, Iterable, Mapping

from msgspec import Struct

from agent.model import NS_PER_S
from agent.sources.kubernetes.names import holding

SEEN = NS_PER_S  # a process that was seen so long ago has found its group
_TICK = NS_PER_S // os.sysconf("SC_CLK_TCK")


class Process(Struct, frozen=True, order=True):
    """One incarnation of a process: `started` in ticks since boot."""

    started: int
    pid: int

    @property
    def began(self) -> int:
        """Boottime in ns, at the end of the tick in which it did."""
        return (self.started + 1) * _TICK


class Processes:
    """The processes of one machine, whose /proc is at `proc`."""

    def __init__(self, proc: str, clock: Callable[[], int]) -> None:
        self._proc, self._clock = proc, clock
        self._seen: dict[str, int] = {}  # pid → when first

    def oldest(self, groups: Iterable[str], *, all_of_them: bool) -> dict[str, Process]:
        """By the path of its group, the oldest process in each group and below it, where one is found.

        `all_of_them`: look at those that were seen before, too.
        """
        known = {os.path.basename(path): path for path in groups}
        now, found = self._clock(), dict[str, Process]()
        pids = [name for name in os.listdir(self._proc) if name.isdigit()]
        self._seen = {pid: self._seen.get(pid, now) for pid in pids}
        for pid in pids:
            if not all_of_them and now - self._seen[pid] >= SEEN:
                continue
            path = self._group(pid, known)
            process = started(f"{self._proc}/{pid}") if path is not None else None
            if path is not None and process is not None:
                found[path] = min(process, found.get(path, process))
        return found

    def _group(self, pid: str, known: Mapping[str, str]) -> str | None:
        try:
            with open(f"{self._proc}/{pid}/cgroup", "rb", buffering=0) as file:
                raw = file.read()
        except OSError:
            return None  # it has ended
        if b"pod" not in raw:
            return None
        for line in os.fsdecode(raw).splitlines():
            path = holding(known, line.split(":", 2)[-1])
            if path is not None:
                return path
        return None


def started(directory: str, dir_fd: int | None = None) -> Process | None:
    """The process whose directory in /proc this is; None when it has ended."""
    try:
        fd = os.open(os.path.join(directory, "stat"), os.O_RDONLY, dir_fd=dir_fd)
        try:
            raw = os.read(fd, 4096)
        finally:
            os.close(fd)
    except OSError:
        return None
    fields = raw[raw.rindex(b")") + 2 :].split()  # a process may call itself anything, brackets included
    return Process(int(fields[19]), int(raw[: raw.index(b" ")]))
