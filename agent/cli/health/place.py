"""Permissions of what the agent reads and keeps, and the disk that it keeps it on."""

import os
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from agent.cli.health import Check, Need, described, existing, judged
from agent.config import Config, FileSink, SinkSection
from agent.model import NS_PER_MS
from agent.spool.glance import size

SYNCS = 20
SLOW = 50 * NS_PER_MS  # of one fdatasync, in the middle: each sweep makes one
INODES = 1_000
VOLATILE = ("tmpfs", "ramfs")
REMOTE = ("nfs", "nfs4", "cifs", "smb3", "9p", "fuse.sshfs", "ceph", "glusterfs")
LAYERED = ("overlay", "aufs")


def permissions(cfg: Config, file: Path) -> Iterator[Check]:
    """Who may read and change what."""
    uid = os.geteuid()
    seen = "which sees everything" if uid == 0 else "which may not see all; run it as the agent's user, or as root"
    yield judged("permissions", "user", "informative", holds=True, found=f"uid {uid}, {seen}")
    yield _unchanged_by_others(file)
    yield from _directory(cfg.agent.data_dir, "agent.data_dir", "required")
    yield from _directory(cfg.agent.run_dir, "agent.run_dir", "required")
    for sink in cfg.sinks:
        need: Need = "required" if sink.role == "billing" else "optional"
        if isinstance(sink, FileSink):
            yield from _directory(sink.path, f"sinks[{sink.id}].path", need)
        else:
            yield from _files(sink, need)


def _unchanged_by_others(file: Path) -> Check:
    status = file.stat()  # it was read a moment ago
    holds = not status.st_mode & 0o022 and status.st_uid in (0, os.geteuid())
    cure = f"Others could change who is billed. Run `chown root {file}; chmod go-w {file}`."
    return judged("permissions", "configuration", "optional", holds, f"{file}, {described(status)}", cure)


def _directory(path: Path, key: str, need: Need) -> Iterator[Check]:
    """A directory that the agent writes: there or to be made, and nobody else's."""
    uid = os.geteuid()
    try:
        there = existing(path)
        status = there.stat()
    except OSError as error:
        yield judged("permissions", key, need, None, f"{path}: {error.strerror}")
        return
    mine = os.access(there, os.W_OK | os.X_OK)
    if there != path:
        cure = f"Make {path} a directory of the agent's user (this is uid {uid}), mode 0700."
        yield judged("permissions", key, need, mine, f"{path} is not there yet; it is to be made in {there}", cure)
        return
    if not stat.S_ISDIR(status.st_mode):
        yield judged("permissions", key, need, holds=False, found=f"{path} is no directory", cure=f"Correct {key}.")
        return
    others = status.st_mode & 0o022 or status.st_uid not in (0, uid)
    foreign = uid == 0 and not status.st_mode & 0o022  # the agent may run as its owner: root cannot tell
    cure = f"Run `chown UID {path}; chmod 0700 {path}`, UID being the agent's user (this is uid {uid})."
    holds = (not others or foreign) and mine
    yield judged("permissions", key, need, holds, f"{path}, {described(status)}", cure)
    if holds and key != "agent.run_dir":  # others may know there that an agent runs
        cure = f"It tells what each customer uses. Run `chmod 0700 {path}`."
        private = not status.st_mode & 0o077
        yield judged("permissions", f"{key} private", "optional", private, described(status), cure)


def _files(sink: SinkSection, need: Need) -> Iterator[Check]:
    secret = sink.secrets()
    for name, file in {**secret, **sink.files()}.items():
        if file is None:
            continue
        what = f"sinks[{sink.id}].{name}"
        try:
            status = file.stat()
            readable = os.access(file, os.R_OK)
        except FileNotFoundError:
            cure = (
                "Put it there, or correct the path. What a service manager provides is there only inside the service."
            )
            yield judged("permissions", what, need, holds=False, found=f"{file} is not there", cure=cure)
            continue
        except OSError as error:
            yield judged("permissions", what, need, None, f"{file}: {error.strerror}")
            continue
        found = f"{file}, {described(status)}"
        if not readable:
            yield judged("permissions", what, need, None, f"{found}: not for uid {os.geteuid()}")
        elif name in secret and (status.st_mode & 0o077 or status.st_uid not in (0, os.geteuid())):
            cure = f"Others can read it. Run `chmod 0600 {file}`, and give it to the agent's user."
            yield judged("permissions", what, "optional", holds=False, found=found, cure=cure)
        else:
            yield judged("permissions", what, need, holds=True, found=found)


