"""Plain text tables with aligned columns, and the few figures that are made from many."""

import math
from collections.abc import Sequence

MIB = 1 << 20


def show(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print it: the first column to the left, the others to the right."""
    widths = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head))]
    for row in (head, ["-" * width for width in widths], *rows):
        cells = [cell.rjust(width) for cell, width in zip(row, widths, strict=True)]
        print("  ".join([row[0].ljust(widths[0]), *cells[1:]]).rstrip())


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that `share` of all do not exceed (nearest rank)."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * share) - 1)]


def ms(seconds: float) -> str:
    """Milliseconds with two decimals."""
    return f"{seconds * 1e3:.2f} ms"


def mib(size: int) -> str:
    """Mebibytes with one decimal."""
    return f"{size / MIB:.1f} MiB"


def count(value: float) -> str:
    """A whole number with separators."""
    return f"{value:,.0f}"
