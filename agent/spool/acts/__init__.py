"""What a person decides about records and sinks: each act is one transaction, with its line in the audit trail.

No act makes a record be sent again that a sink has taken, and none makes one vanish without a reason. What may have
arrived is sent again only as it was frozen (L3); what surely has not is rendered anew.
"""

from collections.abc import Callable, Mapping
from typing import TypeVar

import msgspec

from agent.clock import Moment
from agent.errors import AgentError
from agent.spool.acts import sinks
from agent.spool.acts.choice import Choice, Done, OfSink
from agent.spool.acts.confirming import Confirm, confirm
from agent.spool.acts.doubt import Resolve, resolve
from agent.spool.acts.erasing import Erase, erase, scrub
from agent.spool.acts.refusal import drop, requeue
from agent.spool.outbox import Outbox

Act = Callable[[Outbox, Callable[[], Moment], str, Mapping[str, object]], object]
"""Gets the outbox, the clock, who asks, and what for; answers a line for people. On the spool's thread.
Raises AgentError, and then has done nothing."""

T = TypeVar("T", bound=Choice | OfSink | Erase | Confirm)


def _act(
    name: str,
    shape: type[T],
    do: Callable[[Outbox, T, Moment], Done],
    *,
    needs_reason: bool = False,
    then: Callable[[Outbox], None] = lambda _: None,
) -> tuple[str, Act]:
    def act(outbox: Outbox, clock: Callable[[], Moment], who: str, arguments: Mapping[str, object]) -> object:
        try:
            wanted = msgspec.convert(arguments, shape)
        except msgspec.ValidationError as error:
            raise AgentError(f"{name}: {error}") from error
        if needs_reason and not wanted.reason.strip():
            raise AgentError(f"{name}: --reason is empty. Say why, for whoever reads the audit trail.")
        now = clock()
        with outbox.transaction():
            done = do(outbox, wanted, now)
            row = (now.billing, who, f"{name} {done.what}", wanted.reason)
            outbox.spool.db.execute("INSERT INTO audit(at, who, what, why) VALUES(?,?,?,?)", row)
        then(outbox)
        return done.told

    return name, act


ACTS: Mapping[str, Act] = dict(
    [
        _act("spool resolve", Resolve, resolve),
        _act("spool requeue", Choice, requeue),
        _act("spool drop", Choice, drop, needs_reason=True),
        _act("spool erase", Erase, erase, needs_reason=True, then=scrub),
        _act("sink confirm", Confirm, confirm),
        _act("sink drain", OfSink, sinks.drain),
        _act("sink discard", OfSink, sinks.discard, needs_reason=True),
        _act("sink pause", OfSink, sinks.pause),
        _act("sink resume", OfSink, sinks.resume),
    ]
)
"""By the command's name."""
