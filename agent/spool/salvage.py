"""What a damaged spool still says, brought into a new file.

Of every record whose bytes are whole the new file knows what became of it at each sink: owed, settled, held, or, where
the page that said so is lost, ambiguous. Of those that are lost the sequence knows the numbers. Whether marks go on,
and what is still owed, is decided afterwards from what came over (`agent/spool/epoch.py`).
"""

import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import apsw
from msgspec import Struct

from agent.record import rfc3339
from agent.spool.epoch import MEASURING, settle_empty
from agent.spool.schema import BILLED
from agent.spool.transaction import transaction
from agent.spool.wreck import Row, Wreck

_AS_IT_IS = (
    *("meta", *MEASURING, "evidence", "known", "sink", "submission", "attempt", "remainder"),
    *("held", "quarantine", "audit", "digest", "spent"),
)
_STEP = 10_000  # rows between two words to whoever waits
_UNKNOWN = "its delivery cannot be known: what said so is lost"
_LOST = "its bytes are lost"

Span = tuple[int, int]


class Salvaged(Struct, frozen=True):
    """What came over. `incomplete`: the tables of which something is missing."""

    records: int
    missing: int  # records whose bytes are lost
    incomplete: frozenset[str]

    @property
    def measures(self) -> bool:
        """Whether every mark and open window is there."""
        return not self.incomplete & {"meta", *MEASURING}

    @property
    def owes(self) -> bool:
        """Whether it is known who is owed what. What is not known of single records is ambiguous already."""
        return not self.incomplete & {"meta", "sink", "held"}

    def __str__(self) -> str:
        said = f"{self.records} records are whole"
        if self.missing:
            said += f", {self.missing} are lost"
        if self.incomplete:
            said += f"; rows are missing in: {', '.join(sorted(self.incomplete))}"
        return said


def salvage(path: Path, into: apsw.Connection, now: int, *, resigned: bool, working: Callable[[], None]) -> Salvaged:
    """Copy what can be read of the file at `path` into an empty spool, and note there what cannot.

    `resigned`: what the disk refuses to read is given up. `working` is called now and then. Raises SpoolError,
    apsw.Error (the disk fails), OSError.
    """
    fresh = bytes(Path(into.filename).read_bytes()[:4096])
    wreck = Wreck(path, fresh, resigned=resigned)
    try:
        with transaction(into):
            return _Salvage(wreck, into, now, working).run()
    finally:
        wreck.close()


