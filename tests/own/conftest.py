"""The servers, each started once for all tests that ask for it."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import require
from tests.own import postgres as database
from tests.own.gateway import Gateway
from tests.own.kafka import Kafka
from tests.own.postgres import Postgres
from tests.own.programs import absent


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


@pytest.fixture(scope="session")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A real server of S3; the first time it is built."""
    require(not absent("go"), absent("go"))
    with Gateway(tmp_path_factory.mktemp("gateway")) as running:
        yield running


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kafka]:
    """A real broker of Kafka; the first time its jars are fetched."""
    require(not absent("java", "mvn"), absent("java", "mvn"))
    with Kafka(tmp_path_factory.mktemp("kafka")) as running:
        yield running
