"""Is every record there, and does it say what it said? Read-only, beside a running agent too."""

import zlib
from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction
from hashlib import sha256
from pathlib import Path

import apsw
import msgspec
from msgspec import Struct

from agent.errors import CannotStartError
from agent.record import UsageRecord, record_id
from agent.spool import schema
from agent.spool.erasure import digest, is_erased
from agent.spool.identity import ENDED, Identity
from agent.spool.opening import FILE

SLICE = 2_000  # records that are read again at a time
MOST = 100  # problems of one kind that are told
_DAMAGED = "Restart the agent: it sets the file aside and salvages it."
_REPORT = "Please report this with the output of `metering-agent spool export`."


class Report(Struct, frozen=True):
    """What was found. `problems`: place, what and cure, one line each; none: sound. `facts`: what was looked at."""

    problems: list[str]
    facts: dict[str, str | int]


def fsck(directory: Path) -> Report:
    """Look at all of the spool in `directory`. Raises CannotStartError if there is none."""
    path = directory / FILE
    if not path.exists():
        raise CannotStartError(f"no spool in {directory}. Name the agent's data directory with --data-dir or --config.")
    try:
        seen = _witness(directory)  # before the transaction: it is never ahead of the disk
        db = schema.connect(str(path), apsw.SQLITE_OPEN_READONLY)
    except apsw.Error as error:
        return Report([f"{path}: {error}. {_DAMAGED}"], {})
    try:
        return _Check(db, seen).run()
    finally:
        db.close()


def unsound_after(db: apsw.Connection, after: int) -> tuple[int, list[tuple[int, bytes]]]:
    """(where to go on, records whose bytes have not their CRC) of the next slice; behind the last from 0 again."""
    rows: list[tuple[int, int, bytes]] = list(
        db.execute("SELECT seq, crc, body FROM record WHERE seq>? ORDER BY seq LIMIT ?", (after, SLICE))
    )
    unsound = [(seq, body) for seq, crc, body in rows if zlib.crc32(body) != crc]
    return (rows[-1][0] if len(rows) == SLICE else 0), unsound


def quarantine(db: apsw.Connection, seq: int, body: bytes, now: int) -> str:
    """Keep what stands where a record stood, once; why. Inside a transaction."""
    reason = f"record {seq}: CRC does not match its bytes"
    query = (
        "INSERT INTO quarantine(at, reason, body) SELECT ?, ?, ? WHERE NOT EXISTS"
        " (SELECT 1 FROM quarantine WHERE reason=?)"
    )
    db.execute(query, (now, reason, body, reason))
    return reason


def _witness(directory: Path) -> tuple[str, int] | None:
    try:
        return msgspec.json.decode((directory / "witness").read_bytes(), type=tuple[str, int])
    except (OSError, ValueError):
        return None


