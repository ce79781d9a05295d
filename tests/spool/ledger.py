"""A real spool in a temporary directory, and records to put into it."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from agent.clock import Moment
from agent.model import NS_PER_S, Kind
from agent.record import UsageRecord
from agent.spool import Spool
from agent.windows import Closed

S = NS_PER_S
NOON = 1_800_000_000 * S
MOMENT = Moment(NOON, NOON)
DAY = 86_400 * S
MIB = 1 << 20
MACHINE = {"machine_id": "m1", "instance_id": "i-1"}


def opened(
    path: Path,
    *,
    fingerprint: Mapping[str, str] = MACHINE,
    now: int = NOON,
    max_bytes: int = 64 * MIB,
    reserve: int = 0,
    run_dir: Path | None = None,
) -> Spool:
    """The spool in `path`/data."""
    return Spool.open(
        path / "data",
        run_dir=run_dir or path / "run",
        fingerprint=fingerprint,
        now=now,
        max_bytes=max_bytes,
        reserve=reserve,
    )


def record(
    number: int = 0, kind: Kind = "usage", customer: str | None = "acme", quantity: int = 1, padding: int = 0
) -> UsageRecord:
    """The record of the `number`-th minute after noon."""
    return UsageRecord(
        kind=kind,
        source="test/node/epoch",
        meter="cpu.time",
        policy="usage",
        dimension="cpu",
        customer=customer if kind == "usage" else None,
        group={},
        start=NOON + number * 60 * S,
        end=NOON + number * 60 * S + 60 * S,
        quantity=quantity,
        base_unit="ns",
        basis="cgroup",
        covered=60 * S,
        metadata={"padding": "x" * padding} if padding else {},
    )


def append(spool: Spool, *records: UsageRecord, now: int = NOON) -> list[int]:
    """Commit records as a closing would; their sequence numbers."""
    return spool.commit(None, now=now, records=[Closed(r, ()) for r in records])


def minutes(numbers: Iterable[int], kind: Kind = "usage") -> list[UsageRecord]:
    """Records of these minutes."""
    return [record(n, kind) for n in numbers]


def ledger(spool: Spool) -> list[tuple[int, int, str, int]]:
    """(seq, n, kind, quantity)."""
    rows = spool.db.execute("SELECT seq, n, body FROM record ORDER BY seq")
    parsed = [(seq, n, UsageRecord.parse(body)) for seq, n, body in rows]
    return [(seq, n, r.kind, r.quantity) for seq, n, r in parsed]
