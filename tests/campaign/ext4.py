"""A small ext4 of a trial's own on a loop device: it is filled, made read-only, or loses its power.

Mounted in the worker's mount namespace, so that nothing stays when the worker ends, however it ends.
"""

import fcntl
import os
import struct
import subprocess
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

SHUTDOWN, NOLOGFLUSH = 0x8004587D, 2  # EXT4_IOC_SHUTDOWN: what is in no synced transaction of its journal is gone


class Disk:
    """Mounted at `path`."""

    def __init__(self, where: Path, *, mebibytes: int = 48, inodes: int | None = None) -> None:
        self._image, self.path = where / "disk.img", where / "disk"
        self.path.mkdir()
        with self._image.open("wb") as image:
            image.truncate(mebibytes << 20)
        more = [] if inodes is None else ["-N", str(inodes)]
        _run("mkfs.ext4", "-q", "-F", "-m", "0", "-E", "lazy_itable_init=1", *more, str(self._image))
        self.mount()

    def mount(self, *options: str) -> None:
        """Mount it; the journal is replayed."""
        _run("mount", "-o", ",".join(["loop", *options]), str(self._image), str(self.path))

    def unmount(self) -> None:
        """Nobody may have a file of it open."""
        _run("umount", str(self.path))

    def cut(self) -> None:
        """The power fails."""
        assert self.path.is_mount(), "not a mount point: it is not ours to shut down"
        fd = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.ioctl(fd, SHUTDOWN, struct.pack("I", NOLOGFLUSH))
        finally:
            os.close(fd)

    def remount(self, *options: str) -> None:
        """Other options, while it is mounted."""
        _run("mount", "-o", ",".join(["remount", *options]), str(self.path))

    def abort(self) -> None:
        """Its journal fails: the kernel makes it read-only under whoever writes."""
        self.remount("abort")

    def again(self) -> None:
        """After a cut or an abort: unmount and mount."""
        self.unmount()
        self.mount()

    def fill(self) -> None:
        """Take every free block."""
        with (self.path / "hog").open("ab", buffering=0) as hog:
            for size in (1 << 20, 4096, 1):
                try:
                    while True:
                        hog.write(b"x" * size)
                except OSError:
                    pass

    def fill_inodes(self) -> None:
        """Take every free inode."""
        (self.path / "hogs").mkdir(exist_ok=True)
        try:
            for number in range(1 << 20):
                (self.path / "hogs" / str(number)).touch()
        except OSError:
            pass

    def free(self) -> None:
        """Give back what `fill` and `fill_inodes` took."""
        (self.path / "hog").unlink(missing_ok=True)
        for path in (self.path / "hogs").glob("*"):
            path.unlink()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self.path.is_mount():
            self.unmount()


def _run(*argv: str | Sequence[str]) -> None:
    done = subprocess.run([*map(str, argv)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{argv}: {done.stderr}"
