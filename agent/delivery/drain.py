"""Draining one sink: freeze, prepare, deliver, acknowledge (DESIGN §7). At each step a crash repeats nothing."""

from collections.abc import Callable

from agent.sinks import Sink
from agent.spool.outbox import Outbox


def resume(sink: Sink, outbox: Outbox, now: int) -> int:
    """Finish what was prepared before the last stop; returns how many submissions that were."""
    prepared = outbox.prepared(sink.id)
    sink.sweep_up(prepared)
    for submission in prepared:
        sink.deliver(submission)
        outbox.delivered(submission, None, now)
    return len(prepared)


def drain_one(sink: Sink, outbox: Outbox, clock: Callable[[], int]) -> int | None:
    """Deliver the next batch; returns how many records that were, or None when the sink is owed nothing."""
    batch = outbox.next(sink.id, sink.max_batch)
    if batch is None:
        return None
    if not batch.seqs:
        outbox.skip(sink.id, batch)
        return 0
    name, digest = sink.freeze(batch.seqs[0], batch.seqs[-1], batch.lines)
    submission = outbox.prepare(sink.id, batch, name, digest, clock())
    sink.deliver(submission)
    outbox.delivered(submission, list(zip(batch.ids, batch.seqs, strict=True)), clock())
    return len(batch.seqs)
