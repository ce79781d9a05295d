"""The CloudEvents sink, its drain and a real spool against a hostile billing system: another process, TCP and TLS.

The faults come by a seed, which is printed; SEED=n runs that one again.
"""

import asyncio
import json
import os
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any, TypeVar

import pytest
import trustme
from msgspec import structs

from agent.clock import Moment
from agent.credentials import Tls
from agent.delivery.drain import Drain
from agent.delivery.quantity import Measure
from agent.delivery.rendering import Route
from agent.record import UsageRecord
from agent.sinks.cloudevents import CloudEventsSink, Profile
from agent.spool import Spool
from agent.spool.outbox import Outbox
from tests.spool.ledger import S, append, opened, record
from tests.upstream.process import Certificates, Upstream, certificates
from tests.upstream.rules import V1, V3
from tests.upstream.store import Totals

pytestmark = pytest.mark.real

T = TypeVar("T")
SEED = int(os.environ.get("SEED") or random.SystemRandom().randrange(1 << 32))
PATHS: dict[Profile, str] = {"openmeter-v1": V1, "openmeter-v3": V3, "generic": "/hook"}
CUSTOMERS = {"acme": "cus_1", "beta": "cus_2", "gone": "gone"}
CPU = Measure("cpu_core_seconds", "core-second", S, 3)
DISK = Measure("disk_ns", "ns")
AUTHORITY = trustme.CA()


class Agent:
    """The delivering side: one sink, one spool."""

    def __init__(
        self, path: Path, upstream: Upstream, profile: Profile, tls: Certificates | None, **terms: Any
    ) -> None:
        """`terms`: of the sink."""
        self.spool: Spool = opened(path)
        self.outbox = Outbox(self.spool)
        self._sink = CloudEventsSink(
            "events",
            "billing",
            upstream.url + PATHS[profile],
            profile,
            timeout=5 * S,
            tls=Tls() if tls is None else Tls(tls.ca, tls.client),
            **terms,
        )
        self.standing = self.outbox.register("events", "cloudevents", "billing", b"{}", since=0)
        self._random = random.Random(SEED)

    def use(self, count: int, customers: Sequence[str] = ("acme", "beta")) -> None:
        """So many records of usage that does not fit a scale."""
        records = []
        for number in range(count):
            used = self._random.randrange(10**12)
            one = record(number, customer=self._random.choice(customers), quantity=used)
            records.append(structs.replace(one, dimension=self._random.choice(["cpu", "disk"])))
        append(self.spool, *records)

    def deliver(self, seconds: float = 40.0, meanwhile: Callable[["Agent"], None] | None = None) -> None:
        """Until everything is settled. `meanwhile` is called beside it, in a thread, with what has been settled."""
        asyncio.run(self._deliver(seconds, meanwhile))

    async def _deliver(self, seconds: float, meanwhile: Callable[["Agent"], None] | None) -> None:
        drain = Drain(
            self._sink,
            Route(measures={"cpu": CPU, "disk": DISK}, customers=CUSTOMERS),
            self.outbox,
            self._at_once,
            now=lambda: Moment(time.time_ns(), time.time_ns()),
            chance=lambda: self._random.random() / 500,  # of what would be minutes
            told=lambda _sink, _turn: None,
        )
        running = asyncio.create_task(drain.run())
        try:
            async with asyncio.timeout(seconds):
                if meanwhile is not None:
                    await asyncio.to_thread(meanwhile, self)
                while self.outbox.has_open(self.standing) or self.outbox.more(self.standing):
                    await asyncio.sleep(0.02)
                    if running.done():
                        running.result()
            drain.finish()
            await running
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            await self._sink.close()

    async def _at_once(self, act: Callable[..., T], *args: object) -> T:
        return act(*args)

    # -- what the ledger says --------------------------------------------------------------------------------------

    def outcomes(self) -> Counter[str]:
        """How many records met each."""
        return Counter(outcome for (outcome,) in self.spool.db.execute("SELECT outcome FROM item"))

    def owed(self, *outcomes: str) -> dict[tuple[str, str], Fraction]:
        """What records with these outcomes come to by the other end's names, as they were used."""
        sums: dict[tuple[str, str], Fraction] = {}
        for body, outcome in self.spool.db.execute("SELECT body, outcome FROM record JOIN item USING(seq)"):
            if outcome in outcomes:
                used = UsageRecord.parse(body)
                measure = CPU if used.dimension == "cpu" else DISK
                key = CUSTOMERS[used.customer or ""], measure.name
                sums[key] = sums.get(key, Fraction(0)) + Fraction(used.quantity, measure.per)
        return sums

    def carried(self) -> dict[tuple[str, str], Fraction]:
        """What rounding has left, likewise."""
        rows = self.spool.db.execute("SELECT customer, dimension, value, grain FROM remainder")
        names = {"cpu": CPU, "disk": DISK}
        return {
            (CUSTOMERS[customer], names[dimension].name): Fraction(int(value), int(grain)) / names[dimension].per
            for customer, dimension, value, grain in rows
        }


