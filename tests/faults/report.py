"""What a test of faults found, as text: printed, and kept in `build/reports` so that CI can show it."""

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

DIRECTORY = Path(__file__).parents[2] / "build" / "reports"


def publish(name: str, lines: Iterable[str]) -> None:
    """Print a report and keep it as `build/reports/NAME.txt`."""
    text = "\n".join([name, *lines, ""])
    DIRECTORY.mkdir(parents=True, exist_ok=True)
    (DIRECTORY / f"{name}.txt").write_text(text)
    print(text)


def table(rows: Mapping[str, Mapping[str, object]], first: str) -> list[str]:
    """Rows by name, columns by name as the first row has them; numbers to the right."""
    columns = list(next(iter(rows.values())))
    cells = [[first, *columns], *([name, *(str(row[c]) for c in columns)] for name, row in rows.items())]
    widths = [max(len(line[i]) for line in cells) for i in range(len(columns) + 1)]
    pad = [str.ljust, *(str.rjust for _ in columns)]
    return ["  ".join(f(cell, w) for f, cell, w in zip(pad, line, widths, strict=True)).rstrip() for line in cells]


def histogram(struck: Counter[tuple[str, str]], first: str) -> list[str]:
    """Counts by (row, column), with totals."""
    totals = Counter(struck)
    for (row, column), count in struck.items():
        totals += Counter({(row, "all"): count, ("all", column): count, ("all", "all"): count})
    columns = [*dict.fromkeys(column for _, column in struck), "all"]
    rows = [*dict.fromkeys(row for row, _ in struck), "all"]
    return table({row: {c: totals[row, c] or "·" for c in columns} for row in rows}, first)
