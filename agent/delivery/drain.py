"""Draining one sink: freeze, prepare, deliver, acknowledge (DESIGN §7). At each step a crash repeats nothing."""

from collections.abc import Callable

from agent.sinks import Sink
from agent.spool.outbox import Outbox


def drain_one(sink: Sink, outbox: Outbox, clock: Callable[[], int]) -> int | None:
    """Deliver the next submission; returns how many records it held, or None when the sink is owed nothing.

    What was prepared before, by an earlier try or an earlier process, comes first and as it was: only when all of it
    is delivered is anything frozen anew. Raises SinkError when the sink cannot be used now.
    """
    prepared = outbox.prepared(sink.id)
    if prepared:
        submission = prepared[0]
        members = outbox.members(submission)
    else:
        batch = outbox.next(sink.id, sink.max_batch)
        if batch is None:
            return None
        if not batch.seqs:
            outbox.skip(sink.id, batch)
            return 0
        name, digest = sink.freeze(batch.seqs[0], batch.seqs[-1], batch.lines)
        submission = outbox.prepare(sink.id, batch, name, digest, clock())
        members = list(zip(batch.ids, batch.seqs, strict=True))
    sink.deliver(submission)
    outbox.delivered(submission, members, clock())
    return len(members)
