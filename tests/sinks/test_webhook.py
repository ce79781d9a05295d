"""Signed rows: what a receiver can check, that a repeat is one to it, and what its answers mean.

The rules are those of the Standard Webhooks specification: what is signed, and how keys and signatures are written.
"""

import asyncio
import base64
import hmac
import json
from pathlib import Path
from typing import Any

import pytest

from agent.sinks import Answer
from agent.sinks.webhook import WebhookSink, signature
from tests.config.written import problems, text
from tests.sinks.double import LOST, Act, Request, reply, upstream
from tests.sinks.test_cloudevents import MINUTE, START, entry, record, submission

OLD, NEW = base64.b64encode(bytes(range(24))).decode(), base64.b64encode(bytes(range(24, 56))).decode()
NOW = 1_795_435_800


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """A file with one key."""
    path = tmp_path / "secret"
    path.write_text(f"whsec_{OLD}\n")
    return path


def rendered(count: int = 2) -> list[bytes]:
    """Rows of so many minutes."""
    sink = WebhookSink("x", "billing", "http://127.0.0.1:9/hook", secret_file=Path("/nowhere"))
    return [sink.render(entry(record(start=START + n * MINUTE))) for n in range(count)]


def posted(secret: Path, *script: Act, attempts: int = 1, **kw: Any) -> tuple[list[Answer], list[Request]]:
    """The answers to so many attempts at one submission, a minute apart, and what was posted."""

    async def run() -> tuple[list[Answer], list[Request]]:
        now = iter(range(NOW, NOW + 60 * attempts, 60))
        async with upstream(*script) as other:
            url = f"http://127.0.0.1:{other.port}/hook"
            sink = WebhookSink("x", "billing", url, secret_file=secret, wall=lambda: next(now), **kw)
            answers = [await sink.send(submission(*rendered())) for _ in range(attempts)]
            await sink.close()
            return answers, other.requests

    return asyncio.run(run())


def verified(request: Request, key: str) -> bool:
    """What a receiver with this key says of a request."""
    told = request.headers
    signed = f"{told['webhook-id']}.{told['webhook-timestamp']}.".encode() + request.body
    wanted = base64.b64encode(hmac.digest(base64.b64decode(key), signed, "sha256")).decode()
    return f"v1,{wanted}" in told["webhook-signature"].split(" ")


def test_the_signature_is_that_of_the_specifications_example() -> None:
    """Key, id, time and payload as they are published with it."""
    key, payload = base64.b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"), b'{"test": 2432232314}'
    signed = signature([key], "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, payload)
    assert signed == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_a_receiver_knows_us_and_a_repeat(secret: Path) -> None:
    """The body and its id stay the same; the time and the signature are the attempt's."""
    answers, (first, second) = posted(secret, LOST, reply(204), attempts=2)
    assert [answer.outcome for answer in answers] == ["ambiguous", "delivered"]
    assert (first.body, first.headers["webhook-id"]) == (second.body, second.headers["webhook-id"])
    assert [int(request.headers["webhook-timestamp"]) for request in (first, second)] == [NOW, NOW + 60]
    assert verified(first, OLD)
    assert verified(second, OLD)
    assert not verified(first, NEW)
    assert [one["id"] for one in json.loads(first.body)["data"]] == [
        record(start=START + n * MINUTE).id(0) for n in range(2)
    ]


def test_while_one_key_replaces_the_other_both_sign(secret: Path) -> None:
    """So that the receiver may change at any time in between."""
    secret.write_text(f"whsec_{NEW}\nwhsec_{OLD}\n")
    _, (request,) = posted(secret, reply(200))
    assert verified(request, OLD)
    assert verified(request, NEW)


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("", "0 keys"),
        (f"whsec_{OLD}\n" * 3, "3 keys"),
        (OLD, "key 1 is not whsec_"),
        ("whsec_c2hvcnQ=", "24 to 64 bytes"),
        (f"whsec_{OLD}\nwhsec_hunter2!", "key 2"),
        (None, "No such file"),
    ],
)
def test_without_a_key_nothing_leaves(secret: Path, written: str | None, said: str) -> None:
    """And what stands in the file is not repeated."""
    secret.unlink() if written is None else secret.write_text(written)
    (answer,), requests = posted(secret, reply(204))
    assert (answer.outcome, answer.left, answer.blocked, requests) == ("retry", False, True, [])
    assert said in answer.why
    assert "hunter2" not in answer.why


@pytest.mark.parametrize(
    ("status", "outcome", "definite", "blocked"),
    [
        (202, "delivered", False, False),
        (409, "duplicate", False, False),
        (410, "retry", True, True),
        (401, "retry", True, True),
        (413, "split", True, False),
        (429, "retry", True, False),
        (500, "ambiguous", False, False),
    ],
)
def test_what_a_status_means(secret: Path, status: int, outcome: str, definite: bool, blocked: bool) -> None:
    """As for every sink over HTTP."""
    (answer,), _ = posted(secret, reply(status))
    assert (answer.outcome, answer.definite, answer.blocked) == (outcome, definite, blocked)


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ("url: 'http://hook.example/x', secret_file: /s, role: copy", "in the clear"),
        ("url: 'https://hook.example/x', role: copy", "secret_file"),
        ("url: 'https://hook.example/x', secret_file: /s", "dedupe_horizon"),
        ("url: 'https://hook.example/x', secret_file: /s, dedupe_horizon: 1d", "aggregation: sum"),
    ],
)
def test_what_cannot_be_right_is_refused_with_its_cure(keys: str, said: str) -> None:
    """By `check`."""
    assert any(said in problem for problem in problems(text(sinks=f"sinks: [{{id: x, kind: webhook, {keys}}}]")))
