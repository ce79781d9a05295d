"""What is known of sinks beyond their rows: one small value in `meta`, which a salvage brings over."""

from collections.abc import Mapping

import apsw
import msgspec
from msgspec import Struct


class Remembered(Struct):
    """By sinks' ids."""

    former: dict[str, tuple[int, str]] = {}
    """Of those that were removed: number and role."""
    drained: set[str] = set()
    """Those that a person has ended, though they may be configured."""
    destinations: dict[str, str] = {}
    """A digest of where each goes, for its address may be in the environment."""
    customers: dict[str, dict[str, str]] = {}
    """What each calls our customers: a configuration can name none at a sink that it does not have."""


def remembered(db: apsw.Connection) -> Remembered:
    """As it was last kept."""
    kept = db.execute("SELECT value FROM meta WHERE name='sinks'").get
    return msgspec.json.decode(kept, type=Remembered) if isinstance(kept, bytes) else Remembered()


def remember(db: apsw.Connection, what: Remembered) -> None:
    """Keep it. Inside a transaction."""
    db.execute("INSERT OR REPLACE INTO meta VALUES('sinks',?)", (msgspec.json.encode(what),))


def end(db: apsw.Connection, sink: str, *, ended: bool) -> None:
    """A person has it take what it is owed and no more, or takes that back: the configuration does not."""
    what = remembered(db)
    (what.drained.add if ended else what.drained.discard)(sink)
    remember(db, what)


def goes_to(db: apsw.Connection, sink: str, destination: str, customers: Mapping[str, str]) -> None:
    """Note where what is frozen for it from now on goes, and what our customers are called there."""
    what = remembered(db)
    what.destinations[sink] = destination
    what.customers[sink] = dict(customers)
    remember(db, what)
