"""The spool as it stands: whether an agent runs on it, whether it is sound, and what waits in it."""

import os
from collections.abc import Iterator
from pathlib import Path

from agent.cli.health import Check, existing, judged
from agent.clock import ClockState
from agent.config import Config
from agent.errors import AgentError
from agent.model import NS_PER_S
from agent.spool import glance
from agent.spool.ledger import Ledger, opened

LATE = 3600 * NS_PER_S  # a backlog older than this has outlived most outages
STALL_SWEEPS = 3  # sample intervals without a commit after which something is wrong, as /healthz has it
FILE = "spool.db"
SALVAGE = "Delete nothing: the next start sets it aside and salvages it. `metering-agent spool fsck` reads all of it."


def spool(cfg: Config, now: int, boottime: int, boot: str) -> tuple[list[Check], ClockState | None, int | None]:
    """The checks, the clock that it keeps, and the pid of the agent on it (0: out of sight; None: none runs).

    `now`: the wall clock; `boottime`: the time in the boot of this id; all in ns.
    """
    directory = cfg.agent.data_dir
    try:
        there = existing(directory / FILE)
        agent = glance.holder(directory)
    except OSError as error:
        return [judged("spool", "file", "required", None, f"{directory}: {error.strerror}")], None, None
    runs = "none runs" if agent is None else "one runs" if agent == 0 else f"pid {agent} runs"
    found = [judged("spool", "agent", "informative", holds=True, found=runs)]
    if there != directory / FILE:
        found.append(
            judged("spool", "file", "informative", holds=True, found="not there yet: the first start makes it")
        )
        return found, None, agent
    if not os.access(there, os.R_OK):
        found.append(judged("spool", "file", "required", None, f"{there}: not for uid {os.geteuid()}"))
        return found, None, agent
    try:
        with opened(directory) as db:
            found += _stands(cfg, db, there, now)
            found += _swept(cfg, db, boottime, boot) if agent is not None else []
            return found, glance.clock_state(db), agent
    except AgentError as error:
        cure = SALVAGE
        found.append(judged("spool", "file", "required", holds=False, found=str(error), cure=cure))
        return found, None, agent


def _swept(cfg: Config, db: Ledger, boottime: int, boot: str) -> Iterator[Check]:
    """Of each source, whether the agent that runs has committed a sweep lately."""
    cursors = glance.cursors(db)
    limit = STALL_SWEEPS * max(cfg.agent.sample_interval, 10 * NS_PER_S)
    for source in cfg.sources:
        cursor = cursors.get(source.id)
        age = boottime - cursor.stamp if cursor is not None and cursor.boot == boot else None
        found = f"{max(0, age) // NS_PER_S:,} s ago" if age is not None else "none in this boot"
        cure = "The agent's log says why: `journalctl -u metering-agent`, or where else it goes."
        fresh = age is not None and age <= limit
        yield judged("spool", f"last sweep of {source.id}", "required", fresh, found, cure)


def _stands(cfg: Config, db: Ledger, file: Path, now: int) -> Iterator[Check]:
    wrong = glance.unsound(db)
    cure = (
        "Nothing is to be deleted: the next start sets it aside and salvages it. `metering-agent spool fsck` reads all."
    )
    size, cap = glance.size(file.parent), cfg.spool.max_bytes
    found = f"{file}, {size >> 20:,} of {cap >> 20:,} MiB, {glance.last(db):,} records so far"
    yield judged("spool", "file", "required", wrong is None, wrong or found, cure)
    held = glance.held(db)
    cure = "They wait for a person: `metering-agent spool ls --held`."
    yield judged("spool", "held", "optional", held == 0, f"{held:,} records", cure)
    for out in glance.outflows(db):
        age = max(0, now - out.oldest) // NS_PER_S if out.oldest is not None else 0
        stuck = ", ".join(f"{count:,} {outcome}" for outcome, count in out.stuck.items())
        cure = f"See what sinks[{out.sink}] answers, below and by `metering-agent sink ls`."
        owes = f"{out.owed:,} records" + (f", the oldest for {age:,} s" if out.owed else "")
        if out.why is not None:
            owes += f"; last answer: {out.why}"
        fresh = out.state == "paused" or age * NS_PER_S <= LATE
        yield judged("spool", f"owed to {out.sink}", "optional", fresh, f"{owes} ({out.state})", cure)
        cure = "Decide: `metering-agent spool ls --sink` lists them, `spool resolve`, `requeue` or `drop` settles them."
        yield judged("spool", f"stuck at {out.sink}", "optional", not stuck, stuck or "none", cure)
