"""A person's right to be forgotten, and what stays provable."""

import hashlib
from pathlib import Path

import pytest

from agent.errors import AgentError
from agent.spool import ledger as reading
from agent.spool.erasure import digest
from tests.spool.desk import Start
from tests.spool.draining import Billing, drain
from tests.spool.ledger import append, record


def test_an_erased_record_leaves_its_digest_and_nothing_of_its_words(start: Start, tmp_path: Path) -> None:
    """The row, its payload and the file's bytes forget the customer; number, id and digest stay."""
    desk = start()
    before = reading.named(desk.spool.db, "1")
    desk.drain()
    desk.act("spool erase", customer="acme", reason="asked for by letter")
    after = reading.named(desk.spool.db, before.id)
    assert (after.sound, after.erased) == (True, hashlib.sha256(before.body).hexdigest())
    assert digest(after.body) == digest(before.body)
    (payload,) = next(iter(desk.spool.db.execute("SELECT payload FROM item")))
    assert digest(payload) == digest(desk.sent()[0])
    assert "acme" not in reading.audit(desk.spool.db)[-1].what
    desk.spool.close()
    left = b"".join(file.read_bytes() for file in (tmp_path / "data").iterdir())
    assert before.body not in left
    assert desk.sent()[0] not in left


def test_what_is_still_owed_or_in_doubt_is_not_erased(start: Start) -> None:
    """It could not be sent, nor decided upon; of a customer the settled records go."""
    desk = start()
    with pytest.raises(AgentError, match="is owed at billing"):
        desk.act("spool erase", record="1", reason="x")
    desk.drain()
    append(desk.spool, record(1))
    told = str(desk.act("spool erase", customer="acme", reason="x"))
    assert told == "1 erased. Record 2 is owed at billing: kept."
    assert [entry.seq for entry in reading.entries(desk.spool.db, customer="acme")] == [2]


def test_usage_of_nobody_is_not_erased(start: Start) -> None:
    """Its owner may still be found."""
    desk = start()
    append(desk.spool, record(1, "unattributed"))
    with pytest.raises(AgentError, match="may still find its owner"):
        desk.act("spool erase", record="2", reason="x")


def test_an_erased_record_is_offered_to_no_new_sink(start: Start) -> None:
    """Nor does it stop what comes after it."""
    desk = start()
    desk.drain()
    desk.act("spool erase", record="1", reason="x")
    append(desk.spool, record(1))
    desk.outbox.register("late", "billing", "billing", b"{}", since=0)
    late = Billing("late")
    drain(late, desk.outbox, desk.now)
    assert [seq for seq, _ in late.sent] == [2]
