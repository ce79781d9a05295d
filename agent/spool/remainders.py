"""What rounding has left: given back for what is rendered anew, closed out when a customer is silent."""

from collections.abc import Iterable

import msgspec

from agent.record import UsageRecord
from agent.spool.outbox import Outbox, Standing
from agent.spool.rounding import Carried, Rounding


def give_back(outbox: Outbox, sink: Standing, seq: int, now: int) -> None:
    """Undo the rounding of an item that will be rendered anew, or never sent. Inside a transaction.

    So that Σ submitted + Σ remainders = Σ usage goes on to hold.
    """
    rows: Iterable[tuple[bytes, bytes]] = outbox.spool.db.execute(
        "SELECT i.rounding, r.body FROM item AS i JOIN record AS r USING(seq)"
        " WHERE i.sink=? AND i.seq=? AND rounding NOT NULL",
        (sink.number, seq),
    )
    for rounding, body in list(rows):
        record, moved = UsageRecord.parse(body), msgspec.json.decode(rounding, type=Rounding)
        key = (record.customer or "", record.dimension)
        left = Carried(*outbox.remainder(sink, *key)).exact + moved.before.exact - moved.after.exact
        outbox.leave(sink, *key, left.numerator, left.denominator, now)


def close_out(outbox: Outbox, sink: Standing, untouched_since: int) -> None:
    """Move what was not touched since (billing time, ns) to the sink's rounding account, which nobody is sent.

    It is below half a step, so that submitting it rounded once would submit nothing. The account is the remainder of
    no customer, so the law's sum goes on to hold.
    """
    db = outbox.spool.db
    query = "SELECT customer, dimension, value, grain FROM remainder WHERE sink=? AND customer<>'' AND touched<?"
    rows: list[tuple[str, str, str, str]] = list(db.execute(query, (sink.number, untouched_since)))
    if not rows:
        return
    with outbox.transaction():
        for customer, dimension, value, grain in rows:
            total = Carried(*outbox.remainder(sink, "", dimension)).exact + Carried(int(value), int(grain)).exact
            outbox.leave(sink, "", dimension, total.numerator, total.denominator, untouched_since)
            key = (sink.number, customer, dimension)
            db.execute("DELETE FROM remainder WHERE sink=? AND customer=? AND dimension=?", key)
