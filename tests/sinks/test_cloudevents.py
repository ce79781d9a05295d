"""Records as CloudEvents: what is sent, what the answers mean, and what a receiver is asked before anything is."""

import asyncio
import json
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from cloudevents.core.bindings.http import HTTPMessage, from_structured_event
from hypothesis import given
from hypothesis import strategies as st

from agent.clock import Moment
from agent.delivery.judgement import judge
from agent.record import UsageRecord
from agent.sinks import Answer, Entry, Finding, Sink
from agent.sinks.cloudevents import PAGE, CloudEventsSink, Profile
from agent.spool.outbox import Item, Submission
from tests.sinks.double import Act, Upstream, reply, upstream

MINUTE = 60_000_000_000
START = 1_795_435_200_000_000_000  # 2026-11-23T12:00:00Z
OPENMETER: tuple[Profile, ...] = ("openmeter-v1", "openmeter-v3")
PATHS: dict[Profile, str] = {
    "generic": "/hook",
    "openmeter-v1": "/api/v1/events",
    "openmeter-v3": "/v3/openmeter/events",
}


def record(**kw: Any) -> UsageRecord:
    """Five minutes of acme's CPU."""
    values: dict[str, Any] = {
        "kind": "usage",
        "source": "prod-eu/node-a/3f9c2a",
        "meter": "cpu.time",
        "policy": "usage",
        "dimension": "cpu_core_seconds",
        "customer": "acme",
        "group": {"namespace": "acme-prod"},
        "start": START,
        "end": START + 5 * MINUTE,
        "quantity": 300_123_456_789,
        "base_unit": "ns",
        "basis": "cgroup",
        "covered": 5 * MINUTE,
    }
    return UsageRecord(**{**values, **kw})


def entry(of: UsageRecord | None = None, **kw: Any) -> Entry:
    """A record as a sink gets it."""
    of = of or record()
    values: dict[str, Any] = {
        "id": of.id(0),
        "seq": 1,
        "value": "300.123457",
        "unit": "core-second",
        "dimension": "cpu",
        "customer": of.customer or "",
        "at": of.end,
    }
    return Entry(record=of, **{**values, **kw})


def submission(*payloads: bytes, tainted: int | None = None) -> Submission:
    """What was frozen, at its first attempt or a later one."""
    items = tuple(Item(seq, payload) for seq, payload in enumerate(payloads, 1))
    return Submission(1, 1, "1-1", 1, len(items), 0, 0 if tainted is None else 1, tainted, items)


def built(profile: Profile = "generic", port: int = 9, **kw: Any) -> CloudEventsSink:
    """A sink of that profile."""
    return CloudEventsSink("x", "billing", f"http://127.0.0.1:{port}{PATHS[profile]}", profile, **kw)


def talk(
    profile: Profile,
    script: list[Act],
    story: Callable[[CloudEventsSink, Upstream], Coroutine[Any, Any, Any]],
    **kw: Any,
) -> Any:
    """What a story between a sink and a receiver that follows the script comes to."""

    async def run() -> Any:
        async with upstream(*script) as other:
            sink = built(profile, other.port, **kw)
            try:
                return await story(sink, other)
            finally:
                await sink.close()

    return asyncio.run(run())


# -- rendering ---------------------------------------------------------------------------------------------------------


def test_an_event_is_written_out_as_expected() -> None:
    """Canonical JSON: sorted keys, no spaces, quantities and times as text."""
    assert built().render(entry()) == (
        b'{"data":{"dimension":"cpu_core_seconds","end":"2026-11-23T12:05:00.000000000Z","flags":[],'
        b'"group":{"namespace":"acme-prod"},"kind":"usage","meter":"cpu.time","start":"2026-11-23T12:00:00.000000000Z",'
        b'"unit":"core-second","value":"300.123457"},"datacontenttype":"application/json",'
        b'"id":"' + record().id(0).encode() + b'","source":"prod-eu/node-a/3f9c2a","specversion":"1.0",'
        b'"subject":"acme","time":"2026-11-23T12:05:00.000000000Z","type":"cpu"}'
    )


