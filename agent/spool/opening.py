"""Opening the spool's file: is it sound, is it ours, is it the newest? What is not sound is set aside and salvaged.

The new file is written whole beside the old one, which is touched last: then the old one gets the name
`spool.db.corrupt-<ns>`, and the new one its place. A crash before that begins anew; one amid it goes on.
"""

import os
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import apsw
import msgspec
from msgspec import Struct

from agent.errors import CannotStartError, SpoolError, SpoolUnusableError
from agent.spool import epoch, schema
from agent.spool.identity import ENDED, Identity, Witness, foreign, sync_directory
from agent.spool.salvage import Salvaged, salvage
from agent.spool.suspicion import cleared, suspect_if, suspected
from agent.spool.wreck import Wreck, extended

FILE = "spool.db"
PATIENCE = 600_000_000_000  # a disk that refuses to read for so long will not read any more
CHECKED = 100_000  # records of the outbox whose bytes are checked at each opening, the newest first
_SMALL = ("meta", "cursor", "listing", "resource", "sink", "submission", "held", "digest")
_BESIDE = ("", "-wal", "-shm", "-journal")
_HEADER = b"SQLite format 3\0" + schema.PAGE.to_bytes(2)


class Opened(Struct, frozen=True):
    """A spool in use. `reason`: why this opening began a new epoch over an old file."""

    db: apsw.Connection
    identity: Identity
    reason: str | None


class Place(Struct, frozen=True):
    """Where the spool is, on which machine, and since when it is opened."""

    path: Path
    run_dir: Path
    fingerprint: Mapping[str, str]
    max_bytes: int
    now: int
    working: Callable[[], None]


def opened(place: Place) -> Opened:
    """The spool of the directory, ready for use; new, if there was none.

    Raises SpoolUnusableError (it may work later) or CannotStartError. Never deletes what it cannot read.
    """
    old = os.umask(0o077)
    try:
        return _opened(place)
    except (apsw.Error, OSError, SpoolError) as error:
        suspect_if(place.path.parent, error.__cause__ if isinstance(error, SpoolError) else error)
        message = f"agent.data_dir: {place.path}: {error}. Check the disk and permissions; it is tried again."
        raise SpoolUnusableError(message) from error
    finally:
        os.umask(old)


def _opened(place: Place) -> Opened:
    path = place.path
    _finish_replacing(path)
    db, why = _sound(place)
    reason = None
    if db is None:
        reason = _replace(place, why)
        db = schema.connect(str(path))
    db.set_busy_timeout(5000)
    try:
        schema.create(db, place.max_bytes)
        identity = _identity(db)
        if identity is None:
            identity = epoch.begin(db, place.fingerprint, place.now, None)
        elif reason is None and (reason := _not_ours(db, identity, place)) is not None:
            _keep_the_wal(place)
            _ended(identity, place)
            identity = epoch.begin(db, place.fingerprint, place.now, reason)
        if reason is not None:
            with _witness(identity, place) as witness:  # the epoch's first word: else the former's speaks against it
                witness.write(_commit(db))
        sync_directory(path.parent)
        cleared(path.parent)
    except BaseException:
        db.close()
        raise
    return Opened(db, identity, reason)


# -- is it sound? ----------------------------------------------------------------------------------------------------


def _sound(place: Place) -> tuple[apsw.Connection | None, str]:
    """A connection to the file if what was checked of it is sound, else why not."""
    path = place.path
    if not path.exists() and not _beside(path, "-wal").exists():
        return schema.connect(str(path)), ""
    if why := _misbegun(path):
        return None, why
    db = schema.connect(str(path))
    db.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)  # what is set aside stays as it was found
    try:
        why = _unsound(db, place, thorough=suspected(path.parent) is not None or _ends_early(path)) or ""
    except apsw.Error as error:
        if not _damaged(error) and not _resigned(place):
            db.close()
            raise
        why = str(error)
    except BaseException:
        db.close()
        raise
    if why:
        db.close()
        return None, why
    db.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 0)
    return db, ""


def _misbegun(path: Path) -> str | None:
    """What is wrong with the bytes that never change: SQLite would take another file for them, or an empty one."""
    try:
        with path.open("rb") as file:
            header = file.read(100)
    except FileNotFoundError:
        path.touch(0o600)
        return "it is gone, and its WAL is not"
    if not header:
        wal = _beside(path, "-wal")
        made = (wal.exists() and wal.stat().st_size) or (path.parent / "witness").exists()
        return "it is empty" if made else None
    if header[: len(_HEADER)] != _HEADER:
        return "it does not begin as a spool does"
    if header[20:21] != bytes([schema.CHECKSUM_BYTES]):
        return "its pages have no checksums"
    return None


def _ends_early(path: Path) -> bool:
    """Whether the file is shorter than it says. After a crash amid a checkpoint the WAL may hold the rest."""
    with path.open("rb") as file:
        pages = int.from_bytes(file.read(32)[28:])
    return path.stat().st_size < pages * schema.PAGE


