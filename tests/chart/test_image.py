"""The Dockerfile: what it may hold, and its build stage carried out line by line without Docker."""

import fnmatch
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from agent import __version__
from agent.cli import DEFAULT_CONFIG
from tests.docs.pages import ROOT, page, section, tracked

ENTRY = "/opt/metering-agent/bin/metering-agent"


def instructions() -> list[tuple[str, str]]:
    """(instruction, arguments) in order; continued lines are joined, comments left out."""
    lines = [line for line in page("Dockerfile").splitlines() if line.strip() and not line.startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines)).splitlines()
    return [(word, rest) for word, _, rest in (line.partition(" ") for line in joined)]


def stages() -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """What builds, and what is shipped; each begins with its FROM."""
    begins = [number for number, (word, _) in enumerate(instructions()) if word == "FROM"]
    assert len(begins) == 2
    return instructions()[begins[0] : begins[1]], instructions()[begins[1] :]


def test_the_linter_has_nothing_to_say() -> None:
    """hadolint, with its own exceptions named beside the line."""
    done = subprocess.run(
        [str(Path(sys.executable).with_name("hadolint")), "Dockerfile"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout


def test_the_readme_builds_the_version_that_the_chart_asks_for() -> None:
    """An image of another tag is never found."""
    assert f"/metering-agent:{__version__} ." in section(page("README.md"), "Kubernetes")


def test_both_stages_begin_with_one_python_of_an_exact_version() -> None:
    """The environment that was built is linked to the interpreter of the image that it runs in."""
    assert instructions()[0] == ("ARG", "PYTHON=python:3.13.9-slim-bookworm")
    assert [rest.split()[0] for word, rest in instructions() if word == "FROM"] == ["${PYTHON}", "${PYTHON}"]
    minor = re.search(r"python:(\d+\.\d+)\.\d+-", page("Dockerfile"))
    assert minor
    assert f"Programming Language :: Python :: {minor[1]}" in page("pyproject.toml")


def test_what_is_shipped_is_the_environment_and_nothing_is_run_to_make_it() -> None:
    """No compiler, no pip, no package of the build; started as root, told to run by default."""
    _, shipped = stages()
    assert [rest for word, rest in shipped if word == "COPY"] == [
        "--from=build /opt/metering-agent /opt/metering-agent"
    ]
    assert {word for word, _ in shipped} == {"FROM", "COPY", "ENV", "USER", "EXPOSE", "ENTRYPOINT", "CMD"}
    last = dict(shipped)
    assert json.loads(last["ENTRYPOINT"]) == [ENTRY]
    assert json.loads(last["CMD"]) == ["run"]
    assert last["USER"] == "0"
    assert last["EXPOSE"] == "9108"
    assert Path("/etc/metering-agent/agent.yaml") == DEFAULT_CONFIG  # where the chart mounts it


def test_every_package_is_a_wheel_whose_hash_is_locked() -> None:
    """No line of pip may take anything else."""
    for word, rest in stages()[0]:
        for command in rest.split("&&") if word == "RUN" else []:
            if " install" in command:
                locked = "--require-hashes" in command and "--only-binary=:all:" in command
                assert locked or "--no-index" in command, command
                assert "--no-deps" in command


def test_docker_is_given_what_the_image_is_made_of_and_no_more() -> None:
    """Neither .git nor a .venv, nor a secret that somebody left beside them."""
    ignored, *let_through = [
        line for line in page(".dockerignore").splitlines() if line and not line.startswith(("#", "**"))
    ]
    assert ignored == "*"
    copied = [name for word, rest in stages()[0] if word == "COPY" for name in rest.split()[:-1]]
    assert sorted(line.removeprefix("!") for line in let_through) == sorted(copied)
    names = [str(path.relative_to(ROOT)) for path in tracked()]
    for name in copied:
        assert any(fnmatch.fnmatch(each, name) or each.startswith(f"{name}/") for each in names), name


@pytest.mark.real
@pytest.mark.timeout(300)
def test_the_build_stage_makes_an_agent_that_needs_nothing_else(tmp_path: Path) -> None:
    """Each RUN as it is written, in places below one directory; pip needs its index."""
    build, _ = stages()
    source = tmp_path / "src"
    source.mkdir()
    for word, rest in build:
        if word == "COPY":
            for name in rest.split()[:-1]:
                subprocess.run(["cp", "--recursive", str(ROOT / name), str(source)], check=True)
        elif word == "RUN":
            command = re.sub(r"(?<![\w./])/(build|wheel|opt)\b", rf"{tmp_path}/\1", rest)
            command = re.sub(r"^python\b|(?<=&& )python\b", sys.executable, command)
            subprocess.run(["bash", "-ec", command], cwd=source, check=True, capture_output=True)
    shipped = tmp_path / "opt/metering-agent/bin"
    assert not list(shipped.glob("pip*"))
    clean = {"PATH": "/usr/bin:/bin", "NODE_NAME": "node-a", "POD_IP": "127.0.0.1"}
    done = subprocess.run(
        [str(shipped / "metering-agent"), "version"], env=clean, cwd="/", capture_output=True, text=True, check=True
    )
    assert __version__ in done.stdout
    where = subprocess.run(
        [str(shipped / "python"), "-c", "import agent; print(agent.__file__)"],
        env=clean,
        cwd="/",
        capture_output=True,
        text=True,
        check=True,
    )
    assert where.stdout.startswith(str(tmp_path))
