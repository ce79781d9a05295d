"""Rows in a real PostgreSQL: killed with its clients, with answers to COMMIT lost, its totals are the ledger's."""

import asyncio
from collections.abc import Coroutine
from decimal import Decimal
from pathlib import Path
from typing import Any, TypeVar

import pytest

from agent.sinks import Answer, Holding
from agent.sinks.postgres import PostgresSink
from tests.own.postgres import Postgres, losing
from tests.own.sending import Totals, deliver, filled, outcomes
from tests.sinks.test_cloudevents import MINUTE, START, entry, record, submission
from tests.spool.ledger import NOON, S

pytestmark = pytest.mark.real

T = TypeVar("T")


def built(server: Postgres, table: str, **kw: Any) -> PostgresSink:
    """A sink that writes there."""
    port = kw.pop("port", server.port)
    url = server.url.replace(str(server.port), str(port))
    return PostgresSink("own", "billing", url, table, **{"password_file": server.password_file, **kw})


def run(sink: PostgresSink, story: Coroutine[Any, Any, T]) -> T:
    """What a story with one sink comes to."""

    async def whole() -> T:
        try:
            return await story
        finally:
            await sink.close()

    return asyncio.run(whole())


def send(server: Postgres, table: str, *payloads: bytes, **kw: Any) -> Answer:
    """The answer to one submission."""
    sink = built(server, table, **kw)
    return run(sink, sink.send(submission(*payloads)))


def totals(server: Postgres, table: str) -> Totals:
    """What the table holds."""
    rows = server.rows(f"SELECT customer, dimension, sum(quantity) FROM {table} GROUP BY 1, 2")
    return {(customer, dimension): value for customer, dimension, value in rows}


def rendered(count: int = 1, value: str = "300.123457", **kw: Any) -> list[bytes]:
    """Rows of so many minutes."""
    sink = PostgresSink("own", "billing", "postgresql://x/y")
    return [sink.render(entry(record(start=START + n * MINUTE, **kw), value=value)) for n in range(count)]


# -- what is written ---------------------------------------------------------------------------------------------------


def test_a_row_says_what_the_record_says(server: Postgres) -> None:
    """Every column, to the last decimal."""
    value = "-12345678901234567890.123456789012345678"
    (payload,) = rendered(value=value, flags=("partial",), kind="correction", corrects=record().id(0))
    assert send(server, "whole", payload).items[1][0] == "delivered"
    (row,) = server.rows(
        "SELECT id::text, kind, source, meter, dimension, customer, extract(epoch FROM at)::bigint,"
        " window_end - window_start, quantity, unit, labels, flags, corrects::text, reason, recorded_at <= now()"
        " FROM whole"
    )
    end = (START + 5 * MINUTE) // S
    whose = ("prod-eu/node-a/3f9c2a", "cpu.time", "cpu", "acme", end)
    assert (row[1], *row[2:7]) == ("correction", *whose)
    assert row[7].total_seconds() == 300
    assert row[8] == Decimal(value)
    assert row[9:] == ("core-second", {"namespace": "acme-prod"}, ["partial"], record().id(0), None, True)


def test_a_repeat_is_known_and_another_body_is_a_conflict(server: Postgres) -> None:
    """For ever, row by row, and what is new beside them goes in."""
    first, second, third = rendered(3)
    assert send(server, "repeats", first, second).items[1][0] == "delivered"
    other = first.replace(b"300.123457", b"300.123458")
    answer = send(server, "repeats", other, second, third)
    assert {seq: outcome for seq, (outcome, _) in answer.items.items()} == {
        1: "conflict",
        2: "duplicate",
        3: "delivered",
    }
    assert totals(server, "repeats") == {("acme", "cpu"): 3 * Decimal("300.123457")}


def test_a_fleet_may_start_at_once(server: Postgres) -> None:
    """Each finds the table missing, one makes it."""

    async def all_at_once() -> list[Answer]:
        sinks = [built(server, "fleet") for _ in range(12)]
        answers = await asyncio.gather(
            *(sink.send(submission(payload)) for sink, payload in zip(sinks, rendered(12), strict=True))
        )
        for sink in sinks:
            await sink.close()
        return answers

    assert {answer.outcome for answer in asyncio.run(all_at_once())} == {"delivered"}
    assert server.rows("SELECT count(*) FROM fleet") == [(12,)]


def test_a_server_that_acknowledges_early_is_asked_to_write_first(server: Postgres) -> None:
    """`synchronous_commit = off` would lose rows that we were told of."""
    server.rows("CREATE FUNCTION how() RETURNS text LANGUAGE sql AS $$SELECT current_setting('synchronous_commit')$$")
    send(server, "early", *rendered())
    server.rows("ALTER TABLE early ADD COLUMN how text DEFAULT how()")
    server.rows("ALTER SYSTEM SET synchronous_commit = off")
    server.rows("SELECT pg_reload_conf()")
    try:
        send(server, "early", *rendered(2))
        assert server.rows("SELECT DISTINCT how FROM early WHERE window_start > (SELECT min(window_start) FROM early)")
        assert server.rows("SELECT how FROM early ORDER BY window_start DESC LIMIT 1") == [("on",)]
    finally:
        server.rows("ALTER SYSTEM RESET synchronous_commit")
        server.rows("SELECT pg_reload_conf()")


