"""An outbox over a real spool, what to freeze for its sinks, and what became of it."""

from agent.clock import Moment
from agent.record import record_id, with_seq
from agent.spool.outbox import Draft, Outbox, Rendered, Settled, Standing, Submission, Unsent
from tests.spool.ledger import NOON

WHY = "said so"


def told(seq: int, _kind: str, body: bytes) -> Rendered:
    """A record as some sink would be sent it."""
    return Draft(seq, record_id(body).bytes, b"told %d" % seq)


def verbatim(seq: int, _kind: str, body: bytes) -> Rendered:
    """As the file sink is."""
    return Draft(seq, record_id(body).bytes, with_seq(body, seq), kept=False)


def usage_only(seq: int, kind: str, body: bytes) -> Rendered:
    """As a billing sink is."""
    return told(seq, kind, body) if kind == "usage" else None


def unrouted(seq: int, _kind: str, body: bytes) -> Rendered:
    """As where no sink takes it."""
    return Unsent(seq, record_id(body).bytes, "unrouted", WHY)


def registered(outbox: Outbox, sink: str = "sink", since: int | None = 0) -> Standing:
    """Known to the spool."""
    return outbox.register(sink, "fake", "billing", b"{}", since=since)


def standing(outbox: Outbox, sink: str = "sink") -> Standing:
    """As it stands now."""
    return outbox.sinks()[sink]


def freeze(
    outbox: Outbox,
    sink: str = "sink",
    *,
    render: object = told,
    batches: int = 1,
    max_batch: int = 10,
    max_bytes: int = 1 << 30,
    now: int = NOON,
) -> list[Submission]:
    """In a transaction of its own."""
    with outbox.transaction():
        return outbox.freeze(
            standing(outbox, sink),
            render,  # type: ignore[arg-type]
            batches=batches,
            max_batch=max_batch,
            max_bytes=max_bytes,
            now=Moment(now, now),
        )


def settle(outbox: Outbox, submission: Submission, *seqs: int, outcome: Settled = "delivered") -> None:
    """These of its items; without any, all."""
    outbox.settle(submission, dict.fromkeys(seqs or numbers(submission), (outcome, WHY)), NOON)


def numbers(submission: Submission) -> list[int]:
    """The sequence numbers of its items."""
    return [item.seq for item in submission.items]


def due(outbox: Outbox, now: int = NOON, sink: str = "sink", beside: tuple[int, ...] = ()) -> list[Submission]:
    """Whatever may be sent now."""
    return outbox.due(standing(outbox, sink), now, 100, beside)


def outcomes(outbox: Outbox, sink: str = "sink") -> dict[int, str | None]:
    """Sequence number → outcome."""
    rows = outbox.spool.db.execute(
        "SELECT seq, outcome FROM item WHERE sink=? ORDER BY seq", (standing(outbox, sink).number,)
    )
    return dict(rows)


def damage(outbox: Outbox, seq: int, body: bytes = b'{"kind":"usage","quantity":"999"}') -> None:
    """Bits rot on the disk."""
    outbox.spool.db.execute("UPDATE record SET body=? WHERE seq=?", (body, seq))
