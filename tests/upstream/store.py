"""What a billing system keeps: one file that only grows, synced before anything is answered.

Every event that reached it whole is one line, whatever came of it: `kept` is billed; `repeat` was known by its
(source, id); `refused` broke a rule; `turned` came with a request that a fault turned away.
"""

import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

from tests.upstream.rules import EXACT, Event

Fate = Literal["kept", "repeat", "refused", "turned"]
Key = tuple[str, str]  # source, id


@dataclass(frozen=True)
class Totals:
    """What it holds: `sums` by (subject, type), `fates` of arrivals, how often each id is `kept`.

    `changed`: ids that did not say the same each time they came.
    """

    sums: dict[tuple[str, str], Decimal]
    fates: Counter[str]
    kept: Counter[Key]
    changed: frozenset[Key]

    @property
    def arrivals(self) -> int:
        """Events that reached it, each time they did."""
        return self.fates.total()

    @property
    def doubled(self) -> list[Key]:
        """Ids that are billed more than once."""
        return [key for key, count in self.kept.items() if count > 1]


class Store:
    """The file, for its one writer. Times in seconds since 1970."""

    def __init__(self, path: Path) -> None:
        """Go on from what is there; an unfinished last line was never answered for, and is cut off."""
        self._known: dict[Key, float] = {}
        size = 0
        for line, size in _lines(path):  # noqa: B007 - the last one's end is what is wanted
            if line["fate"] == "kept":
                self._known[line["source"], line["id"]] = line["at"]
        self._file = path.open("ab")
        self._file.truncate(size)
        directory = os.open(path.parent, os.O_RDONLY)
        os.fsync(directory)
        os.close(directory)

    def keep(self, events: Iterable[Event], now: float, window: float | None) -> None:
        """Bill these; durable when it returns. `window`: how many seconds a kept (source, id) is known; None: never.

        OpenMeter's deduplication drops a pair that it has seen within its window without a word, counted from when it
        first saw it.
        """
        told: list[tuple[Event, Fate]] = []
        for event in events:
            key = event.source, event.id
            known = window is not None and key in self._known and now - self._known[key] < window
            if not known:
                self._known[key] = now
            told.append((event, "repeat" if known else "kept"))
        self._write(told, now)

    def note(self, events: Iterable[Event], now: float, fate: Fate) -> None:
        """Count these as having come, and no more."""
        self._write([(event, fate) for event in events], now)

    def close(self) -> None:
        """Let go of the file; everything is in it."""
        self._file.close()

    def _write(self, told: Iterable[tuple[Event, Fate]], now: float) -> None:
        lines = [{**asdict(event), "value": str(event.value), "at": now, "fate": fate} for event, fate in told]
        if lines:
            self._file.write("".join(json.dumps(line) + "\n" for line in lines).encode())
            self._file.flush()
            os.fsync(self._file.fileno())


def read(path: Path) -> Totals:
    """The totals of a store's file, at any time, by anybody."""
    sums: dict[tuple[str, str], Decimal] = {}
    fates: Counter[str] = Counter()
    kept: Counter[Key] = Counter()
    said: dict[Key, str] = {}
    changed: set[Key] = set()
    for line, _ in _lines(path):
        key = line["source"], line["id"]
        fates[line["fate"]] += 1
        if said.setdefault(key, line["digest"]) != line["digest"]:
            changed.add(key)
        if line["fate"] == "kept":
            kept[key] += 1
            what = line["subject"], line["type"]
            sums[what] = EXACT.add(sums.get(what, Decimal(0)), Decimal(line["value"]))
    return Totals(sums, fates, kept, frozenset(changed))


def _lines(path: Path) -> Iterator[tuple[dict[str, Any], int]]:
    """(line, where it ends) of every finished line."""
    if not path.exists():
        return
    end = 0
    with path.open("rb") as file:
        for text in file:
            if not text.endswith(b"\n"):
                return
            end += len(text)
            yield json.loads(text), end
