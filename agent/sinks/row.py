"""A record as one flat row: the same names in a table, in a line of JSON and in a column of a file."""

import msgspec

from agent.record import rfc3339
from agent.sinks import Entry

_encoder = msgspec.json.Encoder(order="sorted")

FIELDS = (
    *("id", "kind", "source", "meter", "dimension", "customer", "at", "window_start", "window_end"),
    *("quantity", "unit", "labels", "flags", "corrects", "reason", "bound"),
)
"""What a row holds, in this order where there is one. The last three are absent where there is nothing to say."""


def row(entry: Entry) -> bytes:
    """One row as canonical JSON: quantities and times as text, `quantity` in `unit`, `at` by the sink's policy."""
    record = entry.record
    values: dict[str, object] = {
        "id": entry.id,
        "kind": record.kind,
        "source": record.source,
        "meter": record.meter,
        "dimension": entry.dimension,
        "customer": entry.customer,
        "at": rfc3339(entry.at),
        "window_start": rfc3339(record.start),
        "window_end": rfc3339(record.end),
        "quantity": entry.value,
        "unit": entry.unit,
        "labels": record.group,
        "flags": sorted(record.flags),
    }
    if record.corrects is not None:
        values["corrects"] = record.corrects
    if record.reason is not None:
        values["reason"] = record.reason
    if record.bound is not None:
        values["bound"] = str(record.bound)
    return _encoder.encode(values)
