"""Judge one run of `.ci/run` and write `ci-report.json`: `report.py RESULTS COMMIT`.

RESULTS holds `steps` (lines of name, began, ended, exit code) and pytest's `test.xml` and `test-real.xml`. The last
line printed counts the tests; every reason for a failure stands above it. Only the standard library is imported, for
this runs even where the set-up failed.
"""

import json
import sys
from pathlib import Path
from typing import TypedDict
from xml.etree import ElementTree as ET

STEPS = ("setup", "cluster", "lint", "test", "test-real", "mutants", "smoke")


class Tests(TypedDict):
    """Outcomes of one pytest run; the names of what failed, and the reason of each skip by name."""

    passed: int
    failed: list[str]
    skipped: dict[str, str]


def read_tests(xml: Path) -> Tests:
    """What pytest wrote as JUnit XML; nothing at all when it never came so far. An error in a fixture is a failure."""
    tests = Tests(passed=0, failed=[], skipped={})
    if not xml.exists():
        return tests
    for case in ET.parse(xml).iter("testcase"):
        name = f"{case.get('classname')}.{case.get('name')}"
        skip = case.find("skipped")
        if case.find("failure") is not None or case.find("error") is not None:
            tests["failed"].append(name)
        elif skip is not None:
            tests["skipped"][name] = skip.get("message") or "no reason given"
        else:
            tests["passed"] += 1
    return tests


def read_steps(path: Path) -> tuple[dict[str, float], list[str]]:
    """Seconds of each step that ran, and the names of those that failed or never came."""
    seconds, codes = {}, {}
    for line in path.read_text().splitlines():
        name, began, ended, code = line.split()
        seconds[name] = round(float(ended) - float(began), 1)
        codes[name] = int(code)
    return seconds, [name for name in STEPS if codes.get(name) != 0]


def problems(unfinished: list[str], real: Tests) -> list[str]:
    """Why this run does not stand, one line each; empty when it does."""
    found = [f"step {name} failed or did not run" for name in unfinished]
    found += [f"real test was skipped: {name}: {why}" for name, why in real["skipped"].items()]
    if not real["passed"] and not real["failed"]:
        found.append("no real test ran")
    return found


def main(results: Path, commit: str) -> int:
    """Write the report into the working directory; 0 when the run stands."""
    seconds, unfinished = read_steps(results / "steps")
    runs = [read_tests(results / "test.xml"), read_tests(results / "test-real.xml")]
    passed = sum(run["passed"] for run in runs)
    failed = [name for run in runs for name in run["failed"]]
    skipped = {name: why for run in runs for name, why in run["skipped"].items()}
    wrong = problems(unfinished, runs[1])
    report = {
        "commit": commit,
        "ok": not wrong,
        "problems": wrong,
        "seconds": seconds,
        "tests": {"passed": passed, "failed": failed, "skipped": skipped},
    }
    Path("ci-report.json").write_text(json.dumps(report, indent=2) + "\n")
    for name, spent in seconds.items():
        print(f"{name:10} {spent:7.1f} s")
    for line in wrong:
        print(line)
    print(f"{passed} passed, {len(failed)} failed, {len(skipped)} skipped")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2]))