@contextmanager
def scene(
    path: Path, plan: dict[str, Any], profile: Profile, *, tls: Certificates | None = None, **terms: Any
) -> Iterator[tuple[Upstream, Agent]]:
    """A billing system with this plan, and an agent that sends to it."""
    print(f"SEED={SEED}")
    with Upstream(path / "store", plan, tls=tls, mutual=tls is not None) as upstream:
        agent = Agent(path, upstream, profile, tls, **terms)
        try:
            yield upstream, agent
        finally:
            agent.spool.close()


def equal(totals: Totals, agent: Agent) -> None:
    """Both ends say the same, exactly; no id twice, no id with two bodies."""
    assert set(agent.outcomes()) <= {"delivered", "duplicate"}
    owed, carried = agent.owed("delivered", "duplicate"), agent.carried()
    expected = {key: total - carried.get(key, 0) for key, total in owed.items()}
    assert {key: Fraction(total) for key, total in totals.sums.items()} == expected
    assert (totals.doubled, set(totals.changed)) == ([], set())


@pytest.mark.parametrize("secure", [False, True], ids=["tcp", "tls"])
@pytest.mark.parametrize(
    ("profile", "max_batch"), [("openmeter-v1", 7), ("openmeter-v3", 100), ("generic", None), ("generic", 10)]
)
def test_totals_are_equal_whatever_the_billing_system_does(
    tmp_path: Path, profile: Profile, max_batch: int | None, *, secure: bool
) -> None:
    """Lost, late, torn and wrong answers, refused connections and half-taken batches, by a seed."""
    tls = certificates(tmp_path / "tls", AUTHORITY) if secure else None
    plan = {"seed": SEED, "chance": 0.5}
    with scene(tmp_path, plan, profile, tls=tls, max_batch=max_batch) as (upstream, agent):
        agent.use(3000 if max_batch == 100 else 200)
        agent.deliver()
        struck = upstream.struck()
        print(dict(struck))
        assert struck.total() > struck["none"]
        equal(upstream.totals(), agent)


@pytest.mark.parametrize("every", [1, 3])
def test_a_billing_system_that_knows_no_ids_is_never_sent_one_twice(tmp_path: Path, every: int) -> None:
    """L10, horizon 0: what may have arrived waits for a person, and is told apart exactly."""
    plan = {"dedupe": False, "every": every}
    with scene(tmp_path, plan, "openmeter-v1", max_batch=5, dedupe_horizon=0) as (upstream, agent):
        agent.use(50)
        agent.deliver()
        totals = upstream.totals()
        assert totals.doubled == []
        assert totals.fates == {"kept": 50}  # each of them was taken, and the answers were lost
        assert set(agent.outcomes()) == ({"ambiguous"} if every == 1 else {"ambiguous", "delivered"})
        (why,) = {why for (why,) in agent.spool.db.execute("SELECT why FROM item WHERE outcome='ambiguous'")}
        assert "no longer knows its id" in why


def test_a_record_that_is_refused_costs_only_itself(tmp_path: Path) -> None:
    """L9: a customer that is gone there, among good ones, in batches that are too large."""
    plan = {"poison": ["gone"], "max_events": 30}
    with scene(tmp_path, plan, "openmeter-v1", max_batch=100) as (upstream, agent):
        agent.use(200, ["acme", "beta", "acme", "beta", "acme", "beta", "gone"])
        agent.deliver()
        refused = Counter(customer for customer, _ in agent.owed("rejected"))
        assert set(refused) == {"gone"}
        assert agent.outcomes()["rejected"] + agent.outcomes()["delivered"] == 200
        totals, carried = upstream.totals(), agent.carried()
        expected = {key: total - carried.get(key, 0) for key, total in agent.owed("delivered").items()}
        assert {key: Fraction(total) for key, total in totals.sums.items()} == expected
        assert totals.doubled == []


