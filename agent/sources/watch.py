"""inotify on cgroup directories: told at once when one comes or goes, or knowing that it is not told.

Both cgroup file systems report mkdir, rmdir and (v1) rename of groups; v2 reports also that `cgroup.events` changed.
The kernel may refuse a watch (fs.inotify limits): then this is `blind`, and its user must walk instead.
"""

import errno
import os
from enum import Enum

from inotify_simple import INotify, flags  # type: ignore[import-untyped]
from msgspec import Struct

_DIRECTORY = flags.CREATE | flags.DELETE | flags.MOVED_FROM | flags.MOVED_TO | flags.ONLYDIR

_NOTHING_THERE = (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG)  # gone, or a path that nobody can open


class Change(Enum):
    """What may have happened."""

    CHILD = "child"  # a directory of this name came or went
    CONTENT = "content"  # the watched file changed
    ENDED = "ended"  # what was watched is no more
    MISSED = "missed"  # events were lost: walk


class Hint(Struct, frozen=True):
    """One event: the watch it came by (−1 for none), and the name of the child if it is about one."""

    change: Change
    wd: int = -1
    name: str = ""


class Watch:
    """One inotify instance, or an idle descriptor where the kernel gives none. `blind`: something is not watched."""

    def __init__(self) -> None:
        self._inotify: INotify | None = None
        self._idle: int | None = None
        self.blind = False
        try:
            self._inotify = INotify(nonblocking=True)
        except OSError:
            self._idle = os.eventfd(0)  # never readable
            self.blind = True

    def fileno(self) -> int:
        """Readable when hints wait. Raises ValueError once closed."""
        if self._inotify is not None:
            return int(self._inotify.fileno())
        if self._idle is None:
            raise ValueError("this watch is closed")
        return self._idle

    def directory(self, path: str) -> int | None:
        """Watch for groups that come and go in `path`: a descriptor for its hints, None when that is refused."""
        return self._add(path, _DIRECTORY)

    def file(self, path: str) -> int | None:
        """Watch for changes of a kernel file; None when it is refused or the file is not there."""
        return self._add(path, flags.MODIFY)

    def drop(self, wd: int) -> None:
        """Stop one watch; that of a directory already removed has ended by itself."""
        if self._inotify is None:
            return
        try:
            self._inotify.rm_watch(wd)
        except OSError:
            return

    def pending(self) -> list[Hint]:
        """What may have happened since the last call; never waits."""
        if self._inotify is None:
            return []
        hints: list[Hint] = []
        for wd, mask, _, name in self._inotify.read(timeout=0):
            if mask & flags.Q_OVERFLOW:
                hints.append(Hint(Change.MISSED))
            elif mask & flags.IGNORED:
                hints.append(Hint(Change.ENDED, wd))
            elif mask & flags.ISDIR:
                hints.append(Hint(Change.CHILD, wd, name))
            elif mask & flags.MODIFY:
                hints.append(Hint(Change.CONTENT, wd))
        return hints

    def retry(self) -> None:
        """Assume sight again, before a walk that renews every watch."""
        self.blind = self._inotify is None

    def close(self) -> None:
        """Release the instance and all its watches; safe to call twice."""
        if self._inotify is not None:
            self._inotify.close()
            self._inotify = None
        if self._idle is not None:
            os.close(self._idle)
            self._idle = None

    def _add(self, path: str, mask: int) -> int | None:
        if self._inotify is None:
            return None
        try:
            return int(self._inotify.add_watch(path, mask))
        except OSError as error:
            self.blind |= error.errno not in _NOTHING_THERE
            return None
