"""What every test of a drain begins with."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.delivery.fakes import FakeSink, Life
from tests.spool.ledger import minutes


@pytest.fixture
def lives() -> Iterator[list[Life]]:
    """Closed in the end."""
    made: list[Life] = []
    yield made
    for life in made:
        life.spool.close()


@pytest.fixture
def begun(tmp_path: Path, lives: list[Life]) -> Callable[..., Life]:
    """A life with sinks and so many records."""

    def begin(*sinks: FakeSink, records: int = 10) -> Life:
        life = Life(tmp_path, *sinks)
        life.append(*minutes(range(records)))
        lives.append(life)
        return life

    return begin