# -- disk ------------------------------------------------------------------------------------------------------------


def disk(
    cfg: Config,
    *,
    mounts: str | None = None,
    sync: Callable[[int], None] = os.fdatasync,
    clock: Callable[[], int] = time.perf_counter_ns,
) -> Iterator[Check]:
    """What the spool lies on: its kind, its space, and how long it takes until a commit is safe.

    `mounts` is as /proc/self/mountinfo has it.
    """
    directory = cfg.agent.data_dir
    try:
        there = existing(directory)
        space = os.statvfs(there)
    except OSError as error:
        yield judged("disk", "agent.data_dir", "required", None, f"{directory}: {error.strerror}")
        return
    yield _kind(there, Path("/proc/self/mountinfo").read_text() if mounts is None else mounts)
    yield from _space(cfg, there, space)
    yield _latency(there, sync, clock)


def _kind(directory: Path, mounts: str) -> Check:
    kind, mounted = file_system(directory, mounts)
    found = f"{kind} on {mounted}"
    why = ""
    if kind in VOLATILE:
        why = "A boot empties it, and unsent usage with it."
    elif kind in REMOTE:
        why = "Over a network neither locks nor syncs are to be relied on."
    elif kind in LAYERED:
        why = "It goes with its container, and unsent usage with it."
    return judged("disk", "file system", "optional", not why, found, f"{why} Mount a local disk at agent.data_dir.")


def file_system(directory: Path, mounts: str) -> tuple[str, str]:
    """(kind, mount point) of what holds a directory, by mountinfo (proc(5)); the last mount there is on top."""
    best = ("unknown", "/")
    for line in mounts.splitlines():
        fields = line.split()
        point = fields[4].replace("\\040", " ")
        if directory.resolve().is_relative_to(point) and len(point) >= len(best[1]):
            best = (fields[fields.index("-") + 1], point)
    return best


def _space(cfg: Config, there: Path, space: os.statvfs_result) -> Iterator[Check]:
    if space.f_flag & os.ST_RDONLY:
        cure = "Mount it writable."
        yield judged("disk", "writable", "required", holds=False, found="its file system is read-only", cure=cure)
    free, used = space.f_bavail * space.f_frsize, _used(there)
    reserve, cap = cfg.spool.reserve, cfg.spool.max_bytes
    cure = f"Free {_mebibytes(4 * reserve)} there, or less is kept for the hours after the disk has filled."
    yield judged("disk", "room for the reserve", "required", free >= 4 * reserve, f"{_mebibytes(free)} free", cure)
    need = max(0, cap - used)
    found = f"{_mebibytes(free)} free, spool.max_bytes leaves {_mebibytes(need)} to grow"
    cure = "Make room, or lower spool.max_bytes and the retention."
    yield judged("disk", "room up to the cap", "optional", free >= need, found, cure)
    if space.f_files:  # some file systems have no limit
        found = f"{space.f_favail:,} inodes free"
        enough = space.f_favail >= INODES
        yield judged("disk", "inodes", "optional", enough, found, "Remove files there: no new one can be made soon.")


def _used(directory: Path) -> int:
    try:
        return size(directory)
    except OSError:  # not for us to see: as if there were nothing yet
        return 0


def _latency(directory: Path, sync: Callable[[int], None], clock: Callable[[], int]) -> Check:
    took = []
    try:
        with tempfile.TemporaryFile(dir=directory) as file:
            for _ in range(SYNCS):
                os.write(file.fileno(), bytes(4096))
                began = clock()
                sync(file.fileno())
                took.append(clock() - began)
    except OSError as error:
        unseen = error.errno in (1, 13, 30) and os.geteuid() != 0
        cure = f"Nothing can be written into {directory}: mend that first."
        holds = None if unseen else False
        return judged("disk", "commit latency", "required", holds, f"{directory}: {error.strerror}", cure)
    took.sort()
    middle, worst = took[SYNCS // 2], took[-1]
    found = f"{SYNCS} fdatasyncs: {_ms(middle)} in the middle, {_ms(worst)} at most"
    cure = "Each sweep and each batch waits for one. Use a faster disk, or a longer agent.sample_interval."
    return judged("disk", "commit latency", "optional", middle <= SLOW, found, cure)


def _ms(ns: int) -> str:
    return f"{ns // NS_PER_MS}.{ns % NS_PER_MS // 10_000:02d} ms"


def _mebibytes(count: int) -> str:
    return f"{count >> 20:,} MiB"