# -- what it will not take ---------------------------------------------------------------------------------------------


def test_one_row_that_is_refused_does_not_take_the_others_with_it(server: Postgres, tmp_path: Path) -> None:
    """The batch is refused as one, so that it is split until the row is alone."""
    send(server, "picky", *rendered())
    server.rows("ALTER TABLE picky ADD CHECK (quantity <> 666)")
    answer = send(server, "picky", *rendered(2, "666"))
    assert (answer.outcome, answer.definite) == ("split", True)
    assert "picky_quantity_check" in answer.why
    nul = rendered(group={"pod": "a\0b"})
    assert send(server, "picky", *nul).outcome == "split"


@pytest.mark.parametrize(
    ("made", "said"),
    [
        ("CREATE TABLE wrong (id uuid PRIMARY KEY, quantity numeric(20,2))", "rounds"),
        ("CREATE TABLE wrong (id uuid PRIMARY KEY, quantity double precision)", "rounds"),
        ("CREATE TABLE wrong (id uuid PRIMARY KEY, quantity numeric)", "column"),
        ("CREATE TABLE wrong AS SELECT * FROM repeats LIMIT 0", "unique"),
    ],
)
def test_a_table_that_would_bill_wrongly_is_refused(server: Postgres, made: str, said: str) -> None:
    """Before anything is written, at every send and when it is asked."""
    send(server, "repeats", *rendered())
    server.rows(made)
    try:
        answer = send(server, "wrong", *rendered())
        assert (answer.outcome, answer.blocked) == ("retry", True)
        assert said in answer.why
        sink = built(server, "wrong")
        (finding,) = run(sink, sink.ask())
        assert not finding.ok
        assert said in finding.why
    finally:
        server.rows("DROP TABLE wrong")


def test_wrong_credentials_keep_everything_and_are_not_shown(server: Postgres, tmp_path: Path) -> None:
    """Nothing leaves; a person is told."""
    wrong = tmp_path / "password"
    wrong.write_text("hunter2-wrong")
    answer = send(server, "whole", *rendered(), password_file=wrong)
    assert (answer.outcome, answer.left, answer.blocked) == ("retry", False, True)
    assert "password authentication failed" in answer.why
    assert "hunter2" not in answer.why
    wrong.write_text("")
    assert "password_file" in send(server, "whole", *rendered(), password_file=wrong).why
    answer = send(server, "whole", *rendered(), port=1)
    assert (answer.outcome, answer.left, answer.blocked) == ("retry", False, False)


def test_it_says_whether_it_would_take_rows(server: Postgres) -> None:
    """Asking makes the table, and leaves no row."""
    sink = built(server, "asked")
    findings = run(sink, sink.ask())
    assert [(finding.what, finding.ok) for finding in findings] == [("table", True), ("fsync", True)]
    assert server.rows("SELECT count(*) FROM asked") == [(0,)]
    server.rows("CREATE TABLE IF NOT EXISTS mine (id int)")
    sink = built(server, "absent", create=False)
    assert "no table absent" in run(sink, sink.ask())[0].why


def test_all_that_it_holds_is_read_back(server: Postgres) -> None:
    """Of these customers and this time, as exact decimals."""
    payloads = [*rendered(3), *rendered(2, customer="beta")]
    send(server, "held", *payloads)
    sink = built(server, "held")

    async def read() -> list[Holding]:
        return [one async for one in sink.holdings(START + 6 * MINUTE, START + 8 * MINUTE, ["acme"])]

    held = run(sink, read())
    assert [(one.customer, one.dimension, one.value) for one in held] == [("acme", "cpu", "300.123457")] * len(held)
    assert {one.id for one in held} <= {record(start=START + n * MINUTE).id(0) for n in range(3)}
    assert all(START + 5 * MINUTE <= one.at < START + 8 * MINUTE for one in held)


# -- kills -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("taken", [True, False])
def test_a_lost_answer_to_commit_is_settled_by_the_same_ids(server: Postgres, tmp_path: Path, taken: bool) -> None:
    """Whether or not the server did it: once."""
    table = f"lost_{taken}".lower()
    expected = filled(tmp_path, "postgres", 300)
    lost, written = 0, False

    def lose(data: bytes) -> bool:
        nonlocal lost, written
        written |= b"INSERT INTO" in data
        if b"COMMIT" not in data or not written or lost >= 3:
            return False
        lost, written = lost + 1, False
        if not taken:
            server.rows(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE application_name = 'metering-agent' AND state = 'idle in transaction'"
            )
        return True

    async def story() -> None:
        async with losing(server.port, lose) as port:
            await deliver(tmp_path, built(server, table, port=port, max_batch=60, concurrency=1))

    asyncio.run(story())
    assert lost == 3
    assert totals(server, table) == expected
    met = outcomes(tmp_path)
    assert met["delivered"] + met["duplicate"] == 300
    assert not taken or met["duplicate"]


def test_usage_is_dated_in_the_table_as_it_was(server: Postgres) -> None:
    """The spool's own clock of tests is far from the server's: no time is the server's but `recorded_at`."""
    payload = built(server, "dated").render(entry(record(start=NOON - 60 * S, end=NOON)))
    send(server, "dated", payload)
    assert server.rows("SELECT extract(epoch FROM window_end)::bigint FROM dated") == [(NOON // S,)]
