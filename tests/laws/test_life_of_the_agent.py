"""Laws L1–L7 by a stateful model: the real spool file, metering, outbox and file sinks through crashes and reboots.

The model knows nothing of marks, windows or transactions. It only knows who burnt what in which group, and which of
that a committed sweep has seen; the file must say the same after every step, customer by customer, to the nanosecond.
"""

import asyncio
import json
import tempfile
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from msgspec import structs

from agent.clock import Verdict
from agent.errors import SinkError, SpoolError
from agent.metering import Plan
from agent.model import NS_PER_MS as MS
from agent.model import Dimension
from agent.record import with_seq
from agent.sinks import Answer
from agent.sinks.file import FileSink
from agent.spool.outbox import Submission
from agent.spool.schema import BILLED
from tests.drained import drain_of, run_inline
from tests.laws.kernel import Node
from tests.laws.life import Life, plan
from tests.laws.scene import MINUTE, S, customer

ROOT = "a.slice"
PLACES = [f"{ROOT}/{i}" for i in range(3)] + [f"{ROOT}/{i}/{j}" for i in range(3) for j in range(2)]
ACCEPT_AFTER = 200 * S
PLANS = {
    "both": {"window": MINUTE},
    "both, short": {"window": 10 * S},
    "both, grouped": {"window": MINUTE, "dimensions": (Dimension("cpu", "cpu.time", group_by=("unit",)),)},
    "acme only": {"window": MINUTE},
}
ROLES = {"files": "copy", "bills": "billing"}

MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None  # thousands of fsyncs, and none of them under test

places = st.sampled_from(PLACES)
units = st.sampled_from(["acme", "beta", "free", ""])
burns = st.integers(0, 10**10)
waits = st.integers(1, 90_000).map(lambda ms: ms * MS)


POINTS = (
    "before staging",
    "no disk",
    "before it is noted",
    "the disk fails",
    "before rename",
    "no rename",
    "stopping",
    "before it is settled",
)


class Killed(SystemExit):
    """The process is gone at this very point: the one kind of exception after which a loop runs nothing more."""


class HostileSink(FileSink):
    """A file sink that dies, is stopped, or cannot reach its disk, when next it comes to `point`."""

    terms = structs.replace(FileSink.terms, max_batch=3)
    point = ""

    def _at(self, point: str) -> bool:
        """Whether this is where it happens; it does once."""
        reached = self.point == point
        if reached:
            self.point = ""
        return reached

    def _die_at(self, point: str) -> None:
        if self._at(point):
            raise Killed(point)

    async def stage(self, submission: Submission) -> None:
        self._die_at("before staging")
        if self._at("no disk"):
            raise SinkError("no disk")
        await super().stage(submission)
        self._die_at("before it is noted")
        if self._at("the disk fails"):
            raise SpoolError("the disk fails")

    async def send(self, submission: Submission) -> Answer:
        self._die_at("before rename")
        if self._at("no rename"):
            return Answer(outcome="retry", why="no rename")
        if self._at("stopping"):
            self.running.cancel()
            await asyncio.Event().wait()
        answer = await super().send(submission)
        self._die_at("before it is settled")
        return answer

    async def drain(self, life: Life) -> None:
        """Deliver what can be now."""
        now = life.metering.clock.at
        drain = drain_of(self, life.outbox, lambda: now(life.kernel.boottime), chance=0.5)
        drain.finish()
        self.running = asyncio.create_task(drain.run())
        await asyncio.wait([self.running])
        if self.running.cancelled():
            await drain.hold_back()
        else:
            self.running.result()


class Account:
    """What the model knows of one group: burnt in it, of that seen by a commit, and read by the living process."""

    def __init__(self, node: Node, parent: "Account | None") -> None:
        self.node, self.parent = node, parent
        self.burnt = self.counted = 0
        self.read: int | None = None
        self.unit: str | None = None  # as the last commit saw it, or for a newborn the last reading
        self.committed = False


