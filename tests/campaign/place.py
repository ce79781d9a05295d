"""Where the daemon is tried: its directories, its configuration, the billing system, its lives one after another."""

import json
import shutil
import signal
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.campaign.living import Life
from tests.campaign.oracle import Ledger, Owner, Used, files, judge, ledger, owes, together, upstream
from tests.campaign.row import Scene, Verdict
from tests.campaign.script import WALL, Shared, owned
from tests.upstream.process import Upstream
from tests.upstream.rules import V1

SUBJECTS = {"cus_acme": "acme", "cus_beta": "beta", "acme@2": "acme", "beta@2": "beta"}
KNOWN = ("reboot",)  # gaps that only say what the truth knows: counters went with the power
PER = {"cpu": 1, "cpu_seconds": 10**9}


class Place:
    """One machine with one daemon at a time. `data` and `run` may lie on disks of their own."""

    def __init__(self, scene: Scene, *, data: Path | None = None, plan: dict[str, Any] | None = None) -> None:
        self.scene, self.dice = scene, scene.dice
        self.where, self.run_dir = scene.where, scene.where / "run"
        disk = data or scene.where
        self.data, self.audit = disk / "data", disk / "audit"
        self.path = scene.where / "agent.yaml"
        self.upstream = Upstream(scene.where / "store", plan)
        self.shared = Shared()
        self.wrong: list[str] = []  # what was seen meanwhile, and must not be
        self.boots, self.truth, self.life = 1, dict[Owner, tuple[int, int]](), None
        self.ahead = 0  # seconds by which the clocks of its boot are later
        self.configure()

    life: Life | None

    def configure(
        self, sink: Mapping[str, Any] | None = None, *, ids: Mapping[str, str] | None = None, **over: Any
    ) -> None:
        """Write the configuration. `sink`: more of the billing sink's section; `over` replaces whole sections.

        `ids`: how a customer is called, by sink.
        """
        billing = {
            "id": "events",
            "kind": "cloudevents",
            "profile": "openmeter-v1",
            "url": self.upstream.url + V1,
            "dedupe_horizon": "32d",
            "timeout": "1s",
            "max_batch": 3,
            "dimensions": {"cpu": {"aggregation": "sum"}},
            **(sink or {}),
        }
        named = {billing["id"]: "cus_{}"} if ids is None else ids
        customers = [
            {
                "id": name,
                "match": [{"cgroup": f"t/{name}"}, {"cgroup": f"t/{name}/**"}],
                "ids": {sink_id: told.format(name) for sink_id, told in named.items()},
            }
            for name in ("acme", "beta")
        ]
        sections: dict[str, Any] = {
            "agent": {
                "cluster": "campaign",
                "node": "node",
                "data_dir": str(self.data),
                "run_dir": str(self.run_dir),
                "window": "10s",
                "sample_interval": "1s",
                "shutdown_budget": "10s",
            },
            "telemetry": {"listen": "off"},
            "sources": [{"kind": "cgroups", "include": ["t/**"], "anchors": ["t"]}],
            "meters": [{"meter": "cpu.time", "dimension": "cpu"}],
            "customers": customers,
            "sinks": [billing, {"id": "audit", "kind": "file", "path": str(self.audit), "role": "copy"}],
            "spool": {"reserve": "256KiB", "retention": "32d", "evidence_retention": "32d"},
        }
        sections.update(over)
        fresh = self.path.with_suffix(".new")
        fresh.write_text(json.dumps(sections))  # JSON is YAML
        fresh.rename(self.path)

    # -- lives -----------------------------------------------------------------------------------------------------

    def start(self, **how: Any) -> Life:
        """Another life of the agent; see `Life`."""
        self.shared.quiet()
        self.life = Life(self.path, self.shared, f"boot-{self.boots}", ahead=self.ahead, **how)
        return self.life

    def ready(self, seconds: float = 15, **how: Any) -> Life:
        """The same, until its first sweep is committed."""
        before = self.shared.commits
        life = self.start(**how)
        self.until(lambda: self.shared.commits > before or not life.alive(), seconds)
        assert life.alive(), f"it ended with {life.code}:\n{self.said()}"
        return life

    def until(self, true: Callable[[], bool], seconds: float = 15, *, pause: float = 0.004) -> bool:
        """Wait for it, looking each `pause` seconds; whether it came."""
        deadline = time.monotonic() + seconds
        while not true():
            if time.monotonic() > deadline:
                return False
            time.sleep(pause)
        return True

    def kept_alive(self, seconds: float) -> None:
        """As a service manager would: started again whenever it ends."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            if self.life is None or not self.life.alive():
                self.start()
            assert self.life is not None
            self.life.wait(min(left, 0.1))
            if not self.life.alive():
                time.sleep(0.05)

    def reboot(self, least: int) -> None:
        """The machine is started again: its run directory is empty, every counter at zero.

        What was used since the last committed sweep, at `least`, went with the counters.
        """
        at = WALL()
        surely = owned(self.shared.ms(least)) if least else dict.fromkeys(owned(0), 0)
        self._add(surely, owned(self.shared.ms(at)))
        shutil.rmtree(self.run_dir, ignore_errors=True)
        self.boots += 1
        self.shared.reboot()

    def _add(self, least: Mapping[Owner, int], most: Mapping[Owner, int]) -> None:
        for owner in least:
            low, high = self.truth.get(owner, (0, 0))
            self.truth[owner] = low + least[owner], high + most[owner]

    def said(self) -> str:
        """What all lives wrote into their log."""
        log = self.path.with_suffix(".log")
        return log.read_text(errors="replace") if log.exists() else ""

    # -- the end ---------------------------------------------------------------------------------------------------

    def settle(self, *, heal: bool = True) -> None:
        """The faults are over: use ends, and lives in good order follow until nothing is owed."""
        if heal:
            self.upstream.set_plan(script=[], every=0, seed=None, poison=[], max_events=None, token=None)
        if self.life is not None and self.life.alive():
            self.life.signal(signal.SIGCONT)
            self.life.kill()
        self.shared.end()
        self._add(owned(self.shared.ms(WALL())), owned(self.shared.ms(WALL())))
        for again in range(8):
            life = self.ready(30)
            life.wait(again * 0.5)  # what is to be tried again is due by then
            code = life.stop()
            assert code == 0, f"it stopped with {code}:\n{self.said()[-3000:]}"
            if not owes(self.data):
                break

    def verdict(self, *sinks: str) -> Verdict:
        """The oracle's word on both ends."""
        truth = {owner: Used(*both) for owner, both in self.truth.items()}
        billed: dict[Owner, Used] = {owner: used for owner, used in truth.items() if owner is not None}
        end = upstream(self.upstream.totals(), PER, SUBJECTS)
        ledgers = [ledger(self.data, sink) for sink in sinks or ("events",)]
        audited = judge(truth, files([self.audit]), [ledger(self.data, "audit")], known=KNOWN)
        seen = Verdict(0, len(self.wrong), 0, {}, tuple(self.wrong))
        return together(judge(billed, end, [self._billable(of) for of in ledgers], known=KNOWN), audited, seen)

    def _billable(self, of: Ledger) -> Ledger:
        return Ledger(of.records, {owner: rest for owner, rest in of.carried.items() if owner is not None}, of.gaps)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self.life is not None and self.life.alive():
            self.life.signal(signal.SIGCONT)
            self.life.kill()
        self.upstream.stop()
        if error is not None:
            error.add_note(self.said()[-2000:])
