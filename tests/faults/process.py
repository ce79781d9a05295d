"""The real agent as a process: its configuration, its start, its end, and what it left on disk."""

import json
import os
import secrets
import select
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import apsw
import msgspec

from agent.books import Row

ROOT = Path(__file__).parents[2]
START_SECONDS = 20.0


class Agent:
    """One run of `python -m agent.daemon CONFIG`. Its log is at `log`."""

    def __init__(self, config: Path, *, under: Sequence[str] = (), log: Path | None = None) -> None:
        """`under`: a command that starts it, such as strace with its options. It dies with us, if a test forgets it."""
        address = f"\0metering-test-{secrets.token_hex(8)}"
        self._notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._notify.bind(address)
        self.log = log or config.with_suffix(".log")
        self.states: list[str] = []
        with self.log.open("ab") as out:
            self.process = subprocess.Popen(
                ["setpriv", "--pdeathsig=KILL", *under, sys.executable, "-m", "agent.daemon", str(config)],
                cwd=ROOT,
                env={**os.environ, "NOTIFY_SOCKET": f"@{address[1:]}", "PYTHONFAULTHANDLER": "1"},
                stdin=subprocess.DEVNULL,
                stderr=out,
            )

    def wait_for(self, state: str, seconds: float = START_SECONDS) -> bool:
        """Until it told its service manager a line that begins so; False when it ended before, or time is over."""
        deadline = time.monotonic() + seconds
        while not any(told.startswith(state) for told in self.states):
            ended = self.process.poll() is not None
            if select.select([self._notify], [], [], 0.05)[0]:
                self.states += self._notify.recv(4096).decode().splitlines()
            elif ended or time.monotonic() > deadline:
                return False
        return True

    def ready(self) -> "Agent":
        """Wait until its first sweep is committed."""
        assert self.wait_for("READY=1"), self.said()
        return self

    def kill(self) -> None:
        """SIGKILL."""
        self.process.kill()
        self.wait()

    def stop(self) -> int:
        """SIGTERM; its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.wait()

    def wait(self, seconds: float = 40) -> int:
        """Its exit code. One that hangs says where, in its log."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.send_signal(signal.SIGABRT)
            code = self.process.wait()
            raise AssertionError(f"still there after {seconds} s (exit {code}):\n{self.said()}") from None
        finally:
            self._notify.close()

    def said(self) -> str:
        """All that was written to its log."""
        return self.log.read_text()


def configuration(directory: Path, anchor: str, customers: Mapping[str, Sequence[str]], **over: Any) -> Path:
    """Write `agent.yaml` into `directory`: one anchor, customers by cgroup patterns; `over` replaces whole sections."""
    sections: dict[str, Any] = {
        "agent": {
            "cluster": "test",
            "node": "node",
            "data_dir": str(directory / "data"),
            "run_dir": str(directory / "run"),
            "window": "10s",
            "sample_interval": "1s",
            "fresh_boot": "1ms",
        },
        "telemetry": {"listen": "off"},
        "sources": [{"kind": "cgroups", "include": [f"{anchor}/**"], "anchors": [anchor]}],
        "meters": [{"meter": "cpu.time", "dimension": "cpu"}],
        "customers": [{"id": name, "match": [{"cgroup": p} for p in patterns]} for name, patterns in customers.items()],
        "sinks": [
            {"id": "files", "kind": "file", "path": str(directory / "out")},
            {"id": "audit", "kind": "file", "path": str(directory / "audit"), "role": "copy"},
        ],
        "spool": {"reserve": "1MiB", "retention": "7d", "evidence_retention": "7d"},
    }
    sections.update(over)
    directory.mkdir(exist_ok=True)
    path = directory / "agent.yaml"
    path.write_text(json.dumps(sections))  # JSON is YAML
    return path


class Delivered:
    """What lies in a file sink's directory, read as its consumer would."""

    def __init__(self, *directories: Path) -> None:
        files = [path for directory in directories for path in directory.glob("*.ndjson")]
        self.hidden = [path for directory in directories for path in directory.glob(".*")]
        self.lines = [line for path in files for line in path.read_bytes().splitlines()]
        self.records: list[dict[str, Any]] = sorted(map(json.loads, self.lines), key=lambda r: r["seq"])

    def total(self, kind: str, customer: str | None = None) -> int:
        """Σ quantity of one kind, of one customer, in nanoseconds."""
        return sum(int(r["quantity"]) for r in self.records if r["kind"] == kind and r["customer"] == customer)

    def check(self) -> None:
        """No line is in two files, no id on two lines, no window and owner twice under one n, no file half made."""
        assert self.hidden == []
        for what in (self.lines, [r["id"] for r in self.records]):
            assert [x for x, count in Counter(what).items() if count > 1] == []
        keys = [
            json.dumps([r[k] for k in ("source", "kind", "dimension", "customer", "group", "start", "end", "n")])
            for r in self.records
        ]
        assert [key for key, count in Counter(keys).items() if count > 1] == []


def in_flight(data_dir: Path) -> int:
    """Σ of the debts that the books still carry, in nanoseconds; negative or zero."""
    db = apsw.Connection(str(data_dir / "spool.db"), flags=apsw.SQLITE_OPEN_READONLY)
    rows = [msgspec.json.decode(body, type=Row) for (body,) in db.execute("SELECT body FROM resource")]
    db.close()
    return sum(debt for row in rows for debt in row.track.in_flight.values())