@pytest.mark.parametrize("profile", PATHS)
def test_the_official_sdk_reads_the_same_event(profile: Profile) -> None:
    """The CNCF's own parser finds each attribute and the data as they were told."""
    payload = built(profile).render(entry())
    event = from_structured_event(HTTPMessage({"content-type": "application/cloudevents+json"}, payload))
    assert (event.get_id(), event.get_source()) == (record().id(0), "prod-eu/node-a/3f9c2a")
    assert (event.get_type(), event.get_subject(), event.get_specversion()) == ("cpu", "acme", "1.0")
    assert event.get_datacontenttype() == "application/json"
    told = event.get_time()
    assert told is not None
    assert told.isoformat() == "2026-11-23T12:05:00+00:00"
    data = event.get_data()
    assert isinstance(data, dict)
    assert (data["value"], data["unit"], data["group"]) == ("300.123457", "core-second", {"namespace": "acme-prod"})


@given(
    group=st.dictionaries(st.text(max_size=8).filter(str.isprintable), st.text(max_size=8).filter(str.isprintable)),
    quantity=st.integers(-(10**30), 10**30),
    source=st.text(min_size=1, max_size=20).filter(str.isprintable),
    profile=st.sampled_from(sorted(PATHS)),
)
def test_rendering_is_deterministic_and_loses_nothing(
    group: dict[str, str], quantity: int, source: str, profile: Profile
) -> None:
    """The same entry gives the same bytes, whatever the order of its labels, and they hold its decimal and its id."""
    of = record(group=group, source=source)
    turned = record(group=dict(reversed(group.items())), source=source)
    sink = built(profile)
    payload = sink.render(entry(of, value=str(quantity)))
    assert payload == sink.render(entry(turned, value=str(quantity)))
    event = json.loads(payload)
    assert (event["data"]["value"], event["id"], event["data"]["group"]) == (str(quantity), of.id(0), group)
    assert event["source"].isascii()
    assert not set(event["source"]) & set(' <>"{}|\\^`:')


def test_what_is_nobodys_has_no_subject_and_openmeter_refuses_it() -> None:
    """A generic copy gets it, as CloudEvents allow; an OpenMeter event must be somebody's."""
    nobodys = entry(record(kind="unattributed", customer=None))
    event = json.loads(built().render(nobodys))
    assert "subject" not in event
    assert event["data"]["kind"] == "unattributed"
    for profile in OPENMETER:
        with pytest.raises(ValueError, match="no subject"):
            built(profile).render(nobodys)


@pytest.mark.parametrize("wrong", ["a\nb", "\x00", "\x9f", "\ufffe"])
def test_an_event_holds_no_control_character(wrong: str) -> None:
    """CloudEvents forbid them in any attribute."""
    with pytest.raises(ValueError, match="holds a character that an event may not"):
        built().render(entry(customer=wrong))


def test_gaps_and_corrections_say_what_they_are() -> None:
    """A copy learns why and how much is missing; a correction names what it amends."""
    gap = json.loads(built().render(entry(record(kind="gap", quantity=0, reason="no_sample", bound=7), value="0")))
    assert (gap["data"]["reason"], gap["data"]["bound"]) == ("no_sample", "7")
    amends = json.loads(built().render(entry(record(kind="correction", corrects="6b0c"), value="-1")))
    assert (amends["data"]["corrects"], amends["data"]["value"]) == ("6b0c", "-1")


# -- sending -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("profile", "success", "max_batch", "content_type", "body"),
    [
        ("generic", 200, None, "application/cloudevents+json", b"{1}"),
        ("generic", 204, 10, "application/cloudevents-batch+json", b"[{1}]"),
        ("openmeter-v1", 204, None, "application/cloudevents-batch+json", b"[{1}]"),
        ("openmeter-v1", 204, 1, "application/cloudevents+json", b"{1}"),
        ("openmeter-v3", 202, None, "application/cloudevents-batch+json", b"[{1}]"),
    ],
)
def test_events_are_posted_in_the_form_that_was_agreed(
    profile: Profile, success: int, max_batch: int | None, content_type: str, body: bytes
) -> None:
    """The content type letter by letter, without a charset: OpenMeter v1 compares it so."""

    async def story(sink: Sink, other: Upstream) -> Answer:
        answer = await sink.send(submission(b"{1}"))
        sent = other.requests[0]
        assert (sent.method, sent.target, sent.body) == ("POST", PATHS[profile], body)
        assert sent.headers["content-type"] == content_type
        assert "authorization" not in sent.headers
        return answer

    assert talk(profile, [reply(success)], story, max_batch=max_batch).outcome == "delivered"


