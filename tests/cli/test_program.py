"""The program as a process: exit codes, and how `run` becomes the daemon."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

TREE = Path(__file__).parents[2]

# As packaging does it: an isolated interpreter, and a launcher that adds the path. At the end it says what it loaded.
LAUNCHER = f"""\
import json, sys
sys.path[:0] = [{str(TREE)!r}, *{sys.path!r}]
from agent.__main__ import main
code = main()
print(json.dumps([name for name in ("typer", "rich") if sys.modules.get(name)]))
sys.exit(code)
"""
CONFIG = """\
agent: {{data_dir: {0}/data, run_dir: {0}/run, sample_interval: 1s}}
telemetry: {{listen: "127.0.0.1:0"}}
sources: [{{kind: host}}]
meters: [{{meter: host.uptime}}]
sinks: [{{id: files, kind: file, path: {0}/out, role: copy}}]
"""


def program(*argv: str) -> subprocess.CompletedProcess[str]:
    """What `python -m agent` says and returns."""
    return subprocess.run(
        [sys.executable, "-m", "agent", *argv], cwd=TREE, check=False, capture_output=True, text=True, timeout=30
    )


@pytest.mark.parametrize(
    ("argv", "code", "said"),
    [
        (["version"], 0, ""),
        (["explain", "x", "--data-dir", "/nowhere"], 3, "no spool in /nowhere"),
        (["run", "--config", "/nowhere.yaml"], 2, "/nowhere.yaml: cannot be read"),
        (["run", "--config=/nowhere.yaml"], 2, "/nowhere.yaml: cannot be read"),
        (["once", "--config", "/nowhere.yaml"], 2, "/nowhere.yaml: cannot be read"),
        (["nonsense"], 2, "No such command"),
    ],
)
def test_exit_codes_and_errors_without_a_traceback(argv: list[str], code: int, said: str) -> None:
    """0 done, 2 bad configuration or usage, 3 cannot start; what is wrong is on standard error."""
    done = program(*argv)
    assert (done.returncode, "Traceback" in done.stderr) == (code, False)
    assert said in done.stderr


@pytest.mark.parametrize("option", [["--config", "{}"], ["--config={}"]])
def test_the_daemon_never_holds_the_command_line(tmp_path: Path, option: list[str]) -> None:
    """However its option is written, `run` ends as a process without typer and rich, under the same isolation."""
    config, launcher = tmp_path / "agent.yaml", tmp_path / "metering-agent"
    config.write_text(CONFIG.format(tmp_path))
    launcher.write_text(LAUNCHER)
    argv = [sys.executable, "-I", str(launcher), "run", *(part.format(config) for part in option)]
    # The environment names no service manager: this is nobody's unit.
    environment = {name: value for name, value in os.environ.items() if name != "NOTIFY_SOCKET"}
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment) as process:
        control = tmp_path / "data/control"
        deadline = time.monotonic() + 20
        while not control.exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        ran = Path(f"/proc/{process.pid}/cmdline").read_text().split("\0")
        process.send_signal(signal.SIGTERM)
        loaded, log = process.communicate(timeout=20)
    assert process.returncode == 0, log
    assert ran[1:-1] == ["-I", str(launcher), "run", "--config", str(config)]
    assert json.loads(loaded) == []
