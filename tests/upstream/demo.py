"""`make demo-delivery`: the real agent against a billing system that loses every third answer, in under a minute.

It meters this machine (no privilege is needed) and shows: both ends' totals side by side; the record that was sent most
often, explained; and, at a receiver that knows no ids, a record that may have arrived, settled by a person, with the
audit trail. The exit code is 1 if the totals differ.
"""

import json
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

from tests.upstream.process import ROOT, Upstream
from tests.upstream.rules import V1

CONFIG = """\
agent: {{cluster: demo, data_dir: "{home}/data", run_dir: "{home}/run", window: 10s, sample_interval: 1s}}
telemetry: {{listen: "127.0.0.1:0"}}
sources: [{{kind: host}}]
meters:
  - {{meter: host.cpu.time, dimension: cpu, group_by: [mode], customer: acme}}
  - {{meter: host.memory.used, dimension: memory, customer: globex}}
  - {{meter: host.uptime, dimension: uptime, customer: globex}}
customers: [{{id: acme}}, {{id: globex}}]
sinks:
  - id: billing
    kind: cloudevents
    profile: openmeter-v1
    url: {url}
    max_batch: 100
    dedupe_horizon: {horizon}
    dimensions:
      cpu: {{unit: core-second, scale: 3, aggregation: sum}}
      memory: {{unit: MiB-minute, scale: 3, aggregation: sum}}
      uptime: {{unit: second, scale: 3, aggregation: sum}}
spool: {{max_bytes: 2GiB, retention: 32d, evidence_retention: 1d}}
"""
PATIENCE = 40.0  # seconds for each of two waits
RECORDS = 15
LOST = {"do": "lose"}


class Demo:
    """An agent and a billing system, each a process of its own."""

    def __init__(self, home: Path) -> None:
        self._home, self._config, self.kept = home, home / "agent.yaml", home / "data/spool.db"
        self.upstream = Upstream(home / "billing.ndjson", {"script": [LOST, LOST, None], "every": 3})
        self.configure("32d")
        with (home / "agent.log").open("wb") as log:
            command = [
                "setpriv",
                "--pdeathsig=KILL",
                sys.executable,
                "-m",
                "agent",
                "run",
                "--config",
                str(self._config),
            ]
            self.agent = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL, stderr=log)

    def configure(self, horizon: str) -> None:
        """How long the receiver is said to know an id."""
        self._config.touch(0o600)
        self._config.write_text(CONFIG.format(home=self._home, url=self.upstream.url + V1, horizon=horizon))

    def reload(self, horizon: str) -> None:
        """By SIGHUP, and until it is in force."""
        self.configure(horizon)
        self.agent.send_signal(signal.SIGHUP)
        self.wait(lambda: "configuration adopted" in (self._home / "agent.log").read_text())

    def ask(self, *arguments: str) -> str:
        """What the command line answers."""
        command = [sys.executable, "-m", "agent", *arguments, "--config", str(self._config)]
        run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, env=os.environ | NARROW)
        if run.returncode:
            raise SystemExit(f"metering-agent {' '.join(arguments)}: {run.stdout}{run.stderr}")
        return run.stdout

    def show(self, *arguments: str) -> None:
        """The same, for whoever looks on."""
        said = self.ask(*arguments).rstrip()
        print(f"$ metering-agent {shlex.join(arguments)}\n{said}\n", flush=True)

    def records(self, *arguments: str) -> list[dict[str, Any]]:
        """Lines of `spool export`."""
        return [json.loads(line) for line in self.ask("spool", "export", *arguments).splitlines()]

    def wait(self, happened: Callable[[], bool]) -> None:
        """Until it has; leaves with the agent's log if it does not."""
        deadline = time.monotonic() + PATIENCE
        while not happened():
            if time.monotonic() > deadline or self.agent.poll() is not None:
                raise SystemExit(f"it did not come to that in time:\n{(self._home / 'agent.log').read_text()}")
            time.sleep(0.5)

    def most_sent(self) -> tuple[int, int]:
        """(times, number) of the delivered record that was sent most often."""
        delivered = self.records("--outcome", "delivered")
        return max(((len(r["deliveries"][0]["attempts"]), r["seq"]) for r in delivered), default=(0, 0))

    def stop(self) -> None:
        """SIGTERM: what is open is cut and sent."""
        self.agent.send_signal(signal.SIGTERM)
        self.agent.wait(30)


NARROW = {"COLUMNS": "160", "NO_COLOR": "1"}


def side_by_side(demo: Demo) -> bool:
    """Print both ends' totals; whether they are equal."""
    ledger: dict[tuple[str, str], Decimal] = defaultdict(Decimal)
    for total in json.loads(demo.ask("sink", "totals", "--json")):
        if total["state"] in ("delivered", "duplicate"):
            ledger[total["customer"], total["dimension"]] += Decimal(total["submitted"])
    there = demo.upstream.totals()
    print(f"{'customer':10}{'dimension':12}{'ledger':>16}{'receiver':>16}")
    for key in sorted(ledger.keys() | there.sums.keys()):
        ours, theirs = ledger[key], there.sums.get(key, Decimal(0))
        print(f"{key[0]:10}{key[1]:12}{ours:>16}{theirs:>16}  {'equal' if ours == theirs else 'DIFFERENT'}")
    print(f"{there.arrivals} events arrived; {len(there.kept)} ids billed, {len(there.doubled)} more than once\n")
    return ledger == there.sums and not there.doubled


def main() -> int:
    """Run it; the exit code."""
    with tempfile.TemporaryDirectory(prefix="demo-") as home:
        demo = Demo(Path(home))
        try:
            return story(demo)
        finally:
            demo.agent.kill()
            demo.agent.wait()
            demo.upstream.stop()


def story(demo: Demo) -> int:
    """All of it, in order."""
    print(
        "A billing system loses its first two answers, and then every third. This machine is metered for two customers."
    )
    print()
    demo.wait(demo.kept.exists)
    demo.wait(lambda: len(demo.records("--outcome", "delivered")) >= RECORDS)
    times, seq = demo.most_sent()
    print(f"-- a record that was sent {times} times\n")
    demo.show("explain", str(seq))
    print("-- the receiver is said to know no ids from now on, and loses one answer more\n")
    demo.reload("0s")
    demo.upstream.set_plan(every=0, script=[LOST])
    demo.wait(lambda: bool(demo.records("--outcome", "ambiguous")))
    (doubtful, *_) = demo.records("--outcome", "ambiguous")
    demo.show("explain", str(doubtful["seq"]))
    has = any(key[1] == doubtful["id"] for key in demo.upstream.totals().kept)
    print(f"-- a person looks at the receiver: it {'has' if has else 'does not have'} {doubtful['id']}\n")
    verdict = ["--delivered" if has else "--resend", "--reason", "seen in its list of events"]
    demo.show("spool", "resolve", str(doubtful["seq"]), *verdict)
    if demo.records("--outcome", "ambiguous"):  # its batch
        demo.show("spool", "resolve", "--all", "--sink", "billing", "--outcome", "ambiguous", *verdict)
    demo.show("spool", "audit")
    print("-- the agent stops, and sends what was open\n")
    demo.stop()
    return 0 if side_by_side(demo) else 1


if __name__ == "__main__":
    sys.exit(main())
