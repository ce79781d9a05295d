"""`make mutants`: put a named bug into a copy of the agent, and see which test of the laws catches it.

Each bug is one replacement of text that must still be there; a bug that no test catches fails the run. `python -m
tests.mutants [NAME…]` runs some of them.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.mutants import (
    Mutant,
    attributing,
    delivery,
    measuring,
    metadata,
    own_systems,
    packaging,
    pods,
    reading,
    sinks,
    summary,
    telling,
)

ROOT = Path(__file__).resolve().parents[2]
MUTANTS = tuple(
    mutant
    for module in (
        measuring,
        pods,
        metadata,
        summary,
        attributing,
        delivery,
        reading,
        sinks,
        own_systems,
        packaging,
        telling,
    )
    for mutant in module.MUTANTS
)
FAST = ("tests/delivery", "tests/laws", "tests/spool", "tests/sources")
SECONDS = 240
NO_BUG = Mutant("none", "", "", "agent/__init__.py", "__version__", "__version__")


def plant(mutant: Mutant, where: Path) -> None:
    """Copy what the tests need and put the bug in. Raises AssertionError when its place is gone."""
    for name in ("agent", "tests", "config", "docs", "helm"):
        shutil.copytree(ROOT / name, where / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", where)
    path = where / mutant.file
    text = path.read_text()
    assert text.count(mutant.old) == 1, f"{mutant.name}: its place in {mutant.file} is gone; mend the mutant"
    path.write_text(text.replace(mutant.old, mutant.new))


def caught_by(mutant: Mutant) -> str | None:
    """The first test that fails with the bug in, or None."""
    with tempfile.TemporaryDirectory(prefix="mutant-") as scratch:
        where = Path(scratch)
        plant(mutant, where)
        return first_failure(where, [mutant.near]) or first_failure(where, FAST)


def unsound(tests: Sequence[str]) -> str | None:
    """The first of these tests that fails without any bug, or None: it would catch everything."""
    with tempfile.TemporaryDirectory(prefix="mutant-") as scratch:
        where = Path(scratch)
        plant(NO_BUG, where)
        return first_failure(where, tests)


def first_failure(where: Path, tests: Sequence[str]) -> str | None:
    """The first of `tests` that fails in the copy at `where`, or None; of the chart's and servers', real ones too."""
    served = [test for test in tests if test.startswith((packaging.NEAR, own_systems.NEAR))]
    others = [test for test in tests if test not in served]
    return (_first(where, "not fault", served) if served else None) or (
        _first(where, "not real and not fault", others) if others else None
    )


def _first(where: Path, marks: str, tests: Sequence[str]) -> str | None:
    command = [sys.executable, "-m", "pytest", "-x", "-q", "--tb=no", "-p", "no:cacheprovider", "-m", marks, *tests]
    environ = os.environ | {"PYTHONPATH": str(where), "PYTHONDONTWRITEBYTECODE": "1"}
    run = subprocess.run(command, cwd=where, env=environ, capture_output=True, text=True, timeout=SECONDS, check=False)
    if run.returncode == 0:
        return None
    failed = [line.split(" ")[1] for line in run.stdout.splitlines() if line.startswith(("FAILED ", "ERROR "))]
    assert failed, f"the tests did not run:\n{run.stdout}{run.stderr}"
    return failed[0]


def main(names: list[str]) -> int:
    """Print the table; the exit code says whether all were caught."""
    chosen = [m for m in MUTANTS if not names or m.name in names]
    missed = 0
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        failing = pool.submit(unsound, sorted({mutant.near for mutant in chosen}))
        caught = pool.map(caught_by, chosen)
        assert failing.result() is None, f"this test fails without a bug: {failing.result()}"
        print(f"{'bug':52} {'law':12} caught by", flush=True)
        for mutant, test in zip(chosen, caught, strict=True):
            missed += test is None
            print(f"{mutant.name:52} {mutant.law:12} {test or 'NOBODY'}", flush=True)
    print(f"{len(chosen) - missed} passed, {missed} failed")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
