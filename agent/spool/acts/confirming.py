"""What a back end was seen to hold exactly as it was sent: `confirmed`, beyond `delivered` (L9).

No salvage keeps it: the next `reconcile` notes it anew.
"""

from collections.abc import Iterable, Sequence

from msgspec import Struct

from agent.clock import Moment
from agent.errors import AgentError
from agent.spool.acts.choice import Done, sink_of
from agent.spool.outbox import Outbox

Runs = Sequence[tuple[int, int]]


class Confirm(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which records of which sink: `1-4,7`."""

    sink: str
    records: str
    reason: str = ""


def confirm(outbox: Outbox, wanted: Confirm, now: Moment) -> Done:
    """Note it of those that are delivered; it stays as it was first noted."""
    sink, db = sink_of(outbox, wanted.sink), outbox.spool.db
    count = 0
    for first, last in _read(wanted.records):
        db.execute(
            "INSERT OR IGNORE INTO confirmed(sink, seq, at) SELECT sink, seq, ? FROM item WHERE sink=?"
            " AND seq BETWEEN ? AND ? AND outcome IN ('delivered', 'duplicate')",
            (now.billing, sink.number, first, last),
        )
        count += db.changes()
    return Done(f"{sink.id} ({count})", f"{count} records of {sink.id} are confirmed anew.")


def written(found: Runs) -> str:
    """As `Confirm` has them."""
    return ",".join(f"{first}-{last}" for first, last in found)


def _read(text: str) -> Iterable[tuple[int, int]]:
    try:
        return [(int(first), int(last)) for first, last in (run.split("-") for run in text.split(","))]
    except ValueError as error:
        raise AgentError(f"sink confirm: {text[:40]!r} is no list of records. Write it as 1-4,7-7.") from error
