"""What a sink has still to take, and what waits for a person there: for the writer, and for those who read beside it.

Each query says which index it goes by: SQLite would else read every item that the sink ever had.
"""

import apsw

from agent.spool.schema import STUCK

_FROZEN = (
    "SELECT count(*), min(i.seq) FROM submission AS s CROSS JOIN item AS i ON i.sink=s.sink AND i.seq BETWEEN"
    " s.first AND s.last AND i.submission=s.id WHERE s.sink=? AND s.settled IS NULL AND i.outcome IS NULL"
)
_WAITING = (
    "SELECT count(*), min(seq) FROM item INDEXED BY item_waiting"
    " WHERE sink=? AND outcome IS NULL AND submission IS NULL"
)
_STUCK = (
    "SELECT outcome, count(*) FROM item INDEXED BY item_stuck"  # noqa: S608 - names of our own
    f" WHERE sink=? AND outcome IN {STUCK} GROUP BY outcome"
)


def backlog(db: apsw.Connection, sink: int, position: int, end: int) -> tuple[int, int | None]:
    """How many records the sink of this number has still to take, of those up to `end`; when the oldest closed.

    Records that wait for a person are not counted. Costs the same at any size of what has not been looked at, and of
    what is settled.
    """
    found = [next(iter(db.execute(query, (sink,)))) for query in (_FROZEN, _WAITING)]
    beyond = max(0, end - position)
    oldest = [first for _, first in found if first is not None] or [position + 1] * bool(beyond)
    query = "SELECT closed FROM record WHERE seq>=? ORDER BY seq LIMIT 1"
    closed = db.execute(query, (min(oldest),)).get if oldest else None
    return sum(count for count, _ in found) + beyond, closed if isinstance(closed, int) else None


def stuck(db: apsw.Connection, sink: int) -> dict[str, int]:
    """How many records wait for a person at the sink of this number, by outcome."""
    return dict(db.execute(_STUCK, (sink,)))
