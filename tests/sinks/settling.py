"""Records sent by one sink until each has met its end: the judgement is the agent's, the spool is a list."""

import itertools
from collections.abc import Sequence

from agent.clock import Moment
from agent.delivery.judgement import judge
from agent.sinks import Sink
from agent.spool.outbox import Item, Submission

TRIES = 200


async def settled(sink: Sink, payloads: Sequence[bytes], *, batch: int | None = None) -> dict[int, tuple[str, str]]:
    """What each record, by its place from 1, came to. Raises AssertionError where that takes too many tries."""
    numbers = itertools.count(1)
    items = [Item(seq, payload) for seq, payload in enumerate(payloads, 1)]
    most = batch or sink.terms.max_batch
    waiting = [_of(next(numbers), items[i : i + most], None) for i in range(0, len(items), most)]
    ends: dict[int, tuple[str, str]] = {}
    for attempt in range(TRIES):
        if not waiting:
            return ends
        submission = waiting.pop(0)
        answer = await sink.send(submission)
        assert not answer.blocked, answer.why
        verdict = judge(submission, answer, sink.terms, attempt + 1, Moment(attempt + 2, attempt + 2).age)
        ends |= verdict.settled
        left = [item for item in submission.items if item.seq not in verdict.settled]
        groups = verdict.groups or ((tuple(item.seq for item in left),) if left else ())
        for group in groups:
            some = [item for item in left if item.seq in group]
            waiting.append(_of(next(numbers), some, verdict.tainted))
    raise AssertionError(f"still waiting: {waiting}")


def _of(number: int, items: Sequence[Item], tainted: int | None) -> Submission:
    first, last = items[0].seq, items[-1].seq
    return Submission(number, 1, f"1-{number}", first, last, 0, 0 if tainted is None else 1, tainted, tuple(items))