def test_a_batch_that_was_frozen_stays_one_when_the_setting_shrinks() -> None:
    """What was frozen is sent whole, whatever the configuration says now."""

    async def story(sink: Sink, other: Upstream) -> bytes:
        await sink.send(submission(b"{1}", b"{2}"))
        return other.requests[0].body

    assert talk("openmeter-v1", [reply(204)], story, max_batch=1) == b"[{1},{2}]"


@pytest.mark.parametrize(
    ("profile", "status", "outcome", "definite", "blocked"),
    [
        ("generic", 201, "delivered", False, False),
        ("generic", 202, "delivered", False, False),
        ("generic", 203, "ambiguous", False, False),
        ("generic", 400, "split", False, False),
        ("generic", 409, "duplicate", False, False),
        ("generic", 410, "retry", True, True),
        ("generic", 415, "retry", True, True),
        ("generic", 500, "ambiguous", False, False),
        ("openmeter-v1", 200, "ambiguous", False, False),  # no OpenMeter says so: perhaps a portal, perhaps a proxy
        ("openmeter-v1", 400, "split", False, False),
        ("openmeter-v1", 412, "ambiguous", False, False),
        ("openmeter-v1", 503, "ambiguous", False, False),
        ("openmeter-v3", 204, "ambiguous", False, False),
        ("openmeter-v3", 400, "split", False, False),
        ("openmeter-v3", 403, "retry", True, True),
    ],
)
def test_each_profile_has_its_own_table(
    profile: Profile, status: int, outcome: str, definite: bool, blocked: bool
) -> None:
    """A success is only what that back end calls one; an OpenMeter may have taken a part of what it refused."""

    async def story(sink: Sink, other: Upstream) -> Answer:
        return await sink.send(submission(b"{1}"))

    answer = talk(profile, [reply(status, b'{"title":"Bad Request","detail":"invalid event"}')], story)
    assert (answer.outcome, answer.definite, answer.blocked) == (outcome, definite, blocked)


def test_a_poisoned_batch_is_tainted_and_comes_in_halves() -> None:
    """OpenMeter takes events one by one up to the first that is wrong: what follows a 400 may repeat some."""

    async def story(sink: Sink, other: Upstream) -> tuple[Any, int]:
        frozen = submission(b"{1}", b"{2}", b"{3}")
        return judge(frozen, await sink.send(frozen), sink.terms, 5, Moment(6, 6).age), len(other.requests)

    verdict, _ = talk("openmeter-v1", [reply(400)], story)
    assert (verdict.groups, verdict.tainted) == (((1, 2), (3,)), 5)


def test_a_receiver_that_knows_an_id_without_an_attempt_of_ours_is_in_conflict() -> None:
    """409 to a first attempt is somebody else's event; to a later one it is our own that had arrived."""

    async def story(sink: Sink, other: Upstream) -> list[str]:
        found: list[str] = []
        for frozen in (submission(b"{1}"), submission(b"{1}", tainted=4)):
            verdict = judge(frozen, await sink.send(frozen), sink.terms, 5, Moment(6, 6).age)
            found.append(verdict.settled[1][0])
        return found

    assert talk("generic", [reply(409)], story) == ["conflict", "duplicate"]


# -- asking ------------------------------------------------------------------------------------------------------------


def v1(*meters: tuple[str, str, str, str | None]) -> Act:
    """What GET /api/v1/meters answers: a bare array (openmeterio/openmeter: openmeter/meter/httphandler/meter.go)."""
    names = ("slug", "eventType", "aggregation", "valueProperty")
    return reply(200, json.dumps([dict(zip(names, meter, strict=True)) for meter in meters]).encode())


def v3(total: int, *meters: tuple[str, str, str, str | None]) -> Act:
    """One page of GET /v3/openmeter/meters (openmeterio/openmeter: api/v3/handlers/meters/list.go)."""
    names = ("key", "event_type", "aggregation", "value_property")
    page = {"data": [dict(zip(names, meter, strict=True)) for meter in meters], "meta": {"page": {"total": total}}}
    return reply(200, json.dumps(page).encode())


def asked(profile: Profile, *script: Act, unvouched: tuple[str, ...] = ("cpu",)) -> tuple[list[Finding], list[str]]:
    """What is found, and what was asked for it."""

    async def story(sink: Sink, other: Upstream) -> tuple[list[Finding], list[str]]:
        found = await sink.ask()
        assert not any(request.body for request in other.requests)
        return found, [f"{request.method} {request.target}" for request in other.requests]

    found = talk(profile, list(script), story, unvouched=unvouched)
    assert isinstance(found, tuple)
    return found


