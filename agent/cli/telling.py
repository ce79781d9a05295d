"""What `explain` found, in words for people and as plain values for programs."""

from collections.abc import Iterator, Sequence
from fractions import Fraction

import msgspec

from agent.cli.explain import Customer, Explained, OfResource, Told
from agent.cli.part import Part
from agent.cli.pod import Incarnation, OfPod, Sum
from agent.cli.show import amount, bearer, group, moment, natural, seconds, span
from agent.kinds import METERS
from agent.record import UsageRecord, with_seq
from agent.spool.deliveries import Delivery
from agent.spool.ledger import Entry
from agent.spool.rounding import Carried, Rounding
from agent.spool.schema import BILLED

FLAGS = {
    "interpolated": "nobody looked for over 3 sample intervals; what the counter moved was spread evenly over them",
    "inferred_reset": "a counter was lower than before; nothing was billed for the fall",
    "owner_uncertain": "labels changed between two looks; the time before the second went to the former owner",
    "clock_unconfirmed": "the wall clock was not to be trusted; the times may be off, the quantity is not",
    "held": "no sample for over 3 intervals, but the same value before and after; it was taken to have held",
    "partial": "observed for less than the whole window",
}
REASONS = {
    "reboot": "the machine was restarted; what was used after the last sweep died with the old counters",
    "anchor_gone": "the anchor vanished; what was used after its last reading died with its counter",
    "no_sample": "nothing could be read for over 3 sample intervals, and the value was another afterwards",
    "new_epoch": "a new epoch began; nobody knows what was metered by the old one after its last record",
}
_KINDS = {
    "unattributed": "nobody (unattributed): it waits for its customer, and is never billed as it is",
    "system": "the operator (system): recorded, billed to nobody",
    "gap": "nobody (gap): it says what is not known, and bills nothing",
}


def record(told: Explained) -> Iterator[str]:
    """One record, from the reading to the sink."""
    r, unit = told.entry.record, told.entry.record.base_unit
    yield f"Record {told.entry.id}, number {told.entry.seq}"
    if told.entry.erased is not None:
        yield f"  erased     what it said had SHA-256 {told.entry.erased}; `metering-agent spool audit` has who and why"
        yield from ("", *sent(told.deliveries, told.entry))
        return
    yield f"  for        {f'customer {r.customer} ({r.kind})' if r.customer else _KINDS.get(r.kind, r.kind)}"
    yield f"  quantity   {natural(r.quantity, unit)}, exactly {amount(r.quantity, unit)}"
    yield f"  dimension  {r.dimension}: meter {r.meter}, policy {r.policy}{_of_group(r)}"
    yield f"  window     {span(r.start, r.end)}: {seconds(r.end - r.start)}, observed for {seconds(r.covered)}"
    yield f"  source     {r.source}, basis {r.basis or 'none'}"
    yield f"  closed     {moment(told.entry.closed)}{'' if told.entry.sound else ' — ITS BYTES ARE DAMAGED (CRC)'}"
    for flag in r.flags:
        yield f"  flag       {flag}: {FLAGS.get(flag, 'not known to this release')}"
    yield ""
    if r.kind == "gap":
        yield f"Nothing was measured: {r.reason}: {REASONS.get(r.reason or '', 'not known to this release')}."
        if r.bound is not None:
            yield f"At most {natural(r.bound, unit)} ({amount(r.bound, unit)}) is missing."
    else:
        yield from _measured(told)
    if len(told.deltas) > 1:
        yield ""
        yield "Records of this window and owner only add. Together they are:"
        for delta in told.deltas:
            yield f"  n={delta.n}  {amount(delta.quantity, unit)}  (number {delta.seq}, {delta.id})"
        yield f"  sum  {amount(sum(delta.quantity for delta in told.deltas), unit)}"
    yield ""
    yield from sent(told.deliveries, told.entry)


def _of_group(record_: UsageRecord) -> str:
    return f", group {group(record_.group)}" if record_.group else ""


