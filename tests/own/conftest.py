"""The servers, each started once for all tests that ask for it."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import require
from tests.own import postgres as database
from tests.own.postgres import Postgres


@pytest.fixture(scope="session")
def server() -> Iterator[Postgres]:
    """A real PostgreSQL."""
    require(not database.missing(), database.missing())
    directory = Path(tempfile.mkdtemp(prefix="metering-postgres-"))
    try:
        with Postgres(directory) as running:
            yield running
    finally:
        shutil.rmtree(directory)
