"""Paigo: what is sent, how it is found again, who we are, what it is asked before anything is sent."""

import asyncio
import json
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from agent.errors import SinkError
from agent.record import UsageRecord
from agent.sinks import Accountable, Answer, Readable
from agent.sinks.paigo import ID, PaigoSink
from agent.spool.outbox import Submission
from tests.config.written import load, problems, text
from tests.sinks.doubles import served
from tests.sinks.paigo_double import SECRET, Paigo
from tests.sinks.property import CUSTOMERS, DIMENSIONS
from tests.sinks.test_cloudevents import entry, record, submission

ACME, CPU = CUSTOMERS["acme"], DIMENSIONS["cpu"]


@asynccontextmanager
async def meeting(tmp_path: Path, **kw: Any) -> AsyncIterator[tuple[PaigoSink, Paigo]]:
    """A sink, over real sockets, and the Paigo that it speaks to; what is shown at once unless said otherwise."""
    told = {"now": lambda: 1_900_000_000.0, "customers": CUSTOMERS.values(), "dimensions": {CPU: "sum"}}
    unvouched = kw.pop("unvouched", ())
    double = Paigo(**{**told, **kw})
    async with served(double) as url:
        sink = made(tmp_path, url, unvouched=unvouched)
        try:
            yield sink, double
        finally:
            await sink.close()


def made(tmp_path: Path, url: str, **kw: Any) -> PaigoSink:
    """A sink with its credentials in files."""
    for name, words in (("id", "me"), ("secret", SECRET)):
        (tmp_path / name).write_text(words)
    values: dict[str, Any] = {
        "token_url": f"{url}/oauth/token",
        "audience": "api",
        "client_id_file": tmp_path / "id",
        "client_secret_file": tmp_path / "secret",
    }
    return PaigoSink("paigo", "billing", url, **{**values, **kw})


def frozen(sink: PaigoSink, of: UsageRecord | None = None, **kw: Any) -> Submission:
    """A record as it leaves."""
    return submission(sink.render(entry(of, **{"customer": ACME, "dimension": CPU, **kw})))


def test_a_record_is_what_the_api_takes(tmp_path: Path) -> None:
    """A string value, the window's end in milliseconds, our id in the metadata; the same entry gives the same bytes."""
    sink = made(tmp_path, "http://localhost")
    told = json.loads(sink.render(entry(customer=ACME, dimension=CPU)))
    assert {name: told[name] for name in ("customerId", "dimensionId", "recordValue", "timestamp")} == {
        "customerId": ACME,
        "dimensionId": CPU,
        "recordValue": "300.123457",
        "timestamp": "2026-11-23T12:05:00.000Z",
    }
    assert told["metadata"][ID] == record().id(0)
    assert sink.render(entry(customer=ACME, dimension=CPU)) == sink.render(entry(customer=ACME, dimension=CPU))
    assert isinstance(sink, Readable)
    assert isinstance(sink, Accountable)


@pytest.mark.parametrize("kw", [{"customer": "acme"}, {"dimension": "cpu"}, {"customer": ACME.replace("-", "")}])
def test_what_is_no_id_of_paigos_is_not_sent(tmp_path: Path, kw: dict[str, Any]) -> None:
    """It would answer 400; the record says which, and waits for a person."""
    with pytest.raises(ValueError, match="a UUID"):
        frozen(made(tmp_path, "http://localhost"), **kw)


def test_it_is_taken_and_found_again(tmp_path: Path) -> None:
    """Over real sockets, with a token that was asked for once."""

    async def story() -> None:
        async with meeting(tmp_path) as (sink, double):
            before = await sink.look(frozen(sink))
            answer = await sink.send(frozen(sink))
            after = await sink.look(frozen(sink))
            other = await sink.look(frozen(sink, id="another"))
            assert (answer.outcome, double.granted) == ("delivered", 1)
            assert (before.found, before.failed, other.found, other.failed) == ({}, False, {}, False)
            assert list(after.found) == [1]
            assert double.totals() == {(ACME, CPU): Decimal("300.123457")}

    asyncio.run(story())


