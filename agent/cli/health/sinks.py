"""Each sink: whether it is reached, takes our credentials, and adds what it gets. No usage is sent."""

import asyncio
import os
import time
from collections.abc import Callable

from agent.cli.health import Check, Need, existing, judged
from agent.config import Config, FileSink, SinkSection, Told
from agent.errors import AgentError
from agent.model import NS_PER_S
from agent.sinks import Finding, Sink

Build = Callable[[SinkSection, Callable[[int], None]], Sink]
PATIENCE = 2 * NS_PER_S  # beyond what a sink itself allows for its answers


class Heard:
    """The dates that sinks' answers bore, in seconds of the epoch, each with our clock then, in ns."""

    def __init__(self) -> None:
        self.dates: dict[str, tuple[int, int]] = {}

    def by(self, sink: str) -> Callable[[int], None]:
        """What is to be told one sink's dates."""

        def dated(date: int) -> None:
            self.dates[sink] = (date, time.time_ns())

        return dated


async def sinks(cfg: Config, build: Build, heard: Heard) -> list[Check]:
    """Every configured sink, all at once."""
    asked = await asyncio.gather(*(_ask(section, build, heard) for section in cfg.sinks))
    return [check for checks in asked for check in checks]


async def _ask(section: SinkSection, build: Build, heard: Heard) -> list[Check]:
    area, need = f"sinks[{section.id}]", _need(section)
    try:
        if isinstance(section, FileSink) and existing(section.path) != section.path:
            found = f"{section.path} is not there yet: the agent makes it"  # to build the sink would make it now
            return [judged(area, "asked", "informative", holds=True, found=found)]
        unseen = _unseen(section)
    except OSError as error:
        unseen = f"{error.filename}: {error.strerror}"
    if unseen is not None:
        return [judged(area, "asked", need, None, unseen)]
    try:
        sink = build(section, heard.by(section.id))
    except (AgentError, ValueError) as error:
        return [judged(area, "asked", need, holds=False, found=str(error), cure="Correct this first.")]
    try:
        async with asyncio.timeout(_patience(section) / NS_PER_S):
            findings = await sink.ask()
    except TimeoutError:
        findings = [Finding("reachable", False, f"no answer within {_patience(section) // NS_PER_S} s", "Is it up?")]
    except AgentError as error:
        findings = [Finding("reachable", False, str(error), "Correct this first.")]
    finally:
        await sink.close()
    checks = [judged(area, found.what, need, found.ok, found.why, found.cure) for found in findings]
    if isinstance(section, Told) and section.role == "billing" and (vouched := section.summed()):
        found = f"of {', '.join(sorted(vouched))} you vouch for it by `aggregation: sum`"
        checks.append(judged(area, "adds what it gets", "informative", holds=True, found=found))
    return checks


def _need(section: SinkSection) -> Need:
    return "required" if section.role == "billing" else "optional"


def _patience(section: SinkSection) -> int:
    return PATIENCE + section.allows


def _unseen(section: SinkSection) -> str | None:
    """Why it is not to be asked by us: it would refuse us for want of a file that is not ours to read."""
    uid = os.geteuid()
    if isinstance(section, FileSink):
        return None if os.access(section.path, os.W_OK) else f"{section.path}: not for uid {uid}"
    for file in {**section.secrets(), **section.files()}.values():
        if file is not None and uid != 0 and not os.access(file, os.R_OK):
            return f"{file}: not for uid {uid}"
    return None
