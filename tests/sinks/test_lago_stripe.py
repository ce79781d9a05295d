"""What Lago and Stripe have of their own: batches that are rolled back, sessions that end, meters that are asked."""

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from agent.clock import Moment
from agent.delivery.judgement import judge
from agent.kinds import build_sink
from agent.sinks import Answer, Finding, Terms
from agent.sinks.stripe import REPEAT
from tests.config.written import load, text
from tests.sinks.double import Act, Request, reply, upstream
from tests.sinks.test_cloudevents import entry, submission
from tests.sinks.vendors import TOKEN


def story(name: str, script: Sequence[Act], files: Path, sends: int = 1, payloads: int = 1, tainted: int | None = None,
          ask: bool = False, vouch: bool = True) -> tuple[list[Answer], list[Finding], list[Request]]:  # fmt: skip
    """What came of so many submissions, what was found by asking, and what was asked."""
    (files / "token").write_text(TOKEN)

    async def told() -> tuple[list[Answer], list[Finding], list[Request]]:
        async with upstream(*script) as other:
            base = f"http://127.0.0.1:{other.port}"
            kind = {
                "lago": f"kind: lago, url: '{base}/api/v1/events/batch'",
                "v1": f"kind: stripe, url: '{base}', stream_url: '{base}'",
                "v2": f"kind: stripe, api: v2-stream, url: '{base}', stream_url: '{base}'",
            }[name]
            dimension = "{id: cpu, aggregation: sum}" if vouch else "{id: cpu}"
            written = f"{kind}, token_file: {files}/token, dimensions: {{cpu_time: {dimension}}}"
            sink = build_sink(load(text(sinks=f"sinks: [{{id: x, {written}}}]")).sinks[0])
            assert sink.terms.asks is not vouch
            frozen = submission(*(sink.render(entry(value=str(n))) for n in range(payloads)), tainted=tainted)
            try:
                answers = [await sink.send(frozen) for _ in range(0 if ask else sends)]
                return answers, await sink.ask() if ask else [], other.requests
            finally:
                await sink.close()

    return asyncio.run(told())


def refused(**details: list[str]) -> Act:
    """Lago's 422 (lago-api: controllers/concerns/api_errors.rb)."""
    by_index = {key[1:]: {"transaction_id": what} for key, what in details.items()}
    body = {"status": 422, "code": "validation_errors", "error_details": by_index}
    return reply(422, json.dumps(body).encode())


@pytest.mark.parametrize(("tainted", "known"), [(4, "duplicate"), (None, "conflict")])
def test_what_lago_has_of_a_batch_counts_and_the_rest_goes_again_without_it(
    tmp_path: Path, tainted: int | None, known: str
) -> None:
    """The whole batch was rolled back: the others are as they were, and nothing new is in doubt."""
    act = refused(_0=["value_already_exist"], _2=["value_is_mandatory"])
    (answer,), _, _ = story("lago", [act], tmp_path, payloads=4, tainted=tainted)
    frozen = submission(b"1", b"2", b"3", b"4", tainted=tainted)
    verdict = judge(frozen, answer, Terms(max_batch=100), 5, Moment(6, 6).age)
    assert {seq: outcome for seq, (outcome, _) in verdict.settled.items()} == {1: known, 3: "rejected"}
    assert (verdict.groups, verdict.tainted) == ((), tainted)


def test_too_many_events_are_split_and_none_was_taken(tmp_path: Path) -> None:
    """Where the server's limit is lower than ours."""
    act = reply(422, b'{"status":422,"error_details":{"events":["too_many_events"]}}')
    (answer,), _, _ = story("lago", [act], tmp_path, payloads=2)
    assert (answer.outcome, answer.definite, answer.items) == ("split", True, {})


def metrics(*listed: tuple[str, str, str | None], pages: int = 1) -> Act:
    """A page of GET /api/v1/billable_metrics (getlago/lago-openapi)."""
    names = ("code", "aggregation_type", "field_name")
    found = [dict(zip(names, metric, strict=True)) for metric in listed]
    return reply(200, json.dumps({"billable_metrics": found, "meta": {"total_pages": pages}}).encode())


