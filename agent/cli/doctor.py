"""`metering-agent doctor`: whether this machine, this configuration and the sinks are ready, and the cure where not."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

from agent import clock as wall
from agent.cli.health import Check, groups, keeping, machine, place, pods
from agent.cli.health.sinks import Build, Heard, sinks
from agent.cli.show import lines, table
from agent.config import Config
from agent.errors import AgentError
from agent.sources import kernel


def diagnose(cfg: Config, file: Path, build: Build) -> list[Check]:
    """Everything that can be looked at, by part. `build` makes a sink of its section."""
    now, boottime = wall.now()
    found = list(place.permissions(cfg, file))
    grouped, directories = groups.cgroups(cfg)
    kept, state, agent = keeping.spool(cfg, now, boottime, _boot())
    heard = Heard()
    asked = asyncio.run(_asked(cfg, build, heard))
    found += grouped
    of_node, followed = pods.node(cfg)
    found += of_node
    found += machine.clock(now, boottime, synchronised=wall.synchronised(), kept=state, boot=_boot())
    found.append(machine.services())
    found += machine.dates(heard.dates)
    found += place.disk(cfg)
    found += kept
    found += machine.kernel(directories + followed, agent)
    return [*found, *asked]


async def _asked(cfg: Config, build: Build, heard: Heard) -> list[Check]:
    return [*await pods.asked(cfg), *await sinks(cfg, build, heard)]


def _boot() -> str:
    try:
        return kernel.boot_id()
    except AgentError:  # no /proc: no boot's anchor is this one's
        return ""


def sound(checks: Sequence[Check]) -> bool:
    """Whether everything that is required was seen to hold."""
    return all(check.result == "ok" for check in checks if check.need == "required")


def tell(checks: Sequence[Check]) -> None:
    """A table for people, and below it what to do, what is required first."""
    rows = [[_mark(check), check.area, check.what, check.need, check.found] for check in checks]
    table(("", "area", "check", "", "found"), rows)
    wrong = sorted((check for check in checks if check.cure), key=lambda check: check.need != "required")
    lines([""] if wrong else [])
    lines(f"{_mark(check)} {check.area}: {check.what}: {check.cure}" for check in wrong)
    required = [check for check in checks if check.need == "required"]
    held = sum(check.result == "ok" for check in required)
    lines(["", f"{held} of {len(required)} required checks hold."])


def _mark(check: Check) -> str:
    if check.result != "fails":
        return check.result
    return "FAIL" if check.need == "required" else "warn"


def plain(checks: Sequence[Check]) -> dict[str, object]:
    """The same for programs."""
    return {"sound": sound(checks), "checks": checks}
