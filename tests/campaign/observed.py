"""What a daemon under fault says of itself, in memory that outlives it: what it is about to do, what it has committed.

Only told, never changed: each wrapper calls what it wraps.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import apsw

from agent.delivery.drain import Drain
from agent.metering import Metering
from agent.sinks.cloudevents import CloudEventsSink
from agent.sinks.file import FileSink
from agent.spool import Spool
from tests.campaign.script import Shared


def begin(shared: Shared, read_at: Callable[[], int], pages: int) -> None:
    """From now on, in this process. `read_at`: when the last sweep was read; `pages`: of WAL to a checkpoint."""

    @contextmanager
    def phase(who: str, what: str) -> Iterator[None]:
        shared.tell(who, what)
        try:
            yield
        finally:
            shared.tell(who, "")

    def wrap(owner: type, name: str, who: str, what: Callable[..., str]) -> None:
        inner = getattr(owner, name)

        def told(self: Any, *args: Any, **more: Any) -> Any:
            with phase(who, what(*args)):
                return inner(self, *args, **more)

        setattr(owner, name, told)

    inner_open, inner_sweep, inner_send = Spool.open.__func__, Metering.sweep, CloudEventsSink.send  # type: ignore[attr-defined]

    def checkpointing(db: apsw.Connection, _name: str, grown: int) -> int:
        """As SQLite's own hook, which hides what fails; and it says so."""
        if grown >= pages:
            with phase("spool", "checkpoint"), suppress(apsw.Error):
                db.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
        return apsw.SQLITE_OK

    def open_(cls: type[Spool], *args: Any, **more: Any) -> Spool:
        with phase("spool", "open"):
            spool: Spool = inner_open(cls, *args, **more)
        spool.db.set_wal_hook(checkpointing)
        return spool

    def sweep(self: Metering, *args: Any, **more: Any) -> Any:
        with phase("spool", "sweep commit"):
            swept = inner_sweep(self, *args, **more)
        known = self.spool.db.execute("SELECT coalesce(max(seq), 0) FROM record").get
        shared.acknowledge(read_at(), int(str(known)))
        return swept

    async def send(self: CloudEventsSink, *args: Any) -> Any:
        with phase("loop", "send"):
            return await inner_send(self, *args)

    Spool.open = classmethod(open_)  # type: ignore[assignment,method-assign]
    Metering.sweep = sweep  # type: ignore[method-assign]
    CloudEventsSink.send = send  # type: ignore[assignment,method-assign]
    wrap(Metering, "adopt", "spool", lambda *_, **__: "adopt commit")
    wrap(Metering, "cut", "spool", lambda: "cut commit")
    wrap(Drain, "_note_leaving", "spool", lambda *_: "leaving commit")
    wrap(Drain, "_settle_and_take", "spool", lambda back, *_: "acknowledge commit" if back else "freeze commit")
    wrap(FileSink, "_write", "files", lambda *_: "temporary file")
    wrap(FileSink, "_show", "files", lambda *_: "rename")
