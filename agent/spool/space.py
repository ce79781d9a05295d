"""Room in the spool: a reserve for a full disk, and what is given up when there is none left (DESIGN §6)."""

import contextlib
import shutil
from pathlib import Path

import apsw

from agent.errors import SpoolFullError
from agent.spool import schema
from agent.spool.retention import expire
from agent.spool.transaction import in_our_words, transaction

BLOB = 64 << 10


def refill(db: apsw.Connection, directory: Path, reserve: int) -> None:
    """Set pages aside, in the file and in its WAL, for hours of in-place updates on a full disk.

    They are rows, not free pages: ordinary growth would eat those.
    """
    with in_our_words(db):
        wanted = reserve // 2 // BLOB - int(str(db.execute("SELECT count(*) FROM reserve").get))
    if wanted <= 0 or shutil.disk_usage(directory).free < 4 * reserve:
        return
    try:
        with transaction(db):  # one transaction through the WAL, so that the WAL's file has grown by as much
            db.executemany("INSERT INTO reserve(pages) VALUES(?)", [(b"\xff" * BLOB,)] * wanted)  # zeros look like rot
    except SpoolFullError:
        return  # there is no room for a reserve now; the next minute tries again
    with in_our_words(db), contextlib.suppress(apsw.BusyError):  # a reader holds the WAL; a checkpoint comes by itself
        db.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_RESTART)


def make_room(db: apsw.Connection, now: int) -> None:
    """Free the reserve, and a step of what is delivered and digested and of evidence, within retention or not."""
    with transaction(db):
        db.execute("DELETE FROM reserve")
    with in_our_words(db):
        expire(db, now, 0, 0)


def free(db: apsw.Connection, directory: Path) -> int:
    """Bytes until the cap or the end of the disk, whichever is nearer."""
    pages = db.pragma("max_page_count") - db.pragma("page_count") + db.pragma("freelist_count")
    return min(int(pages) * schema.PAGE, shutil.disk_usage(directory).free)
