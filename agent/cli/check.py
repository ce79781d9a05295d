"""`metering-agent check`: whether a configuration is sound, and whether its rules name whom their author expects."""

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from msgspec import Struct, structs

from agent import clock, config
from agent.attribution import Attribution, revise
from agent.config import Cgroups, Config
from agent.config.cases import Case, load_cases
from agent.kinds import KINDS
from agent.model import Resource
from agent.pattern import matches


class Verdict(Struct, frozen=True):
    """One case of attribution: a resource with these labels, on line `line` of the file of cases."""

    line: int
    labels: dict[str, str]
    expected: str
    got: str
    rule: str

    @property
    def passed(self) -> bool:
        """Whether the resource went to whom it was expected to go."""
        return self.got == self.expected


def load(path: Path) -> Config:
    """The configuration in a file. Raises ConfigError with every problem."""
    return config.load(path, KINDS, os.environ)


class Checked(Struct, frozen=True):
    """What `check` found. With `problems` nothing else is known."""

    problems: tuple[str, ...] = ()
    notices: tuple[str, ...] = ()
    verdicts: tuple[Verdict, ...] = ()

    @property
    def exit_code(self) -> int:
        """2 bad configuration, 1 a case failed, 0 neither."""
        return 2 if self.problems else 0 if all(verdict.passed for verdict in self.verdicts) else 1


def check(path: Path, cases: Path | None) -> Checked:
    """A configuration, and cases tried by its rules as they act now. Raises ConfigError with every problem."""
    cfg = load(path)
    tried = verdicts(cfg, load_cases(cases), clock.now()[0]) if cases is not None else ()
    return Checked(notices=cfg.notices, verdicts=tried)


def verdicts(cfg: Config, cases: Sequence[Case], now: int) -> tuple[Verdict, ...]:
    """Each case by the rules of `cfg` as they act at `now`, ns since the epoch."""
    rules = cfg.rules()
    attribution = Attribution(revise((), rules, now), rules)
    found = []
    for case in cases:
        owner = attribution.owner(_lineage(cfg, case.labels), attribution.era(now))
        found.append(Verdict(case.line, dict(case.labels), case.expect, owner.customer or owner.kind, owner.rule))
    return tuple(found)


def _lineage(cfg: Config, labels: Mapping[str, str]) -> Iterator[Resource]:
    """The resource, then the metered groups around it by its path: whoever owns one of those owns it."""
    yield Resource(key="", name="", labels=labels)
    path = labels.get("cgroup", "")
    while "/" in path:
        path = path.rpartition("/")[0]
        if any(_metered(section, path) for section in cfg.sources if isinstance(section, Cgroups)):
            yield Resource(key="", name="", labels={"cgroup": path})


def _metered(section: Cgroups, path: str) -> bool:
    return path in section.closed() or any(matches(pattern, path) for pattern in section.include)


def plain(checked: Checked) -> dict[str, object]:
    """The same for programs."""
    cases = [{"passed": verdict.passed, **structs.asdict(verdict)} for verdict in checked.verdicts]
    return {"sound": not checked.problems, "problems": checked.problems, "notices": checked.notices, "cases": cases}