class AgentLife(RuleBasedStateMachine):
    """One machine and its agent."""

    @initialize(boottime=st.sampled_from([60 * S, 3600 * S]))
    def begin(self, boottime: int) -> None:
        self.folder = tempfile.TemporaryDirectory(dir=MEMORY)
        path = Path(self.folder.name)
        self.life = Life(path, boottime=boottime)
        self.life.kernel.nodes.clear()
        self.young = boottime < 600 * S
        self.accounts: dict[str, Account] = {}
        self.dying: list[tuple[Account, int]] = []
        self.bill: dict[str | None, int] = {}
        self.owners_known = True
        self.listed = False  # has this epoch had a first listing?
        self.reboots = 0
        self.ledger: list[tuple[int, bytes]] = []
        self.closings: dict[str, int] = {}
        self.shipped: dict[str, list[bytes]] = {sink: [] for sink in ROLES}
        self.plan = "both"
        self.rules_changed = False
        self._make(ROOT, "")
        self._make(PLACES[0], "acme")
        self._start()

    def teardown(self) -> None:
        """In the end everything that was recorded is at every sink, once."""
        if not hasattr(self, "life"):
            return
        self.life.pass_time(3 * 3600 * S)  # whatever waits to be tried again is due, whichever way the clock went
        for hostile in self.sinks.values():
            hostile.point = ""
            run_inline(hostile.drain(self.life))
        kinds = {seq: json.loads(body)["kind"] for seq, body in self.ledger}
        for sink, role in ROLES.items():
            wanted = {with_seq(b, seq) for seq, b in self.ledger if role == "copy" or kinds[seq] in BILLED}
            found = self._delivered(sink)
            assert len(found) == len(set(found))
            assert set(found) == wanted
        self.life.spool.close()
        self.folder.cleanup()

    # -- the world -------------------------------------------------------------------------------------------------

    def _make(self, path: str, unit: str) -> None:
        node = self.life.kernel.make(path, **({"unit": unit} if unit else {}))
        self.accounts[path] = Account(node, self.accounts.get(path.rpartition("/")[0]))

    @rule(path=places, unit=units)
    def birth(self, path: str, unit: str) -> None:
        if path not in self.accounts and path.rpartition("/")[0] in self.accounts:
            self._make(path, unit)

    @rule(path=st.sampled_from([ROOT, *PLACES]), ns=burns, wait=waits)
    def burn(self, path: str, ns: int, wait: int) -> None:
        self.life.pass_time(wait)
        if path in self.accounts:
            self.life.kernel.burn(path, ns)
            self.accounts[path].burnt += ns

    @rule(path=places)
    def death(self, path: str) -> None:
        if path not in self.accounts or any(p.startswith(f"{path}/") for p in self.accounts):
            return
        self.life.kernel.remove(path)
        account = self.accounts.pop(path)
        seen = account.counted if account.read is None else account.read
        self._inherit(account.parent, account.burnt - seen)  # the tail that nobody read stays with the parent
        if account.read is not None:
            self.dying.append((account, account.read - account.counted))

    @rule(path=places, unit=units)
    def relabel(self, path: str, unit: str) -> None:
        if path in self.accounts:
            self.accounts[path].node.labels = {"unit": unit} if unit else {}

    @rule()
    def read(self) -> None:
        self.life.source.read()
        self._was_read()

    @rule(step=st.integers(-600, 600), synchronised=st.booleans())
    def clock_step(self, step: int, synchronised: bool) -> None:
        self.life.wall += step * S
        self.life.synchronised = synchronised
        if self.rules_changed and step < 0:
            self.owners_known = False  # the same time of day is judged by its own rules; only the sum is certain

    # -- the agent -------------------------------------------------------------------------------------------------

    def _start(self) -> None:
        self.life.plan = self._plan()
        self.life.start()
        self.sinks = {sink: HostileSink(sink, role, self.life.path / sink) for sink, role in ROLES.items()}
        for sink in self.sinks.values():
            self.life.outbox.register(sink.id, sink.kind, sink.role, b"{}", since=None)

    def _plan(self) -> Plan:
        acme, beta = customer("acme", unit="acme"), customer("beta", unit="beta")
        customers = (acme,) if self.plan == "acme only" else (acme, beta)
        return plan(*customers, accept_after=ACCEPT_AFTER, **PLANS[self.plan])  # type: ignore[arg-type]

    @rule(wait=waits)
    def sweep(self, wait: int) -> None:
        swept = self.life.sweep(after=wait)
        self._was_read()
        self._was_committed()
        for balance in swept.commit.balances:
            assert (balance.booked, balance.change, balance.overrun) == (balance.moved, 0, 0)
        if swept.verdict is Verdict.UNCONFIRMED:
            assert all(c.record.kind == "gap" for c in swept.commit.closed)

    @rule()
    def commit_fails(self) -> None:
        self.life.veto_commits()
        try:
            self.life.metering.sweep(self.life.source)
        except SpoolError:
            self._was_read()
        else:
            raise AssertionError("a vetoed commit passed")
        finally:
            self.life.veto_commits(False)

    @rule(name=st.sampled_from(sorted(PLANS)))
    def reload(self, name: str) -> None:
        self.sweep(MS)
        self.rules_changed |= (name == "acme only") != (self.plan == "acme only")
        self.plan = name
        self.life.metering.adopt(self._plan())

    @rule()
    def crash(self) -> None:
        self.life.kill()
        self._process_gone()
        self._start()

    @rule(away=waits)
    def restart(self, away: int) -> None:
        self.life.stop()
        self._process_gone()
        self.life.pass_time(away)
        self._start()

    @precondition(lambda self: self.reboots < 5)
    @rule(crashed=st.booleans(), up=st.sampled_from([5 * S, 700 * S]))
    def reboot(self, crashed: bool, up: int) -> None:
        self.life.kill() if crashed else self.life.stop()
        self.reboots += 1
        old = {path: account.node.labels for path, account in self.accounts.items()}
        self.life.reboot(boottime=up)
        self.accounts, self.dying = {}, []  # what nobody committed is gone with the boot
        for path in sorted(old):
            parent = self.accounts.get(path.rpartition("/")[0])
            self.accounts[path] = Account(self.life.kernel.nodes[path], parent)
        self.young = self.young or self.listed  # a new boot in a known epoch counts from zero, however old
        if not self.listed:
            self.young = up < 600 * S
        self._start()

    @rule(sink=st.sampled_from(sorted(ROLES)), point=st.sampled_from(["", "", *POINTS]), ns=burns)
    def deliver(self, sink: str, point: str, ns: int) -> None:
        self.burn(ROOT, ns, MINUTE)
        self.sweep(MS)
        hostile = self.sinks[sink]
        hostile.point = point or hostile.point
        try:
            run_inline(hostile.drain(self.life))
        except (Killed, SpoolError):
            self.crash()

    @rule(sink=st.sampled_from(sorted(ROLES)))
    def ship(self, sink: str) -> None:
        for file in sorted((self.life.path / sink).glob("*.ndjson")):
            self.shipped[sink] += file.read_bytes().splitlines()
            file.unlink()

    # -- what the model makes of it --------------------------------------------------------------------------------

    def _inherit(self, heir: Account | None, ns: int) -> None:
        while heir is not None and self.accounts.get(heir.node.path) is not heir:
            heir = heir.parent
        if heir is not None:
            heir.burnt += ns

    def _was_read(self) -> None:
        for account in self.accounts.values():
            account.read = account.burnt
            if not account.committed:
                account.unit = account.node.labels.get("unit")

    def _owner(self, account: Account) -> str | None:
        above: list[Account] = []
        at: Account | None = account
        while at is not None:
            above.insert(0, at)
            at = at.parent
        known = ("acme",) if self.plan == "acme only" else ("acme", "beta")
        return next((a.unit for a in above if a.unit in known), None)

    def _was_committed(self) -> None:
        from_zero = self.listed or self.young
        for account, ns in [*self.dying, *((a, a.burnt - a.counted) for a in self.accounts.values())]:
            if from_zero:
                owner = self._owner(account)
                self.bill[owner] = self.bill.get(owner, 0) + ns
        self.dying = []
        for account in self.accounts.values():
            account.counted, account.committed = account.burnt, True
            account.unit = account.node.labels.get("unit")
        self.listed = True

    def _process_gone(self) -> None:
        for account, ns in self.dying:
            self._inherit(account.parent, ns)
        self.dying = []
        for account in self.accounts.values():
            account.read = None

    def _delivered(self, sink: str) -> list[bytes]:
        files = sorted((self.life.path / sink).glob("*.ndjson"))
        return self.shipped[sink] + [line for file in files for line in file.read_bytes().splitlines()]

    # -- the laws --------------------------------------------------------------------------------------------------

    @invariant()
    def every_customer_has_exactly_what_was_seen_of_its_groups(self) -> None:
        """L1, L2, L4, L6: records and open windows, to the nanosecond."""
        found, wanted = self.life.balance(), {o: q for o, q in self.bill.items() if q}
        if self.owners_known:
            assert found == wanted
        assert sum(found.values()) == sum(wanted.values())

    @invariant()
    def records_only_add(self) -> None:
        """L3, L7: no record changes or goes; seq has no hole, no id comes twice, no usage is negative."""
        rows: list[tuple[int, bytes]] = list(self.life.spool.db.execute("SELECT seq, body FROM record ORDER BY seq"))
        assert rows[: len(self.ledger)] == self.ledger
        for _seq, body in rows[len(self.ledger) :]:
            fields = json.loads(body)
            assert int(fields["quantity"]) > 0 or fields["kind"] == "gap"
            assert fields["start"] < fields["end"] or fields["kind"] == "gap"
        self.ledger = rows
        assert [seq for seq, _ in rows] == list(range(1, len(rows) + 1))
        ids = [json.loads(body)["id"] for _, body in rows]
        assert len(set(ids)) == len(ids)

    @invariant()
    def what_closed_stays_closed(self) -> None:
        """L5, ACCOUNTING §4: the close watermark never moves back."""
        closings = json.loads(self.life.spool.meta("closings") or b"{}")
        assert all(closings[meter] >= at for meter, at in self.closings.items())
        self.closings = closings

    @invariant()
    def no_line_is_in_two_files(self) -> None:
        """L2: whatever died between freezing and acknowledging."""
        for sink in ROLES:
            lines = self._delivered(sink)
            assert len(set(lines)) == len(lines)


TestAgentLife = AgentLife.TestCase
TestAgentLife.settings = settings(max_examples=settings().max_examples * 6 // 10, stateful_step_count=40)