class _Check:
    """One look, in one read transaction: everything is of the same commit."""

    def __init__(self, db: apsw.Connection, seen: tuple[str, int] | None) -> None:
        self._db, self._seen = db, seen
        self._facts: dict[str, str | int] = {}

    def run(self) -> Report:
        problems: list[str] = []
        parts = (self._pages, self._records, self._sequence, self._digests, self._items, self._rounding, self._newest)
        checks: dict[str, Callable[[], Iterator[str]]] = {part.__name__.strip("_"): part for part in parts}
        try:
            self._db.execute("BEGIN")
        except apsw.Error as error:
            return Report([f"{error}. {_DAMAGED}"], {})
        for name, check in checks.items():
            found = check()
            try:
                told = [line for line, _ in zip(found, range(MOST), strict=False)]
            except apsw.Error as error:
                told = [f"{name}: cannot be read: {error}. {_DAMAGED}"]
            problems += told
            if len(told) == MOST:
                problems.append(f"{name}: and more")
        return Report(problems, self._facts)

    def _number(self, query: str, *values: float | bytes | str | None) -> int:
        return int(str(self._db.execute(query, values).get))

    def _meta(self, name: str) -> bytes | None:
        value = self._db.execute("SELECT value FROM meta WHERE name=?", (name,)).get
        return value if isinstance(value, bytes) else None

    def _pages(self) -> Iterator[str]:
        """Every page's checksum, every tree's order, every index's rows."""
        self._facts["pages"] = self._number("PRAGMA page_count")
        for (said,) in self._db.execute(f"PRAGMA integrity_check({MOST})"):
            if said != "ok":
                yield f"pages: {said}. {_DAMAGED}"

    def _records(self) -> Iterator[str]:
        count = erased = 0
        for seq, crc, body in self._db.execute("SELECT seq, crc, body FROM record ORDER BY seq"):
            count, erased = count + 1, erased + is_erased(body)
            if zlib.crc32(body) != crc:
                yield f"record {seq}: CRC does not match its bytes. {_DAMAGED}"
        self._facts |= {"records": count, "erased": erased}

    def _sequence(self) -> Iterator[str]:
        """Numbers without a record that retention did not take."""
        expired = int(self._meta("expired") or 0)
        last = self._number("SELECT coalesce((SELECT seq FROM sqlite_sequence WHERE name='record'), 0)")
        self._facts |= {"last number": last, "expired up to": expired}
        query = (
            "SELECT before + 1, seq - 1 FROM (SELECT seq, lag(seq, 1, ?) OVER (ORDER BY seq) AS before FROM"
            " (SELECT seq FROM record UNION ALL SELECT ?) WHERE seq > ?) WHERE seq > before + 1"
        )
        for low, high in self._db.execute(query, (expired, last + 1, expired)):
            yield f"records {low} to {high}: missing. See `metering-agent spool audit` for a salvage that lost them."

    def _digests(self) -> Iterator[str]:
        """Each day's digest against its records, where retention has taken none of them."""
        proven = 0
        days: list[tuple[int, int, str, int, bytes]] = list(
            self._db.execute("SELECT first, last, day, records, sha256 FROM digest ORDER BY first")
        )
        expired = int(self._meta("expired") or 0)
        for first, last, day, records, wanted in days:
            bodies: Iterable[tuple[bytes]] = self._db.execute(
                "SELECT body FROM record WHERE seq BETWEEN ? AND ? ORDER BY seq", (first, last)
            )
            sha, count = sha256(), 0
            for (body,) in bodies:
                sha.update(digest(body))
                count += 1
            if count == records and sha.digest() == wanted:
                proven += 1
            elif first > expired or count == records:
                found = f"records {first} to {last} are not what they were ({count} of {records})"
                yield f"digest of {day}: {found}. {_DAMAGED}"
        self._facts |= {"days digested": len(days), "days proven": proven}

    def _items(self) -> Iterator[str]:
        """What is open at a sink can be sent, and is of a submission that is open."""
        for sink, seq in self._db.execute(
            "SELECT sink, seq FROM item AS i WHERE outcome IS NULL AND submission NOT NULL AND NOT EXISTS"
            " (SELECT 1 FROM submission AS s WHERE s.id=i.submission AND s.sink=i.sink AND s.settled IS NULL"
            " AND i.seq BETWEEN s.first AND s.last)"
        ):
            yield f"record {seq} at sink {sink}: it is open in no open submission. {_REPORT}"
        for sink, seq in self._db.execute(
            "SELECT sink, seq FROM item AS i WHERE outcome IS NULL AND payload IS NULL AND NOT EXISTS"
            " (SELECT 1 FROM record AS r WHERE r.seq=i.seq)"
        ):
            yield f"record {seq} at sink {sink}: it is owed, and its bytes are gone. {_REPORT}"
        for (number,) in self._db.execute(
            "SELECT id FROM submission AS s WHERE settled IS NULL AND NOT EXISTS (SELECT 1 FROM item AS i WHERE"
            " i.sink=s.sink AND i.seq BETWEEN s.first AND s.last AND i.submission=s.id AND i.outcome IS NULL)"
        ):
            yield f"submission {number}: it is open, and holds nothing. {_REPORT}"
        last = self._number("SELECT coalesce((SELECT seq FROM sqlite_sequence WHERE name='record'), 0)")
        for name, position in self._db.execute("SELECT id, position FROM sink WHERE position > ?", (last,)):
            yield f"sink {name}: it stands at {position}, beyond the last record {last}. {_REPORT}"
        for seq, body, name in self._db.execute(
            "SELECT r.seq, r.body, k.id FROM known AS k JOIN record AS r USING(seq)"
        ):
            if record_id(body).bytes != name:
                yield f"record {seq}: it is known by another id than its own. {_REPORT}"
        open_ = "SELECT count(*) FROM submission WHERE settled IS NULL"
        self._facts |= {"items": self._number("SELECT count(*) FROM item"), "open submissions": self._number(open_)}

    def _rounding(self) -> Iterator[str]:
        """quantity + carried before = value · unit + carried after, of each record that was rounded (ACCOUNTING §7)."""
        rounded = 0
        query = "SELECT sink, seq, rounding, body FROM item JOIN record USING(seq) WHERE rounding NOT NULL"
        for sink, seq, rounding, body in self._db.execute(query):
            if is_erased(body):
                continue
            rounded += 1
            said = msgspec.json.decode(rounding)
            before, after = (Fraction(said[name]["value"], said[name]["grain"]) for name in ("before", "after"))
            if UsageRecord.parse(body).quantity + before != Fraction(said["value"]) * said["per"] + after:
                yield f"record {seq} at sink {sink}: rounding lost or made usage. {_REPORT}"
        self._facts["rounded"] = rounded

    def _newest(self) -> Iterator[str]:
        """No later commit was made here than the last one in the file."""
        commit, kept = int(self._meta("commit") or 0), self._meta("identity")
        self._facts["commit"] = commit
        if self._seen is None or kept is None:
            self._facts["witness"] = "unreadable"
            return
        epoch, seen = self._seen
        self._facts["witness"] = "another epoch" if epoch != msgspec.json.decode(kept, type=Identity).epoch else seen
        if self._facts["witness"] == "another epoch" or seen == ENDED:
            yield "witness: a later epoch has run in this directory. Restart the agent: it begins a new one."
        elif seen > commit:
            yield f"witness: commit {seen} was made here, and the file ends at {commit}. {_DAMAGED}"
