"""What rounding has left of customers who fell silent (ACCOUNTING §7)."""

from math import lcm

from agent.spool.outbox import Outbox, Standing


def close_out(outbox: Outbox, sink: Standing, untouched_since: int) -> None:
    """Move what was not touched since (billing time, ns) to the sink's rounding account, which nobody is sent.

    It is below half a step, so that submitting it rounded once would submit nothing. The account is the remainder of
    no customer, so the law's sum goes on to hold.
    """
    db = outbox.spool.db
    with outbox.transaction():
        query = "SELECT customer, dimension, value, grain FROM remainder WHERE sink=? AND customer<>'' AND touched<?"
        rows: list[tuple[str, str, str, str]] = list(db.execute(query, (sink.number, untouched_since)))
        for customer, dimension, value, grain in rows:
            total, fine = outbox.remainder(sink, "", dimension)
            common = lcm(fine, int(grain))
            total = total * (common // fine) + int(value) * (common // int(grain))
            outbox.leave(sink, "", dimension, total, common, untouched_since)
            key = (sink.number, customer, dimension)
            db.execute("DELETE FROM remainder WHERE sink=? AND customer=? AND dimension=?", key)