def test_a_meter_that_sums_our_values_is_enough() -> None:
    """Meters of other events do not matter."""
    found, requests = asked(
        "openmeter-v1", v1(("cpu_total", "cpu", "SUM", "$.value"), ("calls", "request", "COUNT", None))
    )
    assert requests == ["GET /api/v1/meters"]
    assert [(finding.what, finding.ok) for finding in found] == [("reachable", True), ("meter cpu_total", True)]


@pytest.mark.parametrize(
    ("aggregation", "value"), [("MAX", "$.value"), ("COUNT", None), ("SUM", "$.duration"), ("LATEST", "$.value")]
)
def test_a_meter_that_does_not_sum_our_values_is_named(aggregation: str, value: str | None) -> None:
    """Deltas into it would bill a fraction; the cure says what it must be."""
    found, _ = asked("openmeter-v1", v1(("cpu_total", "cpu", aggregation, value)))
    wrong = [finding for finding in found if not finding.ok]
    assert [finding.what for finding in wrong] == ["meter cpu_total"]
    assert wrong[0].cure == ("Replace it by a meter with event type cpu, aggregation SUM and value property $.value.")


def test_a_dimension_that_no_meter_counts_is_named() -> None:
    """OpenMeter accepts its events all the same, and bills nothing."""
    found, _ = asked("openmeter-v1", v1(("calls", "request", "COUNT", None)), unvouched=("memory", "cpu"))
    assert [finding.what for finding in found if not finding.ok] == ["dimension cpu", "dimension memory"]
    assert "would be accepted and bill nothing" in found[1].why


def test_every_page_of_v3_is_read() -> None:
    """It lists a hundred at a time, and writes sum in lower case."""
    filler = [(f"m{n}", "other", "count", None) for n in range(PAGE)]
    found, requests = asked("openmeter-v3", v3(PAGE + 1, *filler), v3(PAGE + 1, ("cpu", "cpu", "sum", "$.value")))
    assert requests == [f"GET /v3/openmeter/meters?page%5Bsize%5D={PAGE}&page%5Bnumber%5D={page}" for page in (1, 2)]
    assert [(finding.what, finding.ok) for finding in found] == [("reachable", True), ("meter cpu", True)]


@pytest.mark.parametrize(
    ("act", "what"),
    [
        (reply(401), "credentials"),
        (reply(403), "credentials"),
        (reply(302, Location="/login"), "reachable"),
        (reply(404, b"no such page"), "meters"),
        (reply(200, b"<html>"), "meters"),
        (reply(200, b'{"data":[]}'), "meters"),
        (reply(500), "meters"),
        (Act(b"", "hang up"), "reachable"),
    ],
)
@pytest.mark.parametrize("profile", OPENMETER)
def test_what_cannot_be_asked_is_a_finding(profile: Profile, act: Act, what: str) -> None:
    """Never an error: the start waits, and says for what."""
    found, _ = asked(profile, act)
    assert [(finding.what, finding.ok) for finding in found] == [(what, False)]


@pytest.mark.parametrize(
    ("status", "what", "ok"),
    [(200, "reachable", True), (405, "reachable", True), (500, "reachable", True), (401, "credentials", False),
     (403, "credentials", False), (301, "reachable", False)],
)  # fmt: skip
def test_a_generic_receiver_is_only_knocked_at(status: int, what: str, ok: bool) -> None:
    """OPTIONS, and no usage; it need not know that method."""
    found, requests = asked("generic", reply(status), unvouched=())
    assert requests == ["OPTIONS /hook"]
    assert [(finding.what, finding.ok) for finding in found] == [(what, ok)]


def test_nothing_is_sent_before_asking_only_where_somebody_must_be_asked() -> None:
    """A dimension that nobody vouches for makes the sink one that asks."""
    assert built("openmeter-v1", unvouched=("cpu",)).terms.asks
    assert not built("openmeter-v1").terms.asks


def test_only_an_address_of_events_is_openmeters() -> None:
    """The list of meters is found beside it."""
    with pytest.raises(ValueError, match=r"^sinks\[x\]\.url: the address of OpenMeter's API ends in /events\.$"):
        CloudEventsSink("x", "billing", "https://openmeter.example/api/v1", "openmeter-v1")
