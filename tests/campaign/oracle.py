"""The oracle, written once: what was truly used against what arrived, as exact numbers, and what a person can see.

Every record of a ledger is an obligation. It has arrived once, or a person sees where it stands and why. Over all
records: what arrived, what is visibly stuck and what rounding carries on come to what was used; where a record of
kind `gap` says that something could not be measured, it may be less.
"""

import json
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from fractions import Fraction
from pathlib import Path

import msgspec
from msgspec import Struct

from agent.books import Row as Resource
from agent.record import UsageRecord
from agent.spool.deliveries import DUE, ITEM, STATE
from agent.spool.rounding import Rounding
from agent.spool.schema import STUCK, connect
from tests.campaign.row import Verdict
from tests.upstream.store import Totals

Owner = str | None  # a customer, or nobody


class Used(Struct, frozen=True):
    """What one owner used, in base units: at least and at most, where a power cut leaves it between two numbers."""

    least: int
    most: int


class End(Struct, frozen=True):
    """What stands at the other end of a sink: sums by owner in base units, and how often each id is there."""

    sums: Mapping[Owner, Fraction]
    kept: Counter[str]
    changed: frozenset[str] = frozenset()  # ids that did not say the same each time


class Standing(Struct, frozen=True):
    """One record at one sink."""

    id: str
    owner: Owner
    worth: Fraction  # as it was told, or all of it where it never was
    state: str
    why: str


class Ledger(Struct, frozen=True):
    """What one spool says, of one sink."""

    records: tuple[Standing, ...]
    carried: Mapping[Owner, Fraction]  # what rounding leaves and open windows hold
    gaps: tuple[str, ...]  # why something could not be measured or is no longer readable


def upstream(totals: Totals, per: Mapping[str, int], customers: Mapping[str, str]) -> End:
    """A billing system's end. `per`: base units in one of each event type; `customers`: ours by its subjects."""
    sums: dict[Owner, Fraction] = {}
    for (subject, kind), total in totals.sums.items():
        owner = customers[subject]
        sums[owner] = sums.get(owner, Fraction(0)) + Fraction(total) * per[kind]
    kept = Counter({name: count for (_, name), count in totals.kept.items()})
    return End(sums, kept, frozenset(name for _, name in totals.changed))


def files(directories: Iterable[Path]) -> End:
    """The end of a file sink, which is told of nobody's usage too."""
    sums: dict[Owner, Fraction] = {}
    kept: Counter[str] = Counter()
    for path in sorted(path for directory in directories for path in directory.glob("*.ndjson")):
        for line in path.read_bytes().splitlines():
            record = json.loads(line)
            kept[record["id"]] += 1
            sums[record["customer"]] = sums.get(record["customer"], Fraction(0)) + int(record["quantity"])
    return End(sums, kept)


def ledger(data_dir: Path, sink: str) -> Ledger:
    """Read a spool that nobody writes to."""
    db = connect(str(data_dir / "spool.db"))
    states = (
        f"SELECT r.body, {STATE}, i.why, i.rounding, (SELECT reason FROM held WHERE r.seq BETWEEN first AND last)"
        f" FROM sink AS s JOIN record AS r {ITEM} WHERE s.id=?"
    )
    records = []
    carried: dict[Owner, Fraction] = {}
    for body, state, why, rounding, held in list(db.execute(states, (sink,))):
        used = UsageRecord.parse(body)
        if used.kind == "gap" or state in ("not for it", "before it began", "after it ended"):
            continue
        worth = Fraction(used.quantity)
        if rounding is not None and state != "owed":
            told = msgspec.json.decode(rounding, type=Rounding)
            worth = Fraction(told.value) * told.per
        records.append(Standing(json.loads(body)["id"], used.customer, worth, state, str(why or held or "")))
    rest = "SELECT customer, value, grain FROM remainder WHERE sink=(SELECT number FROM sink WHERE id=?)"
    for customer, value, grain in db.execute(rest, (sink,)):
        carried[customer] = carried.get(customer, Fraction(0)) + Fraction(int(value), int(grain))
    for (body,) in db.execute("SELECT body FROM resource"):
        for share in msgspec.json.decode(body, type=Resource).shares:
            carried[share.owner.customer] = carried.get(share.owner.customer, Fraction(0)) + share.quantity
    found = [json.loads(body)["reason"] for (body,) in db.execute("SELECT body FROM record WHERE kind='gap'")]
    found += [f"quarantined: {why}" for (why,) in db.execute("SELECT reason FROM quarantine")]
    if any(value for (value,) in db.execute("SELECT value FROM meta WHERE name='epoch_gap'")):
        found.append("new_epoch")
    db.close()
    return Ledger(tuple(records), carried, tuple(found))


