# ruff: noqa: S608 - the SQL is put together from fragments of our own
"""The life of a sink: paused, resumed, drained for good, or given up with all that it is owed (DESIGN §7)."""

from agent.clock import Moment
from agent.errors import AgentError
from agent.spool.acts.choice import Done, OfSink, sink_of
from agent.spool.deliveries import DUE, ITEM, STATE, sink_states
from agent.spool.epoch import settle_empty
from agent.spool.outbox import Outbox
from agent.spool.remembered import end
from agent.spool.schema import STUCK


def drain(outbox: Outbox, wanted: OfSink, _now: Moment) -> Done:
    """Let a sink take what it is owed now, and nothing that comes. Removing it is the daemon's, when that is over."""
    sink = sink_of(outbox, wanted.sink)
    outbox.retire(sink)
    end(outbox.spool.db, sink.id, ended=True)
    (left,) = (found for found in sink_states(outbox.spool.db) if found.sink == wanted.sink)
    told = f"{left.owed} records are still to be sent, {sum(left.stuck.values())} wait for a person"
    cure = "Take it out of the configuration, and it is removed when none are left; `sink resume` takes this back."
    return Done(wanted.sink, f"{wanted.sink} gets nothing new; {told}. {cure}")


def discard(outbox: Outbox, wanted: OfSink, now: Moment) -> Done:
    """Drop everything that a sink is owed, and forget the sink."""
    sink, db = sink_of(outbox, wanted.sink), outbox.spool.db
    if outbox.has_open(sink) and not sink.paused:
        cure = f"First: `metering-agent sink pause {sink.id}`."
        raise AgentError(f"records may be on their way to {sink.id}. {cure}")
    values = ("dropped", now.billing, wanted.reason, sink.number)
    db.execute(
        "INSERT INTO item(sink, seq, outcome, at, why) SELECT s.number, r.seq, ?, ?, ? FROM sink AS s JOIN record AS r"
        f" {ITEM} WHERE s.number=? AND i.seq IS NULL AND {STATE} IN {DUE}",
        values,
    )
    count = db.changes()
    unsettled = f"(outcome IS NULL OR outcome IN {STUCK})"
    db.execute(f"UPDATE item SET outcome=?, at=?, why=? WHERE sink=? AND {unsettled}", values)
    count += db.changes()
    settle_empty(db, now.billing)
    outbox.remove(sink)
    told = f"{sink.id} is removed; {count} records will never reach it. Take it out of the configuration too."
    return Done(f"{sink.id}: {count} records dropped, the sink removed", told)


def pause(outbox: Outbox, wanted: OfSink, _now: Moment) -> Done:
    """Send a sink nothing until it is resumed."""
    outbox.pause(sink_of(outbox, wanted.sink), paused=True)
    return Done(wanted.sink, f"{wanted.sink} is paused: what it is owed waits. What is under way is still answered.")


def resume(outbox: Outbox, wanted: OfSink, _now: Moment) -> Done:
    """Send a sink again what it is owed; one that was drained, and is configured, what comes from now on too."""
    sink = sink_of(outbox, wanted.sink)
    outbox.pause(sink, paused=False)
    end(outbox.spool.db, sink.id, ended=False)
    return Done(wanted.sink, f"{wanted.sink} is sent to.")
