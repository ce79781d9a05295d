"""What tests of the outbox, and of what a person decides about it, begin with."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.sinks import Answer, Terms
from agent.spool.outbox import Outbox
from tests.spool.desk import Desk, Start
from tests.spool.ledger import append, opened, record
from tests.spool.owed import registered


@pytest.fixture
def outbox(tmp_path: Path) -> Iterator[Outbox]:
    """Of an empty spool with one sink that is owed everything."""
    one = Outbox(opened(tmp_path))
    registered(one)
    yield one
    one.spool.close()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Makes a desk with one record, whose sink answers so."""
    made: list[Desk] = []

    def make(*answers: Answer, terms: Terms | None = None) -> Desk:
        made.append(Desk(tmp_path, *answers, terms=terms))
        append(made[0].spool, record(quantity=5035))
        return made[0]

    yield make
    for desk in made:
        desk.spool.close()