def _measured(told: Explained) -> Iterator[str]:
    r = told.entry.record
    if told.origin is not None:
        first = told.origin
        yield f"This moves usage that record {first.id} (number {first.seq}) held as unattributed:"
        rule = r.metadata.get("rule")
        yield f"  to customer {r.customer or r.metadata.get('reattributed_to')}{f', by rule {rule}' if rule else ''}"
        yield f"  {amount(r.quantity, r.base_unit)} of the {amount(first.record.quantity, r.base_unit)} below"
        yield ""
    if told.parts is None:
        yield "Its readings are not kept: past `spool.evidence_retention`, or the disk was full when it closed."
        return
    yield f"Measured from {len(told.parts)} resource{'s' if len(told.parts) > 1 else ''}:"
    for part in told.parts:
        yield ""
        yield f"  {part.resource}"
        yield from (f"    {line}" for line in part_lines(r, part))
    yield ""
    yield from _sum([part.quantity for part in told.parts], (told.origin or told.entry).record)


def _sum(quantities: Sequence[int], measured: UsageRecord) -> Iterator[str]:
    total, unit = sum(quantities), measured.base_unit
    terms = " + ".join(f"{quantity:,}" for quantity in quantities) if len(quantities) <= 8 else f"the {len(quantities)}"
    verdict = "which is its quantity" if total == measured.quantity else f"BUT ITS QUANTITY IS {measured.quantity:,}"
    yield f"Sum: {terms} = {amount(total, unit)}, {verdict}."


def part_lines(r: UsageRecord, part: Part) -> Iterator[str]:
    """One resource's part, from its readings to what it adds; every number adds up."""
    unit, meter = r.base_unit, METERS.get(r.meter)
    if meter is not None and meter.kind == "gauge":
        first, last = (amount(value, _level(unit)).rstrip() for value in (part.first, part.last))
        yield f"level {r.meter} was {first} at first and {last} at last"
        own = "" if meter.books == "none" else ", less what its metered children held"
        yield f"held over time{own}: {amount(part.moved, unit)} in this window"
    else:
        rise = part.last - part.first
        yield f"counter {r.meter} went from {part.first:,} to {amount(part.last, unit)}: {rise:+,}"
        if part.moved == rise:
            yield "all of it in this window"
        elif 0 <= part.moved < rise:
            yield f"{amount(part.moved, unit)} of it in this window, the rest before, after or another owner's"
        else:
            yield f"{amount(part.moved, unit)} in this window: the counter began anew on the way"
    if part.inner or part.in_flight:
        yield f"its metered children moved {amount(part.inner, unit)}, and book that themselves"
        if part.in_flight:
            why = "read before its children, it is settled as it catches up"
            yield f"in flight changed by {amount(part.in_flight, unit)}: {why}"
        flight = f" − ({part.in_flight:,})" if part.in_flight else ""
        yield f"{part.moved:,} − {part.inner:,}{flight} = {amount(part.quantity, unit)}"
    elif r.policy != "usage":
        yield f"policy {r.policy}, taken each sample interval, makes of it {amount(part.quantity, unit)}"
    yield f"rule: {part.rule}"
    yield f"observed: {', '.join(span(start, end) for start, end in part.spans) or 'never'}"
    yield from (f"flag {flag}: {FLAGS.get(flag, 'not known to this release')}" for flag in part.flags)


def sent(deliveries: Sequence[Delivery], entry: Entry) -> Iterator[str]:
    """Where a record went: how it stands at each sink, what was submitted, and every attempt."""
    if not deliveries:
        yield "Sent nowhere: no sink is known here, and the record stays in the spool."
    for delivery in deliveries:
        about = ", ".join(filter(None, (delivery.kind, delivery.role)))
        yield f"Sink {delivery.sink} ({about}): {_became(delivery, entry)}"
        if delivery.rounding is not None:
            yield f"  submitted  {_rounded(delivery.rounding, entry.record)}"
        if delivery.names:
            yield f"  in         {', then '.join(delivery.names)}"
        for number, attempt in enumerate(delivery.attempts, 1):
            what = "look" if attempt.outcome in _LOOKS else "attempt"
            yield f"  {what} {number}  {span(attempt.at, attempt.ended)}  {attempt.outcome}: {attempt.why}"
        if delivery.confirmed is not None:
            yield f"  confirmed  at {moment(delivery.confirmed)}: the sink was seen to hold it as it was sent"


