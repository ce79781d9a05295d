"""The spool's other side: what each sink is owed, what was frozen for it, and what became of every record there.

A record is one item at a sink, for ever: waiting, in a submission, or settled with an outcome. What lies beyond a
sink's position has not been looked at yet. Nothing here decides: `agent/delivery` does, inside `transaction`.
"""

import sys
import zlib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from itertools import chain
from typing import Literal

from msgspec import Struct

from agent.clock import Moment
from agent.record import with_seq
from agent.spool.backlog import backlog, stuck
from agent.spool.remembered import remember, remembered
from agent.spool.space import make_room
from agent.spool.store import Spool
from agent.spool.transaction import transaction
from agent.spool.verify import quarantine

Settled = Literal["delivered", "duplicate", "conflict", "rejected", "ambiguous", "unrouted", "dropped"]


class Standing(Struct, frozen=True):
    """One sink as the spool knows it. It is owed records beyond `position`, up to `until` where that is set."""

    number: int
    id: str
    kind: str
    role: str
    section: bytes  # its last accepted configuration, as JSON
    began: int
    position: int
    until: int | None
    paused: bool


class Item(Struct, frozen=True, gc=False):
    """One record as one sink is sent it."""

    seq: int
    payload: bytes


class Submission(Struct, frozen=True):
    """What one sink is to be sent, frozen before its first byte leaves. `prepared` in ns of billing time.

    `attempts` and `tainted` are as they stood before the attempt that is to be made: `tainted` is when the first one
    began that may have left and was not definitely refused, ns of elapsed time; None if there was none.
    """

    id: int
    sink: int
    name: str
    first: int
    last: int
    prepared: int
    attempts: int
    tainted: int | None
    items: tuple[Item, ...]


class Draft(Struct, frozen=True, gc=False):
    """A record as it was rendered. Not `kept`: the payload is its line in the ledger, not to lie there twice."""

    seq: int
    id: bytes
    payload: bytes
    kept: bool = True
    rounding: bytes | None = None  # how its value came about, as JSON


class Unsent(Struct, frozen=True, gc=False):
    """A record that is settled without being sent."""

    seq: int
    id: bytes
    outcome: Settled
    why: str


Rendered = Draft | Unsent | None
"""None: this sink is not concerned."""


_Frozen = tuple[int, int, str, int, int, int, int, int | None]
_SUBMISSION = "SELECT id, sink, name, first, last, prepared, attempts, tainted FROM submission"


