"""The table of a campaign, on the screen and as `docs/proof.md`, and what of it is not good enough."""

import datetime as dt
import platform
import subprocess
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from tests.campaign.crash import BOUNDARIES, LEAST
from tests.campaign.row import ROWS, Trial
from tests.faults.report import table

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "proof.md"
KILLS, CUTS = 1000, 200
AFTER = ("then ", "no kill")  # what is counted beside the strikes
COLUMNS = ("trials", "strikes", "obligations", "lost", "doubled", "stuck", "seconds")


def rows(trials: Sequence[Trial]) -> dict[str, dict[str, object]]:
    """By row, in the order in which rows are listed: sums over its trials."""
    found: dict[str, dict[str, object]] = {}
    for name in ROWS:
        of = [trial for trial in trials if trial.row == name]
        if of:
            struck = sum((Counter(trial.struck) for trial in of), Counter[str]())
            found[name] = {
                "trials": len(of),
                "strikes": sum(n for what, n in struck.items() if not what.startswith(AFTER)) or len(of),
                "obligations": sum(trial.verdict.obligations for trial in of),
                "lost": sum(trial.verdict.lost for trial in of),
                "doubled": sum(trial.verdict.doubled for trial in of),
                "stuck": sum(sum(trial.verdict.stuck.values()) for trial in of),
                "seconds": round(sum(trial.seconds for trial in of)),
            }
    return found


def reasons(trials: Iterable[Trial]) -> dict[str, Counter[str]]:
    """By row: why records are stuck, for a person to see."""
    found: dict[str, Counter[str]] = {}
    for trial in trials:
        if trial.verdict.stuck:
            found.setdefault(trial.row, Counter()).update(trial.verdict.stuck)
    return found


def deaths(trials: Iterable[Trial]) -> Counter[str]:
    """How often what struck where, over all rows."""
    return sum((Counter(trial.struck) for trial in trials), Counter[str]())


def struck_by(what: str, trials: Iterable[Trial]) -> int:
    """How many kills, or cuts."""
    return sum(count for where, count in deaths(trials).items() if where.startswith(f"{what} at "))


def wrong(trials: Sequence[Trial], *, complete: bool) -> list[str]:
    """Why a run does not stand, a line each. `complete`: the floors of a whole campaign hold, too."""
    bad = [t for t in trials if t.verdict.lost or t.verdict.doubled]
    found = [
        f"{t.row} lost {t.verdict.lost} and doubled {t.verdict.doubled}:"
        f' make campaign ARGS="--only {t.row} --seed {t.seed} --trials 1"'
        for t in bad
    ]
    if complete:
        struck = deaths(trials)
        kills, cuts = struck_by("kill", trials), struck_by("cut", trials)
        found += [
            f"only {struck[f'kill at {kind}']} kills at {kind}; {LEAST} are wanted"
            for kind in BOUNDARIES
            if struck[f"kill at {kind}"] < LEAST
        ]
        found += [f"only {kills} kills; {KILLS} are wanted"] * (kills < KILLS)
        found += [f"only {cuts} power cuts; {CUTS} are wanted"] * (cuts < CUTS)
    return found


def told(trials: Sequence[Trial]) -> list[str]:
    """The same on a screen."""
    summed = rows(trials)
    lines = [*table(summed | {"all": _all(summed)}, "row"), ""]
    struck = deaths(trials)
    if struck:
        lines += [*table({where: {"times": count} for where, count in sorted(struck.items())}, "what struck"), ""]
    for name, why in reasons(trials).items():
        lines += [f"stuck in {name}:", *(f"  {count:5} {reason}" for reason, count in sorted(why.items()))]
    return lines


def write(page: Path, trials: Sequence[Trial], failed: Sequence[str], seed: int, seconds: float) -> None:
    """Write the page."""
    page.write_text("\n".join([*_head(trials, failed, seed, seconds), *_tables(trials)]) + "\n")


def _head(trials: Sequence[Trial], failed: Sequence[str], seed: int, seconds: float) -> list[str]:
    day = dt.datetime.fromtimestamp(int(_said("date", "+%s")), dt.UTC).date().isoformat()
    lost, doubled = (sum(getattr(trial.verdict, what) for trial in trials) for what in ("lost", "doubled"))
    kills, cuts = struck_by("kill", trials), struck_by("cut", trials)
    commit = _said("git", "rev-parse", "--short=12", "HEAD")
    machine = f"{platform.system()} {platform.release()}, {_said('nproc')} cores of {_cpu()}"
    python = f"Python {platform.python_version()}"
    return [
        "# Proof",
        "",
        "What faults cost: what was truly used is known, the billing system is another process, and both ends are",
        f"compared as exact integers. Written by `make campaign`: {len(trials):,} trials, {kills:,} SIGKILLs and",
        f"{cuts:,} power cuts came to **{lost} lost and {doubled} doubled**.",
        "",
        f"- Commit {commit}, {day}, in {seconds / 60:.0f} minutes; {machine}; {python}.",
        "- ext4 on a loop device where power or disk fail, memory for the rest; always `synchronous=FULL`.",
        f'- The same again: `make campaign ARGS="--seed {seed}"`. One trial of a kind:',
        f'  `make campaign ARGS="--only disk.full --seed {seed} --trials 1"`. Every kind: `make campaign ARGS=--list`.',
        "  A sample in three minutes: `make faults N=30 SEED=1`.",
        "",
        *(["It did not hold:", "", *(f"- {line}" for line in failed), ""] if failed else []),
    ]


def _cpu() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.split(": ")[1] for line in lines if line.startswith("model name")), "an unnamed processor")


def _tables(trials: Sequence[Trial]) -> list[str]:
    summed = rows(trials)
    lines = [
        "## What struck, and what it cost",
        "",
        "A strike is one kill, cut, fault or damage; an obligation is one record at one sink. Lost and doubled are in",
        "base units, ns of CPU. Stuck records arrived or not, but are on the screen, with the reason below.",
        "",
        f"| kind | what it is | {' | '.join(COLUMNS)} |",
        f"|---|---|{'--:|' * len(COLUMNS)}",
    ]
    for name, sums in (summed | {"all": _all(summed)}).items():
        says = ROWS[name].says if name in ROWS else ""
        lines.append(f"| {name} | {says} | {' | '.join(f'{sums[c]:,}' for c in COLUMNS)} |")
    struck = sorted(deaths(trials).items())
    lines += ["", "## Where death struck", "", "| what struck | times |", "|---|--:|"]
    lines += [f"| {where} | {count:,} |" for where, count in struck]
    lines += ["", "## What is stuck, and why", "", "| kind | records | state and reason |", "|---|--:|---|"]
    for name, why in reasons(trials).items():
        lines += [
            f"| {name} | {count:,} | {reason.replace('|', chr(92) + '|')} |" for reason, count in sorted(why.items())
        ]
    return lines


def _all(summed: dict[str, dict[str, object]]) -> dict[str, object]:
    return {column: sum(int(str(sums[column])) for sums in summed.values()) for column in COLUMNS}


def _said(*argv: str) -> str:
    return subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
