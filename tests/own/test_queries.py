"""What the pages tell people to ask of their own systems, asked of real ones."""

from decimal import Decimal

import pytest

from tests.docs.pages import block, page, section
from tests.own.postgres import Postgres
from tests.own.test_postgres import built, rendered, send
from tests.sinks.test_cloudevents import MINUTE, START, entry, record
from tests.spool.ledger import S

pytestmark = pytest.mark.real


def test_the_query_in_the_readme_says_what_each_owes(server: Postgres) -> None:
    """Of what is billed, and in its month only."""
    payloads = [*rendered(3), *rendered(1, kind="system"), *rendered(1, customer="beta")]
    later = built(server, "x").render(
        entry(record(start=START + 30 * 86_400 * S, end=START + 30 * 86_400 * S + MINUTE))
    )
    send(server, "usage_records", *payloads, later)
    query = block(section(page("README.md"), "Your own database, bucket, topic or receiver"), "sql")
    assert sorted(server.rows(query)) == [
        ("acme", "cpu", "core-second", 3 * Decimal("300.123457")),
        ("beta", "cpu", "core-second", Decimal("300.123457")),
    ]
