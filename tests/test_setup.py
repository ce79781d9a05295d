"""The set-up holds together: locks, dependencies, version and rules say the same thing in every place."""

import importlib.util
import json
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

import agent

ROOT = Path(__file__).parent.parent
RUNTIME, BUILD, DEV = (ROOT / f"requirements{part}.lock" for part in ("", "-build", "-dev"))
LOCKS = [RUNTIME, BUILD, DEV]


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    """`pyproject.toml` as it stands."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def normal(requirement: str) -> str:
    """The name a requirement begins with, as package indexes compare it: `PyYAML>=6` → `pyyaml`."""
    name = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert name, requirement
    return re.sub(r"[-_.]+", "-", name[0]).lower()


def pins(lock: Path) -> dict[str, str]:
    """Name → version of every requirement of a lock; each must be pinned and carry a SHA-256 hash."""
    found = {}
    for requirement in lock.read_text().replace("\\\n", " ").splitlines():
        pin = re.match(r"([a-z0-9-]+)==(\S+)( ; [^-]+)?((?: +--hash=sha256:[0-9a-f]{64})+)$", requirement)
        assert pin, f"{lock.name}: not a pin with hashes: {requirement[:80]}"
        found[pin[1]] = pin[2]
    return found


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.name)
def test_a_lock_pins_every_requirement_with_hashes_and_no_address(lock: Path) -> None:
    """A lock installs the same bytes from whatever index pip is configured for."""
    assert pins(lock)
    assert "://" not in lock.read_text()


def test_the_locks_agree_and_the_dev_lock_holds_the_others() -> None:
    """`make run` and `make test` share one .venv, so neither may undo the other."""
    dev = pins(DEV)
    for lock in (RUNTIME, BUILD):
        assert pins(lock).items() <= dev.items()


def test_every_dependency_is_locked(project: dict[str, Any]) -> None:
    """A dependency added without `make lock` is noticed here, not on someone's machine."""
    groups = project["dependency-groups"]
    dev = [name for name in groups["dev"] if isinstance(name, str)]
    assert {normal(name) for name in project["project"]["dependencies"]} <= pins(RUNTIME).keys()
    assert {normal(name) for name in groups["build"]} <= pins(BUILD).keys()
    assert {normal(name) for name in dev} <= pins(DEV).keys()


def test_what_builds_the_package_is_locked(project: dict[str, Any]) -> None:
    """pip builds without isolation, so the build group is what the build system asks for."""
    assert project["dependency-groups"]["build"] == project["build-system"]["requires"]


def test_the_version_has_one_source(project: dict[str, Any]) -> None:
    """The package says its version; pyproject only points there."""
    assert "version" not in project["project"]
    assert project["project"]["dynamic"] == ["version"]
    assert (ROOT / project["tool"]["hatch"]["version"]["path"]).samefile(agent.__file__)
    assert re.fullmatch(r"\d+\.\d+\.\d+", agent.__version__)


def test_the_console_script_leads_to_a_function(project: dict[str, Any]) -> None:
    """What pip writes into .venv/bin can be called."""
    module, _, function = project["project"]["scripts"]["metering-agent"].partition(":")
    assert importlib.util.find_spec(module), f"{module} is missing"
    assert callable(getattr(importlib.import_module(module), function))


def test_every_ruff_rule_that_is_off_says_why() -> None:
    """An ignore without a reason is a habit, not a decision."""
    text = (ROOT / "pyproject.toml").read_text()
    ignores = text[text.index("[tool.ruff.lint]") : text.index("[tool.ruff.lint.flake8-tidy-imports")]
    rules = re.findall(r'^    "([A-Z]+\d*)",(.*)$', ignores, re.MULTILINE)
    assert len(rules) > 20
    assert [rule for rule, reason in rules if not re.match(r" +# .{6,}", reason)] == []


def test_every_tool_of_the_makefile_is_a_phony_target_with_its_purpose() -> None:
    """`make help` shows each command, and no file of that name can hide it."""
    makefile = (ROOT / "Makefile").read_text()
    phony = " ".join(re.findall(r"^\.PHONY: (.+)$", makefile, re.MULTILINE))
    explained = re.findall(r"^([a-z-]+):.*## \S", makefile, re.MULTILINE)
    assert sorted(phony.split()) == sorted(explained)


