"""What the commands found, as tables and lines for people."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from agent.cli import telling
from agent.cli.catalogue import Metered, Section
from agent.cli.check import Checked
from agent.cli.explain import Customer
from agent.cli.once import Once
from agent.cli.pod import OfPod
from agent.cli.show import amount, bearer, lines, moment, natural, seconds, span, table
from agent.cli.show import group as shown
from agent.delivery.account import Account
from agent.spool.deliveries import NEVER, SinkState, Total
from agent.spool.ledger import Act, Entry


def entries(found: Sequence[Entry], states: Sequence[Mapping[str, str]] = ()) -> None:
    """Records, one a line; with `states`, where each stands at its sinks."""
    rows = [
        [
            str(entry.seq),
            span(entry.record.start, entry.record.end),
            bearer(entry.record),
            entry.record.dimension,
            shown(entry.record.group),
            "(erased)" if entry.erased else natural(entry.record.quantity, entry.record.base_unit),
            entry.id if entry.sound else f"{entry.id} (damaged)",
        ]
        for entry in found
    ]
    columns = ["number", "window", "for", "dimension", "group", "quantity", "id"]
    if states:
        columns.append("at sinks")
        for row, at in zip(rows, states, strict=True):
            row.append(", ".join(f"{sink}: {state}" for sink, state in at.items() if state not in NEVER))
    table(columns, rows, right=(0, 5))
    lines([] if found else ["No such record."])


def sinks(found: Sequence[SinkState]) -> None:
    """Sinks, one a line."""
    rows = [
        [
            state.sink,
            state.kind,
            state.role,
            state.state,
            f"{state.owed:,}",
            moment(state.oldest) if state.oldest is not None else "",
            ", ".join(f"{count:,} {outcome}" for outcome, count in state.stuck.items()),
            f"{moment(state.last.ended)} {state.last.outcome}: {state.last.why}" if state.last is not None else "",
        ]
        for state in found
    ]
    table(("sink", "kind", "role", "state", "owed", "oldest", "for a person", "last answer"), rows, right=(4,))
    lines([] if found else ["No sink is known to this spool."])


def totals(found: Sequence[Total]) -> None:
    """What came to each sink, one customer, dimension and state a line."""
    rows = [[t.sink, t.customer or "", t.dimension, t.state, f"{t.records:,}", t.submitted, t.unit] for t in found]
    table(("sink", "customer", "dimension", "state", "records", "submitted", "unit"), rows, right=(4, 5))
    lines([] if found else ["Nothing was owed to any sink."])


def account(found: Account) -> None:
    """What stands here and there, one customer and dimension a line, then each record that differs."""
    rows = [
        [line.customer, line.dimension, f"{line.records:,}", line.here, line.there, line.difference, line.others]
        for line in found.lines
    ]
    columns = ("customer", "dimension", "records", "delivered", "held there", "difference", "of others")
    table(columns, rows, right=(2, 3, 4, 5, 6))
    differing = [one for line in found.lines for one in line.discrepancies]
    if differing:
        table(
            ("record", "id", "what", "here", "there"),
            [[str(one.seq), one.id, one.what, one.here, one.there] for one in differing],
        )
        lines(["`metering-agent explain NUMBER` tells what was sent and answered."])
    lines([f"{len(found.confirmed):,} records are confirmed." if found.agrees else "They differ."])


def audit(trail: Sequence[Act]) -> None:
    """What was done by hand, one act a line."""
    table(("when", "who", "what", "why"), [[moment(act.at), act.who, act.what, act.why] for act in trail])
    lines([] if trail else ["Nothing was done by hand."])


def customer(told: Customer) -> None:
    """A customer's totals, and the newest records."""
    lines([telling.head(told), ""])
    rows = [
        [t.dimension, str(t.records), natural(t.quantity, t.base_unit), amount(t.quantity, t.base_unit)]
        for t in told.totals
    ]
    table(("dimension", "records", "in all", "exactly"), rows, right=(1, 2, 3))
    lines(["", f"The newest {len(told.newest)}:"])
    entries(told.newest)


def pod(told: OfPod) -> None:
    """What a pod came to, incarnation by incarnation."""
    lines([telling.of_pod(told)])
    for one in told.incarnations:
        lines(["", *telling.incarnation(one), ""])
        table(telling.POD, telling.sums(one.sums), right=(3, 5))
        lines(["", *telling.of_incarnation(one)])


def once(found: Once) -> None:
    """What two readings came to."""
    lines([f"Two readings, {seconds(found.apart)} apart. Nothing was sent.", ""])
    rows = [
        [
            used.bearer,
            used.dimension,
            used.resource,
            natural(used.quantity, used.base_unit),
            amount(used.quantity, used.base_unit),
            used.rule,
        ]
        for used in found.usage
    ]
    table(("customer", "dimension", "resource", "quantity", "exactly", "rule"), rows, right=(3, 4))
    lines([] if rows else ["Nothing was used between them. Try more --seconds."])
    lines(
        f"Books of {b.anchor}, {b.meter}: moved {b.moved:,} = booked {b.booked:,} + in flight {b.in_flight:,}"
        for b in found.books
    )
    lines(f"Not measured: {gap}" for gap in found.gaps)


def checked(found: Checked, path: Path) -> None:
    """A sound configuration: notices, and the cases that were tried."""
    lines(f"notice: {notice}" for notice in found.notices)
    rows = [
        ["pass" if v.passed else "FAIL", f"line {v.line}", shown(v.labels), v.expected, v.got, v.rule]
        for v in found.verdicts
    ]
    table(("", "case", "resource", "expected", "got", "by"), rows)
    passed = sum(v.passed for v in found.verdicts)
    lines([f"{path}: sound." + (f" {passed} of {len(rows)} cases pass." if rows else "")])


def meters(known: Iterable[Metered]) -> None:
    """The catalogue of meters, their notes below it."""
    known = tuple(known)
    rows = [[m.name, m.unit, m.kind, m.books, m.source, m.formula] for m in known]
    table(("meter", "base unit", "kind", "books", "source", "formula"), rows)
    for note in dict.fromkeys(m.note for m in known if m.note):
        lines(["", f"{', '.join(m.name for m in known if m.note == note)}: {note}"])


def sections(known: Iterable[Section]) -> None:
    """Kinds of sources or sinks with their keys."""
    for section in known:
        lines([f"{section.kind}: {section.meaning}"])
        table(("key", "meaning"), [[f"  {key.name}", " ".join(key.meaning.split())] for key in section.keys])
        lines([""])
