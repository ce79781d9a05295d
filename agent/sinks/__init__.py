"""Where records go. A sink freezes a batch durably before its first byte leaves, and can be asked again."""

from collections.abc import Sequence
from typing import Protocol

from agent.spool.outbox import Submission


class Sink(Protocol):
    """One billing back end."""

    id: str
    kind: str
    role: str
    max_batch: int

    def freeze(self, first: int, last: int, lines: Sequence[bytes]) -> tuple[str, bytes]:
        """Render a batch durably without sending it: its name and SHA-256. Blocking. Raises SinkError."""

    def deliver(self, submission: Submission) -> None:
        """Send what was frozen; returns when it is delivered, now or before. Blocking. Raises SinkError."""

    def sweep_up(self, prepared: Sequence[Submission]) -> None:
        """At start: discard what was frozen but never prepared, for it will be frozen again."""
