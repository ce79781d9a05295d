"""The quick start on this very machine: a record within 20 s, twice in a row, and an orderly end."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

pytestmark = [pytest.mark.real, pytest.mark.timeout(150)]

TREE = Path(__file__).parents[2]
PROMISE = 20  # seconds to the first record


@contextmanager
def quickstart(home: Path, *argv: str) -> Iterator[subprocess.Popen[str]]:
    """The program in `home`, in a process group of its own as a shell would start it."""
    environment = {name: value for name, value in os.environ.items() if name != "NOTIFY_SOCKET"}
    environment["PYTHONPATH"] = str(TREE)
    command = [sys.executable, "-m", "agent", "quickstart", *argv]
    with subprocess.Popen(
        command,
        cwd=home,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def explain(home: Path, said: str) -> str:
    """What the command that the quick start named says."""
    found = re.search(r"explain --data-dir (\S+) (\S+)", said)
    assert found, said
    command = [sys.executable, "-m", "agent", "explain", "--data-dir", found[1], found[2]]
    environment = {**os.environ, "PYTHONPATH": str(TREE)}
    return subprocess.run(command, cwd=home, env=environment, check=True, capture_output=True, text=True).stdout


def test_the_first_record_comes_in_time_and_explains_itself_twice(tmp_path: Path) -> None:
    """Smoke ends with 0 after one record; a second run goes on in the same spool, with other records."""
    told = []
    for _ in range(2):
        began = time.monotonic()
        with quickstart(tmp_path, "--smoke") as process:
            said, _ = process.communicate(timeout=60)
        assert process.returncode == 0, said
        assert time.monotonic() - began < PROMISE + 5  # starting and stopping included
        assert re.search(r"^demo  \w+ .* core-seconds  = [\d,]+ ns$", said, re.MULTILINE), said
        assert "warning" not in said
        told.append(explain(tmp_path, said))
    sources = {re.search(r"source +(\S+),", text)[1] for text in told}  # type: ignore[index]
    assert len(sources) == 1
    assert told[0] != told[1]
    assert all("which is its quantity." in text for text in told)


def test_ctrl_c_ends_in_order_and_leaves_nothing_behind(tmp_path: Path) -> None:
    """The whole process group is interrupted, as by a terminal: exit 0, no traceback, no cgroup and no burner left."""
    with quickstart(tmp_path) as process:
        assert process.stdout is not None
        said = ""
        while "explain --data-dir" not in said:
            line = process.stdout.readline()
            assert line, said
            said += line
        os.killpg(process.pid, signal.SIGINT)
        rest, _ = process.communicate(timeout=30)
    assert process.returncode == 0, rest
    assert "Stopped." in rest
    assert "Traceback" not in said + rest
    assert not list(Path("/sys/fs/cgroup").rglob(f"metering-quickstart-{process.pid}"))
