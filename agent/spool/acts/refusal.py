"""What has surely not arrived: it is rendered anew, or never sent."""

from agent.clock import Moment
from agent.errors import AgentError
from agent.spool.acts.choice import Choice, Done, done, numbers, some, state_at, withdraw
from agent.spool.deliveries import DUE
from agent.spool.epoch import settle_empty
from agent.spool.outbox import Outbox, Standing
from agent.spool.schema import MAY_BE_THERE, STUCK

REFUSED = ("rejected", "unrouted", "dropped", "conflict")  # the sink surely did not take these from us


def requeue(outbox: Outbox, wanted: Choice, now: Moment) -> Done:
    """Let what was refused be rendered again, by today's configuration."""
    sink, seqs = some(outbox, wanted, REFUSED)
    db = outbox.spool.db
    for seq in seqs:
        outcome, submission, why = _item(outbox, sink, seq)
        if outcome not in REFUSED:
            cure = "Use `spool resolve`." if outcome == "ambiguous" else "Only what a sink refused can be requeued."
            raise AgentError(f"record {seq} is {state_at(outbox, sink, seq)} at {sink.id}. {cure}")
        if outcome == "dropped" and submission is not None:
            raise AgentError(f"record {seq} may have arrived at {sink.id} before it was dropped: it is not sent again.")
        if outcome == "rejected" and (why or "").endswith(MAY_BE_THERE) and not wanted.reason.strip():
            cure = f"Ask {sink.id} whether it has it. If it has: `spool drop`; if not, say so with --reason."
            raise AgentError(f"record {seq} was refused, but {MAY_BE_THERE}, and would be billed twice. {cure}")
        held = "SELECT reason FROM held WHERE ? BETWEEN first AND last"
        for (reason,) in db.execute(held, (seq,)):
            raise AgentError(f"record {seq} is held: {reason}. First: `metering-agent spool resolve {seq}`.")
        withdraw(outbox, sink, seq, now.billing)
    query = "UPDATE item SET outcome=NULL, at=NULL, why=NULL WHERE sink=? AND seq=?"
    db.executemany(query, [(sink.number, seq) for seq in seqs])
    return done(f"{numbers(seqs)} at {sink.id}", len(seqs))


def drop(outbox: Outbox, wanted: Choice, now: Moment) -> Done:
    """Never send these to this sink (again)."""
    sink, seqs = some(outbox, wanted, STUCK)
    for seq in seqs:
        _drop(outbox, sink, seq, wanted.reason, now.billing)
    settle_empty(outbox.spool.db, now.billing)
    return done(f"{numbers(seqs)} at {sink.id}", len(seqs))


def _drop(outbox: Outbox, sink: Standing, seq: int, reason: str, now: int) -> None:
    state = state_at(outbox, sink, seq)
    if state not in (*DUE, *STUCK):
        raise AgentError(f"record {seq} is {state} at {sink.id}: there is nothing to drop.")
    if state == "leaving" and not sink.paused:
        raise AgentError(f"record {seq} may be on its way to {sink.id}. First: `metering-agent sink pause {sink.id}`.")
    db = outbox.spool.db
    query = (
        "SELECT 1 FROM item AS i JOIN submission AS s ON s.id=i.submission WHERE i.sink=? AND seq=? AND tainted NOTNULL"
    )
    if state != "ambiguous" and not (state == "leaving" and db.execute(query, (sink.number, seq)).get):
        withdraw(outbox, sink, seq, now)
    db.execute(
        "INSERT INTO item(sink, seq, outcome, at, why) VALUES(?,?,'dropped',?,?) ON CONFLICT DO UPDATE"
        " SET outcome=excluded.outcome, at=excluded.at, why=excluded.why",
        (sink.number, seq, now, reason),
    )


def _item(outbox: Outbox, sink: Standing, seq: int) -> tuple[str | None, int | None, str | None]:
    """A record's outcome and submission at a sink, and what was said of it."""
    query = "SELECT outcome, submission, why FROM item WHERE sink=? AND seq=?"
    return next(iter(outbox.spool.db.execute(query, (sink.number, seq))), (None, None, None))
