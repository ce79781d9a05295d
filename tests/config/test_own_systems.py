"""Sections of sinks that are systems of one's own: what `check` refuses, and what reaches the sink."""

import pytest

from agent.config.sinks import Kafka, Postgres

from .written import load, problems, text

POSTGRES = "kind: postgres, url: 'postgresql://me@localhost/billing'"
BUCKET = "kind: s3, url: 's3://usage/metering'"
TOPIC = "kind: kafka, servers: 'localhost:9092', topic: usage, role: copy"


def written(*keys: str) -> str:
    """A file with one such sink."""
    return text(sinks=f"sinks: [{{id: own, {', '.join(keys)}}}]")


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ("kind: postgres, url: 'postgresql://me:hunter2@localhost/billing'", "password_file"),
        ("kind: postgres, url: 'postgresql://me@localhost/billing?password=hunter2'", "password_file"),
        ("kind: postgres, url: 'postgresql://me@db.example/billing'", "sslmode=verify-full"),
        ("kind: postgres, url: 'postgresql://me@db.example/billing?sslmode=prefer'", "sslmode=verify-full"),
        ("kind: postgres, url: 'mysql://me@localhost/billing'", "not the address of a database"),
        ("kind: postgres, url: 'postgresql://me@localhost'", "not the address of a database"),
        ("kind: postgres, url: 'postgresql:///billing'", "names no host"),
        ("kind: postgres, url: 'postgresql://me@localhost/billing?options=-c'", "options is not set here"),
        (f"{POSTGRES}, table: 'usage; DROP TABLE usage'", "is not a table"),
        (f"{POSTGRES}, timeout: 10ms", "shorter than 1s"),
        ("kind: s3, url: 'https://usage.example'", "not a place in a bucket"),
        ("kind: s3, url: 's3://usage//x'", "not a place in a bucket"),
        (f"{BUCKET}, endpoint: 'http://minio.example'", "in the clear"),
        (f"{BUCKET}, layout: paigo", "aggregation: sum"),
        (f"{BUCKET}, layout: paigo, role: copy, format: parquet", "lines of JSON"),
        (f"{BUCKET}, max_bytes: 1kB", "4KiB or more"),
        ("kind: kafka, servers: 'localhost', topic: usage, role: copy", "servers with their ports"),
        ("kind: kafka, servers: 'localhost:9092', topic: 'a b', role: copy", "is not a topic"),
        ("kind: kafka, servers: 'localhost:9092', topic: usage", "dedupe_horizon"),
        ("kind: kafka, servers: 'localhost:9092', topic: usage, dedupe_horizon: 32d", "aggregation: sum"),
        (f"{TOPIC}, username: me", "belong together"),
        (f"{TOPIC}, plaintext: true, tls: {{ca_file: /ca.pem}}", "knows no TLS"),
        (
            f"{TOPIC.replace('localhost', 'k.example')}, plaintext: true, username: me, password_file: /p",
            "in the clear",
        ),
    ],
)
def test_what_cannot_be_right_is_refused_with_its_cure(keys: str, said: str) -> None:
    """By `check`, before anything is connected; a password is not repeated."""
    found = problems(written(keys))
    assert any(said in problem for problem in found), found
    assert "hunter2" not in "".join(found)


def test_a_socket_needs_no_tls() -> None:
    """It does not leave the machine."""
    (section,) = load(written("kind: postgres, url: 'postgresql:///billing?host=/run/postgresql'")).sinks
    assert isinstance(section, Postgres)
    assert (section.takes, section.negative) == (None, True)


def test_two_sinks_may_not_share_a_table() -> None:
    """Their rows could not be told apart; two tables of one database may."""
    two = f"sinks: [{{id: a, role: copy, {POSTGRES}}}, {{id: b, role: copy, {POSTGRES}%s}}]"
    assert "table" in problems(text(sinks=two % ""))[0]
    assert load(text(sinks=two % ", table: other")).sinks


def test_a_topic_that_is_billed_from_says_how_long_ids_are_known() -> None:
    """And vouches for its sums."""
    keys = "dedupe_horizon: 32d, dimensions: {cpu_time: {aggregation: sum}}"
    (section,) = load(written(f"kind: kafka, servers: 'localhost:9092', topic: usage, {keys}")).sinks
    assert isinstance(section, Kafka)
    assert section.remembers == 32 * 86_400 * 10**9
