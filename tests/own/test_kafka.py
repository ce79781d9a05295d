"""Events on a real broker: whoever is killed, who discards a repeated id has the ledger's totals."""

import asyncio
import json
import random
from decimal import Decimal
from pathlib import Path
from typing import Any, TypeVar

import pytest
from cloudevents.core.bindings.kafka import KafkaMessage, from_structured_event

from agent.credentials import Tls
from agent.sinks import Answer, Finding
from agent.sinks.cloudevents import SINGLE
from agent.sinks.kafka import KafkaSink
from tests.own.kafka import USER, Kafka
from tests.own.sending import Totals
from tests.sinks.test_cloudevents import MINUTE, START, entry, record, submission
from tests.spool.ledger import S

pytestmark = [pytest.mark.real, pytest.mark.timeout(300)]

T = TypeVar("T")


def send(servers: str, topic: str, *payloads: bytes, plaintext: bool = True, **kw: Any) -> Answer:
    """The answer to one submission."""
    return told(KafkaSink("own", "billing", servers, topic, plaintext=plaintext, **kw), submission(*payloads))


def told(sink: KafkaSink, sent: Any) -> Answer:
    """The same, of this sink."""

    async def story() -> Answer:
        try:
            return await sink.send(sent)
        finally:
            await sink.close()

    return asyncio.run(story())


def rendered(count: int = 1, value: str = "300.123457", **kw: Any) -> list[bytes]:
    """Events of so many minutes."""
    sink = KafkaSink("own", "billing", "x", "y")
    return [sink.render(entry(record(start=START + n * MINUTE, **kw), value=value)) for n in range(count)]


def totals(broker: Kafka, topic: str) -> tuple[Totals, int]:
    """What a reader that discards repeats has, and how many it discarded."""
    seen: set[tuple[str, str]] = set()
    sums, repeats = Totals(), 0
    for message in broker.messages(topic):
        event = json.loads(message.value() or b"")
        if (event["source"], event["id"]) in seen:
            repeats += 1
            continue
        seen.add((event["source"], event["id"]))
        key = event["subject"], event["type"]
        sums[key] = sums.get(key, Decimal(0)) + Decimal(event["data"]["value"])
    return sums, repeats


def test_an_event_is_read_by_the_official_sdk(broker: Kafka) -> None:
    """Key, header and value; customers keep to one partition each."""
    topic = broker.topic("events")
    payloads = [*rendered(3), *rendered(3, customer="beta")]
    answer = send(broker.servers, topic, *payloads)
    assert {outcome for outcome, _ in answer.items.values()} == {"delivered"}
    found = broker.messages(topic)
    assert sorted(message.value() or b"" for message in found) == sorted(payloads)
    places: dict[bytes, set[int | None]] = {}
    for message in found:
        key = message.key()
        assert isinstance(key, bytes)
        places.setdefault(key, set()).add(message.partition())
        headers = dict(message.headers() or ())
        assert headers == {"content-type": SINGLE.encode()}
        event = from_structured_event(KafkaMessage({"content-type": SINGLE.encode()}, key, message.value() or b""))
        assert event.get_subject() == key.decode()
    assert {key: len(where) for key, where in places.items()} == {b"acme": 1, b"beta": 1}


def test_over_tls_with_a_password(broker: Kafka, tmp_path: Path) -> None:
    """As hosted brokers have it: a wrong one keeps everything, and is not shown."""
    topic = broker.topic("secure")
    secure: dict[str, Any] = {"plaintext": False, "username": USER, "tls": Tls(broker.ca_file), "timeout": 10 * S}
    answer = send(broker.secure, topic, *rendered(2), password_file=broker.password_file, **secure)
    assert [outcome for outcome, _ in answer.items.values()] == ["delivered"] * 2
    wrong = tmp_path / "password"
    wrong.write_text("hunter2")
    answer = send(broker.secure, topic, *rendered(), password_file=wrong, **{**secure, "timeout": 3 * S})
    assert (answer.outcome, answer.left, answer.blocked) == ("retry", False, True)
    assert "AUTHENTICATION" in answer.why
    assert "hunter2" not in answer.why
    assert len(broker.messages(topic)) == 2


def test_what_cannot_be_taken_is_said_before_anything_leaves(broker: Kafka) -> None:
    """No such topic, nobody there."""
    answer = send(broker.servers, "nosuch", *rendered())
    assert (answer.outcome, answer.left, answer.blocked) == ("retry", False, True)
    answer = send("127.0.0.1:1", "nosuch", *rendered(), timeout=2 * S)
    assert (answer.outcome, answer.left, answer.blocked) == ("retry", False, False)
    sink = KafkaSink("own", "billing", broker.servers, broker.topic("asked"), plaintext=True)
    assert asyncio.run(_asked(sink)) == [Finding("topic", True, "asked")]
    sink = KafkaSink("own", "billing", broker.servers, "nosuch", plaintext=True)
    assert not asyncio.run(_asked(sink))[0].ok


async def _asked(sink: KafkaSink) -> list[Finding]:
    try:
        return await sink.ask()
    finally:
        await sink.close()


def test_one_message_that_is_too_large_does_not_take_the_others_with_it(broker: Kafka) -> None:
    """The broker says so of it alone."""
    topic = broker.topic("small", **{"max.message.bytes": "2000"})
    large = rendered(group={"pod": "".join(random.Random(1).choices("abcdefgh", k=20_000))})
    for payload in large:
        assert send(broker.servers, topic, payload).items[1][0] == "rejected"
    assert send(broker.servers, topic, *rendered()).items[1][0] == "delivered"


def test_a_drain_that_is_cancelled_may_have_sent(broker: Kafka) -> None:
    """What was handed to the library is purged, and never said to be there."""
    topic = broker.topic("cancelled")
    sink = KafkaSink("own", "billing", broker.servers, topic, plaintext=True)

    async def story() -> None:
        sending = asyncio.create_task(sink.send(submission(*rendered(50))))
        await asyncio.sleep(0.05)
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
        again = await sink.send(submission(*rendered(50)))
        assert {outcome for outcome, _ in again.items.values()} == {"delivered"}
        await sink.close()

    asyncio.run(story())
    assert totals(broker, topic)[0] == {("acme", "cpu"): 50 * Decimal("300.123457")}