def _unsound(db: apsw.Connection, place: Place, *, thorough: bool) -> str | None:
    """Why it cannot be gone on with.

    Not thorough: only what measuring needs, and the bytes of what is owed; the rest is checked as it is read.
    """
    version = db.pragma("user_version")
    if version > schema.VERSION:
        said = f"format {version} was written by a later release; this one reads up to {schema.VERSION}"
        raise CannotStartError(f"spool: {said}. Run that release again.")
    tables = {name for (name,) in db.execute("SELECT name FROM sqlite_schema WHERE type='table'")}
    if not tables:
        return None
    wreck = Wreck(place.path, b"", resigned=_resigned(place)) if thorough else None
    try:
        for table in sorted(tables) if wreck else tables.intersection(_SMALL):
            place.working()
            found = wreck.unsound(table) if wreck else str(db.execute(f"PRAGMA quick_check({table})").get)
            if found not in (None, "ok"):
                return found
    finally:
        if wreck:
            wreck.close()
    query = "SELECT seq, crc, body FROM record"
    if not thorough:
        query += " WHERE seq > (SELECT coalesce(min(position), 0) FROM sink) ORDER BY seq DESC LIMIT ?"
    for count, (seq, crc, body) in enumerate(db.execute(query, () if thorough else (CHECKED,))):
        if zlib.crc32(body) != crc:
            return f"record {seq}: CRC does not match its bytes"
        if count % 10_000 == 0:
            place.working()
    return None


def _damaged(error: BaseException) -> bool:
    """Whether it is the file that is not sound; else the disk refuses, which may pass."""
    if isinstance(error, apsw.IOError):
        bad = (apsw.SQLITE_IOERR_DATA, apsw.SQLITE_IOERR_SHORT_READ, apsw.SQLITE_IOERR_CORRUPTFS)
        return extended(error) in bad
    return isinstance(error, apsw.CorruptError | apsw.NotADBError)


def _resigned(place: Place) -> bool:
    """Whether the disk has refused for so long that what it does not read is given up."""
    since = suspected(place.path.parent)
    return since is not None and place.now - since > PATIENCE


# -- is it ours, and the newest? -------------------------------------------------------------------------------------


def _identity(db: apsw.Connection) -> Identity | None:
    kept = db.execute("SELECT value FROM meta WHERE name='identity'").get
    return None if kept is None else msgspec.json.decode(kept, type=Identity)


def _commit(db: apsw.Connection) -> int:
    return int(db.execute("SELECT value FROM meta WHERE name='commit'").get or 0)


@contextmanager
def _witness(identity: Identity, place: Place) -> Iterator[Witness]:
    witness = Witness(place.path.parent, place.run_dir, identity.epoch)
    try:
        yield witness
    finally:
        witness.close()


def _not_ours(db: apsw.Connection, identity: Identity, place: Place) -> str | None:
    with _witness(identity, place) as witness:
        return foreign(identity.fingerprint, dict(place.fingerprint)) or witness.newer_than(_commit(db))


def _ended(identity: Identity, place: Place) -> None:
    """Whoever opens a copy of this epoch again finds that another followed."""
    with _witness(identity, place) as witness:
        witness.write(ENDED)


def _keep_the_wal(place: Place) -> None:
    """A spool behind its witness may have lost its newest commits to a bad WAL: keep a copy of what is there."""
    wal = _beside(place.path, "-wal")
    if wal.exists() and wal.stat().st_size:
        Path(f"{place.path}.corrupt-{place.now}-wal").write_bytes(wal.read_bytes())


# -- setting aside ---------------------------------------------------------------------------------------------------


def _replace(place: Place, why: str) -> str:
    """Salvage the file into a new one, in a new epoch, and let that take its place. Returns what it came to."""
    path, number = place.path, place.now
    while Path(f"{path}.corrupt-{number}").exists():
        number += 1
    unfinished = Path(f"{path}.salvaging")
    for suffix in _BESIDE:
        _beside(unfinished, suffix).unlink(missing_ok=True)
    db = schema.connect(str(unfinished))
    try:
        schema.create(db, 1 << 50)
        db.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
        db.pragma("journal_mode", "off")  # until it is complete nobody reads it
        db.pragma("synchronous", 0)
        said = salvage(path, db, place.now, resigned=_resigned(place), working=place.working)
        reason = f"unsound spool set aside as {path.name}.corrupt-{number}: {why}; {said}"
        ended = _begin_after(db, said, reason, place)
        db.close()
        with unfinished.open("rb") as file:
            os.fsync(file.fileno())
    except BaseException:
        db.close()
        unfinished.unlink(missing_ok=True)
        raise
    unfinished.rename(f"{path}.salvaged-{number}")
    sync_directory(path.parent)
    _finish_replacing(path)
    if ended is not None:
        _ended(ended, place)
    return reason


def _begin_after(db: apsw.Connection, said: Salvaged, reason: str, place: Place) -> Identity | None:
    """The new epoch of a salvaged file. Returns the identity that it had, if that is known."""
    former = _identity(db)
    agrees = owes = False
    if former is not None and said.owes:
        owes = _not_ours(db, former, place) is None
        with _witness(former, place) as witness:
            agrees = owes and said.measures and witness.seen() == _commit(db)
    epoch.begin(db, place.fingerprint, place.now, reason, holds=not owes, measures_on=agrees)
    return former


def _finish_replacing(path: Path) -> None:
    """What is complete takes the place of what it was made from; a crash amid this goes on here."""
    for complete in path.parent.glob(f"{path.name}.salvaged-*"):
        number = complete.name.rpartition("-")[2]
        for suffix in _BESIDE:
            kept = Path(f"{path}.corrupt-{number}{suffix}")
            if _beside(path, suffix).exists() and not kept.exists():
                _beside(path, suffix).rename(kept)
        complete.rename(path)
        sync_directory(path.parent)


def _beside(path: Path, suffix: str) -> Path:
    return Path(f"{path}{suffix}")
