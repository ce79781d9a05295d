"""L2: one transaction per sweep, all of it or nothing, whatever goes wrong in between."""

from pathlib import Path

import pytest
from msgspec import structs

from agent.books import Commit, Row, Snapshot
from agent.model import Resource
from agent.usage import Cursor, Mark, Track
from agent.windows import Closed
from tests.spool.ledger import NOON, opened, record


def test_a_commit_that_breaks_half_way_leaves_nothing(tmp_path: Path) -> None:
    """Marks are written before records: were they kept when a record cannot be, its usage would be in no record."""
    spool = opened(tmp_path)
    track = Track(Resource("k", "a"), {"cpu.time": Mark("i", 7, NOON)})
    unwritable = structs.replace(record(), metadata={"what": object()})
    cursor = Cursor("boot", 1, NOON, frozenset({"k"}), "cgroup")
    closed = [Closed(record(), ()), Closed(unwritable, ())]
    commit = Commit("cg", cursor, {"k": Row("cg", track)}, closed, {"cpu.time": [(NOON, 60)]}, {}, [], {}, [], [])
    with pytest.raises(TypeError):
        spool.commit(commit, now=NOON)
    spool.close()
    again = opened(tmp_path)
    assert again.snapshot() == Snapshot()
    assert again.db.execute("SELECT count(*) FROM record").get == 0
    again.close()