def test_a_billing_system_that_is_killed_and_comes_back_gets_the_rest(tmp_path: Path) -> None:
    """kill -9 between two batches or in the midst of one, again and again."""

    def kill(agent: Agent) -> None:
        for _ in range(4):
            time.sleep(0.15)
            upstream.stop()
            time.sleep(0.05)
            upstream.start()

    plan = {"seed": SEED, "chance": 0.2}
    with scene(tmp_path, plan, "openmeter-v1", max_batch=2) as (upstream, agent):
        agent.use(1000)
        agent.deliver(meanwhile=kill)
        equal(upstream.totals(), agent)


def test_nothing_leaves_until_an_expired_certificate_is_renewed(tmp_path: Path) -> None:
    """Everything is kept; the next try after the renewal delivers it."""
    expired, good = (certificates(tmp_path / name, AUTHORITY, expired=name == "old") for name in ("old", "new"))

    def renew(agent: Agent) -> None:
        time.sleep(0.3)
        assert upstream.totals().arrivals == 0
        upstream.set_certificate(good)

    with scene(tmp_path, {}, "openmeter-v1", tls=expired) as (upstream, agent):
        agent.use(20)
        agent.deliver(meanwhile=renew)
        equal(upstream.totals(), agent)
        whys = {why for (why,) in agent.spool.db.execute("SELECT why FROM attempt WHERE outcome='retry'")}
        assert any("expired" in why for why in whys), whys
        assert upstream.totals().fates == {"kept": 20}


def test_a_token_that_is_not_taken_costs_nothing_and_the_new_one_is_read(tmp_path: Path) -> None:
    """401 until the file holds another token."""
    token = tmp_path / "token"
    token.write_text("old")

    def change(agent: Agent) -> None:
        time.sleep(0.3)
        assert upstream.totals().fates["kept"] == 0
        token.write_text("new")

    with scene(tmp_path, {"token": "new"}, "openmeter-v1", token_file=token) as (upstream, agent):
        agent.use(20)
        agent.deliver(meanwhile=change)
        equal(upstream.totals(), agent)


def test_a_redirect_is_not_followed_and_costs_nothing(tmp_path: Path) -> None:
    """CloudEvents web hooks: usage goes where a person said, and nowhere else."""
    with Upstream(tmp_path / "other") as other:
        script = [{"do": "redirect", "to": f"{other.url}{V1}"}] * 3
        with scene(tmp_path, {"script": script}, "openmeter-v1") as (upstream, agent):
            agent.use(20)
            agent.deliver()
            equal(upstream.totals(), agent)
        assert other.totals().arrivals == 0


def test_a_duplicate_of_a_first_attempt_is_a_conflict(tmp_path: Path) -> None:
    """L9: a webhook claims to have what was never sent to it; a person is told, and the rest is delivered."""
    with scene(tmp_path, {"script": ["duplicate"]}, "generic", concurrency=1) as (upstream, agent):
        agent.use(5)
        agent.deliver()
        assert agent.outcomes() == {"conflict": 1, "delivered": 4}
        assert upstream.totals().fates == {"turned": 1, "kept": 4}


def test_values_are_told_as_exact_decimals(tmp_path: Path) -> None:
    """What the other end sums is text to three decimals, and what that leaves is in the ledger."""
    with scene(tmp_path, {}, "openmeter-v1") as (upstream, agent):
        append(agent.spool, *(structs.replace(record(n, quantity=1_234_567), dimension="cpu") for n in range(10)))
        agent.deliver()
        lines = [json.loads(line) for line in upstream.store.read_text().splitlines()]
        assert sorted({line["value"] for line in lines}) == ["0.001", "0.002"]
        assert upstream.totals().sums == {("cus_1", CPU.name): Decimal("0.012")}
        assert agent.carried() == {("cus_1", CPU.name): Fraction(345_670, S)}