def meters(*listed: tuple[str, str, str], more: bool = False) -> Act:
    """A page of GET /v1/billing/meters (docs.stripe.com/api/billing/meter/list)."""
    found = [
        {"id": f"mtr_{event}", "event_name": event, "default_aggregation": {"formula": formula},
         "value_settings": {"event_payload_key": key}}
        for event, formula, key in listed
    ]  # fmt: skip
    return reply(200, json.dumps({"object": "list", "data": found, "has_more": more}).encode())


@pytest.mark.parametrize(
    ("name", "script", "wrong"),
    [
        ("lago", [metrics(("cpu", "sum_agg", "value"))], []),
        ("lago", [metrics(("x", "count_agg", None), pages=2), metrics(("cpu", "sum_agg", "value"), pages=2)], []),
        ("lago", [metrics(("cpu", "max_agg", "value"))], ["meter cpu"]),
        ("lago", [metrics(("cpu", "sum_agg", "gb"))], ["meter cpu"]),
        ("lago", [metrics(("cpu_", "sum_agg", "value"))], ["dimension cpu"]),
        ("lago", [reply(401)], ["credentials"]),
        ("lago", [reply(200, b"<html>")], ["metrics"]),
        ("v1", [meters(("cpu", "sum", "value"))], []),
        ("v2", [meters(("x", "count", "value"), more=True), meters(("cpu", "sum", "value"))], []),
        ("v1", [meters(("cpu", "last", "value"))], ["meter mtr_cpu"]),
        ("v1", [meters(("cpu", "sum", "tokens"))], ["meter mtr_cpu"]),
        ("v1", [meters()], ["dimension cpu"]),
        ("v1", [reply(403)], ["credentials"]),
        ("v2", [reply(500)], ["meters"]),
    ],
)
def test_a_meter_that_does_not_sum_our_values_is_named(
    tmp_path: Path, name: str, script: list[Act], wrong: list[str]
) -> None:
    """A code that nobody has would be taken, and bill nothing: so it is asked before anything is sent."""
    _, found, asked = story(name, script, tmp_path, ask=True, vouch=False)
    assert [finding.what for finding in found if not finding.ok] == wrong
    assert all(finding.cure for finding in found if not finding.ok)
    assert {request.method for request in asked} == {"GET"}
    assert len(asked) == len(script)


def test_stripe_knows_an_identifier_and_says_so_by_its_words_alone(tmp_path: Path) -> None:
    """Any other 400 is about this event, which waits for a person."""
    known = reply(400, json.dumps({"error": {"message": f"{REPEAT} x."}}).encode())
    wrong = reply(400, b'{"error":{"message":"No such customer"}}')
    answers, _, _ = story("v1", [known, wrong], tmp_path, sends=2)
    assert [(answer.outcome, answer.definite) for answer in answers] == [("duplicate", True), ("rejected", True)]


SESSION = "/v2/billing/meter_event_session"


def session(token: str) -> Act:
    """Fifteen minutes."""
    return reply(200, json.dumps({"authentication_token": token}).encode())


def test_a_session_is_begun_once_and_anew_when_it_has_ended(tmp_path: Path) -> None:
    """The 401 took nothing, so the same events go again at once; the key itself goes to the session alone."""
    script = [session("s1"), reply(200), reply(401), session("s2"), reply(200)]
    answers, _, asked = story("v2", script, tmp_path, sends=2, payloads=2)
    assert [answer.outcome for answer in answers] == ["delivered", "delivered"]
    assert [(r.target == SESSION, r.headers["authorization"]) for r in asked] == [
        (True, f"Bearer {TOKEN}"),
        (False, "Bearer s1"),
        (False, "Bearer s1"),
        (True, f"Bearer {TOKEN}"),
        (False, "Bearer s2"),
    ]


@pytest.mark.parametrize(("act", "blocked"), [(reply(401), True), (reply(500), False), (reply(200, b"{}"), False)])
def test_without_a_session_nothing_has_left(tmp_path: Path, act: Act, blocked: bool) -> None:
    """However the question fails."""
    (answer,), _, _ = story("v2", [act], tmp_path)
    assert (answer.outcome, answer.left, answer.blocked) == ("retry", False, blocked)
    assert TOKEN not in answer.why
