"""Sinks whose libraries are installed only where they are wanted."""

import sys

import pytest

from agent.config.sinks import Kafka, Postgres
from agent.config.sinks.s3 import S3
from agent.errors import ConfigError
from agent.kinds import EXTRAS, build_sink
from tests.config.written import load, text
from tests.docs.pages import page

SECTIONS = {
    "psycopg": "kind: postgres, url: 'postgresql://me@localhost/billing'",
    "obstore": "kind: s3, url: 's3://usage/metering'",
    "pyarrow": "kind: s3, url: 's3://usage/metering', format: parquet",
    "confluent_kafka": "kind: kafka, servers: 'localhost:9092', topic: usage",
}


@pytest.mark.parametrize("library", EXTRAS)
def test_a_library_that_is_missing_is_named_with_its_cure(library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As an error of the configuration: the daemon refuses a reload, and goes on."""
    (section,) = load(text(sinks=f"sinks: [{{id: own, role: copy, {SECTIONS[library]}}}]")).sinks
    assert isinstance(section, Kafka | Postgres | S3)
    assert build_sink(section).kind == section.kind
    for name in [
        name for name in sys.modules if name.partition(".")[0] == library or name == f"agent.sinks.{section.kind}"
    ]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(ConfigError, match=rf"sinks\[own\]: {library} is not installed.*\[{EXTRAS[library]}\]"):
        build_sink(section)


def test_each_extra_is_one_of_the_package() -> None:
    """What the cure says can be done."""
    for library, extra in EXTRAS.items():
        assert f'{extra} = ["{library.replace("_", "-")}' in page("pyproject.toml")
