"""Files in a real bucket: whoever is killed, every record is in one of them, and in one only."""

import asyncio
import gzip
import io
import json
from collections import Counter
from decimal import Decimal
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pytest
from msgspec import structs
from pyarrow import parquet

from agent.sinks import Answer, Holding
from agent.sinks.s3 import S3Sink
from tests.own.gateway import Gateway
from tests.own.sending import Totals, deliver, filled
from tests.sinks.test_cloudevents import MINUTE, START, entry, record, submission
from tests.spool.ledger import NOON

pytestmark = [pytest.mark.real, pytest.mark.timeout(300)]

T = TypeVar("T")
VALUE = "300.123457"


def arguments(gateway: Gateway, prefix: str, **kw: Any) -> dict[str, Any]:
    """Of a sink that writes there."""
    place = {"url": f"s3://{gateway.bucket.name}/{prefix}", "endpoint": gateway.endpoint}
    return {**place, "credentials_file": gateway.credentials_file, **kw}


def send(gateway: Gateway, prefix: str, *payloads: bytes, **kw: Any) -> Answer:
    """The answer to one submission."""
    return asyncio.run(S3Sink("own", "billing", **arguments(gateway, prefix, **kw)).send(submission(*payloads)))


def rendered(count: int = 1, value: str = VALUE, **kw: Any) -> list[bytes]:
    """Rows of so many minutes."""
    sink = S3Sink("own", "billing", "s3://x", **kw)
    return [sink.render(entry(record(start=START + n * MINUTE), value=value)) for n in range(count)]


def rows(gateway: Gateway, prefix: str) -> list[dict[str, Any]]:
    """All rows of all files that the disk has."""
    files = gateway.files(prefix).values()
    return [json.loads(line) for body in files for line in gzip.decompress(body).splitlines()]


def totals(gateway: Gateway, prefix: str) -> Totals:
    """What they come to."""
    sums = Totals()
    for one in rows(gateway, prefix):
        key = one["customer"], one["dimension"]
        sums[key] = sums.get(key, Decimal(0)) + Decimal(one["quantity"])
    return sums


def test_a_file_is_named_by_its_rows_and_written_once(gateway: Gateway) -> None:
    """A second time the bucket says that it has it, however it is compressed by then."""
    payloads = rendered(3)
    first = send(gateway, "once", *payloads)
    assert first.outcome == "delivered"
    assert send(gateway, "once", *payloads).outcome == "duplicate"
    (name,) = gateway.files("once")
    assert name == first.why
    assert name.startswith("date=1970-01-01/")
    assert name.endswith(".ndjson.gz")
    assert send(gateway, "once", *payloads[:2]).outcome == "delivered"
    assert len(gateway.files("once")) == 2


@pytest.mark.parametrize("compression", ["none", "gzip", "zstd"])
def test_lines_are_the_rows_as_they_were_frozen(gateway: Gateway, compression: str) -> None:
    """Byte for byte, and the same bytes each time."""
    payloads, prefix = rendered(5), f"lines-{compression}"
    assert send(gateway, prefix, *payloads, compression=compression).outcome == "delivered"
    ((_, body),) = gateway.files(prefix).items()
    if compression == "zstd":
        body = pa.input_stream(io.BytesIO(body), compression="zstd").read()
    elif compression == "gzip":
        body = gzip.decompress(body)
    assert body == b"".join(payload + b"\n" for payload in payloads)


@pytest.mark.parametrize("compression", ["none", "gzip", "zstd"])
def test_parquet_is_read_as_what_was_said(gateway: Gateway, compression: str) -> None:
    """Exact decimals, times to the nanosecond."""
    value, prefix = "-99999999999999999999.123456789012345678", f"parquet-{compression}"
    payloads = rendered(2, value, format="parquet")
    assert send(gateway, prefix, *payloads, format="parquet", compression=compression).outcome == "delivered"
    ((name, body),) = gateway.files(prefix).items()
    assert name.endswith(".parquet")
    table = parquet.read_table(pa.BufferReader(body))
    read = table.to_pylist()
    assert [one["quantity"] for one in read] == [Decimal(value)] * 2
    assert table.column("window_start").cast(pa.int64()).to_pylist() == [START, START + MINUTE]
    assert (read[0]["labels"], read[0]["flags"], read[0]["reason"]) == ([("namespace", "acme-prod")], [], None)
    with pytest.raises(ValueError, match="Parquet"):
        rendered(1, "1" + 20 * "0", format="parquet")


