"""The spool's other side: what each sink is still owed, and what was frozen for it."""

import sys
import zlib
from collections.abc import Iterable, Iterator

import msgspec
from msgspec import Struct

from agent.record import with_seq
from agent.spool.store import Spool
from agent.spool.transaction import transaction

BILLED = ("usage", "manual", "correction")  # L7: a billing sink gets these; a copy gets everything


class Submission(Struct, frozen=True):
    """What one sink is to be sent, frozen before its first byte leaves: records `first` to `last` by sequence."""

    id: int
    sink: str
    first: int
    last: int
    name: str
    digest: bytes


class Batch(Struct, frozen=True):
    """The next records of one sink, as lines; `position` is where the sink stands once they are delivered."""

    position: int
    seqs: tuple[int, ...]
    ids: tuple[bytes, ...]
    lines: tuple[bytes, ...]


class Outbox:
    """Per sink: a position in the record table, and what is prepared. Belongs to the spool's thread."""

    def __init__(self, spool: Spool) -> None:
        self.spool, self._db = spool, spool.db

    def register(self, sink: str, kind: str, role: str, *, since: int | None) -> None:
        """Make a sink known. A new one starts at records closed from `since` on; None: after it was added."""
        with transaction(self._db):
            if sink in self.sinks():
                self._db.execute("UPDATE sink SET role=? WHERE id=?", (role, sink))
                return
            query = "SELECT coalesce(max(seq), 0) FROM record"
            if since is not None:
                query = "SELECT coalesce(max(seq), 0) FROM record WHERE closed < :since"
            last = self._db.execute(query, {"since": since}).get
            self._db.execute("INSERT INTO sink VALUES(?,?,?,?)", (sink, kind, role, last))

    def sinks(self) -> dict[str, int]:
        """Every sink that was ever registered and not removed, with its position."""
        return dict(self._db.execute("SELECT id, position FROM sink"))

    def remove(self, sink: str) -> None:
        """Forget a sink that is owed nothing."""
        with transaction(self._db):
            self._db.execute("DELETE FROM sink WHERE id=?", (sink,))

    def backlog(self, sink: str) -> tuple[int, int | None]:
        """How many records lie beyond its position, and when the oldest of them closed. Costs the same at any size."""
        _, position = self._standing(sink)
        last = int(str(self._db.execute("SELECT coalesce(max(seq), 0) FROM record").get))
        oldest = self._db.execute("SELECT closed FROM record WHERE seq>? ORDER BY seq LIMIT 1", (position,)).get
        return (last - position, int(oldest)) if isinstance(oldest, int) else (0, None)

    def next(self, sink: str, limit: int) -> Batch | None:
        """The next records it is owed, in order, or None. Bytes that fail their CRC go to quarantine."""
        role, position = self._standing(sink)
        seqs, ids, lines = [], [], []
        reached = None
        for seq, owed, body in self._rows(role, position, sys.maxsize, limit):
            reached = seq
            if owed:
                seqs.append(seq)
                ids.append(_id(body))
                lines.append(with_seq(body, seq))
        return None if reached is None else Batch(reached, tuple(seqs), tuple(ids), tuple(lines))

    def _standing(self, sink: str) -> tuple[str, int]:
        role, position = next(iter(self._db.execute("SELECT role, position FROM sink WHERE id=?", (sink,))))
        return role, position

    def _rows(self, role: str, after: int, last: int, limit: int) -> Iterator[tuple[int, bool, bytes]]:
        """(seq, whether a sink of this role is owed it, body) of what is not held."""
        rows: list[tuple[int, str, int, bytes]] = list(
            self._db.execute(
                "SELECT seq, kind, crc, body FROM record AS r WHERE seq > ? AND seq <= ? AND NOT EXISTS"
                " (SELECT 1 FROM held WHERE r.seq BETWEEN first AND last) ORDER BY seq LIMIT ?",
                (after, last, limit),
            )
        )
        for seq, kind, crc, body in rows:
            sound = zlib.crc32(body) == crc
            if not sound:
                self._quarantine(seq, body)
            yield seq, sound and (role == "copy" or kind in BILLED), body

    def prepare(self, sink: str, batch: Batch, name: str, digest: bytes, now: int) -> Submission:
        """Record durably that `batch` has been frozen under `name`; from here it may leave."""
        first, last = batch.seqs[0], batch.position
        with transaction(self._db):
            self._db.execute(
                "INSERT INTO submission(sink, first, last, name, digest, prepared) VALUES(?,?,?,?,?,?)",
                (sink, first, last, name, digest, now),
            )
        return Submission(self._db.last_insert_rowid(), sink, first, last, name, digest)

    def prepared(self, sink: str) -> list[Submission]:
        """Submissions that may or may not have left before the process died."""
        rows = self._db.execute(
            "SELECT id, sink, first, last, name, digest FROM submission WHERE sink=? AND delivered IS NULL ORDER BY id",
            (sink,),
        )
        return [Submission(*row) for row in rows]

    def members(self, submission: Submission) -> list[tuple[bytes, int]]:
        """(id, seq) of the records in a submission."""
        role, _ = self._standing(submission.sink)
        rows = self._rows(role, submission.first - 1, submission.last, sys.maxsize)
        return [(_id(body), seq) for seq, owed, body in rows if owed]

    def delivered(self, submission: Submission, members: Iterable[tuple[bytes, int]], now: int) -> None:
        """The sink has it. Sorted, since random-like ids in order touch each page of their index once."""
        with transaction(self._db):
            self._db.execute("UPDATE submission SET delivered=? WHERE id=?", (now, submission.id))
            self._advance(submission.sink, submission.last)
            self._db.executemany("INSERT OR IGNORE INTO delivered VALUES(?,?)", sorted(members))

    def skip(self, sink: str, batch: Batch) -> None:
        """Pass over a batch that holds nothing for this sink."""
        with transaction(self._db):
            self._advance(sink, batch.position)

    def _advance(self, sink: str, position: int) -> None:
        self._db.execute("UPDATE sink SET position=max(position, ?) WHERE id=?", (position, sink))

    def _quarantine(self, seq: int, body: bytes) -> None:
        reason = f"record {seq}: CRC does not match its bytes"
        self._db.execute(
            "INSERT INTO quarantine(at, reason, body) SELECT 0, ?, ? WHERE NOT EXISTS"
            " (SELECT 1 FROM quarantine WHERE reason=?)",
            (reason, body, reason),
        )


class _Identified(Struct):
    id: str


_decoder = msgspec.json.Decoder(_Identified)


def _id(body: bytes) -> bytes:
    return bytes.fromhex(_decoder.decode(body).id.replace("-", ""))