def owes(data_dir: Path) -> bool:
    """Whether anything is yet to be sent, to any sink."""
    db = connect(str(data_dir / "spool.db"))
    query = f"SELECT 1 FROM sink AS s JOIN record AS r {ITEM} WHERE {STATE} IN ('owed', 'leaving') LIMIT 1"
    found = db.execute(query).get is not None
    db.close()
    return found


def judge(
    truth: Mapping[Owner, Used], end: End, ledgers: Sequence[Ledger], *, gaps: bool = False, known: Collection[str] = ()
) -> Verdict:
    """The verdict on one sink. `ledgers`: of every spool that sent to it.

    `gaps`: whether this fault may leave one, and less than was used. `known`: reasons of gaps that only say what the
    truth knows already, and excuse nothing.

    A record that is in two ledgers, for one is a copy of the other, is owed by either.
    """
    wrong: list[str] = []
    doubled = sum((count - 1 for count in end.kept.values() if count > 1), 0)
    wrong += [f"{name} arrived {count} times" for name, count in end.kept.items() if count > 1]
    wrong += [f"{name} came with other bytes" for name in end.changed]
    doubled += len(end.changed)
    stuck: Counter[str] = Counter()
    lost = 0
    absent: dict[str, Standing] = {}
    for one in (standing for of in ledgers for standing in of.records):
        if one.state in ("delivered", "duplicate") and not end.kept[one.id]:
            wrong.append(f"{one.id} is told to be {one.state} and is not there")
            lost += abs(int(one.worth)) or 1
        elif one.state in (*STUCK, *DUE):
            if not one.why and one.state in (*STUCK, "held"):
                wrong.append(f"{one.id} is {one.state} without a reason")
                lost += 1
            if one.state in ("owed", "leaving"):
                wrong.append(f"{one.id} is still {one.state} when all faults are long over")
                lost += 1
            stuck[f"{one.state}: {_short(one.why)}" if one.why else one.state] += 1
            if not end.kept[one.id]:
                absent[one.id] = one
    said = Counter(reason for of in ledgers for reason in of.gaps)
    for owner, used in truth.items():
        visible = sum((one.worth for one in absent.values() if one.owner == owner), Fraction(0))
        carried = sum((of.carried.get(owner, Fraction(0)) for of in ledgers), Fraction(0))
        total = end.sums.get(owner, Fraction(0)) + visible + carried
        if total > used.most:
            doubled += int(total - used.most) or 1
            wrong.append(f"{owner}: {total} where {used.most} was used")
        elif total < used.least and not (gaps and said):
            lost += int(used.least - total) or 1
            wrong.append(f"{owner}: {total} where {used.least} was used")
    stuck.update({f"gap: {_short(reason)}": count for reason, count in said.items()})
    if not gaps and said.keys() - known:
        wrong.append(f"a gap that this fault should not leave: {', '.join(said)}")
        lost += 1
    ids = {standing.id for of in ledgers for standing in of.records}
    strange = end.sums.keys() - truth.keys()
    if strange:
        wrong.append(f"of nobody known: {strange}")
        doubled += 1
    return Verdict(len(ids), lost, doubled, dict(stuck), tuple(wrong))


def together(*verdicts: Verdict) -> Verdict:
    """Of several sinks of one spool, one; each saw the same gaps."""
    stuck: Counter[str] = Counter()
    for one in verdicts:
        gaps = Counter({why: count for why, count in one.stuck.items() if why.startswith("gap: ")})
        stuck = (stuck | gaps) + Counter({why: count for why, count in one.stuck.items() if why not in gaps})
    return Verdict(
        sum(one.obligations for one in verdicts),
        sum(one.lost for one in verdicts),
        sum(one.doubled for one in verdicts),
        dict(stuck),
        tuple(line for one in verdicts for line in one.why),
    )


def _short(why: str) -> str:
    """A reason without the names and numbers that are another's each time."""
    return re.sub(r"\b[0-9a-f]{6,}\b|\d+", "…", re.sub(r"^[\w.]+(:\d+)?: ", "", why.partition(";")[0]))[:80]
