"""One transaction, all or nothing, with its failures in our own words."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import apsw

from agent.errors import SpoolError, SpoolFullError
from agent.spool.suspicion import suspect


@contextlib.contextmanager
def transaction(db: apsw.Connection) -> Iterator[None]:
    """Commit on leaving, roll back on any error. Raises SpoolFullError or SpoolError; then nothing was written.

    SQLite rolls back by itself when the disk is full; apsw's own context manager then fails to roll back once more
    and hides why. A file that may be damaged is noted as such, for the next start.
    """
    try:
        db.execute("BEGIN IMMEDIATE")
        yield
        db.execute("COMMIT")
    except apsw.Error as error:
        _undo(db)
        if isinstance(error, apsw.IOError | apsw.CorruptError | apsw.NotADBError):
            suspect(Path(db.filename).parent, str(error))
        raise translated(error) from error
    except BaseException:
        _undo(db)
        raise


def translated(error: apsw.Error) -> SpoolError:
    """What went wrong, and what to do about it."""
    if isinstance(error, apsw.FullError):
        return SpoolFullError(f"spool: no space left ({error}). Free disk space, or raise spool.max_bytes.")
    return SpoolError(f"spool: {type(error).__name__}: {error}. The disk or the file fails; nothing was written.")


def _undo(db: apsw.Connection) -> None:
    if db.in_transaction:
        with contextlib.suppress(apsw.Error):
            db.execute("ROLLBACK")
