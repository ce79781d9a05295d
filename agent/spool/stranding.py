"""What was frozen for a place that is not known any more: what may be there is a person's, the rest waits."""

from agent.spool.acts.choice import withdraw
from agent.spool.epoch import doubt
from agent.spool.outbox import Outbox, Standing

WHY = "it went elsewhere, and where that was is not known any more"


def strand(outbox: Outbox, sink: Standing, now: int) -> None:
    """Settle what is open at a sink, and have what has surely not left rendered anew. Inside a transaction."""
    db = outbox.spool.db
    doubt(db, now, WHY, sink=sink.number)
    query = "SELECT i.seq FROM item AS i JOIN submission AS s ON s.id=i.submission WHERE i.sink=? AND outcome IS NULL"
    for (seq,) in list(db.execute(query, (sink.number,))):
        withdraw(outbox, sink, seq, now)
    db.execute("UPDATE submission SET settled=? WHERE sink=? AND settled IS NULL", (now, sink.number))