def _rounded(r: Rounding, record_: UsageRecord) -> str:
    """`5 core-second: 5,035 ns + 0 ns carried in = 5 core-second · 1,000 ns + 35 ns carried on`."""
    unit = record_.base_unit
    before, after = (f"{_exactly(c)} {unit}" for c in (r.before, r.after))
    quantity = amount(record_.quantity, unit)
    return (
        f"{r.value} {r.unit}: {quantity} + {before} carried in = {r.value} · {amount(r.per, unit)} + {after} carried on"
    )


def _exactly(carried: Carried) -> str:
    rest = Fraction(carried.value, carried.grain)
    return f"{rest.numerator:,}" + ("" if rest.denominator == 1 else f"/{rest.denominator}")


def _became(delivery: Delivery, entry: Entry) -> str:
    at = f" at {moment(delivery.at)}" if delivery.at is not None else ""
    why = f": {delivery.why}" if delivery.why else ""
    match delivery.state:
        case "leaving":
            return _leaving(delivery)
        case "not for it" if entry.record.kind not in BILLED:
            return f"never: {entry.record.kind} is not billed"
        case "duplicate":
            return f"delivered by an earlier attempt, as it said itself{at}{why}"
        case state if state in _UNSENT:
            return _UNSENT[state]
    cure = _CURES.get(delivery.state, "").format(entry.seq, delivery.sink)
    return f"{delivery.state}{at}{why}{f'. {cure}' if cure else ''}"


_LOOKS = ("found", "not found", "not read")
_UNSENT = {
    "owed": "still owed",
    "not for it": "never: it does not take this dimension",
    "before it began": "not sent: it closed before the time from which this sink gets records",
    "after it ended": "not sent: the sink was to end before it closed",
}
_DECIDE = "`metering-agent spool resolve {} --sink {} --delivered|--resend`"
_CURES = {
    "held": "`metering-agent spool resolve {} --delivered|--resend` decides for all sinks",
    "ambiguous": f"Ask the sink whether it has it; then {_DECIDE}",
    "conflict": f"The sink knew this id before it was sent: ask what it has; then {_DECIDE}",
    "rejected": "Mend what it says, then `metering-agent spool requeue {} --sink {}`",
    "unrouted": "Give its dimension a sink, then `metering-agent spool requeue {} --sink {}`",
}


def _leaving(delivery: Delivery) -> str:
    if delivery.tainted is None:
        return "frozen, and has not left yet"
    next_ = "looked for at the sink" if delivery.sought else "sent again"
    again = f"; to be {next_} at {moment(delivery.due)}" if delivery.due is not None and delivery.attempts else ""
    return f"under way: it may have arrived since {moment(delivery.tainted)}{again}"


def head(told: Customer) -> str:
    """What a customer's tables are headed by."""
    return f"Customer {told.customer}: what the spool keeps from {span(told.start, told.end)}"


def resource(told: OfResource) -> Iterator[str]:
    """A resource's newest records, each with its part."""
    yield f"Resource {told.resource}: its part of {len(told.newest)} newest records"
    if told.labels:
        yield f"  labels  {group(told.labels)}"
    for entry, part in told.newest:
        yield from _part_of(entry, part)


def _part_of(entry: Entry, part: Part) -> Iterator[str]:
    r = entry.record
    yield ""
    yield f"{span(r.start, r.end)}  {r.dimension}  {natural(part.quantity, r.base_unit)}  for {bearer(r)}"
    yield f"  record {entry.id}, number {entry.seq}"
    yield from (f"  {line}" for line in part_lines(r, part))


LISTED = 8  # numbers of records that are named, of many
POD = ("of it", "dimension", "for", "records", "counter or level", "quantity", "rule")


