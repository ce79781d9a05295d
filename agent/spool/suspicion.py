"""A note beside the spool that its file may be damaged: the next start then reads all of it, not only what it needs."""

import contextlib
import os
from pathlib import Path

import apsw

FILE = "suspect"


def suspect(directory: Path, why: str) -> None:
    """Leave the note. Never raises: whoever calls this has a failure to report already. The first one stays."""
    with contextlib.suppress(OSError):
        fd = os.open(directory / FILE, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.write(fd, why.encode() + b"\n")
            os.fsync(fd)
        finally:
            os.close(fd)


def suspect_if(directory: Path, error: BaseException | None) -> None:
    """Leave the note where an error speaks of the disk or of the file, not of what was asked of it."""
    if isinstance(error, apsw.IOError | apsw.CorruptError | apsw.NotADBError):
        suspect(directory, str(error))


def suspected(directory: Path) -> int | None:
    """Since when, ns of the wall clock; None: nothing is suspected."""
    try:
        return (directory / FILE).stat().st_mtime_ns
    except FileNotFoundError:
        return None


def cleared(directory: Path) -> None:
    """The file was read whole, or replaced."""
    (directory / FILE).unlink(missing_ok=True)
