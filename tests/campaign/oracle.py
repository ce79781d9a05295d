"""Both ends compared: what the counters say was used, what the spool holds of it, and what the billing system bills.

Every unit that was used is owed; every id that the spool calls delivered must be at the billing system; every id there
must be in a spool, and say what was frozen. Whatever is neither there nor visibly waiting for a person is lost;
whatever is there twice, or without having been used, is doubled.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from decimal import Decimal
from pathlib import Path

from msgspec import Struct

from agent.record import UsageRecord, record_id
from agent.spool import schema
from agent.spool.outbox import BILLED, STUCK
from tests.campaign.line import BEFORE, CUSTOMERS, DIMENSIONS, MEASURES, Scene, used
from tests.campaign.trial import Verdict
from tests.upstream.store import Totals

Truth = Counter[str]  # ns by customer; the same in every dimension


def truth_of(scene: Scene, last: int, first: int = 0) -> Truth:
    """What each customer used in one boot, from one tick to another."""
    return Counter({n: used(scene, i, last) - (used(scene, i, first) if first else 0) for i, n in enumerate(CUSTOMERS)})


def whole(scene: Scene) -> Truth:
    """What each customer used in a boot that lived to its last tick."""
    return truth_of(scene, scene.ticks + BEFORE)


class Owed(Struct, frozen=True):
    """One record that is billed, and how it stands at one sink: `state` None is what has not been settled."""

    customer: str
    dimension: str
    quantity: int
    state: str | None
    value: Decimal | None  # as it was frozen; None: it was not

    @property
    def waits(self) -> bool:
        """For a person, or to be sent."""
        return self.state is None or self.state in STUCK or self.state == "held"


class Ledger(Struct, frozen=True):
    """One spool's file at rest: what it owes one sink, by id, and what its rounding has carried there, in ns."""

    owed: Mapping[str, Owed]
    carried: Mapping[tuple[str, str], Decimal]
    lines: Sequence[str]  # the ids of every record of any kind, in order


def ledger(data: Path, sink: str) -> Ledger:
    """Read a spool. Raises AssertionError where the database is not intact, all of it."""
    db = schema.connect(str(data / "spool.db"))
    try:
        assert db.pragma("integrity_check") == "ok"
        number = db.execute("SELECT number FROM sink WHERE id=?", (sink,)).get
        rows = db.execute(
            "SELECT r.body, i.outcome, i.payload, EXISTS (SELECT 1 FROM held WHERE r.seq BETWEEN first AND last)"
            " FROM record AS r LEFT JOIN item AS i ON i.seq=r.seq AND i.sink=? ORDER BY r.seq",
            (number,),
        )
        owed, lines = {}, []
        for body, outcome, payload, held in rows:
            record, name = UsageRecord.parse(body), str(record_id(body))
            lines.append(name)
            if record.kind in BILLED and record.customer is not None:
                value = None if payload is None else Decimal(json.loads(payload)["data"]["value"])
                state = "held" if held and outcome is None else outcome
                owed[name] = Owed(record.customer, record.dimension, record.quantity, state, value)
        left = db.execute("SELECT customer, dimension, value, grain FROM remainder WHERE sink=?", (number,))
        return Ledger(owed, {(c, d): Decimal(v) / Decimal(g) for c, d, v, g in left}, lines)
    finally:
        db.close()


def at_the_source(truth: Truth, *ledgers: Ledger) -> Verdict:
    """Whether the spools hold what was used, by customer and dimension: no more, no less."""
    verdict = Verdict()
    for customer, quantity in truth.items():
        for dimension in DIMENSIONS:
            every = (o for ledger in ledgers for o in ledger.owed.values())
            held = sum(o.quantity for o in every if (o.customer, o.dimension) == (customer, dimension.name))
            verdict += Verdict(max(0, quantity - held), max(0, held - quantity))
    return verdict


def at_the_upstream(totals: Totals, *ledgers: Ledger) -> Verdict:
    """Whether the billing system bills what the spools say of it, id by id and in the sums."""
    verdict = Verdict()
    kept = Counter({name: count for (_, name), count in totals.kept.items()})
    known: set[str] = set()
    sums: dict[tuple[str, str], Decimal] = {}
    unsure: Counter[bool] = Counter()
    for ledger in ledgers:
        for name, owed in ledger.owed.items():
            known.add(name)
            verdict.stuck += owed.waits
            if owed.state == "ambiguous":
                unsure[name in kept] += 1
            if not kept[name] and not owed.waits:
                verdict.lost += owed.quantity
            verdict.doubled += owed.quantity * max(0, kept[name] - 1)
            if kept[name]:
                what = owed.customer, owed.dimension
                sums[what] = sums.get(what, Decimal(0)) + (owed.value or 0)
        verdict += _rounded(ledger)
    strange = kept.keys() - known
    notes = [f"{len(strange)} ids at the billing system that no spool knows"] if strange else []
    if not verdict.doubled and sums != totals.sums:
        notes.append("the sums differ though the ids agree")
    if totals.changed:
        notes.append(f"{len(totals.changed)} ids came changed")
    if notes:  # none of these may ever be: they count, whatever they are worth
        verdict += Verdict(doubled=1, note="; ".join(notes))
    elif unsure:
        verdict.note = f"{unsure.total()} ambiguous: {unsure[True]} at the billing system, {unsure[False]} not"
    return verdict


def _rounded(ledger: Ledger) -> Verdict:
    """Σ submitted + Σ remainders = Σ usage of all that was frozen (ACCOUNTING §7)."""
    used_: dict[tuple[str, str], Decimal] = {}
    for owed in ledger.owed.values():
        if owed.value is not None:
            what = owed.customer, owed.dimension
            over = owed.quantity - owed.value * MEASURES[owed.dimension].per
            used_[what] = used_.get(what, Decimal(0)) + over
    wrong = [what for what, over in used_.items() if over != ledger.carried.get(what, Decimal(0))]
    return Verdict(lost=1, note=f"rounding lost some of {wrong}") if wrong else Verdict()


def in_files(out: Path, ledger: Ledger) -> Verdict:
    """Whether each record is one line in one file."""
    hidden = list(out.glob(".*"))
    lines = [json.loads(line) for path in out.glob("*.ndjson") for line in path.read_bytes().splitlines()]
    found = Counter(line["id"] for line in lines)
    worth = Counter({line["id"]: int(line["quantity"]) for line in lines})
    verdict = Verdict(note="a file is half made" if hidden else "", stuck=len(hidden))
    for name in ledger.lines:
        if not found[name]:
            verdict.lost += ledger.owed[name].quantity if name in ledger.owed else 1
    for name, count in found.items():
        verdict.doubled += worth[name] * (count - (name in ledger.lines))
    return verdict


def judge(scene: Scene, truth: Truth, totals: Totals | None) -> Verdict:
    """A machine at rest against its counters, its billing system and its files."""
    verdict = Verdict()
    if totals is not None:
        events = ledger(scene.data, "events")
        verdict += at_the_source(truth, events) + at_the_upstream(totals, events)
    if scene.files:
        files = ledger(scene.data, "files")
        if totals is None:
            verdict += at_the_source(truth, files)
            verdict.stuck += sum(owed.waits for owed in files.owed.values())
        verdict += in_files(scene.out, files)
    return verdict
