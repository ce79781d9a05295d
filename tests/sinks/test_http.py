"""Requests and answers as a section says: shapes, compression, what is shown, and what each answer comes to."""

import asyncio
import gzip
import json
from typing import Any

import pytest

from agent.sinks import Answer
from agent.sinks.http import HttpSink
from agent.sinks.login import Bearer
from agent.sinks.rules import Named, Rule, Said
from tests.sinks.double import HALF_A_BODY, LOST, Act, Request, reply, upstream
from tests.sinks.test_cloudevents import entry, submission

DONE = Rule(frozenset({200}), "delivered")
BODY = {"id": "{id}", "v": "{value}"}


def sent(act: Act, *payloads: bytes, **kw: Any) -> tuple[Answer, Request]:
    """What came of these records, and how they were asked for."""

    async def story() -> tuple[Answer, Request]:
        async with upstream(act) as other:
            sink = HttpSink("x", "billing", other.url, **{"body": BODY, "shape": "array", "rules": (DONE,), **kw})
            try:
                return await sink.send(submission(*payloads)), other.requests[0]
            finally:
                await sink.close()

    return asyncio.run(story())


@pytest.mark.parametrize(
    ("shape", "more", "body"),
    [
        ("array", {}, b'[{"id":"a"},{"id":"b"}]'),
        ("ndjson", {}, b'{"id":"a"}\n{"id":"b"}\n'),
        ("list", {"under": "events"}, b'{"events":[{"id":"a"},{"id":"b"}]}'),
        (
            "list",
            {"under": "events", "beside": {"a": True, "z": 1}},
            b'{"a":true,"events":[{"id":"a"},{"id":"b"}],"z":1}',
        ),
    ],
)
@pytest.mark.parametrize("compress", [False, True])
def test_a_batch_has_the_shape_that_was_agreed(shape: str, more: dict[str, Any], body: bytes, compress: bool) -> None:
    """The records byte for byte as they were frozen."""
    answer, asked = sent(reply(200), b'{"id":"a"}', b'{"id":"b"}', shape=shape, compress=compress, **more)
    assert answer.outcome == "delivered"
    assert asked.headers.get("content-encoding") == ("gzip" if compress else None)
    assert (gzip.decompress(asked.body) if compress else asked.body) == body


def test_a_single_record_makes_the_request() -> None:
    """Whatever max_batch says."""
    assert HttpSink("x", "billing", "https://b.example/", body=BODY, shape="single", max_batch=9).terms.max_batch == 1
    _, asked = sent(reply(200), b'{"id":"a"}', shape="single", method="PUT", headers={"X-A": "b"})
    assert (asked.method, asked.headers["x-a"], asked.body) == ("PUT", "b", b'{"id":"a"}')


def test_what_is_shown_has_no_secret(tmp_path: Any) -> None:
    """Its header, and that it is one; the file is not even read."""
    sink = HttpSink(
        "x", "billing", "https://b.example/u", body=BODY, shape="array", compress=True,
        login=Bearer(tmp_path / "none", "X-Key"),
    )  # fmt: skip
    assert sink.shown([sink.render(entry(value="1"))]) == [
        "POST https://b.example/u",
        "Content-Type: application/json",
        "Content-Encoding: gzip",
        "X-Key: [secret]",
        "",
        '[{"id":"' + entry().id + '","v":"1"}]',
    ]


BY_ID = Named(("r", "failed"), "id", ("e", "id"), (Said("seen", "duplicate"),))
BY_INDEX = Named(("errors",), "index")


