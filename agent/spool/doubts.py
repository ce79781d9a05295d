"""What may have arrived at a sink that has forgotten it, and how far looking for it has come. Inside a transaction.

A row that is lost costs only time: the wait before the first look begins anew.
"""

import apsw


def doubt_of(db: apsw.Connection, submission: int) -> tuple[int, int | None, int] | None:
    """(since, empty, unread), as `agent.delivery.judgement.Doubt` has them; None before the first."""
    rows = db.execute("SELECT since, empty, unread FROM doubt WHERE submission=?", (submission,))
    return next(((since, empty, unread) for since, empty, unread in rows), None)


def keep_doubt(db: apsw.Connection, submission: int, since: int, empty: int | None, unread: int) -> None:
    """As it stands now."""
    db.execute("INSERT OR REPLACE INTO doubt VALUES(?,?,?,?)", (submission, since, empty, unread))


def end_doubt(db: apsw.Connection, submission: int) -> None:
    """Found, cleared, or for a person."""
    db.execute("DELETE FROM doubt WHERE submission=?", (submission,))
