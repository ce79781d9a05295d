"""What leaves the spool, and when: delivered records past their retention, evidence past its own; never unsent usage.

A day's digest is written before its first record may go: SHA-256 over the bodies in sequence, with the range and the
count, so that completeness can still be shown. Of a record that went, the next n of its key stays as long again, so
that no id is ever given twice (ACCOUNTING §6).
"""

import hashlib
from collections.abc import Iterable

import apsw

from agent.record import rfc3339
from agent.spool.transaction import transaction

DAY = 86_400 * 1_000_000_000
STEP = 5_000  # rows per transaction, so that a sweep never waits long


def digest_days(db: apsw.Connection, now: int) -> None:
    """Digest the oldest run of records of one day (by closing time) that has no digest yet, when that day is over."""
    after = db.execute("SELECT coalesce(max(last), 0) FROM digest").get
    first = db.execute("SELECT closed FROM record WHERE seq>? ORDER BY seq LIMIT 1", (after,)).get
    if not isinstance(first, int) or first // DAY == now // DAY:
        return
    sha, count, low, high = hashlib.sha256(), 0, 0, 0
    rows: Iterable[tuple[int, int, bytes]] = db.execute(
        "SELECT seq, closed, body FROM record WHERE seq>? ORDER BY seq", (after,)
    )
    for seq, closed, body in rows:  # streamed: a day may not fit into memory
        if closed // DAY != first // DAY:
            break
        sha.update(body)
        count, low, high = count + 1, low or seq, seq
    with transaction(db):
        db.execute("INSERT INTO digest VALUES(?,?,?,?,?)", (low, high, rfc3339(first)[:10], count, sha.digest()))


def expire(db: apsw.Connection, now: int, retention: int, evidence_retention: int) -> int:
    """Delete a step of what is past its time; returns how many rows went.

    A record goes only when every sink is past it, no person must still decide on it, and it has been digested.
    """
    sent = db.execute("SELECT coalesce(min(position), 0) FROM sink").get
    digested = db.execute("SELECT coalesce(max(last), 0) FROM digest").get
    query = (
        "SELECT seq, start, key, n + 1 FROM record AS r WHERE seq<=min(?,?) AND closed<? AND NOT EXISTS"
        " (SELECT 1 FROM held WHERE r.seq BETWEEN first AND last) ORDER BY seq LIMIT ?"
    )
    records: list[tuple[int, int, bytes, int]] = list(db.execute(query, (sent, digested, now - retention, STEP)))
    last = db.execute("SELECT coalesce(max(seq), 0) FROM record WHERE closed<?", (now - evidence_retention,)).get
    evidence: list[tuple[int]] = list(
        db.execute("SELECT seq FROM evidence WHERE seq<=? ORDER BY seq LIMIT ?", (last, STEP))
    )
    if not records and not evidence:
        return 0
    with transaction(db):
        db.executemany("DELETE FROM evidence WHERE seq=?", evidence)
        db.executemany("DELETE FROM record WHERE seq=?", [(seq,) for seq, *_ in records])
        db.executemany(
            "INSERT INTO spent VALUES(?,?,?) ON CONFLICT DO UPDATE SET n = max(n, excluded.n)",
            [(start, key, n) for _, start, key, n in records],
        )
        if records:
            span = (records[0][0], records[-1][0])
            db.execute("DELETE FROM delivered WHERE seq BETWEEN ? AND ?", span)
            db.execute("DELETE FROM submission WHERE last BETWEEN ? AND ? AND delivered IS NOT NULL", span)
    return len(records) + len(evidence)


def forget(db: apsw.Connection, before: int) -> None:
    """Drop the next n of keys whose windows began before `before`; usage that late is held for a person."""
    with transaction(db):
        db.execute("DELETE FROM spent WHERE start < ?", (before,))
        db.execute("INSERT OR REPLACE INTO meta VALUES('forgotten', ?)", (b"%d" % before,))