class Outbox:
    """What is owed, frozen and settled, per sink. Belongs to the spool's thread."""

    def __init__(self, spool: Spool) -> None:
        self.spool, self._db = spool, spool.db

    def transaction(self) -> AbstractContextManager[None]:
        """All that follows, or nothing. Raises SpoolFullError or SpoolError."""
        return transaction(self._db)

    def make_room(self, now: int) -> None:
        """On a full disk: let the reserve go, and what is delivered and past keeping."""
        make_room(self._db, now)

    def sinks(self) -> dict[str, Standing]:
        """Every sink that was ever registered and not removed, by id."""
        rows: Iterable[tuple[int, str, str, str, bytes, int, int, int | None, int]] = self._db.execute(
            "SELECT number, id, kind, role, section, began, position, until, paused FROM sink"
        )
        return {row[1]: Standing(*row[:8], bool(row[8])) for row in rows}

    def register(self, sink: str, kind: str, role: str, section: bytes, *, since: int | None) -> Standing:
        """Make a sink known, or its configuration new. It starts at records closed from `since` on; None: from now.

        One that was to end goes on instead, unless a person has ended it: what closed meanwhile was not its own, and
        only what it was owed stays so. One that was removed has its number again: no record is sent it twice.
        """
        with self.transaction():
            known, beyond = self.sinks().get(sink), remembered(self._db)
            if known is None:
                began = self._last_closed_before(since)
                number, _ = beyond.former.pop(sink, (None, ""))
                self._db.execute(
                    "INSERT INTO sink(number, id, kind, role, section, began, position) VALUES(?,?,?,?,?,?,?)",
                    (number, sink, kind, role, section, began, began),
                )
                remember(self._db, beyond)
            else:
                self._db.execute("UPDATE sink SET kind=?, role=?, section=? WHERE id=?", (kind, role, section, sink))
                if known.until is not None and sink not in beyond.drained:
                    self._await(known, known.position + 1, known.until)
                    query = "UPDATE sink SET position=max(position, ?), until=NULL WHERE id=?"
                    self._db.execute(query, (self.last(), sink))
        return self.sinks()[sink]

    def retire(self, sink: Standing) -> None:
        """It is owed what there is now, and nothing that comes."""
        self._db.execute("UPDATE sink SET until=coalesce(until, ?) WHERE number=?", (self.last(), sink.number))

    def pause(self, sink: Standing, *, paused: bool) -> None:
        """Send it nothing until resumed; what it is owed waits."""
        self._db.execute("UPDATE sink SET paused=? WHERE number=?", (paused, sink.number))

    def remove(self, sink: Standing) -> None:
        """Forget a sink, but for its number: what became of its records stays written under it."""
        beyond = remembered(self._db)
        beyond.former[sink.id] = sink.number, sink.role
        beyond.drained.discard(sink.id)
        beyond.destinations.pop(sink.id, None)
        beyond.customers.pop(sink.id, None)
        remember(self._db, beyond)
        self._db.execute("DELETE FROM sink WHERE number=?", (sink.number,))

    def last(self) -> int:
        """The newest record's number; 0 before the first."""
        return int(str(self._db.execute("SELECT coalesce(max(seq), 0) FROM record").get))

    def _last_closed_before(self, since: int | None) -> int:
        if since is None:
            return self.last()
        query = "SELECT coalesce(max(seq), 0) FROM record WHERE closed < ?"
        return int(str(self._db.execute(query, (since,)).get))

    # -- who bills what ------------------------------------------------------------------------------------------------

    def others(self, sink: Standing) -> list[int]:
        """The numbers of the other billing sinks that there are, or were."""
        there = [other.number for other in self.sinks().values() if other.role == "billing"]
        former = [number for number, role in remembered(self._db).former.values() if role == "billing"]
        return [number for number in there + former if number != sink.number]

    def is_at(self, sinks: Sequence[int], seq: int) -> bool:
        """Whether one of these has it: waiting, under way or settled."""
        query = "SELECT 1 FROM item WHERE sink=? AND seq=? AND outcome IS NOT 'unrouted'"
        return any(self._db.execute(query, (sink, seq)).get is not None for sink in sinks)

    def offer(self, sink: str, seq: int) -> None:
        """Let a record wait for a sink that has passed it over; what that has, or will see by itself, stays."""
        query = "INSERT OR IGNORE INTO item(sink, seq) SELECT number, ? FROM sink WHERE id=? AND position>=?"
        self._db.execute(query, (seq, sink, seq))

    # -- what is owed ----------------------------------------------------------------------------------------------

    def backlog(self, sink: Standing) -> tuple[int, int | None]:
        """How many records it has still to take, and when the oldest of them closed."""
        return backlog(self._db, sink.number, sink.position, self.last() if sink.until is None else sink.until)

    def stuck(self, sink: Standing) -> dict[str, int]:
        """How many of its records wait for a person, by outcome."""
        return stuck(self._db, sink.number)

    def has_open(self, sink: Standing) -> bool:
        """Whether anything that was frozen for it is unsettled."""
        query = "SELECT 1 FROM submission WHERE sink=? AND settled IS NULL LIMIT 1"
        return self._db.execute(query, (sink.number,)).get is not None

    # -- freezing --------------------------------------------------------------------------------------------------

    def freeze(
        self,
        sink: Standing,
        render: Callable[[int, str, bytes], Rendered],
        *,
        batches: int,
        max_batch: int,
        max_bytes: int,
        now: Moment,
    ) -> list[Submission]:
        """Render the next records it is owed into at most so many submissions. Inside a transaction.

        `render` gets number, kind and body of each. Bytes that fail their CRC go to quarantine. Where `max_bytes` ends
        the last submission, the record that did not fit is frozen too, and due at once.
        """
        groups: list[list[Draft]] = []
        unsent: list[Unsent] = []
        moot: list[int] = []  # waited, and no longer concern this sink
        position, size = sink.position, 0
        waiting = self._waiting(sink, batches * max_batch)
        for seq, kind, crc, body in waiting or self._beyond(sink, batches * max_batch):
            if len(groups) > batches:
                break
            position = position if waiting else seq
            if zlib.crc32(body) != crc:
                self._quarantine(sink, seq, body, now.billing)
                continue
            rendered = render(seq, kind, body)
            if rendered is None:
                moot += [seq] if waiting else []
            elif isinstance(rendered, Unsent):
                unsent.append(rendered)
            else:
                size += len(rendered.payload)
                if not groups or len(groups[-1]) == max_batch or size > max_bytes:
                    groups.append([])
                    size = len(rendered.payload)
                groups[-1].append(rendered)
        frozen = [self._freeze(sink, group, now) for group in groups]
        self._db.executemany(
            "INSERT OR REPLACE INTO item(sink, seq, outcome, at, why) VALUES(?,?,?,?,?)",
            [(sink.number, u.seq, u.outcome, now.billing, u.why) for u in unsent],
        )
        self._db.executemany("DELETE FROM item WHERE sink=? AND seq=?", [(sink.number, seq) for seq in moot])
        looked: list[Draft | Unsent] = [*chain(*groups), *unsent]
        known = sorted((d.id, d.seq) for d in looked)  # in order, random-like ids touch a page once
        self._db.executemany("INSERT OR IGNORE INTO known VALUES(?,?)", known)
        if position > sink.position:
            self._db.execute("UPDATE sink SET position=? WHERE number=?", (position, sink.number))
        return frozen[:batches]

    def more(self, sink: Standing) -> bool:
        """Whether there is anything to freeze for it."""
        return bool(self._waiting(sink, 1) or self._beyond(self.sinks()[sink.id], 1))

    def _waiting(self, sink: Standing, limit: int) -> list[tuple[int, str, int, bytes]]:
        # By its index, said so: SQLite would read every item that the sink ever had, a tenth of a second in a million.
        query = (
            "SELECT r.seq, r.kind, r.crc, r.body FROM item AS i INDEXED BY item_waiting JOIN record AS r USING(seq)"
            " WHERE i.sink=? AND i.outcome IS NULL AND i.submission IS NULL AND NOT EXISTS"
            " (SELECT 1 FROM held WHERE r.seq BETWEEN first AND last) ORDER BY i.seq LIMIT ?"
        )
        return list(self._db.execute(query, (sink.number, limit)))

    def _beyond(self, sink: Standing, limit: int) -> list[tuple[int, str, int, bytes]]:
        query = (
            "SELECT seq, kind, crc, body FROM record AS r WHERE seq > ? AND seq <= ? AND NOT EXISTS"
            " (SELECT 1 FROM held WHERE r.seq BETWEEN first AND last) AND NOT EXISTS"
            " (SELECT 1 FROM item WHERE sink=? AND item.seq=r.seq) ORDER BY seq LIMIT ?"
        )
        end = sys.maxsize if sink.until is None else sink.until
        return list(self._db.execute(query, (sink.position, end, sink.number, limit)))

    def _freeze(self, sink: Standing, drafts: Sequence[Draft], now: Moment) -> Submission:
        name = _name(self.spool.identity.epoch, drafts[0].seq, drafts[-1].seq)
        self._db.execute(
            "INSERT INTO submission(sink, name, first, last, prepared, attempts, due) VALUES(?,?,?,?,?,0,?)",
            (sink.number, name, drafts[0].seq, drafts[-1].seq, now.billing, now.elapsed),
        )
        number = self._db.last_insert_rowid()
        self._db.executemany(
            "INSERT OR REPLACE INTO item(sink, seq, submission, payload, rounding) VALUES(?,?,?,?,?)",
            [(sink.number, d.seq, number, d.payload if d.kept else None, d.rounding) for d in drafts],
        )
        items = tuple(Item(d.seq, d.payload) for d in drafts)
        return Submission(number, sink.number, name, drafts[0].seq, drafts[-1].seq, now.billing, 0, None, items)

    # -- sending ---------------------------------------------------------------------------------------------------

    def due(self, sink: Standing, now: int, limit: int, beside: Collection[int]) -> list[Submission]:
        """Frozen submissions whose time has come, oldest first, without those `beside` that are under way.

        `now` in elapsed time, as are all times below of when something is due or left.
        """
        rows = self._db.execute(
            f"{_SUBMISSION} WHERE sink=? AND settled IS NULL AND due<=? ORDER BY due, id LIMIT ?",
            (sink.number, now, limit + len(beside)),
        )
        found: list[_Frozen] = [row for row in rows if row[0] not in beside]
        return [Submission(*row, self.items(row[0], row[1], row[3], row[4])) for row in found[:limit]]

    def next_due(self, sink: Standing, beside: Collection[int]) -> int | None:
        """When the next submission is to be sent again."""
        query = "SELECT id, due FROM submission WHERE sink=? AND settled IS NULL ORDER BY due LIMIT ?"
        rows = self._db.execute(query, (sink.number, 1 + len(beside)))
        return next((due for number, due in rows if number not in beside), None)

    def items(self, submission: int, sink: int, first: int, last: int) -> tuple[Item, ...]:
        """The unsettled items of a submission, as they were frozen."""
        rows = self._db.execute(
            "SELECT i.seq, i.payload, CASE WHEN i.payload IS NULL THEN r.body END FROM item AS i LEFT JOIN record AS r"
            " USING(seq) WHERE i.sink=? AND i.seq BETWEEN ? AND ? AND i.submission=? AND i.outcome IS NULL"
            " ORDER BY i.seq",
            (sink, first, last, submission),
        )
        return tuple(Item(seq, with_seq(body, seq) if payload is None else payload) for seq, payload, body in rows)

    def leaving(self, submissions: Iterable[Submission], now: int) -> None:
        """Note, before their first byte leaves, that an attempt begins at each."""
        self._db.executemany(
            "UPDATE submission SET attempts=attempts+1, tainted=coalesce(tainted, ?) WHERE id=?",
            [(now, submission.id) for submission in submissions],
        )

    def attempted(self, submission: Submission, began: int, now: int, outcome: str, why: str) -> None:
        """Keep what came of an attempt."""
        row = (submission.id, began, now, outcome, why)
        self._db.execute("INSERT INTO attempt(submission, at, ended, outcome, why) VALUES(?,?,?,?,?)", row)

    def settle(self, submission: Submission, outcomes: Mapping[int, tuple[Settled, str]], now: int) -> None:
        """What became of some of its items, by number. It is settled itself when none is left."""
        said = set(outcomes.values())
        if len(said) == 1 and len(outcomes) == len(submission.items):
            ((outcome, why),) = said
            self._db.execute(
                "UPDATE item SET outcome=?, at=?, why=? WHERE sink=? AND seq BETWEEN ? AND ? AND submission=?"
                " AND outcome IS NULL",
                (outcome, now, why, submission.sink, submission.first, submission.last, submission.id),
            )
        else:
            self._db.executemany(
                "UPDATE item SET outcome=?, at=?, why=? WHERE sink=? AND seq=?",
                [(outcome, now, why, submission.sink, seq) for seq, (outcome, why) in outcomes.items()],
            )
        if len(outcomes) == len(submission.items):
            self._db.execute("UPDATE submission SET settled=? WHERE id=?", (now, submission.id))

    def postpone(self, submission: Submission, due: int, tainted: int | None) -> None:
        """It is to be sent again at `due`. `tainted` stands as the attempt has left it."""
        self._db.execute("UPDATE submission SET due=?, tainted=? WHERE id=?", (due, tainted, submission.id))

    def split(self, submission: Submission, groups: Sequence[Sequence[int]], tainted: int | None, now: Moment) -> None:
        """Its items go on in as many submissions, each as it was frozen and with the same past."""
        for group in groups:
            self._db.execute(
                "INSERT INTO submission(sink, parent, name, first, last, prepared, attempts, tainted, due)"
                " SELECT sink, id, ?, ?, ?, prepared, attempts, ?, ? FROM submission WHERE id=?",
                (_name(submission.name, group[0], group[-1]), group[0], group[-1], tainted, now.elapsed, submission.id),
            )
            self._db.executemany(
                "UPDATE item SET submission=? WHERE sink=? AND seq=?",
                [(self._db.last_insert_rowid(), submission.sink, seq) for seq in group],
            )
        self._db.execute("UPDATE submission SET settled=? WHERE id=?", (now.billing, submission.id))

    # -- remainders ------------------------------------------------------------------------------------------------

    def remainder(self, sink: Standing, customer: str, dimension: str) -> tuple[int, int]:
        """(value, grain): what rounding has left so far is value / grain base units."""
        query = "SELECT value, grain FROM remainder WHERE sink=? AND customer=? AND dimension=?"
        row = next(iter(self._db.execute(query, (sink.number, customer, dimension))), ("0", "1"))
        return int(row[0]), int(row[1])

    def leave(self, sink: Standing, customer: str, dimension: str, value: int, grain: int, now: int) -> None:
        """Keep a remainder for the next record."""
        row = (sink.number, customer, dimension, str(value), str(grain), now)
        self._db.execute("INSERT OR REPLACE INTO remainder VALUES(?,?,?,?,?,?)", row)

    # -- the rest --------------------------------------------------------------------------------------------------

    def _await(self, sink: Standing, first: int, last: int) -> None:
        """Let a range of records wait for it, one by one."""
        self._db.execute(
            "INSERT OR IGNORE INTO item(sink, seq) SELECT ?, seq FROM record WHERE seq BETWEEN ? AND ?",
            (sink.number, first, last),
        )

    def _quarantine(self, sink: Standing, seq: int, body: bytes, now: int) -> None:
        reason = quarantine(self._db, seq, body, now)
        self._db.execute(
            "INSERT OR REPLACE INTO item(sink, seq, outcome, at, why) VALUES(?,?,'rejected',?,?)",
            (sink.number, seq, now, reason),
        )


def _name(epoch: str, first: int, last: int) -> str:
    """What a submission is called: the epoch that made it, and what it spans."""
    return f"{epoch[:12]}-{first:012d}-{last:012d}"
