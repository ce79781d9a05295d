"""The ledger held against what a back end says it holds: record by record, by our ids. Pure.

What it holds under an id that this ledger does not have is another agent's, or nobody's of ours, and no difference.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from decimal import Context, Decimal

from msgspec import Struct

from agent.sinks import Holding

TAKEN = ("delivered", "duplicate")
_EXACT = Context(prec=1000)  # no sum of what is submitted is ever rounded


class Booked(Struct, frozen=True):
    """One record as it stands at the sink, in the sink's own words. `within`: its time lies in the span asked about."""

    seq: int
    id: str
    customer: str
    dimension: str
    value: str
    state: str
    within: bool = True


class Discrepancy(Struct, frozen=True):
    """One record that does not stand there as it does here."""

    seq: int
    id: str
    what: str
    here: str
    there: str


class Line(Struct, frozen=True):
    """One customer's dimension: decimal sums of what is delivered here and held there, in the sink's unit.

    `others`: what it holds beside, under no id of ours.
    """

    customer: str
    dimension: str
    records: int
    here: str
    there: str
    difference: str
    others: str
    discrepancies: tuple[Discrepancy, ...]


class Account(Struct, frozen=True):
    """`confirmed`: numbers of the records that stand there exactly as here, once."""

    lines: tuple[Line, ...]
    confirmed: tuple[int, ...]

    @property
    def agrees(self) -> bool:
        """Whether nothing differs."""
        return not any(line.discrepancies or Decimal(line.difference) for line in self.lines)


class _Sums:
    """What one line is added up of."""

    def __init__(self) -> None:
        self.records = 0
        self.here = self.there = self.others = Decimal(0)
        self.discrepancies: list[Discrepancy] = []


def compare(booked: Iterable[Booked], holdings: Iterable[Holding]) -> Account:
    """Both sides, by customer and dimension."""
    sums: dict[tuple[str, str], _Sums] = defaultdict(_Sums)
    known = {one.id: one for one in booked}
    held: dict[str, list[Decimal]] = defaultdict(list)
    for holding in holdings:
        value = Decimal(holding.value)
        if holding.id in known:
            held[holding.id].append(value)
        else:
            of = sums[holding.customer, holding.dimension]
            of.others = _EXACT.add(of.others, value)
    confirmed = []
    for one in known.values():
        there = held.get(one.id, [])
        if not there and (not one.within or one.state not in TAKEN):
            continue
        of = sums[one.customer, one.dimension]
        of.there = _sum([of.there, *there])
        if one.state in TAKEN:
            of.records += 1
            of.here = _EXACT.add(of.here, Decimal(one.value))
        what = _differs(one, there)
        if what is None:
            confirmed.append(one.seq)
        else:
            total = format(_sum(there), "f") if there else "nothing"
            of.discrepancies.append(Discrepancy(one.seq, one.id, what, f"{one.value}, {one.state}", total))
    lines = tuple(_line(*key, sums[key]) for key in sorted(sums))
    return Account(lines, tuple(sorted(confirmed)))


def _differs(one: Booked, there: Sequence[Decimal]) -> str | None:
    if not there:
        return "missing there"
    if len(there) > 1:
        return f"there {len(there)} times"
    if one.state not in TAKEN:
        return f"there, and {one.state} here"
    return None if there[0] == Decimal(one.value) else "another value there"


def _sum(values: Iterable[Decimal]) -> Decimal:
    total = Decimal(0)
    for value in values:
        total = _EXACT.add(total, value)
    return total


def _line(customer: str, dimension: str, of: _Sums) -> Line:
    return Line(
        customer,
        dimension,
        of.records,
        here=format(of.here, "f"),
        there=format(of.there, "f"),
        difference=format(_EXACT.subtract(of.there, of.here), "f"),
        others=format(of.others, "f"),
        discrepancies=tuple(of.discrepancies),
    )
