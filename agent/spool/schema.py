"""Tables and settings of the spool's file, asserted by reading them back."""

import apsw
import apsw.sqlite_extra

from agent.errors import SpoolError
from agent.spool.transaction import transaction

PAGE = 4096
CHECKSUM_BYTES = 8  # kept free at the end of each page
VERSION = 2  # 1 was never released; a file of it is salvaged like an unsound one

BILLED = ("usage", "manual", "correction")  # L7: a billing sink gets these; a copy gets everything
MAY_BE_THERE = "an earlier attempt may have arrived"  # so ends what is said of a record that was refused all the same
STUCK = ("conflict", "rejected", "ambiguous", "unrouted")  # settled, and yet a person must decide

_TABLES = """
CREATE TABLE IF NOT EXISTS meta(name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS cursor(source TEXT PRIMARY KEY, body BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS listing(source TEXT, key TEXT, PRIMARY KEY(source, key)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS memory(source TEXT, key TEXT, body BLOB NOT NULL, PRIMARY KEY(source, key)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS resource(id INTEGER PRIMARY KEY, key TEXT NOT NULL, body BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS record(seq INTEGER PRIMARY KEY AUTOINCREMENT, start INTEGER NOT NULL, key BLOB NOT NULL,
  n INTEGER NOT NULL, kind TEXT NOT NULL, closed INTEGER NOT NULL, crc INTEGER NOT NULL, body BLOB NOT NULL);
CREATE UNIQUE INDEX IF NOT EXISTS record_key ON record(start, key, n);
CREATE INDEX IF NOT EXISTS record_unattributed ON record(closed) WHERE kind='unattributed';
CREATE INDEX IF NOT EXISTS record_offered ON record(seq) WHERE kind='unattributed' AND n=0;
CREATE TABLE IF NOT EXISTS evidence(seq INTEGER PRIMARY KEY, body BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS known(id BLOB PRIMARY KEY, seq INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS sink(number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT UNIQUE NOT NULL, kind TEXT NOT NULL,
  role TEXT NOT NULL, section BLOB NOT NULL, began INTEGER NOT NULL, position INTEGER NOT NULL, until INTEGER,
  paused INTEGER NOT NULL DEFAULT 0);
CREATE TABLE IF NOT EXISTS submission(id INTEGER PRIMARY KEY AUTOINCREMENT, sink INTEGER NOT NULL, parent INTEGER,
  name TEXT NOT NULL, first INTEGER NOT NULL, last INTEGER NOT NULL, prepared INTEGER NOT NULL,
  attempts INTEGER NOT NULL, tainted INTEGER, due INTEGER NOT NULL, settled INTEGER);
CREATE INDEX IF NOT EXISTS submission_open ON submission(sink, due) WHERE settled IS NULL;
CREATE TABLE IF NOT EXISTS item(sink INTEGER NOT NULL, seq INTEGER NOT NULL, submission INTEGER, payload BLOB,
  rounding BLOB, outcome TEXT, at INTEGER, why TEXT, PRIMARY KEY(sink, seq)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS item_waiting ON item(sink, seq) WHERE outcome IS NULL AND submission IS NULL;
CREATE INDEX IF NOT EXISTS item_stuck ON item(sink, seq) WHERE outcome IN
  ('conflict', 'rejected', 'ambiguous', 'unrouted');
CREATE TABLE IF NOT EXISTS attempt(id INTEGER PRIMARY KEY, submission INTEGER NOT NULL, at INTEGER NOT NULL,
  ended INTEGER NOT NULL, outcome TEXT NOT NULL, why TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS attempt_of ON attempt(submission);
CREATE TABLE IF NOT EXISTS doubt(submission INTEGER PRIMARY KEY, since INTEGER NOT NULL, empty INTEGER,
  unread INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS confirmed(sink INTEGER NOT NULL, seq INTEGER NOT NULL, at INTEGER NOT NULL,
  PRIMARY KEY(sink, seq)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS remainder(sink INTEGER NOT NULL, customer TEXT NOT NULL, dimension TEXT NOT NULL,
  value TEXT NOT NULL, grain TEXT NOT NULL, touched INTEGER NOT NULL, PRIMARY KEY(sink, customer, dimension))
  WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS held(first INTEGER NOT NULL, last INTEGER NOT NULL, reason TEXT NOT NULL,
  at INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS quarantine(id INTEGER PRIMARY KEY, at INTEGER NOT NULL, reason TEXT NOT NULL,
  body BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS audit(id INTEGER PRIMARY KEY, at INTEGER NOT NULL, who TEXT NOT NULL, what TEXT NOT NULL,
  why TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS digest(first INTEGER PRIMARY KEY, last INTEGER NOT NULL, day TEXT NOT NULL,
  records INTEGER NOT NULL, sha256 BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS spent(start INTEGER, key BLOB, n INTEGER NOT NULL, PRIMARY KEY(start, key)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS reserve(id INTEGER PRIMARY KEY, pages BLOB NOT NULL);
"""

_SETTINGS = {
    "journal_mode": "wal",
    "synchronous": 2,  # FULL: a commit that returned survives a power cut
    "mmap_size": 0,
    "trusted_schema": 0,
    "cell_size_check": 1,
    "cache_size": -1024,
    "wal_autocheckpoint": 2000,  # 8 MiB: as much as the reserve has extended the WAL's file
}


def connect(path: str, flags: int = apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE) -> apsw.Connection:
    """A connection that keeps and checks a checksum on every page: a flipped bit is an error, never another number."""
    if "cksmvfs" not in apsw.vfs_names():
        memory = apsw.Connection(":memory:")
        apsw.sqlite_extra.load(memory, "cksumvfs")  # stays loaded in this process
        memory.close()
    return apsw.Connection(path, flags=flags, vfs="cksmvfs")


def create(db: apsw.Connection, max_bytes: int) -> None:
    """Settle the file's format and this connection's settings; refuse a file that a later major format wrote."""
    if db.pragma("page_count") == 0:
        db.reserve_bytes(reserve=CHECKSUM_BYTES)
    for name, wanted in {"page_size": PAGE, **_SETTINGS, "max_page_count": max_bytes // PAGE}.items():
        found = db.pragma(name, wanted)
        found = db.pragma(name)
        if found != wanted and name != "max_page_count":
            raise SpoolError(f"spool: SQLite keeps {name}={found!r} where {wanted!r} is needed")
    if db.reserve_bytes() != CHECKSUM_BYTES or not db.pragma("checksum_verification"):
        raise SpoolError("spool: the file's pages have no checksums. Was it written by another program?")
    version = db.pragma("user_version")
    if version > VERSION:
        raise SpoolError(f"spool: format {version} was written by a later release; this one reads up to {VERSION}")
    with transaction(db):  # also what a release since has added: the file's version stays, for older ones read it too
        db.execute(_TABLES)
        if version < VERSION:
            db.pragma("user_version", VERSION)