@pytest.mark.parametrize(
    ("fault", "outcome", "definite", "left"),
    [
        ("lost before", "ambiguous", False, True),
        ("lost after", "ambiguous", False, True),
        ("503", "ambiguous", False, True),
        ("429", "retry", True, True),
        ("400", "split", True, True),
        ("expire", "delivered", False, True),
    ],
)
def test_what_an_answer_means(tmp_path: Path, fault: str, outcome: str, definite: bool, left: bool) -> None:
    """What is not on the list of definite refusals may have arrived; a token that has ended is renewed once."""

    async def story() -> Answer:
        async with meeting(tmp_path, faults=[fault]) as (sink, _):
            return await sink.send(frozen(sink))

    answer = asyncio.run(story())
    assert (answer.outcome, answer.definite, answer.left) == (outcome, definite, left)


def test_a_token_is_renewed_before_it_ends_and_is_asked_for_once_by_all(tmp_path: Path) -> None:
    """No request meets a token that has ended, however many are under way."""
    now = [1_900_000_000.0]

    async def story() -> None:
        async with meeting(tmp_path, now=lambda: now[0], lasts=1000.0) as (sink, double):
            sink._wire._login._clock = lambda: now[0]  # type: ignore[union-attr]
            await asyncio.gather(*(sink.send(frozen(sink)) for _ in range(9)))
            assert double.granted == 1
            now[0] += 939.0
            await sink.send(frozen(sink))
            assert double.granted == 1
            now[0] += 2.0
            await asyncio.gather(*(sink.send(frozen(sink)) for _ in range(9)))
            assert (double.granted, double.posted) == (2, 19)

    asyncio.run(story())


def test_wrong_credentials_keep_everything_and_say_which(tmp_path: Path) -> None:
    """Nothing left; the secret is in no word of it."""

    async def story() -> Answer:
        async with meeting(tmp_path) as (sink, _):
            (tmp_path / "secret").write_text("wr0ng")
            return await sink.send(frozen(sink))

    answer = asyncio.run(story())
    assert (answer.outcome, answer.left, answer.blocked) == ("retry", False, True)
    assert "client_secret_file" in answer.why
    assert "wr0ng" not in answer.why


def test_a_missing_secret_names_its_key(tmp_path: Path) -> None:
    """And nothing is sent without it."""

    async def story() -> Answer:
        async with meeting(tmp_path) as (sink, _):
            (tmp_path / "secret").unlink()
            return await sink.send(frozen(sink))

    answer = asyncio.run(story())
    assert not answer.left
    assert "sinks[paigo].client_secret_file" in answer.why


def test_usage_without_an_id_may_be_ours_or_not(tmp_path: Path) -> None:
    """L10: the same dimension, time and value tells nothing either way."""

    async def story() -> None:
        async with meeting(tmp_path) as (sink, double):
            await sink.send(frozen(sink))
            double.used[0].metadata = None
            look = await sink.look(frozen(sink))
            assert (look.found, look.failed) == ({}, True)
            double.used[0].value = "1"
            assert not (await sink.look(frozen(sink))).failed

    asyncio.run(story())


@pytest.mark.parametrize("fault", ["503", "lost before", "400"])
def test_a_look_that_is_refused_tells_nothing(tmp_path: Path, fault: str) -> None:
    """Also where usage is too young to be asked for."""

    async def story() -> None:
        async with meeting(tmp_path, unread=deque([fault])) as (sink, _):
            assert (await sink.look(frozen(sink))).failed

    asyncio.run(story())


def test_dimensions_that_do_not_sum_are_refused(tmp_path: Path) -> None:
    """Its default, the hourly maximum, would bill a twelfth of what five-minute windows hold."""
    disk = DIMENSIONS["disk"]

    async def story() -> None:
        async with meeting(tmp_path, dimensions={CPU: "max"}, unvouched=(CPU, disk)) as (sink, _):
            reached, *dimensions = await sink.ask()
            found = {finding.what: finding for finding in dimensions}
            of_cpu, of_disk = found[f"dimension {CPU}"], found[f"dimension {disk}"]
            assert (reached.ok, of_cpu.ok, of_disk.ok) == (True, False, False)
            assert "max" in of_cpu.why
            assert "sum" in of_cpu.cure
            assert "none" in of_disk.why

    asyncio.run(story())


