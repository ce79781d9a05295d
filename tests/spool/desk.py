"""A spool with one sink, and somebody who decides."""

from collections.abc import Callable
from pathlib import Path

from agent.clock import Moment
from agent.delivery.quantity import Measure
from agent.delivery.rendering import Route
from agent.sinks import Answer, Terms
from agent.spool.acts import ACTS
from agent.spool.deliveries import states
from agent.spool.outbox import Outbox
from tests.spool.draining import Billing, drain
from tests.spool.ledger import NOON, S, opened

LOST = Answer(outcome="ambiguous", why="timed out")
REFUSED = Answer(outcome="rejected", why="400: no such customer", definite=True)
TAKEN_BEFORE = Answer(outcome="duplicate", why="409: known")
FORGETFUL = Terms(max_batch=100, dedupe_horizon=0)  # what may have arrived is a person's at once
KIBI = Route(measures={"cpu": Measure("cpu", "kibi", per=1024, scale=1)})


class Desk:
    """A spool with one sink, `billing`, and somebody who decides."""

    def __init__(self, path: Path, *answers: Answer, terms: Terms | None = None) -> None:
        self.spool = opened(path)
        self.outbox = Outbox(self.spool)
        self.sink = Billing("billing", *answers, terms=terms)
        self.outbox.register("billing", "billing", "billing", b"{}", since=0)
        self.now = NOON

    def drain(self, route: Route | None = None) -> None:
        """A minute later, all that can be sent."""
        self.now += 60 * S
        drain(self.sink, self.outbox, self.now, route)

    def act(self, name: str, **arguments: object) -> object:
        """Another minute later."""
        self.now += 60 * S
        return ACTS[name](self.outbox, lambda: Moment(self.now, self.now), "uid 7", arguments)

    def state(self, seq: int = 1) -> str:
        return states(self.spool.db, seq)["billing"]

    def hold(self, first: int, last: int) -> None:
        self.spool.db.execute("INSERT INTO held VALUES(?,?,'restored',0)", (first, last))

    def held(self) -> list[tuple[int, int]]:
        return list(self.spool.db.execute("SELECT first, last FROM held ORDER BY first"))

    def sent(self, seq: int = 1) -> list[bytes]:
        """The bytes of every time that a record was sent."""
        return [payload for number, payload in self.sink.sent if number == seq]


Start = Callable[..., Desk]


def ambiguous(start: Start, *then: Answer) -> Desk:
    """Its record may or may not have arrived."""
    desk = start(LOST, *then, terms=FORGETFUL)
    desk.drain()
    assert desk.state() == "ambiguous"
    return desk


def rejected(start: Start) -> Desk:
    """Its record was refused."""
    desk = start(REFUSED)
    desk.drain()
    assert desk.state() == "rejected"
    return desk
