"""How a new epoch begins over what there is (DESIGN §6, ACCOUNTING §9).

A file that another machine or a later epoch has sent from may owe nothing any more: all of it is *held*. A file that
was only damaged still owes what it never tried to send. Either way, what may have left is ambiguous.
"""

import secrets
from collections.abc import Mapping

import apsw
import msgspec

from agent.spool.identity import Identity
from agent.spool.transaction import transaction
from agent.usage import Cursor

_CARRIED = "SELECT customer, dimension, value, grain FROM remainder WHERE value<>'0' ORDER BY sink, customer, dimension"
MEASURING = ("cursor", "listing", "resource")  # marks and open windows


def begin(
    db: apsw.Connection,
    fingerprint: Mapping[str, str],
    now: int,
    reason: str | None,
    *,
    holds: bool = True,
    measures_on: bool = False,
) -> Identity:
    """Give the spool a new identity. `reason`: why, over an old file; None: it is new. Raises SpoolError.

    `holds`: what was not sent waits for a person. `measures_on`: marks and open windows are as the last commit left
    them, so that nothing is missing; else measuring starts anew, and the time between becomes a gap record.
    """
    identity = Identity(secrets.token_hex(16), dict(fingerprint))
    with transaction(db):
        if reason is not None:
            doubt(db, now, reason)
            if holds:
                _hold(db, now, reason)
            db.execute("INSERT INTO audit(at, who, what, why) VALUES(?,'agent','new epoch',?)", (now, reason))
        if not measures_on:
            _start_anew(db, now, reason)
        db.execute("INSERT OR REPLACE INTO meta VALUES('identity',?)", (msgspec.json.encode(identity),))
    return identity


def doubt(db: apsw.Connection, now: int, why: str, *, sink: int | None = None) -> None:
    """What may have left and has no answer is ambiguous, at one sink or at all: nobody can go on with it as it was."""
    open_ = [
        row
        for row in db.execute("SELECT id, sink, first, last FROM submission WHERE settled IS NULL AND tainted NOT NULL")
        if sink in (None, row[1])
    ]
    why = f"an attempt may have arrived: {why}"
    db.executemany(
        "UPDATE item SET outcome='ambiguous', at=?, why=? WHERE sink=? AND seq BETWEEN ? AND ? AND submission=?"
        " AND outcome IS NULL",
        [(now, why, sink, first, last, number) for number, sink, first, last in open_],
    )
    db.executemany("UPDATE submission SET settled=? WHERE id=?", [(now, number) for number, *_ in open_])


def _hold(db: apsw.Connection, now: int, reason: str) -> None:
    """Nothing of it is sent before a person says so: not what was frozen, nor what waited, nor what was never seen.

    What rounding has left stays with the former epoch, which may go on elsewhere: it would be billed twice.
    """
    carried = [f"{c} {d} {value}/{grain}" for c, d, value, grain in db.execute(_CARRIED)]
    if carried:
        why = f"left with the former epoch, in base units: {', '.join(carried)}"
        db.execute("INSERT INTO audit(at, who, what, why) VALUES(?,'agent','remainders',?)", (now, why))
        db.execute("DELETE FROM remainder")
    last = db.execute("SELECT max(seq) FROM record").get
    if last is None:
        return
    db.execute("INSERT INTO held VALUES(1,?,?,?)", (last, reason, now))
    db.execute("DELETE FROM item WHERE outcome IS NULL")
    db.execute("UPDATE submission SET settled=? WHERE settled IS NULL", (now,))
    db.execute("UPDATE sink SET position=max(position, ?)", (last,))


def settle_empty(db: apsw.Connection, now: int) -> None:
    """A submission of which nothing is left to send is over."""
    db.execute(
        "UPDATE submission AS s SET settled=? WHERE settled IS NULL AND NOT EXISTS (SELECT 1 FROM item AS i"
        " WHERE i.sink=s.sink AND i.seq BETWEEN first AND last AND i.submission=s.id AND i.outcome IS NULL)",
        (now,),
    )


def _start_anew(db: apsw.Connection, now: int, reason: str | None) -> None:
    """No mark and no open window survives; what they held is inside the gap."""
    pending = db.execute("SELECT 1 FROM meta WHERE name='epoch_gap' AND value<>x''").get  # no sweep came since
    if reason is not None and pending is None:
        since = unrecorded_since(db)
        since = now if since is None else since
        gap = msgspec.json.encode((since, reason))  # becomes a gap record with the first sweep
        db.execute("INSERT OR REPLACE INTO meta VALUES('epoch_gap',?)", (gap,))
    for table in MEASURING:
        db.execute(f"DELETE FROM {table}")  # noqa: S608 - names of our own
    db.execute("DELETE FROM meta WHERE name IN ('segments', 'closings')")


def unrecorded_since(db: apsw.Connection) -> int | None:
    """The start of the oldest window that may be open, ns of billing time; None if nothing says."""
    meta = dict(db.execute("SELECT name, value FROM meta WHERE name IN ('closings', 'segments')"))
    closings = msgspec.json.decode(meta.get("closings", b"{}"), type=dict[str, int])
    segments = msgspec.json.decode(meta.get("segments", b"{}"), type=dict[str, list[tuple[int, int]]])
    open_ = [_window(mark, segments.get(meter, [])) for meter, mark in closings.items()]
    if open_:
        return min(open_)
    cursors = [msgspec.json.decode(body, type=Cursor).at for (body,) in db.execute("SELECT body FROM cursor")]
    if cursors:
        return max(cursors)
    newest = db.execute("SELECT max(start) FROM record").get
    return newest if isinstance(newest, int) else None


def _window(mark: int, segments: list[tuple[int, int]]) -> int:
    """The start of the window that holds `mark`, clipped to its segment."""
    begins, window = max((s for s in segments if s[0] <= mark), default=(0, 1))
    return max(mark - mark % window, begins)
