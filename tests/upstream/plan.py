"""How a billing system misbehaves: a plan, as JSON on the command line or set while it runs.

A fault strikes one POST of events. Its events are billed unless `commit` is false (the answer is then a 503):

| do        | billed      | what the sender sees                                                  |
|-----------|-------------|-----------------------------------------------------------------------|
| lose      | by `commit` | the connection ends without a byte                                    |
| status    | by `commit` | status `code`, with Retry-After where `after` is set                  |
| garbage   | by `commit` | bytes that are no HTTP                                                |
| partial   | by `commit` | the first half of an answer, then the end                             |
| slow      | by `commit` | an answer, `seconds` late                                             |
| drip      | by `commit` | an answer, `seconds` between two bytes                                |
| hangup    | by `commit` | an answer, and the connection ends although nothing announced it      |
| half      | first half  | status 500: it stopped in the middle (OpenMeter queues one by one)    |
| cut       | no          | the connection ends in the middle of the request's body               |
| duplicate | no          | 409 for what it does not have: somebody else used our ids             |
| redirect  | no          | 307 to `to`                                                           |
| refuse    | no          | all connections end; new ones are refused for `seconds`               |
"""

import random
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

DAY = 86_400.0
DOES = (
    "lose",
    "status",
    "garbage",
    "partial",
    "slow",
    "drip",
    "hangup",
    "half",
    "cut",
    "duplicate",
    "redirect",
    "refuse",
)


@dataclass(frozen=True)
class Fault:
    """One line of the table above. Times in seconds."""

    do: str
    commit: bool = True
    code: int = 503
    after: int | None = None
    seconds: float = 0.0
    to: str = "http://elsewhere.example/"

    @property
    def name(self) -> str:
        """What it is counted as."""
        return f"{self.do} {self.code} {'after' if self.commit else 'before'}" if self.do == "status" else self.do


AMONG = (  # what a seed chooses from: all that leaves the totals right at a sender who does everything right
    Fault("lose"),
    Fault("lose", commit=False),
    *(Fault("status", commit, code) for code in (500, 502, 503, 504) for commit in (False, True)),
    Fault("status", commit=False, code=429, after=0),
    Fault("garbage"),
    Fault("partial"),
    Fault("partial", commit=False),
    Fault("slow", seconds=0.05),
    Fault("drip", seconds=0.001),
    Fault("hangup"),
    Fault("half"),
    Fault("cut"),
    Fault("refuse", seconds=0.05),
)


@dataclass(frozen=True)
class Plan:
    """What it does from now on.

    The fault of a request is chosen by the first of these that there is: `script`, one entry for each request and null
    for none; `fault` at each `every`-th; by `seed`, with `chance`, one of `among`. The rest always holds.
    """

    script: tuple[Fault | None, ...] = ()
    every: int = 0
    fault: Fault = Fault("lose")
    seed: int | None = None
    chance: float = 0.5
    among: tuple[Fault, ...] = AMONG
    poison: tuple[str, ...] = ()  # ids and subjects that are refused with 400
    max_events: int | None = None  # more in one request are refused with 413
    batched: bool = True  # whether the generic webhook asked for batches
    meters: Mapping[str, str] = field(default_factory=dict)  # event type → aggregation of what OpenMeter lists
    token: str | None = None  # the bearer token; None: anybody may send
    dedupe: bool = True
    window: float = 32 * DAY  # seconds that an id is known: OpenMeter's default where its redis keeps them
    ahead: float = 0.0  # seconds that its clock is before ours

    def changed(self, given: Mapping[str, Any]) -> "Plan":
        """This plan with other values, from JSON. Raises ValueError naming what it does not know."""
        values = dict(given)
        if unknown := set(values) - {known.name for known in fields(Plan)}:
            raise ValueError(f"plan: {', '.join(sorted(unknown))}: no such key. See tests/upstream/plan.py.")
        for name in ("script", "among"):
            if name in values:
                values[name] = tuple(None if fault is None else _fault(fault) for fault in values[name])
        if "fault" in values:
            values["fault"] = _fault(values["fault"])
        if "poison" in values:
            values["poison"] = tuple(values["poison"])
        return replace(self, **values)


class Mischief:
    """Says what strikes the next request, and counts what struck."""

    def __init__(self, plan: Plan) -> None:
        self.struck: Counter[str] = Counter()
        self._count = 0
        self.follow(plan)

    def follow(self, plan: Plan) -> None:
        """From now on by this plan: its script and its seed begin anew."""
        self._plan, self._script, self._random = plan, deque(plan.script), random.Random(plan.seed)

    def next(self) -> Fault | None:
        """What strikes now."""
        plan, fault = self._plan, None
        self._count += 1
        if self._script:
            fault = self._script.popleft()
        elif plan.every and self._count % plan.every == 0:
            fault = plan.fault
        elif plan.seed is not None and self._random.random() < plan.chance:
            fault = self._random.choice(plan.among)
        self.struck[fault.name if fault else "none"] += 1
        return fault


def _fault(given: Mapping[str, Any] | str) -> Fault:
    values = {"do": given} if isinstance(given, str) else dict(given)
    if values.get("do") not in DOES:
        raise ValueError(f"plan: fault {values.get('do')!r}: not one of {', '.join(DOES)}.")
    if unknown := set(values) - {known.name for known in fields(Fault)}:
        raise ValueError(f"plan: fault {values['do']}: {', '.join(sorted(unknown))}: no such key.")
    return Fault(**values)
