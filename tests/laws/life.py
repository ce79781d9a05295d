"""A life of the agent on a real spool file: a make-believe kernel and clock, everything else as in the daemon."""

import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

import pytest

from agent.attribution import Customer, Rules
from agent.errors import SpoolError
from agent.metering import Metering, Plan, Swept
from agent.model import Dimension
from agent.record import UsageRecord
from agent.spool import Spool
from agent.spool.outbox import Outbox
from tests.laws.kernel import Kernel, KernelSource
from tests.laws.scene import CPU_SECONDS, METERS, MINUTE, NOON, S

MIB = 1 << 20


def plan(
    *customers: Customer,
    feeds: Iterable[str] = ("cgroups",),
    dimensions: Sequence[Dimension] = (CPU_SECONDS,),
    window: int = MINUTE,
    interval: int = 15 * S,
    hold: int = 72 * 3600 * S,
    accept_after: int = 24 * 3600 * S,
    metadata_wait: int = 0,
) -> Plan:
    """A configuration as the line reads it."""
    return Plan(
        cluster="test",
        node="node",
        meters=METERS,
        feeds=dict.fromkeys(METERS, frozenset(feeds)),
        dimensions=tuple(dimensions),
        rules=Rules(customers),
        window=window,
        interval=interval,
        fresh_boot=600 * S,
        hold=hold,
        accept_after=accept_after,
        metadata_wait=metadata_wait,
    )


class Life:
    """One machine. `wall` is its clock, which a test may set wrong; `synchronised` what the kernel says of it."""

    def __init__(self, path: Path, *, boottime: int = 3600 * S, plan: Plan | None = None) -> None:
        self.path, self.generation = path, 0
        self.data_dir, self.run_dir = path / "data-0", path / "run"
        self.kernel = Kernel(boottime)
        self.kernel.make("a.slice")
        self.kernel.make("a.slice/u")
        self.wall, self.synchronised = NOON, True
        self.plan, self.max_bytes = plan or globals()["plan"](), 256 * MIB
        self.fingerprint = {"machine_id": "m1"}
        self.source = KernelSource(self.kernel)

    def start(self, **changes: object) -> "Life":
        """Open the spool and go on; `changes` are the plan's."""
        if changes:
            self.plan = plan(**changes)  # type: ignore[arg-type]
        self.spool = Spool.open(
            self.data_dir,
            run_dir=self.run_dir,
            fingerprint=self.fingerprint,
            now=self.wall,
            max_bytes=self.max_bytes,
            reserve=0,
        )
        self.metering = Metering(
            self.spool,
            self.plan,
            self.run_dir,
            now=lambda: (self.wall, self.kernel.boottime),
            synchronised=lambda: self.synchronised,
            boot=self.kernel.boot,
        )
        self.outbox = Outbox(self.spool)
        self.source = KernelSource(self.kernel)
        return self

    def adopt(self, *customers: Customer, **changes: object) -> None:
        """Reload with another plan."""
        self.plan = plan(*customers, **changes)  # type: ignore[arg-type]
        self.metering.adopt(self.plan)

    def pass_time(self, ns: int) -> None:
        """Both clocks go on."""
        self.wall += ns
        self.kernel.boottime += ns

    def sweep(self, after: int = 0) -> Swept:
        """One sweep, after some time."""
        self.pass_time(after)
        return self.metering.sweep(self.source)

    def sweep_that_fails(self) -> None:
        """A sweep that cannot be committed."""
        with pytest.raises(SpoolError):
            self.metering.sweep(self.source)

    def veto_commits(self, veto: bool = True) -> None:
        """Let every COMMIT fail, as a dying disk would."""
        self.spool.db.set_commit_hook((lambda: True) if veto else None)

    def kill(self) -> None:
        """SIGKILL: what is in the page cache stays, nothing is closed; the lock goes with the process."""
        self.generation += 1
        new = self.path / f"data-{self.generation}"
        shutil.copytree(self.data_dir, new)
        (new / "spool.db-shm").unlink(missing_ok=True)
        self.spool.close()
        shutil.rmtree(self.data_dir)
        self.data_dir = new

    def stop(self) -> None:
        """SIGTERM: cut and close."""
        self.metering.cut()
        self.spool.close()

    def lose_spool(self) -> None:
        """Somebody deletes the data directory."""
        shutil.rmtree(self.data_dir)

    def reboot(self, boottime: int, *, keep_run_dir: bool = False) -> None:
        """The machine boots, and has been up for `boottime` when the agent starts."""
        if not keep_run_dir:
            shutil.rmtree(self.run_dir)
            self.run_dir.mkdir()
        self.wall += boottime + 30 * S
        self.kernel.reboot(boottime)

    # -- what the committed file says ------------------------------------------------------------------------------

    def rows(self) -> list[tuple[int, int, UsageRecord]]:
        """(seq, n, record) of the ledger, in order."""
        rows = self.spool.db.execute("SELECT seq, n, body FROM record ORDER BY seq")
        return [(seq, n, UsageRecord.parse(body)) for seq, n, body in rows]

    def records(self) -> list[UsageRecord]:
        """The ledger."""
        return [record for _, _, record in self.rows()]

    def balance(self, dimension: str = "cpu") -> dict[str | None, int]:
        """Customer, or None for nobody → what records and open windows of the committed file hold; without zeros."""
        found: dict[str | None, int] = {}
        for record in self.records():
            if record.dimension == dimension:
                found[record.customer] = found.get(record.customer, 0) + record.quantity
        for row in self.spool.snapshot().rows:
            for share in row.shares:
                if share.dimension == dimension:
                    found[share.owner.customer] = found.get(share.owner.customer, 0) + share.quantity
        return {customer: quantity for customer, quantity in found.items() if quantity}

    def total(self) -> int:
        """All of it."""
        return sum(self.balance().values())