@pytest.mark.parametrize(
    ("named", "said", "items"),
    [
        (BY_ID, {"r": {"failed": [{"e": {"id": "b"}, "why": "seen"}]}}, {2: "duplicate"}),
        (
            BY_ID,
            {"r": {"failed": [{"e": {"id": "a"}, "why": "bad"}, {"e": {"id": "b"}}]}},
            {1: "rejected", 2: "rejected"},
        ),
        (BY_ID, {"r": {"failed": []}}, {}),
        (BY_ID, {"r": None}, {}),
        (BY_ID, {}, {}),
        (BY_INDEX, {"errors": {"1": ["bad"]}}, {2: "rejected"}),
        (Named(("errors",), "index", ("at",)), {"errors": [{"at": 0}]}, {1: "rejected"}),
        (Named(("ids",), "id"), {"ids": {"a": "bad"}}, {1: "rejected"}),
    ],
)
def test_an_answer_may_speak_of_single_records(named: Named, said: object, items: dict[int, str]) -> None:
    """By id or by place; what it does not name is what the rule says."""
    rules = (Rule(frozenset({200}), "delivered", named=named),)
    answer, _ = sent(reply(200, json.dumps(said).encode()), b'{"id":"a"}', b'{"id":"b"}', rules=rules)
    assert answer.outcome == "delivered"
    assert {seq: outcome for seq, (outcome, _) in answer.items.items()} == items


@pytest.mark.parametrize(
    ("named", "body"),
    [
        (BY_ID, b'{"r":{"failed":[{"e":{"id":"zzz"}}]}}'),
        (BY_ID, b'{"r":{"failed":[{"id":"a"}]}}'),
        (BY_ID, b'{"r":[]}'),
        (BY_ID, b'{"r":{"failed":"a"}}'),
        (BY_ID, b"<html>"),
        (BY_ID, b""),
        (BY_INDEX, b'{"errors":{"2":["bad"]}}'),
        (BY_INDEX, b'{"errors":{"first":["bad"]}}'),
    ],
)
@pytest.mark.parametrize("means", ["delivered", "retry"])
def test_an_answer_that_cannot_be_read_so_says_nothing_for_sure(named: Named, body: bytes, means: Any) -> None:
    """It is neither delivered nor refused: sent again unchanged, as long as the ids are known."""
    rules = (Rule(frozenset({200}), means, definite=True, named=named),)
    answer, _ = sent(reply(200, body), b'{"id":"a"}', b'{"id":"b"}', rules=rules)
    assert (answer.outcome, answer.definite, answer.items) == ("ambiguous", False, {})


def test_a_refusal_that_names_nobody_is_split() -> None:
    """Else the same batch would be refused for ever."""
    rules = (Rule(frozenset({400}), "retry", definite=True, named=BY_ID),)
    answer, _ = sent(reply(400, b'{"r":{"failed":[]}}'), b'{"id":"a"}', b'{"id":"b"}', rules=rules)
    assert (answer.outcome, answer.definite) == ("split", True)


@pytest.mark.parametrize(
    ("act", "payloads", "outcome", "blocked"),
    [
        (reply(200, b"ok"), 1, "delivered", False),
        (reply(200, b"nope"), 1, "ambiguous", False),  # a success that is not listed
        (reply(202), 1, "ambiguous", False),
        (reply(403), 2, "split", False),
        (reply(403), 1, "retry", True),
        (reply(401), 2, "retry", True),
        (reply(404), 2, "retry", True),
        (reply(302, Location="/login"), 1, "retry", True),
        (reply(429, Retry_After="7"), 1, "retry", False),
        (reply(500), 1, "ambiguous", False),
        (LOST, 1, "ambiguous", False),
        (HALF_A_BODY, 1, "ambiguous", False),
    ],
)
def test_the_first_rule_that_fits_decides_and_else_http(act: Act, payloads: int, outcome: str, blocked: bool) -> None:
    """Wrong credentials reject nothing: the sink stops and says so."""
    rules = (
        Rule(frozenset({200}), "delivered", text="ok"),
        Rule(frozenset({403}), "split", records="many", definite=True),
    )
    answer, _ = sent(act, *(b'{"id":"%d"}' % n for n in range(payloads)), rules=rules)
    assert (answer.outcome, answer.blocked) == (outcome, blocked)


def test_an_answer_about_a_thousand_records_is_read_whole() -> None:
    """As long as it may be: what was cut off would be a record that nobody hears of."""
    failed = [{"e": {"id": str(n)}, "why": "x" * 200} for n in range(1000)]
    rules = (Rule(frozenset({200}), "delivered", named=BY_ID),)
    payloads = [b'{"id":"%d"}' % n for n in range(1000)]
    answer, _ = sent(reply(200, json.dumps({"r": {"failed": failed}}).encode()), *payloads, rules=rules)
    assert len(answer.items) == 1000
