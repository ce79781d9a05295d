"""Opening the spool and committing sweeps to it. See the package docstring for its invariants."""

import contextlib
import zlib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import apsw
import msgspec
from msgspec import structs

from agent.books import Commit, Row, Snapshot
from agent.errors import CannotStartError, SpoolError, SpoolFullError, SpoolUnusableError
from agent.record import UsageRecord, record_id
from agent.spool import epoch, schema
from agent.spool.identity import ENDED, Identity, Witness, private_directory
from agent.spool.lock import Lock
from agent.spool.opening import FILE, Place, opened
from agent.spool.retention import digest_days, expire, forget
from agent.spool.space import free, make_room, refill
from agent.spool.suspicion import suspect, suspect_if
from agent.spool.transaction import in_our_words, transaction
from agent.spool.verify import quarantine, unsound_after
from agent.usage import Cursor
from agent.windows import Closed

OFFERED = 1_000  # unattributed records that are offered to new rules at a time
MAINTENANCE = 60 * 1_000_000_000


class Spool:
    """The writer's side. All methods but `open` belong to one thread."""

    def __init__(
        self, db: apsw.Connection, directory: Path, run_dir: Path, identity: Identity, lock: Lock, reserve: int
    ) -> None:
        self.db, self.directory, self._run_dir, self.identity = db, directory, run_dir, identity
        self.restored: str | None = None  # why this opening began a new epoch over an old file
        self._lock, self._reserve = lock, reserve
        self._commit = int(self.meta("commit") or b"0")
        self.appended = 0  # bytes of records and evidence written by this process
        self.held_unattributed = 0  # records that can still find an owner, at the last maintenance
        self._maintained = 0
        self._forgotten = int(self.meta("forgotten") or b"0")
        self._ids = dict(db.execute("SELECT key, id FROM resource"))
        self._listings: dict[str, frozenset[str]] = {}
        self._meta_written: dict[str, bytes] = {}
        self._verified = 0  # records up to this seq were read again, and are as they were written
        self._witness = Witness(directory, run_dir, identity.epoch)

    @classmethod
    def open(
        cls,
        directory: Path,
        *,
        run_dir: Path,
        fingerprint: Mapping[str, str],
        now: int,
        max_bytes: int = 4 << 30,
        reserve: int = 16 << 20,
        once_locked: Callable[[], None] = lambda: None,
        working: Callable[[], None] = lambda: None,
    ) -> "Spool":
        """Open or create the spool; begin a new epoch where the file is new, foreign, restored or unsound.

        `once_locked` runs when the directory is ours and before the file is judged; `working` now and then while a
        large file is read. Raises CannotStartError (another agent, permission), SpoolUnusableError (the disk: it may
        work later).
        """
        private_directory(directory, "agent.data_dir", only_ours=True)
        private_directory(run_dir, "agent.run_dir")
        lock = Lock(directory / "lock", f"agent.data_dir {directory}", "Stop it, or give this one its own data_dir.")
        try:
            once_locked()
            found = opened(Place(directory / FILE, run_dir, fingerprint, max_bytes, now, working))
            try:
                refill(found.db, directory, reserve)
                spool = cls(found.db, directory, run_dir, found.identity, lock, reserve)
            except BaseException:
                found.db.close()
                raise
            spool.restored = found.reason
        except (apsw.Error, OSError, SpoolError) as e:
            suspect_if(directory, e)
            lock.close()
            raise SpoolUnusableError(f"agent.data_dir: {directory / FILE}: {e}. It is tried again.") from e
        except BaseException:
            lock.close()
            raise
        return spool

    def new_epoch(self, reason: str, now: int) -> None:
        """Start a new epoch by a person's will (a restored spool): baseline anew, hold the old backlog.

        The spool must be opened again to be used.
        """
        self._witness.write(ENDED)
        begun = epoch.begin(self.db, self.identity.fingerprint, now, reason)
        witness = Witness(self.directory, self._run_dir, begun.epoch)
        witness.write(self._commit)
        witness.close()
        self.close()

    # -- state ---------------------------------------------------------------------------------------------------

    def meta(self, name: str) -> bytes | None:
        """One small value, or None."""
        value = self.db.execute("SELECT value FROM meta WHERE name=?", (name,)).get
        return None if value is None else bytes(value)

    def frozen(self) -> int:
        """The billing time at which a submission was last frozen; 0 if none was."""
        with in_our_words(self.db):
            return int(str(self.db.execute("SELECT prepared FROM submission ORDER BY id DESC LIMIT 1").get or 0))

    def snapshot(self) -> Snapshot:
        """The committed state that `Books` goes on from."""
        with in_our_words(self.db):
            cursors = {}
            for source, body in self.db.execute("SELECT source, body FROM cursor"):
                listing = frozenset(k for (k,) in self.db.execute("SELECT key FROM listing WHERE source=?", (source,)))
                cursor = msgspec.json.decode(body, type=Cursor)
                cursor.listing = self._listings[source] = listing
                cursors[source] = cursor
            rows = [msgspec.json.decode(body, type=Row) for (body,) in self.db.execute("SELECT body FROM resource")]
            segments = msgspec.json.decode(self.meta("segments") or b"{}", type=dict[str, list[tuple[int, int]]])
            return Snapshot(
                cursors, rows, segments, msgspec.json.decode(self.meta("closings") or b"{}", type=dict[str, int])
            )

    def remembered(self, source: str) -> dict[str, bytes]:
        """What a source had the spool remember, by key."""
        with in_our_words(self.db):
            return dict(self.db.execute("SELECT key, body FROM memory WHERE source=?", (source,)))

    def unattributed(self, closed_since: int, after: int) -> list[tuple[int, str, int, UsageRecord]]:
        """Held usage of nobody: (seq, id, what is left of it, record) of the next first deltas beyond seq `after`."""
        with in_our_words(self.db):
            oldest = "SELECT seq FROM record WHERE kind='unattributed' AND closed>=? ORDER BY closed LIMIT 1"
            first = self.db.execute(oldest, (closed_since,)).get
            if not isinstance(first, int):
                return []
            query = (
                "SELECT seq, start, key, body FROM record INDEXED BY record_offered"
                " WHERE seq>? AND kind='unattributed' AND n=0 AND closed>=? ORDER BY seq LIMIT ?"
            )
            found = []
            values = (max(after, first - 1), closed_since, OFFERED)
            rows: list[tuple[int, int, bytes, bytes]] = list(self.db.execute(query, values))
            for seq, start, key, body in rows:
                deltas = self.db.execute("SELECT body FROM record WHERE start=? AND key=?", (start, key))
                net = sum(UsageRecord.parse(delta).quantity for (delta,) in deltas)
                found.append((seq, str(record_id(body)), net, UsageRecord.parse(body)))
            return found

    def forget_sources(self, configured: set[str]) -> None:
        """Drop the cursors and marks of sources that are no longer read; their open windows stay until they close."""
        for source in [s for (s,) in self.db.execute("SELECT source FROM cursor") if s not in configured]:
            with transaction(self.db):
                self.db.execute("DELETE FROM listing WHERE source=?", (source,))
                self.db.execute("DELETE FROM memory WHERE source=?", (source,))
                rows: list[tuple[int, bytes]] = list(self.db.execute("SELECT id, body FROM resource"))
                for row_id, body in rows:
                    row = msgspec.json.decode(body, type=Row)
                    if row.source == source:
                        row.track.marks, row.track.in_flight = {}, {}
                        self.db.execute("UPDATE resource SET body=? WHERE id=?", (msgspec.json.encode(row), row_id))
                cursor = msgspec.json.decode(
                    self.db.execute("SELECT body FROM cursor WHERE source=?", (source,)).get, type=Cursor
                )
                cursor.boot, cursor.listing = "", frozenset()  # keeps its time and basis; a return baselines anew
                self.db.execute("UPDATE cursor SET body=? WHERE source=?", (msgspec.json.encode(cursor), source))

    def audit(self, at: int, who: str, what: str, why: str) -> None:
        """Note what a person did."""
        with transaction(self.db):
            self.db.execute("INSERT INTO audit(at, who, what, why) VALUES(?,?,?,?)", (at, who, what, why))

    # -- the transaction -----------------------------------------------------------------------------------------

    def commit(
        self,
        commit: Commit | None,
        *,
        now: int,
        meta: Mapping[str, bytes] | None = None,
        records: Iterable[Closed] = (),
        remember: Mapping[str, bytes | None] | None = None,
    ) -> list[int]:
        """Make one sweep durable, with the records that closed; returns their sequence numbers.

        `remember`: what the sweep's source wants back after a restart, by key; None forgets.

        Raises SpoolFullError (nothing was written: rebuild `Books` from `snapshot`) or SpoolError (the disk fails).
        """
        try:
            return self._transact(commit, now, meta or {}, list(records), remember or {}, evidence=True)
        except SpoolFullError:  # evidence goes first, then cursors stop (DESIGN §6)
            make_room(self.db, now)
            return self._transact(commit, now, meta or {}, list(records), remember or {}, evidence=False)

    def _transact(
        self,
        commit: Commit | None,
        now: int,
        meta: Mapping[str, bytes],
        records: list[Closed],
        remember: Mapping[str, bytes | None],
        *,
        evidence: bool,
    ) -> list[int]:
        values = dict(meta)
        if commit is not None:
            values["segments"] = msgspec.json.encode(commit.segments)
            values["closings"] = msgspec.json.encode(commit.closings)
            records = commit.closed + records
        number = self._commit + 1
        added: dict[str, int] = {}
        with transaction(self.db):
            if commit is not None:
                self._write_rows(commit.rows, added)
                if commit.source is not None and commit.cursor is not None:
                    self._write_cursor(commit.source, commit.cursor)
                    self._write_memory(commit.source, remember)
            seqs = self._write_records(records, now, evidence=evidence)
            for name, value in values.items():
                if self._meta_written.get(name) != value:
                    self._put(name, value)
            self._put("commit", b"%d" % number)
        self._commit = number
        self._ids.update(added)
        if commit is not None:
            for key in [k for k, row in commit.rows.items() if row is None]:
                self._ids.pop(key, None)
            if commit.source is not None and commit.cursor is not None:
                self._listings[commit.source] = commit.cursor.listing
        self._meta_written.update(values)
        with contextlib.suppress(OSError):  # a witness that is behind only says less
            self._witness.write(number)
        return seqs

    def _put(self, name: str, value: bytes) -> None:
        self.db.execute("INSERT OR REPLACE INTO meta VALUES(?,?)", (name, value))

    def _write_rows(self, rows: Mapping[str, Row | None], added: dict[str, int]) -> None:
        encode = msgspec.json.encode
        updates = [(encode(row), self._ids[key]) for key, row in rows.items() if row is not None and key in self._ids]
        self.db.executemany("UPDATE resource SET body=? WHERE id=?", updates)
        for key, row in rows.items():
            if row is None:
                self.db.execute("DELETE FROM resource WHERE id=?", (self._ids.get(key, -1),))
            elif key not in self._ids:
                self.db.execute("INSERT INTO resource(key, body) VALUES(?,?)", (key, encode(row)))
                added[key] = self.db.last_insert_rowid()

    def _write_cursor(self, source: str, cursor: Cursor) -> None:
        before = self._listings.get(source, frozenset())
        if cursor.listing is not before:
            gone, come = before - cursor.listing, cursor.listing - before
            self.db.executemany("DELETE FROM listing WHERE source=? AND key=?", [(source, key) for key in gone])
            self.db.executemany("INSERT OR IGNORE INTO listing VALUES(?,?)", [(source, key) for key in come])
        body = msgspec.json.encode(structs.replace(cursor, listing=frozenset()))
        self.db.execute("INSERT OR REPLACE INTO cursor VALUES(?,?)", (source, body))

    def _write_memory(self, source: str, remember: Mapping[str, bytes | None]) -> None:
        for key, body in remember.items():
            if body is None:
                self.db.execute("DELETE FROM memory WHERE source=? AND key=?", (source, key))
            else:
                self.db.execute("INSERT OR REPLACE INTO memory VALUES(?,?,?)", (source, key, body))

    def _write_records(self, records: list[Closed], now: int, *, evidence: bool) -> list[int]:
        """Give each record its n and its sequence number, and write it with its evidence."""
        if not records:
            return []
        following = self._following({closed.record.start for closed in records})
        last = int(
            str(self.db.execute("SELECT coalesce((SELECT seq FROM sqlite_sequence WHERE name='record'), 0)").get)
        )
        rows, proofs = [], []
        for seq, closed in enumerate(records, last + 1):
            record, key = closed.record, closed.record.key()
            n = following.get((record.start, key), 0)
            following[record.start, key] = n + 1
            body = record.body(n)
            rows.append((seq, record.start, key, n, record.kind, now, zlib.crc32(body), body))
            self.appended += len(body)
            if evidence and closed.evidence:
                proof = zlib.compress(msgspec.json.encode(closed.evidence), 1)
                proofs.append((seq, proof))
                self.appended += len(proof)
            if record.start < self._forgotten:
                self.db.execute("INSERT INTO held VALUES(?,?,'later than the ledger remembers',?)", (seq, seq, now))
        self.db.executemany("INSERT INTO record VALUES(?,?,?,?,?,?,?,?)", rows)
        self.db.executemany("INSERT INTO evidence VALUES(?,?)", proofs)
        return [row[0] for row in rows]

    def _following(self, starts: set[int]) -> dict[tuple[int, bytes], int]:
        """The next n of every key that has a delta in windows beginning at `starts`."""
        found: dict[tuple[int, bytes], int] = {}
        for start in starts:
            for table in (
                "SELECT key, n FROM spent WHERE start=?",
                "SELECT key, max(n)+1 FROM record WHERE start=? GROUP BY key",
            ):
                rows: Iterable[tuple[bytes, int]] = self.db.execute(table, (start,))
                found.update(((start, key), n) for key, n in rows)
        return found

    # -- space and shutting ----------------------------------------------------------------------------------------

    def maintain(self, now: int, retention: int, evidence_retention: int, hold: int) -> None:
        """Once a minute: a day's digest, a step of what is past its time, the reserve, a look at a part of the ledger.

        Raises SpoolError.
        """
        if 0 <= now - self._maintained < MAINTENANCE:
            return
        self._maintained = now
        with in_our_words(self.db):
            self._verify(now)
            digest_days(self.db, now)
            if expire(self.db, now, retention, evidence_retention):
                self._forgotten = forget(self.db, now - 2 * retention, self._forgotten)
            refill(self.db, self.directory, self._reserve)
            query = "SELECT count(*) FROM record WHERE kind='unattributed' AND closed>=?"
            self.held_unattributed = int(str(self.db.execute(query, (now - hold,)).get))

    def _verify(self, now: int) -> None:
        """Read the next records again: rot is found while there may be another copy of what it took."""
        with transaction(self.db):
            self._verified, unsound = unsound_after(self.db, self._verified)
            for seq, body in unsound:
                quarantine(self.db, seq, body, now)
                suspect(self.directory, f"record {seq}: CRC does not match its bytes")

    @property
    def free(self) -> int:
        """Bytes until the cap or the end of the disk, whichever is nearer."""
        return free(self.db, self.directory)

    @property
    def bytes(self) -> int:
        """Size of the file and its WAL."""
        return sum(
            (self.directory / name).stat().st_size for name in (FILE, f"{FILE}-wal") if (self.directory / name).exists()
        )

    def close(self) -> None:
        """Close and unlock; safe to call twice."""
        self.db.close()
        self._witness.close()
        self._lock.close()


def reader(directory: Path) -> apsw.Connection:
    """A read-only connection beside the writer, of this or another process."""
    path = directory / FILE
    if not path.exists():
        raise CannotStartError(f"no spool in {directory}. Name the agent's data directory with --data-dir or --config.")
    db = schema.connect(str(path), apsw.SQLITE_OPEN_READONLY)
    db.set_busy_timeout(5000)
    return db