def junit(*cases: str) -> str:
    """A JUnit file of pytest's shape around these cases."""
    return f'<testsuites><testsuite name="pytest">{"".join(cases)}</testsuite></testsuites>'


PASSED = '<testcase classname="t" name="passes"/>'
FAILED = '<testcase classname="t" name="fails"><failure message="no"/></testcase>'
SKIPPED = '<testcase classname="t" name="skips"><skipped message="no root"/></testcase>'
STEPS = [f"{name} 1.0 3.5 0" for name in ("setup", "cluster", "lint", "test", "test-real", "mutants", "smoke")]


@pytest.mark.parametrize(
    ("steps", "unit", "real", "problem", "counts"),
    [
        (STEPS, junit(PASSED, SKIPPED), junit(PASSED), None, "2 passed, 0 failed, 1 skipped"),
        (STEPS, junit(PASSED), junit(PASSED, SKIPPED), "real test was skipped: t.skips: no root", "2 passed"),
        (STEPS, junit(PASSED), junit(), "no real test ran", "1 passed, 0 failed, 0 skipped"),
        (STEPS[:-1], junit(PASSED), junit(PASSED), "step smoke failed or did not run", "2 passed"),
        ([*STEPS[:-1], "smoke 1 2 1"], junit(PASSED), junit(PASSED), "step smoke failed", "2 passed"),
        (["setup 1.0 2.0 1"], None, None, "step setup failed or did not run", "0 passed, 0 failed, 0 skipped"),
        ([*STEPS[:3], "test 1 2 2", *STEPS[4:]], junit(PASSED, FAILED), junit(PASSED), "step test failed", "1 failed"),
    ],
    ids=["all well", "real test skipped", "no real test", "step missing", "step failed", "no set-up", "test failed"],
)
def test_the_ci_report_fails_a_run_that_proves_too_little(
    tmp_path: Path, steps: list[str], unit: str | None, real: str | None, problem: str | None, counts: str
) -> None:
    """A run stands only when every step passed and every real test ran; the last line counts the tests."""
    (tmp_path / "steps").write_text("\n".join(steps))
    for name, text in (("test.xml", unit), ("test-real.xml", real)):
        if text is not None:
            (tmp_path / name).write_text(text)
    report = [sys.executable, str(ROOT / ".ci" / "report.py"), str(tmp_path), "c0ffee"]
    done = subprocess.run(report, cwd=tmp_path, capture_output=True, text=True, check=False)
    written = json.loads((tmp_path / "ci-report.json").read_text())
    assert done.stderr == ""
    assert counts in done.stdout.splitlines()[-1]
    assert (problem or "") in done.stdout
    assert done.returncode == (1 if problem else 0)
    assert written["ok"] == (problem is None)
    assert written["commit"] == "c0ffee"
    assert written["seconds"]["setup"] >= 1


@pytest.mark.parametrize(
    ("pythons", "says"),
    [
        ({}, "Python 3.11 or newer is needed and none is on the PATH."),
        ({"python3": "case $2 in *3,*11*) exit 1;; esac"}, "(too old: python3)"),
        ({"python3": "case $2 in *ensurepip*) exit 1;; esac"}, "apt install python3-venv"),
    ],
    ids=["no Python", "too old", "no venv"],
)
def test_make_says_what_is_missing(tmp_path: Path, pythons: dict[str, str], says: str) -> None:
    """Someone without a usable Python learns what to install, and nothing is left behind."""
    tools = tmp_path / "bin"
    tools.mkdir()
    for name, body in pythons.items():
        (tools / name).write_text(f"#!/bin/sh\n{body}\n")
        (tools / name).chmod(0o755)
    for name in ("Makefile", "pyproject.toml", "requirements.lock", "requirements-build.lock"):
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    make = str(shutil.which("make"))
    done = subprocess.run(
        [make, "run"], cwd=tmp_path, env={"PATH": str(tools)}, capture_output=True, text=True, check=False
    )
    assert says in done.stderr
    assert done.returncode == 2
    assert not (tmp_path / ".venv").exists()
