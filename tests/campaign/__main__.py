"""`make campaign` and `make faults`: choose trials, run them, print the table; the exit code says whether all held."""

import argparse
import random
import sys
import time
from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from tests.campaign import families, proof
from tests.campaign.row import ROWS, Row, Trial
from tests.campaign.running import WORKERS, Job, run


def sample(rows: Sequence[Row], count: int, seed: int) -> list[Job]:
    """So many trials over these rows: each row once before any comes twice."""
    dice = random.Random(seed)
    names: list[str] = []
    while len(names) < count:
        names += dice.sample([row.name for row in rows], min(len(rows), count - len(names)))
    return [(name, dice.randrange(10**6)) for name in names]


def whole(rows: Sequence[Row], seed: int, trials: int | None) -> list[Job]:
    """Every row as often as it says, or `trials` times, with seeds from `seed` on; families are mixed."""
    jobs = [(row.name, seed + number) for row in rows for number in range(trials or row.trials)]
    random.Random(seed).shuffle(jobs)  # so that two workers seldom do the same at a time
    return jobs


def told(trial: Trial) -> None:
    """A line for each trial as it ends; more where it went wrong."""
    verdict = trial.verdict
    bad = verdict.lost or verdict.doubled
    print(f"{'FAILED' if bad else 'ok':6} {trial.row} seed {trial.seed}: {trial.seconds:.1f} s", flush=True)
    if bad:
        print(f"       lost {verdict.lost}, doubled {verdict.doubled}", *verdict.why[:60], sep="\n       ", flush=True)


def main() -> int:
    """Parse, run, print."""
    options = _options().parse_args()
    rows = [row for row in ROWS.values() if not options.only or any(fnmatchcase(row.name, o) for o in options.only)]
    if options.list:
        for row in rows:
            print(f"{row.name:28} {row.trials:4}  {row.says}")
        return 0
    if not rows:
        print(f"no row is called {', '.join(options.only)}; --list names them all", file=sys.stderr)
        return 2
    assert families
    seed = random.SystemRandom().randrange(10**6) if options.seed is None else options.seed
    complete = not options.only and options.trials is None and not options.faults
    jobs = sample(rows, options.faults, seed) if options.faults else whole(rows, seed, options.trials)
    print(f"seed {seed}: {len(jobs)} trials of {len(rows)} rows, {options.workers} at a time", flush=True)
    began = time.monotonic()
    trials = list(run(jobs, told, options.workers))
    seconds = time.monotonic() - began
    print("", *proof.told(trials), f"{len(trials)} trials in {seconds:.0f} s, seed {seed}", sep="\n")
    wrong = proof.wrong(trials, complete=complete)
    print(*wrong, sep="\n")
    page = options.page or (proof.PAGE if complete else None)
    if page is not None:
        proof.write(page, trials, wrong, seed, seconds)
    return 1 if wrong else 0


def _options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.campaign", description="Faults, and what they cost: nothing."
    )
    add: Callable[..., Any] = parser.add_argument
    add("--list", action="store_true", help="name every row, its trials in a whole campaign, and what strikes")
    add("--only", action="append", default=[], metavar="ROW", help="this row, or rows by a pattern such as 'disk.*'")
    add("--seed", type=int, help="of the first trial, or of a sample; without it, another one each time, and printed")
    add("--trials", type=int, help="of each row, instead of what a whole campaign makes")
    add("--faults", type=int, metavar="N", help="a sample of N trials over the rows")
    add("--workers", type=int, default=WORKERS, help=f"trials at a time; default {WORKERS}")
    add("--page", type=Path, help="write the tables there; a whole campaign writes docs/proof.md")
    return parser


if __name__ == "__main__":
    sys.exit(main())
