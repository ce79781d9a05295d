"""Having something done to the spool: by the agent that runs, else here, under the same lock."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from agent import clock
from agent.cli.check import load
from agent.config import Config
from agent.control import ask
from agent.errors import CannotStartError
from agent.sources import kernel
from agent.spool import Spool
from agent.spool.identity import fingerprint
from agent.spool.ledger import opened


def act(config: Path, what: str, **arguments: object) -> object:
    """Have an act of `agent.spool.acts` done; what came of it, for people. Raises AgentError."""
    cfg = load(config)
    given = {name: value for name, value in arguments.items() if value is not None}
    try:
        return ask(cfg.agent.data_dir, what, **given)
    except CannotStartError:  # no agent runs there: the spool is ours to lock
        from agent.metering import clock_of
        from agent.spool.acts import ACTS
        from agent.spool.outbox import Outbox

        with writing(cfg) as spool:
            kept = clock_of(spool, kernel.boot_id(), *clock.now(), cfg.agent.clock.accept_after)
            return ACTS[what](Outbox(spool), lambda: kept.moment(*clock.now()), asker(), given)


@contextmanager
def writing(cfg: Config) -> Iterator[Spool]:
    """The spool that `cfg` names, which must be there, locked. Raises CannotStartError."""
    with opened(cfg.agent.data_dir):  # opening it to write would make it
        pass
    spool = Spool.open(
        cfg.agent.data_dir,
        run_dir=cfg.agent.run_dir,
        fingerprint=fingerprint(),
        now=time.time_ns(),
        max_bytes=cfg.spool.max_bytes,
        reserve=cfg.spool.reserve,
    )
    try:
        yield spool
    finally:
        spool.close()


def asker() -> str:
    """Who runs this command, for the audit trail."""
    return f"uid {os.getuid()}"
