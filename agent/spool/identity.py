"""Who this spool belongs to: epoch, machine fingerprint, and the witness that betrays a restored copy."""

import contextlib
import errno
import json
import os
from collections.abc import Iterator
from pathlib import Path

import msgspec
from msgspec import Struct

from agent.errors import CannotStartError, SpoolUnusableError

_INSTANCE_IDS = ("var/lib/cloud/data/instance-id", "run/cloud-init/.instance-id")


class Identity(Struct, frozen=True):
    """`epoch`: 128 random bits made with the file, in hex. `fingerprint`: the machine's ids, by name."""

    epoch: str
    fingerprint: dict[str, str]


def fingerprint(root: Path = Path("/")) -> dict[str, str]:
    """The machine's ids that can be read here; what is absent is ignored in comparisons."""
    found: dict[str, str] = {}
    for name, paths in {"machine_id": ("etc/machine-id",), "instance_id": _INSTANCE_IDS}.items():
        for path in paths:
            with contextlib.suppress(OSError):
                text = (root / path).read_text().strip()
                if text:
                    found.setdefault(name, text)
    return found


def foreign(kept: dict[str, str], here: dict[str, str]) -> str | None:
    """Why the file was written by another machine, or None."""
    for name in kept.keys() & here.keys():
        if kept[name] != here[name]:
            return f"cloned spool: {name} was {kept[name]}, this machine's is {here[name]}"
    return None


ENDED = 1 << 62  # the witness of an epoch that another has followed


class Witness:
    """The number of an epoch's last commit, kept outside the spool: beside it, and in the run directory.

    The run directory is shared by all agents of a kernel, so the files there are named by epoch: a copy of a spool
    that is used twice is found out too.
    """

    def __init__(self, directory: Path, run_dir: Path, epoch: str) -> None:
        self._epoch = epoch
        paths = [directory / "witness", run_dir / f"witness-{epoch[:12]}"]
        self._files = [os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600) for path in paths]

    def newer_than(self, commit: int) -> str | None:
        """Why the spool is older than something this machine has seen, or None. An unreadable witness says nothing."""
        for epoch, seen in self._said():
            if epoch != self._epoch or seen == ENDED:
                return f"restored spool: a later epoch than its {self._epoch} has run here"
            if seen > commit:
                return f"restored spool: it ends at commit {commit}, but commit {seen} was made here"
        return None

    def seen(self) -> int | None:
        """The newest commit that this machine has seen of the epoch; None if nothing readable says."""
        return max((seen for epoch, seen in self._said() if epoch == self._epoch), default=None)

    def _said(self) -> Iterator[tuple[str, int]]:
        """(epoch, commit) of each file that can be read."""
        for fd in self._files:
            with contextlib.suppress(ValueError):
                yield msgspec.json.decode(os.pread(fd, 200, 0), type=tuple[str, int])

    def write(self, commit: int) -> None:
        """Note a commit that is durable. Not synced: a stale witness only says less."""
        line = json.dumps([self._epoch, commit]).encode().ljust(80) + b"\n"
        for fd in self._files:
            os.pwrite(fd, line, 0)

    def close(self) -> None:
        """Close the files; safe to call twice."""
        while self._files:
            os.close(self._files.pop())


_PASSING = (errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.EIO)  # what a disk says that may work later


def private_directory(path: Path, key: str, *, only_ours: bool = False) -> Path:
    """Make `path` a directory that only we can read, durably. Errors name the configuration key.

    One that is there keeps its mode; `only_ours`: unless it is empty and ours, and so was made for us.
    """
    try:
        if not path.is_dir():
            path.mkdir(mode=0o700, parents=True)
            sync_directory(path.parent)
        elif only_ours and _made_for_us(path):
            path.chmod(0o700)
        if os.statvfs(path).f_flag & os.ST_RDONLY:
            raise SpoolUnusableError(
                f"{key}: {path}: its file system is read-only. Mount it writable; it is tried again."
            )
        if not os.access(path, os.W_OK | os.X_OK):
            raise PermissionError(13, "Permission denied")
    except OSError as e:
        if e.errno in _PASSING:
            raise SpoolUnusableError(f"{key}: {path}: {e.strerror}. Mend the disk; it is tried again.") from e
        cure = f"Make it a writable directory of uid {os.geteuid()}, or name another in {key}."
        raise CannotStartError(f"{key}: {path}: {e.strerror}. {cure}") from e
    return path


def _made_for_us(path: Path) -> bool:
    """Whether it is empty, ours and open to others: a kubelet makes a missing directory with 0755."""
    status = path.stat()
    ours = status.st_uid == os.geteuid() and status.st_mode & 0o700 == 0o700
    return ours and bool(status.st_mode & 0o077) and not any(path.iterdir())


def sync_directory(path: Path) -> None:
    """Make names in a directory durable."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
