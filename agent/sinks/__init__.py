"""Where records go: what a back end declares, what it is handed, and what it answers (DESIGN §7, laws L9 and L10).

A sink decides nothing about retries, ambiguity or order: it renders one record, sends one submission as it was frozen,
and says what came back. `agent/delivery` does the rest, for every sink alike.
"""

from collections.abc import AsyncIterator, Collection, Mapping
from typing import Literal, Protocol, runtime_checkable

from msgspec import Struct

from agent.record import UsageRecord
from agent.spool.outbox import Submission

Outcome = Literal["delivered", "duplicate", "conflict", "rejected", "retry", "ambiguous"]


class Terms(Struct, frozen=True, kw_only=True):
    """What a back end takes and promises. Times in ns."""

    max_batch: int
    max_bytes: int = 1 << 62
    """Most that the items of a submission may come to."""
    concurrency: int = 1
    rate: int | None = None
    """Submissions per second; None: as fast as it answers."""
    max_age: int | None = None
    """Older usage is not taken; None: any age is."""
    dedupe_horizon: int | None = None
    """How long a repeated id is recognised; 0: never; None: for ever."""
    key: Literal["record", "natural"] = "record"
    """What it recognises a repeat by: our id, or customer, dimension and time."""
    splits: bool = True
    """Whether a batch may be sent in parts; False where the batch is what is recognised."""
    negative: bool = False
    """Whether it takes negative quantities."""
    verbatim: bool = False
    """Whether it is sent the ledger's own lines where no dimension has a unit of its own."""
    asks: bool = False
    """Whether nothing may be sent before `ask` finds nothing wrong."""
    staged: bool = False
    """Whether `stage` has something to do before a submission may leave."""
    visibility_delay: int | None = None
    """How long after it was taken usage may still not be seen when it is read back; None: it cannot be read back."""


class Answer(Struct, frozen=True, kw_only=True):
    """What came of one attempt: `outcome` for every item that `items` (by sequence number) does not name.

    `split`: all of it was refused as a batch, and its parts may fare better.
    """

    outcome: Outcome | Literal["split"]
    why: str
    """One line for people: status and what was said. Never a credential."""
    items: Mapping[int, tuple[Outcome, str]] = {}
    left: bool = True
    """False when surely no byte left."""
    definite: bool = False
    """The answer is on the sink's list of definite refusals: nothing of this submission was taken."""
    after: int | None = None
    """Not before so many ns (Retry-After)."""
    blocked: bool = False
    """Nothing will be taken until a person acts: wrong credentials, or a back end that says it is gone."""


class Entry(Struct, frozen=True):
    """One record as a sink is to render it. `value` is decimal, in the unit of the sink's dimension."""

    record: UsageRecord
    id: str
    seq: int
    value: str
    unit: str
    dimension: str  # the sink's own name of it
    customer: str  # the sink's own id of them
    at: int  # ns: the instant that the sink's timestamp policy gives


class Finding(Struct, frozen=True):
    """One thing that was tried of a sink, for `doctor` and the start: whether it holds, and the cure if not."""

    what: str
    ok: bool
    why: str
    cure: str = ""


class Sink(Protocol):
    """One billing back end."""

    id: str
    kind: str
    role: str
    terms: Terms

    def render(self, entry: Entry) -> bytes:
        """One record as it will be sent, to be frozen: the same entry gives the same bytes.

        Raises ValueError saying why it cannot be told.
        """

    async def stage(self, submission: Submission) -> None:
        """Make ready what may be made ready before anything leaves; done again after a crash. Raises SinkError."""

    async def send(self, submission: Submission) -> Answer:
        """Send what was frozen. Never raises for what a network or a back end can do."""

    async def ask(self) -> list[Finding]:
        """Whether it can be reached and takes our credentials, and whether it sums what it gets. Sends no usage."""

    async def close(self) -> None:
        """Let go of connections."""


class Look(Struct, frozen=True, kw_only=True):
    """What reading back found of one submission."""

    found: Mapping[int, str] = {}
    """Sequence number → how it was recognised, in one line."""
    why: str
    """What was asked and what was answered, for people. Never a credential."""
    failed: bool = False
    """It could not be read, or not all of it: nothing is known of what was not found."""


@runtime_checkable
class Readable(Sink, Protocol):
    """A sink whose back end can be asked for what it took. Its terms have a `visibility_delay`."""

    async def look(self, submission: Submission) -> Look:
        """Which of these records it holds. Never raises for what a network or a back end can do."""


class Holding(Struct, frozen=True):
    """One thing that a back end holds, for `reconcile`: `value` is decimal, in the unit of the sink's dimension."""

    customer: str  # the sink's own id of them
    dimension: str  # the sink's own name of it
    value: str
    at: int  # ns: the instant that it has for it
    id: str | None = None  # our record's id, where it tells


@runtime_checkable
class Accountable(Sink, Protocol):
    """A sink whose back end can be asked for all that it holds."""

    def holdings(self, start: int, end: int, customers: Collection[str]) -> AsyncIterator[Holding]:
        """All that it holds of these customers in `[start, end)`, ns. Raises SinkError with the cure."""
