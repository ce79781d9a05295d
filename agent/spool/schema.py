"""Tables and settings of the spool's file, asserted by reading them back."""

import apsw

from agent.errors import SpoolError
from agent.spool.transaction import transaction

PAGE = 4096
VERSION = 1

_TABLES = """
CREATE TABLE IF NOT EXISTS meta(name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS cursor(source TEXT PRIMARY KEY, body BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS listing(source TEXT, key TEXT, PRIMARY KEY(source, key)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS resource(id INTEGER PRIMARY KEY, key TEXT NOT NULL, body BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS record(seq INTEGER PRIMARY KEY AUTOINCREMENT, start INTEGER NOT NULL, key BLOB NOT NULL,
  n INTEGER NOT NULL, kind TEXT NOT NULL, closed INTEGER NOT NULL, crc INTEGER NOT NULL, body BLOB NOT NULL);
CREATE UNIQUE INDEX IF NOT EXISTS record_key ON record(start, key, n);
CREATE INDEX IF NOT EXISTS record_unattributed ON record(closed) WHERE kind='unattributed';
CREATE INDEX IF NOT EXISTS record_offered ON record(seq) WHERE kind='unattributed' AND n=0;
CREATE TABLE IF NOT EXISTS evidence(seq INTEGER PRIMARY KEY, body BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS delivered(id BLOB PRIMARY KEY, seq INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS sink(id TEXT PRIMARY KEY, kind TEXT NOT NULL, role TEXT NOT NULL, position INTEGER NOT NULL)
  WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS submission(id INTEGER PRIMARY KEY AUTOINCREMENT, sink TEXT NOT NULL, first INTEGER NOT NULL,
  last INTEGER NOT NULL, name TEXT NOT NULL, digest BLOB NOT NULL, prepared INTEGER NOT NULL, delivered INTEGER);
CREATE INDEX IF NOT EXISTS submission_prepared ON submission(sink, id) WHERE delivered IS NULL;
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


def create(db: apsw.Connection, max_bytes: int) -> None:
    """Settle the file's format and this connection's settings; refuse a file that a later major format wrote."""
    for name, wanted in {"page_size": PAGE, **_SETTINGS, "max_page_count": max_bytes // PAGE}.items():
        found = db.pragma(name, wanted)
        found = db.pragma(name)
        if found != wanted and name != "max_page_count":
            raise SpoolError(f"spool: SQLite keeps {name}={found!r} where {wanted!r} is needed")
    version = db.pragma("user_version")
    if version > VERSION:
        raise SpoolError(f"spool: format {version} was written by a later release; this one reads up to {VERSION}")
    if version == VERSION:
        return
    with transaction(db):
        db.execute(_TABLES)
        db.pragma("user_version", VERSION)
