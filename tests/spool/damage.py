"""Damaging a spool, page by page."""

from pathlib import Path

import apsw

from agent.spool import Spool, schema
from agent.spool.outbox import Outbox
from tests.spool.ledger import NOON, append, minutes, opened
from tests.spool.owed import freeze, registered, settle

PAGE = schema.PAGE


def pages_of(spool: Spool, table: str) -> list[int]:
    """The pages of a table's own tree, its root first."""
    rows = spool.db.execute("SELECT pageno FROM dbstat WHERE name=? ORDER BY path", (table,))
    return [number for (number,) in rows]


def root(spool: Spool, table: str) -> int:
    """The first page of a table."""
    return int(str(spool.db.execute("SELECT rootpage FROM sqlite_schema WHERE name=?", (table,)).get))


def stopped(spool: Spool) -> None:
    """Closed with everything in the database's own file."""
    spool.db.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
    spool.close()


def flip(path: Path, *pages: int, at: int = 2000) -> None:
    """One bit of each of these pages."""
    file = path / "data/spool.db"
    content = bytearray(file.read_bytes())
    for page in pages:
        content[(page - 1) * PAGE + at] ^= 1
    file.write_bytes(content)


def damaged(path: Path, spool: Spool, *tables: str) -> Spool:
    """The spool that comes after bits of these tables' first pages rotted and somebody noticed."""
    roots = [root(spool, table) for table in tables]
    stopped(spool)
    flip(path, *roots)
    (path / "data/suspect").write_text("somebody noticed\n")
    return opened(path, now=NOON + 7)


def delivering(path: Path, count: int = 12) -> Outbox:
    """Two submissions delivered, the next attempted, the next frozen, the rest not looked at."""
    outbox = Outbox(opened(path))
    registered(outbox)
    append(outbox.spool, *minutes(range(count)))
    first, second, third, _ = freeze(outbox, batches=4, max_batch=2)
    with outbox.transaction():
        outbox.leaving([first, second, third], NOON)
        settle(outbox, first)
        settle(outbox, second)
    return outbox


def whys(spool: Spool, what: str) -> list[str]:
    """What the audit trail says of such acts."""
    return [why for (why,) in spool.db.execute("SELECT why FROM audit WHERE what=? ORDER BY id", (what,))]
