"""What a row of the campaign is, what one trial of it comes to, and how rows are found by name."""

import random
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path

from msgspec import Struct


class Verdict(Struct, frozen=True):
    """What the oracle found. `lost` and `doubled` in base units; `stuck`: records by state and reason, for a person."""

    obligations: int
    lost: int
    doubled: int
    stuck: Mapping[str, int]
    why: tuple[str, ...] = ()  # what is wrong, a line each


class Trial(Struct, frozen=True):
    """One trial: which row by which seed, what came of it, and how often what struck where."""

    row: str
    seed: int
    verdict: Verdict
    struck: Mapping[str, int]
    seconds: float


class Scene(Struct):
    """What a trial has: a directory of its own, chance by its seed, its number within the run, what struck so far."""

    where: Path
    dice: random.Random
    seed: int
    struck: Counter[str]


class Row(Struct, frozen=True):
    """One kind of fault. `trials`: how many a whole campaign makes of it."""

    name: str
    says: str
    trial: Callable[[Scene], Verdict]
    trials: int


ROWS: dict[str, Row] = {}


def row(name: str, says: str, trials: int) -> Callable[[Callable[[Scene], Verdict]], Callable[[Scene], Verdict]]:
    """Make a function a row: it strikes, lets the fault end, and returns what the oracle says."""

    def listed(trial: Callable[[Scene], Verdict]) -> Callable[[Scene], Verdict]:
        assert name not in ROWS, name
        ROWS[name] = Row(name, says, trial, trials)
        return trial

    return listed
