"""What a billing system takes, read from the vendors' own words and not from ours: it imports nothing of the agent.

`/api/v1/events` is OpenMeter's v1, `/v3/openmeter/events` its v3 (Konnect); every other path is a generic CloudEvents
webhook. An event's quantity is the decimal in its `data.value`.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Context, Decimal, Inexact, InvalidOperation

from tests.upstream.plan import Plan

EXACT = Context(prec=10_000, traps=[Inexact, InvalidOperation])  # a sum that is not exact is an error
SINGLE, BATCH, JSON = "application/cloudevents+json", "application/cloudevents-batch+json", "application/json"
V1, V3 = "/api/v1/events", "/v3/openmeter/events"
V1_METERS, V3_METERS = "/api/v1/meters", "/v3/openmeter/meters"
REQUIRED = ("id", "source", "specversion", "type")


class RefusedError(Exception):
    """It does not take this: `status` and what is wrong, for a problem document."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


@dataclass(frozen=True)
class Event:
    """One usage event that follows the rules. `digest` is of all it said."""

    source: str
    id: str
    type: str
    subject: str
    value: Decimal
    digest: str


def meters(path: str, aggregations: Mapping[str, str]) -> bytes:
    """What OpenMeter lists at `/api/v1/meters` and, by pages, at `/v3/openmeter/meters` (its two OpenAPI documents).

    `aggregations`: SUM, MAX and so on by event type.
    """
    if path == V1_METERS:
        named = {"slug": "slug", "type": "eventType", "value": "valueProperty"}
    else:
        named = {"slug": "key", "type": "event_type", "value": "value_property"}
        aggregations = {kind: aggregation.lower() for kind, aggregation in aggregations.items()}
    listed = [
        {named["slug"]: kind, named["type"]: kind, "aggregation": aggregation, named["value"]: "$.value"}
        for kind, aggregation in aggregations.items()
    ]
    page = {"number": 1, "size": 100, "total": len(listed)}
    return json.dumps(listed if path == V1_METERS else {"data": listed, "meta": {"page": page}}).encode()


@dataclass(frozen=True)
class Judged:
    """The events to take, those from the first refused one on, and why it is refused."""

    taken: list[Event]
    rest: list[Event]
    refused: RefusedError | None


def authorised(headers: Mapping[str, str], token: str | None) -> bool:
    """Whether it is one of ours who asks: `Authorization: Bearer` (RFC 6750 §2.1)."""
    return token is None or headers.get("authorization") == f"Bearer {token}"


def judge(path: str, headers: Mapping[str, str], body: bytes, plan: Plan) -> Judged:
    """What is to be done with a request's events.

    OpenMeter queues the events of a batch one by one: those before a refused one are taken, although the answer is 400
    (its ingest service). Where a request is refused as a whole, none is.
    """
    events: list[Event] = []
    refused = None
    try:
        said = unpack(path, headers.get("content-type", ""), body, batched=plan.batched)
        for one in said:
            events.append(event(path, one))  # noqa: PERF401 - those before a refused one stay
    except RefusedError as error:
        refused = error
    if not authorised(headers, plan.token):
        return Judged([], events, RefusedError(401, "no such token"))
    if plan.max_events is not None and len(events) > plan.max_events:
        why = f"{len(events)} events; at most {plan.max_events} are taken at once"
        return Judged([], events, RefusedError(413, why))
    for number, taken in enumerate(events):
        if taken.id in plan.poison or taken.subject in plan.poison:
            why = f"event {taken.id} of {taken.subject} is not taken"
            return Judged(events[:number], events[number:], RefusedError(400, why))
    return Judged(events, [], refused)


def success(path: str) -> int:
    """The status of a request that was taken: OpenMeter's OpenAPI says 204 in v1 and 202 in v3.

    CloudEvents' HTTP web hooks (§2.1) allow 200, 201, 202 and 204; ours says 202.
    """
    return 204 if path == V1 else 202


def unpack(path: str, content_type: str, body: bytes, *, batched: bool) -> list[object]:
    """The events of a request's body, not looked at yet. Raises RefusedError; then none was taken.

    OpenMeter v1 compares the Content-Type as text, so that a `charset` is refused (its ingest handler); v3 parses the
    media type. A webhook refuses a format that it does not know with 415 (CloudEvents HTTP web hooks §2.2), and a batch
    that it did not ask for (CloudEvents HTTP binding §3.3).
    """
    kind = content_type if path == V1 else content_type.partition(";")[0].strip().lower()
    openmeter = path in (V1, V3)
    if kind not in (SINGLE, BATCH, JSON) or (kind == JSON and not openmeter):
        raise RefusedError(400 if openmeter else 415, f"invalid content type: {content_type}")
    if kind == BATCH and not openmeter and not batched:
        raise RefusedError(415, "this webhook asked for no batches")
    try:
        said = json.loads(body, parse_float=Decimal, parse_int=Decimal)
    except (ValueError, RecursionError) as error:
        raise RefusedError(400, f"no JSON: {error}") from error
    if kind == BATCH and not isinstance(said, list):
        raise RefusedError(400, "a batch is an array")
    if kind == SINGLE and not isinstance(said, dict):
        raise RefusedError(400, "one event is an object")
    return said if isinstance(said, list) else [said]


def event(path: str, said: object) -> Event:
    """One event as it is kept. Raises RefusedError.

    CloudEvents 1.0 §3.1: id, source, specversion and type are required and not empty. OpenMeter: `subject` as well, and
    data is an object. That the value must be a finite decimal is our own rule: a real one keeps the event, and bills
    nothing.
    """
    if not isinstance(said, dict):
        raise RefusedError(400, "an event is an object")
    required = (*REQUIRED, "subject") if path in (V1, V3) else REQUIRED
    for name in required:
        if not isinstance(said.get(name), str) or not said[name]:
            raise RefusedError(400, f"{name} must be a string that is not empty")
    if said["specversion"] != "1.0":
        raise RefusedError(400, f"specversion {said['specversion']} is not 1.0")
    data = said.get("data")
    value = _decimal(data.get("value")) if isinstance(data, dict) else None
    if value is None:
        raise RefusedError(400, "data.value must be a decimal")
    digest = hashlib.sha256(json.dumps(said, sort_keys=True, default=str).encode()).hexdigest()[:16]
    return Event(said["source"], said["id"], said["type"], str(said.get("subject", "")), value, digest)


def _decimal(value: object) -> Decimal | None:
    if not isinstance(value, str | Decimal):
        return None
    try:
        number = EXACT.create_decimal(value)
    except (InvalidOperation, Inexact):
        return None
    return number if number.is_finite() and abs(number.adjusted()) < 100 else None
