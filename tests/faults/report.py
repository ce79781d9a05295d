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
    """Rows by name, columns by name, right-aligned; a missing cell is a dot."""
    columns = list(dict.fromkeys(column for row in rows.values() for column in row))
    cells = [[first, *columns], *([name, *(str(row.get(c, "·")) for c in columns)] for name, row in rows.items())]
    widths = [max(len(row[i]) for row in cells) for i in range(len(columns) + 1)]
    return ["  ".join([row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))]) for row in cells]


def histogram(struck: Counter[tuple[str, str]], first: str) -> list[str]:
    """Counts by (row, column), with totals."""
    columns = list(dict.fromkeys(column for _, column in struck))
    rows: dict[str, dict[str, object]] = {}
    for row in dict.fromkeys(row for row, _ in struck):
        rows[row] = {c: struck[row, c] for c in columns if struck[row, c]}
        rows[row]["all"] = sum(struck[row, c] for c in columns)
    rows["all"] = {c: sum(n for (_, column), n in struck.items() if column == c) for c in columns} | {"all": struck.total()}
    columns_last = {name: {c: row[c] for c in [*columns, "all"] if c in row} for name, row in rows.items()}
    return table(columns_last, first)