def test_paigos_five_fields() -> None:
    """As its usage API has them."""
    (payload,) = rendered(1, layout="paigo")
    assert json.loads(payload) == {
        "timestamp": "2026-11-23T12:05:00.000000000Z",
        "customerId": "acme",
        "dimensionId": "cpu",
        "recordValue": VALUE,
        "metadata": {"recordId": record().id(0)},
    }


def test_wrong_credentials_or_bucket_keep_everything(gateway: Gateway, tmp_path: Path) -> None:
    """Nothing is taken, a person is told, and no secret is."""
    wrong = tmp_path / "credentials"
    wrong.write_text(gateway.credentials_file.read_text().replace("s3cret", "hunter2"))
    answer = send(gateway, "wrong", *rendered(), credentials_file=wrong)
    assert (answer.outcome, answer.blocked, answer.definite) == ("retry", True, True)
    assert "hunter2" not in answer.why
    wrong.write_text("[other]\n")
    answer = send(gateway, "wrong", *rendered(), credentials_file=wrong)
    assert (answer.outcome, answer.blocked) == ("retry", True)
    assert "credentials_file" in answer.why
    answer = send(gateway, "wrong", *rendered(), url="s3://nosuch/wrong")
    assert (answer.outcome, answer.blocked) == ("retry", True)
    answer = send(gateway, "wrong", *rendered(), endpoint="http://127.0.0.1:1")
    assert (answer.outcome, answer.left, answer.blocked) == ("retry", False, False)
    sink = S3Sink("own", "billing", **arguments(gateway, "wrong"))
    assert asyncio.run(sink.ask())[0].ok
    sink = S3Sink("own", "billing", **arguments(gateway, "wrong", url="s3://nosuch/wrong"))
    assert not asyncio.run(sink.ask())[0].ok


@pytest.mark.parametrize("layout", ["rows", "paigo"])
def test_all_that_it_holds_is_read_back(gateway: Gateway, layout: str) -> None:
    """Of these customers and this time, from every file."""
    payloads = rendered(4, layout=layout)
    for pair in (payloads[:2], payloads[2:]):
        send(gateway, f"held-{layout}", *pair)
    sink = S3Sink("own", "billing", **arguments(gateway, f"held-{layout}", layout=layout))

    async def read(*customers: str) -> list[Holding]:
        return [one async for one in sink.holdings(START, START + 60 * MINUTE, customers)]

    held = asyncio.run(read("acme"))
    assert Counter((one.customer, one.dimension, one.value) for one in held) == {("acme", "cpu", VALUE): 4}
    assert {one.id for one in held} == {record(start=START + n * MINUTE).id(0) for n in range(4)}
    assert asyncio.run(read("beta")) == []


def test_a_drain_that_is_cancelled_leaves_what_may_have_left(gateway: Gateway, tmp_path: Path) -> None:
    """What goes on in a thread, or in the library, meets its own file the next time."""
    expected = filled(tmp_path, "s3", 1_000)
    for _ in range(3):
        sink = S3Sink("own", "billing", **arguments(gateway, "cancelled", max_batch=20))
        before = len(gateway.files("cancelled"))
        asyncio.run(deliver(tmp_path, sink, until=lambda b=before: len(gateway.files("cancelled")) > b + 3))  # type: ignore[misc]
    asyncio.run(deliver(tmp_path, S3Sink("own", "billing", **arguments(gateway, "cancelled", max_batch=20))))
    assert totals(gateway, "cancelled") == expected


def test_the_partition_is_the_day_on_which_it_was_frozen() -> None:
    """Which no retry changes."""
    sink = S3Sink("own", "billing", "s3://x")
    sent = submission(*rendered(2))
    assert not sink.terms.splits
    assert sink.name(structs.replace(sent, prepared=NOON)).startswith("date=2027-01-15/")
    assert sink.name(structs.replace(sent, attempts=3, tainted=5)) == sink.name(sent)
