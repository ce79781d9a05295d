"""Servers killed while they are sent to, and who sends, by SIGKILL: the totals are the ledger's."""

import random
import time
from pathlib import Path

import pytest

from tests.own.gateway import Gateway
from tests.own.kafka import Kafka
from tests.own.postgres import Postgres
from tests.own.sending import filled, outcomes, started
from tests.own.test_kafka import totals as sums_of_events
from tests.own.test_postgres import totals as sums_of_rows
from tests.own.test_s3 import arguments as bucket
from tests.own.test_s3 import rows
from tests.own.test_s3 import totals as sums_of_files

pytestmark = [pytest.mark.real, pytest.mark.timeout(300)]


def test_postgres_killed_again_and_again(server: Postgres, tmp_path: Path) -> None:
    """With its acknowledged rows synced: the table's totals are the ledger's."""
    expected = filled(tmp_path, "postgres", 4_000)
    arguments = {"url": server.url, "table": "killed", "password_file": server.password_file, "max_batch": 20}
    sender = started(tmp_path, "postgres", arguments)
    dice = random.Random(6)
    for _ in range(3):
        time.sleep(dice.uniform(0.3, 0.8))
        server.end()
        server.start()
    assert sender.wait(60) == 0
    assert sums_of_rows(server, "killed") == expected
    met = outcomes(tmp_path)
    assert met["delivered"] + met["duplicate"] == 4_000


def test_a_sender_to_postgres_killed_again_and_again(server: Postgres, tmp_path: Path) -> None:
    """By SIGKILL, in the middle of transactions: nothing twice, nothing missing."""
    expected = filled(tmp_path, "postgres", 4_000)
    arguments = {"url": server.url, "table": "sender", "password_file": server.password_file, "max_batch": 20}
    dice, kills = random.Random(7), 0
    for _ in range(5):
        sender = started(tmp_path, "postgres", arguments)
        before = _count(server, "sender")
        while sender.poll() is None and _count(server, "sender") == before:
            time.sleep(0.005)
        time.sleep(dice.uniform(0, 0.1))
        kills += sender.poll() is None
        sender.kill()
        sender.wait()
    sender = started(tmp_path, "postgres", arguments)
    assert sender.wait(60) == 0
    assert kills >= 2
    assert sums_of_rows(server, "sender") == expected
    met = outcomes(tmp_path)
    assert met["delivered"] + met["duplicate"] == 4_000


def _count(server: Postgres, table: str) -> int:
    exists = server.rows("SELECT to_regclass(%s)::text", table)[0][0]
    count: int = server.rows(f"SELECT count(*) FROM {table}")[0][0] if exists else 0
    return count


def test_s3_killed_again_and_again(gateway: Gateway, tmp_path: Path) -> None:
    """Every record is in one file, and in one only."""
    expected = filled(tmp_path, "s3", 4_000)
    sender = started(tmp_path, "s3", bucket(gateway, "killed", max_batch=20))
    dice = random.Random(8)
    for _ in range(3):
        time.sleep(dice.uniform(0.3, 0.8))
        gateway.end()
        gateway.start()
    assert sender.wait(60) == 0
    assert sums_of_files(gateway, "killed") == expected
    assert len({one["id"] for one in rows(gateway, "killed")}) == len(rows(gateway, "killed")) == 4_000


def test_a_sender_to_s3_killed_again_and_again(gateway: Gateway, tmp_path: Path) -> None:
    """By SIGKILL, in the middle of files: nothing twice, nothing missing."""
    expected = filled(tmp_path, "s3", 4_000)
    dice, kills = random.Random(9), 0
    for _ in range(5):
        before = len(gateway.files("sender"))
        sender = started(tmp_path, "s3", bucket(gateway, "sender", max_batch=20))
        while sender.poll() is None and len(gateway.files("sender")) == before:
            time.sleep(0.002)
        time.sleep(dice.uniform(0, 0.05))
        kills += sender.poll() is None
        sender.kill()
        sender.wait()
    sender = started(tmp_path, "s3", bucket(gateway, "sender", max_batch=20))
    assert sender.wait(60) == 0
    assert kills >= 2
    assert sums_of_files(gateway, "sender") == expected
    met = outcomes(tmp_path)
    assert met["delivered"] + met["duplicate"] == 4_000


def test_kafka_killed_again_and_again(broker: Kafka, tmp_path: Path) -> None:
    """Nothing is missing, and what is there twice has one id."""
    topic = broker.topic("killed")
    expected = filled(tmp_path, "kafka", 3_000)
    options = {"servers": broker.servers, "topic": topic, "plaintext": True, "max_batch": 20, "timeout": 20_000_000_000}
    sender = started(tmp_path, "kafka", options)
    dice = random.Random(10)
    for _ in range(2):
        time.sleep(dice.uniform(0.5, 1.0))
        broker.end()
        broker.start()
    assert sender.wait(100) == 0
    assert sums_of_events(broker, topic)[0] == expected
    assert outcomes(tmp_path)["delivered"] == 3_000


def test_a_sender_to_kafka_killed_again_and_again(broker: Kafka, tmp_path: Path) -> None:
    """By SIGKILL: nothing is missing, and what is there twice has one id."""
    topic = broker.topic("sender")
    expected = filled(tmp_path, "kafka", 3_000)
    options = {"servers": broker.servers, "topic": topic, "plaintext": True, "max_batch": 20}
    dice, kills = random.Random(11), 0
    for _ in range(3):
        before = len(broker.messages(topic))
        sender = started(tmp_path, "kafka", options)
        while sender.poll() is None and len(broker.messages(topic)) == before:
            time.sleep(0.01)
        time.sleep(dice.uniform(0, 0.1))
        kills += sender.poll() is None
        sender.kill()
        sender.wait()
    sender = started(tmp_path, "kafka", options)
    assert sender.wait(60) == 0
    assert kills >= 2
    sums, repeats = sums_of_events(broker, topic)
    assert sums == expected
    print(f"{kills} kills, {repeats} repeats discarded")
