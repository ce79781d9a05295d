"""A person's right to be forgotten: what a settled record said goes, and the proof that it was there stays."""

import contextlib
import zlib

import apsw
from msgspec import Struct

from agent.clock import Moment
from agent.errors import AgentError
from agent.spool import ledger
from agent.spool.acts.choice import Done, numbers
from agent.spool.deliveries import DUE, states
from agent.spool.erasure import is_erased, tombstone
from agent.spool.ledger import Entry
from agent.spool.outbox import Outbox
from agent.spool.schema import STUCK


class Erase(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One record, or all of a customer."""

    record: str | None = None
    customer: str | None = None
    reason: str = ""


def erase(outbox: Outbox, wanted: Erase, _now: Moment) -> Done:
    """Put its digest in the place of each record, and of what was sent; forget its readings.

    The trail names numbers, not the customer.
    """
    db = outbox.spool.db
    if (wanted.record is None) == (wanted.customer is None):
        raise AgentError("spool erase: name a record, or a --customer.")
    if wanted.record is not None:
        chosen = [ledger.named(db, wanted.record)]
    else:
        chosen = ledger.entries(db, customer=wanted.customer)
    kept = {entry.seq: why for entry in chosen if (why := _owed(outbox, entry)) is not None}
    if chosen and len(kept) == len(chosen):
        raise AgentError(f"record {min(kept)} {kept[min(kept)]}. Nothing was erased.")
    gone = [entry for entry in chosen if entry.seq not in kept]
    db.pragma("secure_delete", True)
    try:
        for entry in gone:
            _erase(outbox, entry)
    finally:
        db.pragma("secure_delete", False)
    seqs = [entry.seq for entry in gone]
    rest = "".join(f" Record {seq} {why}: kept." for seq, why in list(kept.items())[:3])
    more = f" So are {len(kept) - 3} more." if len(kept) > 3 else ""
    return Done(numbers(seqs), f"{len(seqs)} erased.{rest}{more}")


def _owed(outbox: Outbox, entry: Entry) -> str | None:
    """Why a record cannot be erased yet."""
    if entry.record.kind == "unattributed":
        return "is nobody's, and may still find its owner"
    for sink, state in states(outbox.spool.db, entry.seq).items():
        if state in (*DUE, *STUCK):
            return f"is {state} at {sink}"
    return None


def _erase(outbox: Outbox, entry: Entry) -> None:
    db = outbox.spool.db
    if entry.erased is None:
        body = tombstone(entry.body, entry.id)
        db.execute("UPDATE record SET body=?, crc=? WHERE seq=?", (body, zlib.crc32(body), entry.seq))
    db.execute("DELETE FROM evidence WHERE seq=?", (entry.seq,))
    sent: list[tuple[int, bytes]] = list(
        db.execute("SELECT sink, payload FROM item WHERE seq=? AND payload IS NOT NULL", (entry.seq,))
    )
    for sink, payload in sent:
        if not is_erased(payload):
            query = "UPDATE item SET payload=? WHERE sink=? AND seq=?"
            db.execute(query, (tombstone(payload), sink, entry.seq))


def scrub(outbox: Outbox) -> None:
    """Bring what was erased from the log into the file, and empty the log, unless somebody reads it just now."""
    with contextlib.suppress(apsw.BusyError):
        outbox.spool.db.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
