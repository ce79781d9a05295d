"""What a campaign is made of: rows of trials, each with a seed, and what came of each."""

import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from msgspec import Struct


class Verdict(Struct):
    """What came of one trial. `lost` and `doubled` in base units of usage, so that nothing is below what they can tell.

    `stuck`: records that wait for a person, or were never delivered. `struck`: where the fault met the agent, counted
    by (phase, fault). `note`: what a reader must know, one line.
    """

    lost: int = 0
    doubled: int = 0
    stuck: int = 0
    struck: Counter[tuple[str, str]] = Counter()  # noqa: RUF012 - msgspec copies it
    note: str = ""

    def __add__(self, other: "Verdict") -> "Verdict":
        """Both, as of two machines that share one billing system."""
        return Verdict(
            self.lost + other.lost,
            self.doubled + other.doubled,
            self.stuck + other.stuck,
            self.struck + other.struck,
            "; ".join(filter(None, (self.note, other.note))),
        )


class Trial(Struct, frozen=True):
    """What one trial is given: chance that repeats with its seed, and directories of its own.

    `where` is in memory, which a SIGKILL leaves alone; `disk` is on one, for file systems of our own.
    """

    seed: int
    dice: random.Random
    where: Path
    disk: Path


class Row(Struct, frozen=True):
    """One line of the table: what is done to the agent, so many times.

    `stuck` is the reason why records may wait for a person here; without one they may not. `trials`: in the campaign;
    `sample`: how much of `make faults` it gets, beside the others.
    """

    kind: str
    name: str
    run: Callable[[Trial], Verdict]
    trials: int
    stuck: str = ""
    sample: int = 1

    @property
    def title(self) -> str:
        """What `--only` names, with the kind."""
        return f"{self.kind}: {self.name}"

    def holds(self, verdict: Verdict) -> bool:
        """Whether this is what the agent promises."""
        return not verdict.lost and not verdict.doubled and (not verdict.stuck or bool(self.stuck))