def test_a_month_ends_with_the_window_that_ends_before_it(tmp_path: Path) -> None:
    """By default the time is the window's end, so that the last one is the next month's; `start` says otherwise."""
    midnight = int(datetime(2026, 12, 1, tzinfo=UTC).timestamp()) * 10**9
    last = record(start=midnight - 300 * 10**9, end=midnight)

    async def story(at: int) -> dict[str, Decimal]:
        async with meeting(tmp_path) as (sink, double):
            await sink.send(frozen(sink, last, at=at))
            return {month: sum(double.invoice(month).values(), Decimal(0)) for month in ("2026-11", "2026-12")}

    assert asyncio.run(story(last.end)) == {"2026-11": 0, "2026-12": Decimal("300.123457")}
    assert asyncio.run(story(last.start)) == {"2026-11": Decimal("300.123457"), "2026-12": 0}


def test_what_it_holds_is_read_day_by_day(tmp_path: Path) -> None:
    """For `reconcile`: all of it, and an error where one day cannot be read."""
    day = 86_400 * 10**9

    async def story() -> None:
        async with meeting(tmp_path) as (sink, double):
            ends = [record().end, record().end + 2 * day]
            for n, end in enumerate(ends):
                await sink.send(frozen(sink, id=f"r{n}", at=end))
            held = [h async for h in sink.holdings(ends[0], ends[1] + 1, [ACME])]
            assert [(h.id, h.at, h.customer, h.dimension) for h in held] == [
                (f"r{n}", end, ACME, CPU) for n, end in enumerate(ends)
            ]
            assert [h async for h in sink.holdings(ends[0], ends[1], [ACME])] == held[:1]
            double.unread = deque(["", "503"])
            with pytest.raises(SinkError, match="503"):
                _ = [h async for h in sink.holdings(ends[0], ends[1] + 1, [ACME])]

    asyncio.run(story())


# -- its section -----------------------------------------------------------------------------------------------------

KEYS = "id: paigo, kind: paigo, client_id_file: /i, client_secret_file: /s"
DIMENSION = f"dimensions: {{cpu_time: {{id: {CPU}, unit: core-second}}}}"


def sinks(words: str) -> str:
    """A file with this sink, and a customer who has an id there."""
    return text(sinks=f"sinks: [{{{words}}}]", customers=f"customers: [{{id: a, ids: {{paigo: {ACME}}}}}]")


def test_a_section_of_two_files_and_dimensions_is_enough() -> None:
    """The rest is what Paigo documents."""
    (sink,) = load(sinks(f"{KEYS}, {DIMENSION}")).sinks
    told = sink.arguments()
    assert told["url"] == "https://api.prod.paigo.tech"
    assert told["token_url"] == "https://auth.paigo.tech/oauth/token"
    assert (told["concurrency"], told["visibility_delay"]) == (32, 600 * 10**9)
    assert told["unvouched"] == {CPU}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (KEYS, "Name them, each with its id"),
        (f"{KEYS}, dimensions: {{cpu_time: {{unit: core-second}}}}", "no id. Write the dimensionId"),
        (f"{KEYS}, dimensions: {{cpu_time: {{id: cpu}}}}", "a UUID"),
        (f"{KEYS}, {DIMENSION}, role: copy", "no place for usage of nobody"),
        (f"{KEYS}, {DIMENSION}, url: http://paigo.example", "in the clear"),
        (f"{KEYS}, {DIMENSION}, token_url: http://paigo.example", "in the clear"),
        (f"{KEYS}, {DIMENSION}, visibility_delay: 13h", "12h or less"),
        (f"id: paigo, kind: paigo, client_id_file: /i, {DIMENSION}", "client_secret_file"),
    ],
)
def test_what_is_wrong_is_told_before_anything_starts(words: str, said: str) -> None:
    """With its place and the cure."""
    assert any(said in problem for problem in problems(sinks(words)))


@pytest.mark.parametrize("customer", ["{id: a}", "{id: a, ids: {paigo: cus_1}}"])
def test_a_customer_without_an_id_of_paigos_is_told_before_anything_starts(customer: str) -> None:
    """None of their records could be sent."""
    words = text(sinks=f"sinks: [{{{KEYS}, {DIMENSION}}}]", customers=f"customers: [{customer}]")
    (problem,) = problems(words)
    assert "a UUID" in problem
