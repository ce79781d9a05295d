"""The clock that usage is billed by, and the limits that the kernel sets."""

import resource
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path

from agent.cli.health import Check, judged
from agent.cli.show import moment
from agent.cli.show import seconds as written
from agent.clock import BUILD_TIME, STEP, ClockState
from agent.model import NS_PER_S
from agent.sources.probe import SPARED

SERVICES = {  # what keeps a clock true → what it leaves while it runs
    "systemd-timesyncd": "run/systemd/timesync",
    "chrony": "run/chrony",
    "ntpd": "run/ntpd.pid",
    "openntpd": "run/openntpd.pid",
}
APART = 5  # seconds between our clock and another's beyond which one of them is wrong


def clock(wall: int, boottime: int, *, synchronised: bool, kept: ClockState | None, boot: str) -> Iterator[Check]:
    """What it shows, whether the kernel says it is kept true, and whether billing time follows it. Times in ns."""
    cure = "Set it: `timedatectl set-time`, or start a time service."
    yield judged("clock", "date", "required", wall >= BUILD_TIME, f"{moment(wall // NS_PER_S * NS_PER_S)}", cure)
    cure = "Run chrony or systemd-timesyncd; until then a step of the clock must be accepted by a person."
    found = "disciplined" if synchronised else "free-running, by adjtimex(2)"
    yield judged("clock", "synchronised", "optional", synchronised, found, cure)
    if kept is None or kept.boot != boot:
        return
    apart = wall - boottime - kept.anchor
    near = abs(apart) <= STEP
    found = f"the wall clock is {_signed(apart)} from billing time"
    if kept.pending is not None:
        found += f"; it stepped by {_signed(kept.pending)}, and until that is confirmed no window closes"
    cure = "If the wall clock is right: `metering-agent clock accept`. If not, set it right."
    yield judged("clock", "billing time", "required", near and kept.pending is None, found, cure)


def services(root: Path = Path("/")) -> Check:
    """Which time services leave their traces here."""
    running = [name for name, trace in SERVICES.items() if (root / trace).exists()]
    found = ", ".join(running) or "none seen; the host may run one outside of this container"
    return judged("clock", "time service", "informative", holds=True, found=found)


def against(sink: str, date: int, wall: int) -> Check:
    """Our clock against the date of a sink's answer: seconds of the epoch, and ns."""
    apart = wall // NS_PER_S - date
    shown = datetime.fromtimestamp(date, UTC)
    found = f"it answered at {shown:%Y-%m-%dT%H:%M:%SZ}, {abs(apart)} s {'before' if apart > 0 else 'after'} our clock"
    cure = "One of the two clocks is wrong. If it is ours, set it."
    return judged("clock", f"as sinks[{sink}] has it", "optional", abs(apart) <= APART, found, cure)


def kernel(
    groups: int, agent: int | None, root: Path = Path("/"), limits: tuple[int, int] | None = None
) -> Iterator[Check]:
    """What it takes to follow so many groups. `agent`: the pid that runs; its limits count, else our own."""
    watches = _number(root / "proc/sys/fs/inotify/max_user_watches")
    instances = _number(root / "proc/sys/fs/inotify/max_user_instances")
    if watches is not None:
        cure = (
            f"Set fs.inotify.max_user_watches={max(65_536, 4 * groups)} by sysctl: else each sweep walks all of them."
        )
        found = f"max_user_watches {watches:,} for {groups:,} groups"
        yield judged("kernel", "inotify watches", "optional", watches >= 2 * groups + 16, found, cure)
    if instances is not None:
        cure = "Set fs.inotify.max_user_instances=128 or more by sysctl."
        found = f"max_user_instances {instances:,}"
        yield judged("kernel", "inotify instances", "optional", instances >= 16, found, cure)
    hard, whose = _open_files(agent, root) if limits is None else (limits[1], "ours")
    if hard is None:
        yield judged("kernel", "open files", "required", None, f"the limits of process {agent}")
        return
    cure = (
        f"Set LimitNOFILE={max(65_536, 4 * groups)} for the service: a counter that is not held is lost with its group."
    )
    enough = groups <= hard // 2 - SPARED
    found = f"{hard:,} ({whose}); CPU counters of {groups:,} groups are held open"
    yield judged("kernel", "open files", "required" if agent else "optional", enough, found, cure)


def _open_files(agent: int | None, root: Path) -> tuple[int | None, str]:
    if not agent:
        return resource.getrlimit(resource.RLIMIT_NOFILE)[1], "this shell's"
    try:
        text = (root / f"proc/{agent}/limits").read_text()
    except OSError:
        return None, ""
    line = next(line for line in text.splitlines() if line.startswith("Max open files"))
    return int(line.split()[4]), f"the agent's, pid {agent}"


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except OSError:
        return None


def _signed(ns: int) -> str:
    return f"{'-' if ns < 0 else '+'}{written(abs(ns) // 1_000_000 * 1_000_000)}"


def dates(heard: Mapping[str, tuple[int, int]]) -> Iterable[Check]:
    """Our clock against all sinks that answered with a date: (theirs in seconds, ours in ns), by sink."""
    return [against(sink, date, wall) for sink, (date, wall) in heard.items()]