def of_pod(told: OfPod) -> str:
    """What the tables of a pod are headed by."""
    count = len(told.incarnations)
    return f"Pod {told.pod}" + (f": {count} of this name, one after another" if count > 1 else "")


def incarnation(told: Incarnation) -> Iterator[str]:
    """One UID, and what was waiting for its metadata."""
    yield f"UID {told.uid}: recorded from {span(told.start, told.end)}"
    if len(told.labels) > 1:
        yield f"  labels   {group({key: value for key, value in told.labels.items() if key != 'pod_uid'})}"
    if told.waited:
        owners = ", ".join(sorted({bearer(entry.record) for entry in told.moved}))
        moved = f"moved to {owners} since" if owners else "nothing of it has been moved"
        more = f" and {len(told.waited) - LISTED:,} more" if len(told.waited) > LISTED else ""
        numbers = ", ".join(str(entry.seq) for entry in told.waited[:LISTED]) + more
        yield f"  waited   for its metadata when records {numbers} closed, as unattributed; {moved}"


def sums(told: Sequence[Sum]) -> list[list[str]]:
    """The cells of the table of a pod: what each reading came to, for whom, by which rule."""
    return [
        [
            one.beside,
            one.dimension,
            one.bearer,
            f"{one.records:,}",
            _moved(one),
            natural(one.quantity, one.base_unit),
            one.rule,
        ]
        for one in told
    ]


def _moved(one: Sum) -> str:
    if one.first is None or one.last is None:
        return "not kept"
    meter = METERS.get(one.meter)
    unit = _level(one.base_unit) if meter is not None and meter.kind == "gauge" else one.base_unit
    return f"{one.first:,} → {amount(one.last, unit).rstrip()}"


def _level(unit: str) -> str:
    """Of what a gauge is a level: byte·ms → byte."""
    return unit.removesuffix("ms").removesuffix("·")


def of_incarnation(told: Incarnation) -> Iterator[str]:
    """The newest records that it is part of, each with its part."""
    yield f"Its part of the newest {len(told.newest)} records:" if told.newest else "Its readings are not kept."
    for entry, part in told.newest:
        yield from _part_of(entry, part)


def plain(told: Told) -> dict[str, object]:
    """The same for programs; `show.json` writes it."""
    if isinstance(told, Explained):
        return {
            "record": line(told.entry),
            "flags": {flag: FLAGS.get(flag, "") for flag in told.entry.record.flags},
            "parts": told.parts,
            "origin": line(told.origin) if told.origin is not None else None,
            "deltas": told.deltas,
            "deliveries": told.deliveries,
        }
    if isinstance(told, Customer):
        return {
            "customer": told.customer,
            "start": told.start,
            "end": told.end,
            "totals": told.totals,
            "newest": [line(entry) for entry in told.newest],
        }
    if isinstance(told, OfPod):
        return {"pod": told.pod, "incarnations": [_incarnation(one) for one in told.incarnations]}
    return {"resource": told.resource, "labels": told.labels, "newest": _parts(told.newest)}


def _incarnation(told: Incarnation) -> dict[str, object]:
    return {
        "uid": told.uid,
        "labels": told.labels,
        "start": told.start,
        "end": told.end,
        "sums": told.sums,
        "waited": [line(entry) for entry in told.waited],
        "moved": [line(entry) for entry in told.moved],
        "newest": _parts(told.newest),
    }


def _parts(newest: Sequence[tuple[Entry, Part]]) -> list[dict[str, object]]:
    return [{"record": line(entry), "part": part} for entry, part in newest]


def line(entry: Entry) -> dict[str, object]:
    """A record as sinks get it, with when it closed and whether its bytes are sound."""
    if entry.erased is not None:
        written: dict[str, object] = {
            "id": entry.id,
            "seq": entry.seq,
            "kind": entry.record.kind,
            "erased": entry.erased,
        }
    else:
        written = msgspec.json.decode(with_seq(entry.body, entry.seq))
    return {**written, "closed": entry.closed, "sound": entry.sound}
