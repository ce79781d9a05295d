"""How things look: quantities in the units that people think in, tables, and one JSON document for programs."""

import sys
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

import msgspec

from agent.record import UsageRecord, rfc3339

# base unit → what people call it, and how many of its decimal digits the base unit has
_NATURAL = {
    "ns": ("core-seconds", 9),
    "ms": ("seconds", 3),
    "byte·ms": ("byte-seconds", 3),
    "pid·ms": ("pid-seconds", 3),
    "byte": ("bytes", 0),
    "op": ("operations", 0),
}
_TIMES = {"start", "end", "closed", "at", "ended", "tainted", "due", "oldest", "spans"}
_AMOUNTS = {
    *("quantity", "first", "last", "moved", "inner", "in_flight", "booked", "overrun", "total", "bound"),
    *("per", "value", "grain", "rate"),
}


def natural(quantity: int, unit: str) -> str:
    """The exact quantity in the unit that people think in: 299987341 ns → `0.299987341 core-seconds`."""
    name, digits = _NATURAL.get(unit, (unit, 0))
    whole, fraction = divmod(abs(quantity), 10**digits)
    sign = "-" if quantity < 0 else ""
    return f"{sign}{whole:,}.{fraction:0{digits}d} {name}" if digits else f"{sign}{whole:,} {name}"


def amount(quantity: int, unit: str) -> str:
    """The quantity in base units: `299,987,341 ns`."""
    return f"{quantity:,} {unit}"


def seconds(ns: int) -> str:
    """`8.002 s`: no more digits than there are."""
    whole, fraction = divmod(ns, 10**9)
    return f"{whole}.{fraction:09d}".rstrip("0").rstrip(".") + " s"


def moment(ns: int) -> str:
    """UTC, no more digits than there are: `2026-11-23T12:00:00Z`."""
    return rfc3339(ns)[:-1].rstrip("0").rstrip(".") + "Z"


def span(start: int, end: int) -> str:
    """From when to when; the date once if it is the same."""
    first, second = moment(start), moment(end)
    return f"{first} – {second[11:] if first[:10] == second[:10] else second}"


def bearer(record: UsageRecord) -> str:
    """Who it is recorded for."""
    return record.customer or record.kind


def group(labels: Mapping[str, str]) -> str:
    """Labels as `unit=a.service slice=b.slice`."""
    return " ".join(f"{key}={value}" for key, value in sorted(labels.items()))


def clean(text: str) -> str:
    """What a tenant may have named cannot steer a terminal: anything that does not print is spelled out."""
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)


def lines(text: Iterable[str]) -> None:
    """Print lines."""
    for line in text:
        sys.stdout.write(clean(line) + "\n")


def table(columns: Sequence[str], rows: Sequence[Sequence[str]], right: Collection[int] = ()) -> None:
    """Print a table: in a terminal with a rule and folded to its width, elsewhere as aligned text that is never cut.

    `right`: the columns, by number, that stand flush right.
    """
    if not rows:
        return
    cleaned = [[clean(cell) for cell in row] for row in rows]
    if sys.stdout.isatty():
        _draw(columns, cleaned, right)
    else:
        lines(_aligned(columns, cleaned, right))


def _aligned(columns: Sequence[str], rows: Sequence[Sequence[str]], right: Collection[int]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(columns, *rows, strict=True)]
    for row in (columns, *rows):
        cells = [c.rjust(w) if i in right else c.ljust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True))]
        yield "  ".join(cells).rstrip()


def _draw(columns: Sequence[str], rows: Sequence[Sequence[str]], right: Collection[int]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    drawn = Table(box=box.SIMPLE_HEAD)
    for number, name in enumerate(columns):
        drawn.add_column(name, justify="right" if number in right else "left", overflow="fold")
    for row in rows:
        drawn.add_row(*map(Text, row))  # as text: a rule such as customers[acme].match[0] is no markup
    Console(highlight=False).print(drawn)


def json(value: object) -> None:
    """Print one JSON document of our own values. Quantities are decimal text and times RFC 3339, as in records."""
    document(exact(value))


def document(value: object) -> None:
    """Print plain values as one JSON document."""
    sys.stdout.write(msgspec.json.format(msgspec.json.encode(value), indent=2).decode() + "\n")


def exact(value: object) -> object:
    """Our own values as plain ones, with quantities as decimal text and times as RFC 3339."""
    return _exact(msgspec.to_builtins(value))


def _exact(value: object, key: str = "") -> object:
    if isinstance(value, dict):
        return {name: _exact(inner, name) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_exact(inner, key) for inner in value]
    if isinstance(value, int) and not isinstance(value, bool):
        return rfc3339(value) if key in _TIMES else str(value) if key in _AMOUNTS else value
    return value
