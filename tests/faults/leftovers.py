"""What a life of the recorded script leaves on disk, and whether two lives left the same."""

import json
import re
import zlib
from collections import Counter
from pathlib import Path
from typing import Any

from agent.spool.schema import connect

Kept = dict[str, set[tuple[Any, ...]]]

# All that a life leaves behind and that a death under way must not change. Not the sequence numbers, for the records
# of one transaction may stand there in another order; nor when a pair of re-attribution was made.
QUERIES = {
    "records": "SELECT body, start, hex(key), n, kind, crc FROM record",
    "evidence": "SELECT r.body, e.body FROM evidence e JOIN record r USING(seq)",
    "open windows and marks": "SELECT key, body FROM resource",
    "cursors": "SELECT source, body FROM cursor",
    "listing": "SELECT source, key FROM listing",
    "sinks": "SELECT id, role, position FROM sink",
    "known": "SELECT hex(k.id), r.body FROM known k LEFT JOIN record r USING(seq)",
    "outcomes": "SELECT s.id, r.body, i.outcome FROM item i JOIN sink s ON s.number=i.sink JOIN record r USING(seq)",
    "under way": "SELECT sink, name FROM submission WHERE settled IS NULL",
    "held, refused, done": "SELECT reason FROM held UNION SELECT reason FROM quarantine UNION SELECT why FROM audit",
    "meta": "SELECT name, value FROM meta WHERE name<>'commit'",
}
SEQ = re.compile(rb'"seq":[0-9]+,')


def kept(where: Path) -> Kept:
    """What is left in `where`. Raises AssertionError where a sink's own files contradict each other."""
    db = connect(str(where / "data" / "spool.db"))
    assert db.execute("SELECT count(*) = coalesce(max(seq), 0) FROM record").get == 1
    found: Kept = {name: {tuple(row) for row in db.execute(query)} for name, query in QUERIES.items()}
    db.close()
    found["evidence"] = {(body, zlib.decompress(packed)) for body, packed in found["evidence"]}
    for sink in ("out", "audit"):
        found[f"lines of {sink}"] = {(SEQ.sub(b"", line),) for line in delivered_lines(where, sink)}
    return found


def different(peace: Kept, left: Kept) -> list[str]:
    """What is in one of the two only; the order inside a JSON array or object says nothing."""
    found = []
    for name, one in peace.items():
        if left[name] != one:
            here, there = {plain(row) for row in one}, {plain(row) for row in left[name]}
            found += [f"lost from {name}: {row}" for row in here - there]
            found += [f"new in {name}: {row}" for row in there - here]
    return found


def plain(value: object) -> str:
    """A row as text, its JSON taken apart, in an order of our own."""
    if isinstance(value, dict):
        return str(sorted((name, plain(part)) for name, part in value.items()))
    if isinstance(value, list):
        return str(sorted(map(plain, value)))
    if isinstance(value, bytes) and value.startswith((b"{", b"[")):
        return plain(json.loads(value))
    return str([plain(part) for part in value]) if isinstance(value, tuple) else repr(value)


def delivered_lines(where: Path, sink: str) -> list[bytes]:
    """Every line that a shipper took or could take, each in one file only, and no file half made."""
    shipped = where / f"{sink}.shipped"
    assert [path.name for path in (where / sink).glob(".*")] == []
    files = [path for directory in (where / sink, shipped) for path in directory.glob("*.ndjson")]
    lines = [line for path in files for line in path.read_bytes().splitlines()]
    doubled = [line for line, count in Counter(lines).items() if count > 1]
    assert doubled == []
    return lines


def ship(where: Path) -> None:
    """Take every file that is visible, as a shipper would while the agent is down."""
    for sink in ("out", "audit"):
        shipped = where / f"{sink}.shipped"
        shipped.mkdir(exist_ok=True)
        for path in (where / sink).glob("*.ndjson"):
            path.rename(shipped / path.name)
