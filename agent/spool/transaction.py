"""One transaction, all or nothing, with its failures in our own words."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import apsw

from agent.errors import SpoolError, SpoolFullError
from agent.spool.suspicion import suspect_if


@contextlib.contextmanager
def transaction(db: apsw.Connection) -> Iterator[None]:
    """Commit on leaving, roll back on any error. Raises SpoolFullError or SpoolError; then nothing was written.

    SQLite rolls back by itself when the disk is full; apsw's own context manager then fails to roll back once more
    and hides why.
    """
    with in_our_words(db):
        try:
            db.execute("BEGIN IMMEDIATE")
            yield
            db.execute("COMMIT")
        except BaseException:
            if db.in_transaction:
                with contextlib.suppress(apsw.Error):
                    db.execute("ROLLBACK")
            raise


@contextlib.contextmanager
def in_our_words(db: apsw.Connection) -> Iterator[None]:
    """Whatever touches the file may fail as it does: SpoolFullError or SpoolError, and not SQLite's own.

    A file that may be damaged is noted as such, for the next start.
    """
    try:
        yield
    except apsw.Error as error:
        suspect_if(Path(db.filename).parent, error)
        raise translated(error) from error


def translated(error: apsw.Error) -> SpoolError:
    """What went wrong, and what to do about it."""
    if isinstance(error, apsw.FullError):
        return SpoolFullError(f"spool: no space left ({error}). Free disk space, or raise spool.max_bytes.")
    return SpoolError(f"spool: {type(error).__name__}: {error}. The disk or the file fails; nothing was written.")
