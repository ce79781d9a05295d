"""Locks: one agent per data directory, one per anchor of a kernel (L2)."""

import contextlib
import fcntl
import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from urllib.parse import quote

from agent.errors import CannotStartError

_PAUSE = 0.2  # seconds between two tries


class Lock:
    """An flock on a 0600 file, held until closed or until the process dies."""

    def __init__(
        self, path: Path, what: str, cure: str, *, wait: float = 0, while_waiting: Callable[[], None] | None = None
    ) -> None:
        """Take it, waiting up to `wait` seconds. Raises CannotStartError naming `what` and `cure`."""
        try:
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as e:
            raise CannotStartError(f"{what}: cannot open {path}: {e.strerror}. {cure}") from e
        deadline = time.monotonic() + wait
        while not self._taken():
            if time.monotonic() >= deadline:
                holder = os.pread(self._fd, 20, 0).decode(errors="replace").strip() or "unknown"
                self.close()
                raise CannotStartError(f"{what} is in use by another agent (pid {holder}). {cure}")
            if while_waiting is not None:
                while_waiting()
            time.sleep(_PAUSE)
        with contextlib.suppress(OSError):  # for a message only: a full disk must not forbid a start
            os.ftruncate(self._fd, 0)
            os.pwrite(self._fd, f"{os.getpid()}\n".encode(), 0)

    def _taken(self) -> bool:
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def close(self) -> None:
        """Release it; safe to call twice."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class AnchorLocks:
    """The locks of the anchors that this agent books, in the root-owned run directory (ACCOUNTING §2)."""

    def __init__(self, run_dir: Path, wait: float, while_waiting: Callable[[], None]) -> None:
        self._run_dir, self._wait, self._while_waiting = run_dir, wait, while_waiting
        self._held: dict[str, Lock] = {}

    def hold(self, anchors: Iterable[str]) -> None:
        """Hold exactly these. An agent that is being replaced has `wait` seconds to let go."""
        wanted = set(anchors)
        for anchor in sorted(wanted - self._held.keys()):
            path = self._run_dir / f"anchor-{quote(anchor, safe='')}.lock"
            cure = "Stop the other agent, or give the two different anchors."
            self._held[anchor] = Lock(
                path, f"sources: anchor {anchor}", cure, wait=self._wait, while_waiting=self._while_waiting
            )
        for anchor in self._held.keys() - wanted:
            self._held.pop(anchor).close()

    def close(self) -> None:
        """Let go of all; safe to call twice."""
        self.hold(())
