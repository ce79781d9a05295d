"""What leaves the spool, and when: settled records past their retention, evidence past its own; never unsent usage.

A day's digest is written before its first record may go: SHA-256 over the records' own digests in sequence, with the
range and the count, so that completeness can still be shown. Of a record that went, the next n of its key stays as
long again, so that no id is ever given twice (ACCOUNTING §6).
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby

import apsw

from agent.record import record_id, rfc3339
from agent.spool.erasure import digest
from agent.spool.schema import STUCK
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
        sha.update(digest(body))
        count, low, high = count + 1, low or seq, seq
    with transaction(db):
        db.execute("INSERT INTO digest VALUES(?,?,?,?,?)", (low, high, rfc3339(first)[:10], count, sha.digest()))


def expire(db: apsw.Connection, now: int, retention: int, evidence_retention: int) -> int:
    """Delete a step of what is past its time; returns how many rows went.

    A record goes only when every sink is past it and has settled it, no person must still decide on it, and it has
    been digested.
    """
    sent = db.execute(
        "SELECT coalesce(min(CASE WHEN position >= until THEN 1 << 62 ELSE position END), 0) FROM sink"
    ).get
    digested = db.execute("SELECT coalesce(max(last), 0) FROM digest").get
    query = (
        "SELECT seq, start, key, n + 1, body FROM record AS r WHERE"  # noqa: S608 - names of our own
        " seq<=min(?,?) AND closed<? AND NOT EXISTS"
        " (SELECT 1 FROM held WHERE r.seq BETWEEN first AND last) AND NOT EXISTS (SELECT 1 FROM sink JOIN item AS i"
        " ON i.sink=sink.number AND i.seq=r.seq WHERE outcome IS NULL"
        f" OR outcome IN {STUCK}) ORDER BY seq LIMIT ?"
    )
    records: list[tuple[int, int, bytes, int, bytes]] = list(db.execute(query, (sent, digested, now - retention, STEP)))
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
            [(start, key, n) for _, start, key, n, _ in records],
        )
        if records:
            db.executemany("DELETE FROM known WHERE id=?", [(record_id(body).bytes,) for *_, body in records])
            _forget_deliveries(db, [seq for seq, *_ in records])
            kept = db.execute("SELECT value FROM meta WHERE name='expired'").get
            expired = max(records[-1][0], int(kept) if isinstance(kept, bytes) else 0)
            db.execute("INSERT OR REPLACE INTO meta VALUES('expired', ?)", (b"%d" % expired,))
    return len(records) + len(evidence)


def _forget_deliveries(db: apsw.Connection, seqs: Sequence[int]) -> None:
    """What became of records that are gone, at every sink there ever was; and submissions of which nothing is left."""
    sinks = range(
        1, 1 + int(str(db.execute("SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name='sink'").get))
    )
    deleted = "DELETE FROM item WHERE sink=? AND seq BETWEEN ? AND ? RETURNING submission"
    spans = [(sink, first, last) for sink in sinks for first, last in _runs(seqs)]
    db.executemany("DELETE FROM confirmed WHERE sink=? AND seq BETWEEN ? AND ?", spans)
    left = {submission for span in spans for (submission,) in db.execute(deleted, span)}
    unused = (
        "SELECT parent FROM submission AS s WHERE id=? AND settled NOT NULL AND NOT EXISTS (SELECT 1 FROM item AS i"
        " WHERE i.sink=s.sink AND i.seq BETWEEN s.first AND s.last AND i.submission=s.id)"
    )
    others = "SELECT 1 FROM submission WHERE parent=? LIMIT 1"
    while left:
        gone = {number: parent for number in left for (parent,) in db.execute(unused, (number,))}
        db.executemany("DELETE FROM attempt WHERE submission=?", [(number,) for number in gone])
        db.executemany("DELETE FROM doubt WHERE submission=?", [(number,) for number in gone])
        db.executemany("DELETE FROM submission WHERE id=?", [(number,) for number in gone])
        left = {p for p in gone.values() if p and db.execute(others, (p,)).get is None}  # the whole, after its parts


def _runs(seqs: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Rising numbers as (first, last) of those that follow each other."""
    for _, run in groupby(enumerate(seqs), lambda pair: pair[1] - pair[0]):
        numbers = [seq for _, seq in run]
        yield numbers[0], numbers[-1]


def forget(db: apsw.Connection, before: int, forgotten: int) -> int:
    """Drop the next n of keys whose windows began before `before`; usage up to the newest of them is held for a person.

    `forgotten`: up to where that is so already. Returns up to where it is now: no further than something was dropped,
    for a clock that was a year ahead must not have all usage of a year held.
    """
    newest = db.execute("SELECT max(start) FROM spent WHERE start < ?", (before,)).get
    if not isinstance(newest, int):
        return forgotten
    forgotten = max(forgotten, newest + 1)
    with transaction(db):
        db.execute("DELETE FROM spent WHERE start < ?", (before,))
        db.execute("INSERT OR REPLACE INTO meta VALUES('forgotten', ?)", (b"%d" % forgotten,))
    return forgotten
