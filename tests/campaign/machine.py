"""A machine whose clocks are arguments: its real spool, line, drain and sink, against the billing system's process.

While nothing is under way an hour's wait is over at once, and the billing system is told how late it is.
"""

import asyncio
import contextlib
import selectors
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from agent.credentials import Tls
from agent.delivery.drain import Drain
from agent.delivery.quantity import Measure
from agent.delivery.rendering import Route
from agent.sinks import Answer
from agent.sinks.cloudevents import CloudEventsSink, Profile
from agent.spool.outbox import Submission
from tests.campaign.oracle import Ledger, Owner, Used, judge, ledger, upstream
from tests.campaign.row import Scene, Verdict
from tests.drained import at_once
from tests.laws.life import Life, plan
from tests.laws.scene import MINUTE, S, customer
from tests.upstream.process import Certificates, Upstream
from tests.upstream.rules import V1, V3

CUSTOMERS = {"acme": "a.slice/acme", "beta": "a.slice/beta"}
SUBJECTS = {"cus_acme": "acme", "cus_beta": "beta"}
PATHS: dict[Profile, str] = {"openmeter-v1": V1, "openmeter-v3": V3, "generic": "/hook"}
DAY = 86_400
UNITS = {"cpu": Measure("cpu", "ns"), "cpu_seconds": Measure("cpu_seconds", "core-second", S, 3)}
Fault = Mapping[str, Any] | None


class _Instant(selectors.DefaultSelector):
    """Waits for what is under way; else time passes."""

    def __init__(self, machine: "Machine") -> None:
        super().__init__()
        self._machine = machine

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if self._machine.busy or timeout is None:
            began = time.monotonic_ns()
            events = super().select(0.02 if timeout is None else min(timeout, 0.02))
            self._machine.pass_time(time.monotonic_ns() - began)
            return events
        events = super().select(0)
        if timeout > 0 and not events:
            self._machine.pass_time(int(timeout * 1e9) + 1)
        return events


class _Loop(asyncio.SelectorEventLoop):
    """A loop that goes by the machine's clock."""

    def __init__(self, machine: "Machine") -> None:
        self._machine = machine
        super().__init__(_Instant(machine))

    def time(self) -> float:
        return self._machine.monotonic / 1e9