class _Salvage:
    """One run of it, inside one transaction."""

    def __init__(self, wreck: Wreck, into: apsw.Connection, now: int, working: Callable[[], None]) -> None:
        self._wreck, self._db, self._now, self._working = wreck, into, now, working
        self._incomplete: set[str] = set()

    def run(self) -> Salvaged:
        for table in _AS_IT_IS:
            self._copy(table, self._rows(table))
        self._copy("record", self._whole(self._rows("record")))
        unknown: list[tuple[Span, Span]] = []
        self._copy("item", self._between(self._rows("item"), unknown))
        self._number_on()
        for after, before in unknown:
            self._doubt(after, before)
        self._settle_what_cannot_be_sent()
        missing = self._note_missing()
        records = int(str(self._db.execute("SELECT count(*) FROM record").get))
        salvaged = Salvaged(records, missing, frozenset(self._incomplete))
        self._db.execute(
            "INSERT INTO audit(at, who, what, why) VALUES(?,'agent','salvage',?)", (self._now, str(salvaged))
        )
        return salvaged

    def _columns(self, table: str) -> list[str]:
        return [name for (name,) in self._db.execute("SELECT name FROM pragma_table_info(?)", (table,))]

    def _rows(self, table: str) -> Iterator[Row | None]:
        """As the wreck has them, noting whether it has all."""
        for count, row in enumerate(self._wreck.rows(table, self._columns(table))):
            if row is None:
                self._incomplete.add(table)
            if count % _STEP == 0:
                self._working()
            yield row

    def _copy(self, table: str, rows: Iterable[Row | None]) -> None:
        places = ",".join("?" * len(self._columns(table)))
        query = f"INSERT OR IGNORE INTO {table} VALUES({places})"
        self._db.executemany(query, (row for row in rows if row is not None))

    def _whole(self, rows: Iterable[Row | None]) -> Iterator[Row]:
        """Records whose bytes have the CRC they had; the others go to quarantine."""
        for row in rows:
            if row is None:
                continue
            body = row[-1] if isinstance(row[-1], bytes) else b""
            if zlib.crc32(body) == row[-2]:
                yield row
            else:
                self._incomplete.add("record")
                self._quarantine(f"record {int(str(row[0]))}: CRC does not match its bytes", body)

    def _between(self, rows: Iterable[Row | None], unknown: list[tuple[Span, Span]]) -> Iterator[Row]:
        """Items; between which two (sink, seq) some may be missing goes into `unknown`."""
        last, missing = (0, 0), False
        for row in rows:
            if row is None:
                missing = True
                continue
            key = (int(str(row[0])), int(str(row[1])))
            if missing:
                unknown.append((last, key))
            last, missing = key, False
            yield row
        if missing:
            unknown.append((last, (1 << 62, 0)))

    def _number_on(self) -> None:
        """No number is ever given again: neither a record's, nor a sink's, nor a submission's."""
        used: dict[str, int] = {"record": 0, "sink": 0, "submission": 0}
        for row in self._wreck.rows("sqlite_sequence", ["name", "seq"]):
            if row is not None and row[0] in used:
                used[str(row[0])] = int(str(row[1]))
        seen = {
            "record": ("record.seq", "evidence.seq", "known.seq", "item.seq", "sink.position", "digest.last"),
            "sink": ("sink.number", "item.sink", "submission.sink"),
            "submission": ("submission.id", "item.submission", "attempt.submission"),
        }
        for name, columns in seen.items():
            for table, column in (c.split(".") for c in columns):
                query = f"SELECT coalesce(max({column}), 0) FROM {table}"  # noqa: S608 - names of our own
                used[name] = max(used[name], int(str(self._db.execute(query).get)))
        self._db.execute("DELETE FROM sqlite_sequence WHERE name IN ('record', 'sink', 'submission')")
        self._db.executemany("INSERT INTO sqlite_sequence(name, seq) VALUES(?,?)", used.items())
        self._last = used["record"]

    # -- what became of them ---------------------------------------------------------------------------------------

    def _doubt(self, after: Span, before: Span) -> None:
        """Items between these two may be missing: what a sink had been given there is ambiguous."""
        sinks = self._db.execute(
            "SELECT number, role, began, position FROM sink WHERE number BETWEEN ? AND ?", (after[0], before[0])
        )
        for number, role, began, position in list(sinks):
            low = max(began, after[1] if number == after[0] else 0)
            high = min(position, before[1] - 1 if number == before[0] else position)
            self._db.execute(
                "INSERT OR IGNORE INTO item(sink, seq, outcome, at, why)"  # noqa: S608 - names of our own
                " SELECT ?, seq, 'ambiguous', ?, ?"
                " FROM record AS r WHERE seq > ? AND seq <= ?"
                f" AND (? <> 'billing' OR kind IN {BILLED})"
                " AND NOT EXISTS (SELECT 1 FROM held WHERE r.seq BETWEEN held.first AND held.last)",
                (number, self._now, _UNKNOWN, low, high, role),
            )

    def _settle_what_cannot_be_sent(self) -> None:
        """Frozen items whose submission is lost may have left; those whose bytes are lost cannot leave."""
        end = "UPDATE item SET outcome=?, at=?, why=? WHERE outcome IS NULL"
        lost = " AND payload IS NULL AND NOT EXISTS (SELECT 1 FROM record AS r WHERE r.seq=item.seq)"
        submission = "EXISTS (SELECT 1 FROM submission AS s WHERE s.id=item.submission"
        self._db.execute(
            f"{end} AND submission IS NOT NULL AND NOT {submission} AND s.settled IS NULL)",
            ("ambiguous", self._now, _UNKNOWN),
        )
        self._db.execute(
            f"{end}{lost} AND (submission IS NULL OR {submission} AND s.tainted IS NULL))",
            ("rejected", self._now, _LOST),
        )
        settle_empty(self._db, self._now)

    def _note_missing(self) -> int:
        """The numbers that are in no record, though no retention took them; how many."""
        query = (
            "SELECT before + 1, seq - 1, since, closed FROM (SELECT seq, closed, lag(seq, 1, ?) OVER later AS before,"
            " lag(closed) OVER later AS since FROM (SELECT seq, closed FROM record UNION ALL SELECT ?, NULL)"
            " WHERE seq > ? WINDOW later AS (ORDER BY seq)) WHERE seq > before + 1"
        )
        floor = self._floor()
        holes: list[tuple[int, int, int | None, int | None]] = list(
            self._db.execute(query, (floor, self._last + 1, floor))
        )
        for first, last, since, until in holes:
            span = f"{rfc3339(since) if since else 'the beginning'} and {rfc3339(until) if until else 'the end'}"
            self._quarantine(f"records {first} to {last}: their bytes are lost; closed between {span}", b"")
        if holes:
            self._incomplete.add("record")
        return sum(last - first + 1 for first, last, _, _ in holes)

    def _floor(self) -> int:
        """Up to which number retention has been at work."""
        kept = self._db.execute("SELECT value FROM meta WHERE name='expired'").get
        if isinstance(kept, bytes):
            return int(kept)
        if "meta" not in self._incomplete:
            return 0
        query = (
            "SELECT min(seq) FROM (SELECT seq FROM record UNION SELECT seq FROM item UNION SELECT seq FROM evidence)"
        )
        first = self._db.execute(query).get
        return first - 1 if isinstance(first, int) else self._last

    def _quarantine(self, reason: str, body: bytes) -> None:
        self._db.execute("INSERT INTO quarantine(at, reason, body) VALUES(?,?,?)", (self._now, reason, body))
