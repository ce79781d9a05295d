"""ACCOUNTING §6: what the ledger no longer remembers is held for a person, whatever the clock says; nothing else is."""

from pathlib import Path

import pytest

from agent.errors import AgentError
from agent.spool.acts import ACTS
from agent.spool.doubts import keep_doubt
from agent.spool.outbox import Outbox
from tests.spool.draining import Billing, drain
from tests.spool.ledger import DAY, MOMENT, NOON, S, append, ledger, opened, record

YEAR = 365 * DAY


def test_a_clock_that_was_a_year_ahead_has_only_what_it_made_forgotten_held(tmp_path: Path) -> None:
    """What it dropped too early stays dropped; usage of today is billed."""
    spool = opened(tmp_path)
    outbox = Outbox(spool)
    outbox.register("billing", "fake", "billing", b"{}", since=0)
    append(spool, record(0), record(1), now=NOON)
    drain(Billing(), outbox, NOON)
    for minutes in range(2):
        spool.maintain(NOON + YEAR + minutes * 60 * S, 90 * DAY, 90 * DAY, DAY)
    assert ledger(spool) == []
    late, new = append(spool, record(1), record(2), now=NOON + 300 * S)
    held = list(spool.db.execute("SELECT first, last, reason FROM held"))
    assert held == [(late, late, "later than the ledger remembers")]
    assert new != late
    spool.close()


def test_maintenance_goes_on_when_the_clock_was_set_back(tmp_path: Path) -> None:
    """It would else stand still for as long as the step."""
    spool = opened(tmp_path)
    spool.maintain(NOON + YEAR, DAY, DAY, DAY)
    append(spool, record(0, "unattributed"), now=NOON)
    spool.maintain(NOON, DAY, DAY, DAY)
    assert spool.held_unattributed == 1
    spool.close()


def test_what_was_confirmed_or_in_doubt_goes_with_its_record(tmp_path: Path) -> None:
    """Nothing of a record outlives it but its digest and its number."""
    spool = opened(tmp_path)
    outbox = Outbox(spool)
    outbox.register("billing", "fake", "billing", b"{}", since=0)
    append(spool, record(0), record(1), now=NOON)
    drain(Billing(), outbox, NOON)
    asked = {"sink": "billing", "records": "1-2"}
    assert ACTS["sink confirm"](outbox, lambda: MOMENT, "me", asked) == "2 records of billing are confirmed anew."
    keep_doubt(spool.db, 1, NOON, None, 0)
    for minutes in range(2):
        spool.maintain(NOON + YEAR + minutes * 60 * S, 90 * DAY, 90 * DAY, DAY)
    left = [spool.db.execute(f"SELECT count(*) FROM {table}").get for table in ("record", "confirmed", "doubt")]
    assert left == [0, 0, 0]
    spool.close()


@pytest.mark.parametrize("records", ["", "1", "1-", "a-b", "1-2-3"])
def test_a_list_of_records_that_is_none_is_refused(tmp_path: Path, records: str) -> None:
    """By the act, with how it is written."""
    spool = opened(tmp_path)
    outbox = Outbox(spool)
    outbox.register("billing", "fake", "billing", b"{}", since=0)
    with pytest.raises(AgentError, match="no list of records"):
        ACTS["sink confirm"](outbox, lambda: MOMENT, "me", {"sink": "billing", "records": records})
    spool.close()