class Machine(Life):
    """One machine of a trial. `end` lets it deliver all it can, and `verdict` asks the oracle."""

    def __init__(
        self,
        scene: Scene,
        billing: Upstream,
        *,
        name: str = "one",
        profile: Profile = "openmeter-v1",
        faults: Iterable[Fault] = (),
        tls: Certificates | None = None,
        url: str = "",
        unit: str = "cpu",
        window: int = MINUTE,
        data: Path | None = None,
        machine: str = "m1",
        kernel: "Machine | None" = None,
        **terms: Any,
    ) -> None:
        """`faults`: what strikes each request in turn. `terms`: of the sink; its horizon is 32 days unless said.

        `data`: the disk that it finds. `kernel`: the machine whose counters and clocks these are.
        """
        path = scene.where / name
        path.mkdir()
        self.dice, self.billing, self.profile, self.unit = scene.dice, billing, profile, unit
        self.url = url or billing.url + PATHS[profile]
        self.faults: Iterator[Fault] = iter(faults)
        self.terms = {"dedupe_horizon": 32 * DAY * S, "max_batch": 3, "concurrency": 1, "timeout": S // 3} | terms
        self.tls = tls
        self.busy, self.monotonic, self.skipped, self._late = 0, 10**12, 0, 0
        self.sending: Callable[[], None] = lambda: None  # called before each request leaves
        self.used: dict[Owner, int] = {}  # at its end
        self.elsewhere: dict[Owner, int] = {}  # used before what the kernel counts now
        every = [customer(who, cgroup=group) for who, group in CUSTOMERS.items()]
        super().__init__(path, plan=plan(*every, window=window))
        for group in CUSTOMERS.values():
            self.kernel.make(group, cgroup=group)
        self.fingerprint = {"machine_id": machine}
        if kernel is not None:
            self.kernel, self.wall, self.run_dir = kernel.kernel, kernel.wall, kernel.run_dir
            self.elsewhere = {who: -used for who, used in kernel.truth().items()}  # it is the other's to tell
        if data is not None:
            shutil.copytree(data, self.data_dir)
        self.start().sweep()

    def start(self, **changes: object) -> "Machine":
        """Open the spool and go on."""
        super().start(**changes)
        self.outbox.register("events", "cloudevents", "billing", b"{}", since=None)
        return self

    def pass_time(self, ns: int) -> None:
        """All clocks go on."""
        super().pass_time(ns)
        self.monotonic += ns
        self.skipped += ns

    def use(self, minutes: int = 1) -> None:
        """Whole minutes of work, looked at four times in each, all of it closed."""
        for _ in range(4 * minutes):
            for group in CUSTOMERS.values():
                self.kernel.burn(group, self.dice.randrange(1, 10**10))
            self.sweep(after=15 * S)

    # -- delivering ------------------------------------------------------------------------------------------------

    def deliver(self, seconds: int = 3600) -> None:
        """Send until nothing is owed, or so long by the machine's clock."""
        with asyncio.Runner(loop_factory=lambda: _Loop(self)) as runner:
            runner.run(self._deliver(seconds))

    async def _deliver(self, seconds: int) -> None:
        drain = Drain(
            _Watched(self),
            Route(measures={"cpu": UNITS[self.unit]}, customers={who: f"cus_{who}" for who in CUSTOMERS}),
            self.outbox,
            at_once,
            now=self.metering.moment,
            chance=self.dice.random,
            told=lambda _sink, _turn: None,
        )
        running = asyncio.create_task(drain.run())
        ends = self.monotonic + seconds * S
        step = 1.0 if seconds < DAY else 600.0
        while self.owed() and self.monotonic < ends and not running.done():  # noqa: ASYNC110 - time must pass
            await asyncio.sleep(step)
        drain.finish(taking=False)
        await running
        await drain.sink.close()

    def owed(self) -> bool:
        """Whether there is anything yet to send."""
        standing = self.outbox.sinks()["events"]
        return self.outbox.has_open(standing) or self.outbox.more(standing)

    def sink(self) -> CloudEventsSink:
        """The real sink."""
        return CloudEventsSink(
            "events",
            "billing",
            self.url,
            self.profile,
            tls=Tls() if self.tls is None else Tls(self.tls.ca),
            **self.terms,
        )

    def strike(self) -> None:
        """Before a request leaves: the billing system hears what strikes it, and how late it is by now."""
        self.sending()
        fault = next(self.faults, None)
        if fault is not None or self.skipped - self._late > S:
            self._late = self.skipped
            with contextlib.suppress(OSError):  # it is down; it hears of it when it is started again
                self.billing.set_plan(script=[] if fault is None else [dict(fault)], ahead=self.skipped / 1e9)

    # -- the end ---------------------------------------------------------------------------------------------------

    def end(self, seconds: int = 40 * DAY) -> None:
        """A last sweep, a cut, and all that can be delivered; the spool is closed."""
        self.sweep(after=S)
        self.metering.cut()
        self.deliver(seconds)
        self.spool.close()
        self.used = self.truth()

    def truth(self) -> dict[Owner, int]:
        """What each customer used on this machine until its end."""
        return self.used or {
            who: self.kernel.nodes[group].own + self.elsewhere.get(who, 0) for who, group in CUSTOMERS.items()
        }

    def reboot(self, boottime: int, *, keep_run_dir: bool = False) -> None:
        """The machine boots: what its counters said is history."""
        self.elsewhere = self.truth()
        super().reboot(boottime, keep_run_dir=keep_run_dir)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.spool.close()


class _Watched(CloudEventsSink):
    """The sink itself; the machine knows when a request is under way."""

    def __init__(self, machine: Machine) -> None:
        self.__dict__.update(machine.sink().__dict__)
        self._machine = machine

    async def send(self, submission: Submission) -> Answer:
        self._machine.strike()
        self._machine.busy += 1
        try:
            return await super().send(submission)
        finally:
            self._machine.busy -= 1


def verdict(
    billing: Upstream, machines: Sequence[Machine], *, gaps: bool = False, known: Sequence[str] = ()
) -> Verdict:
    """The oracle's word on what these machines used and what arrived."""
    truth: dict[Owner, int] = {}
    for machine in machines:
        for who, amount in machine.truth().items():
            truth[who] = truth.get(who, 0) + amount
    end = upstream(billing.totals(), {name: unit.per for name, unit in UNITS.items()}, SUBJECTS)
    ledgers = [_billable(ledger(machine.data_dir, "events")) for machine in machines]
    return judge({who: Used(all_, all_) for who, all_ in truth.items()}, end, ledgers, gaps=gaps, known=known)


def _billable(of: Ledger) -> Ledger:
    """Without what is nobody's."""
    return Ledger(of.records, {owner: rest for owner, rest in of.carried.items() if owner is not None}, of.gaps)
