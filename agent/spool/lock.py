"""Locks: one agent per data directory, one per anchor of a kernel (L2)."""

import fcntl
import os
import time
from pathlib import Path

from agent.errors import CannotStartError


class Lock:
    """An flock on a 0600 file, held until closed or until the process dies."""

    def __init__(self, path: Path, what: str, cure: str, *, wait: float = 0) -> None:
        """Take it, waiting up to `wait` seconds. Raises CannotStartError naming `what` and `cure`."""
        try:
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as e:
            raise CannotStartError(f"{what}: cannot open {path}: {e.strerror}. {cure}") from e
        deadline = time.monotonic() + wait
        while True:
            try:
                fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    holder = os.pread(self._fd, 20, 0).decode(errors="replace").strip() or "unknown"
                    os.close(self._fd)
                    raise CannotStartError(f"{what} is in use by another agent (pid {holder}). {cure}") from None
                time.sleep(0.2)
            else:
                os.ftruncate(self._fd, 0)
                os.pwrite(self._fd, f"{os.getpid()}\n".encode(), 0)
                return

    def close(self) -> None:
        """Release it; safe to call twice."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
