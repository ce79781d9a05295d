"""Billing systems as their documentation has them, on loopback: one double for all that differ in data alone.

It imports nothing from the agent. What a request must look like, how a repeat is known and what becomes of the rest of
a batch is each vendor's; what each rule is taken from stands beside it. `faults` says what goes wrong next.
"""

import asyncio
import base64
import gzip
import json
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any
from urllib.parse import parse_qsl

from tests.sinks.double import Request, listening, read_request

TOKEN = "s3cret"
REPEAT = "An event already exists with identifier "  # docs.stripe.com/api/billing/meter-event/create, as it is answered


class WrongError(Exception):
    """The request is not as the vendor has it."""


@dataclass(frozen=True)
class Event:
    """One record, as the vendor understands it. `key` is what it knows a repeat by."""

    key: object
    id: str
    customer: str
    dimension: str
    value: Decimal


@dataclass(frozen=True)
class Vendor:
    """`read`: its events of a body. `repeat`: what it does with one it has. `wrong`: with a batch that has a bad event.

    Bad is an event of the dimension `bad`. `body` is what it says to success.
    """

    read: Callable[[Any], list[Event]]
    success: int
    target: str = "/ingest"
    content_type: str = "application/json"
    header: str = "authorization"
    secret: str = f"Bearer {TOKEN}"
    most: int = 100
    repeat: str = "ignored"
    wrong: str = "refuses all"
    body: str = "{}"
    gzip: bool = False


def _text(value: object) -> Decimal:
    if not isinstance(value, str):
        raise WrongError(f"{value!r} is no text")
    return Decimal(value)


def _number(value: object) -> Decimal:
    if not isinstance(value, Decimal | int) or isinstance(value, bool):
        raise WrongError(f"{value!r} is no number")
    return Decimal(value)


def _flat(properties: dict[str, object]) -> None:
    if any(isinstance(value, dict | list) for value in properties.values()):
        raise WrongError("nested properties")


def metronome(body: Any) -> list[Event]:
    """A bare array; texts for precision; transaction_id (metronome-python: resources/v1/usage.py)."""
    told = [(e["transaction_id"], e["customer_id"], e["event_type"], _text(e["properties"]["value"])) for e in body]
    return [Event(i, i, c, d, v) for i, c, d, v in told]


def orb(body: Any) -> list[Event]:
    """Flat properties, numbers, Z alone, idempotency_key (orb-python: resources/events/events.py)."""
    found = []
    for e in body["events"]:
        _flat(e["properties"])
        if not e["timestamp"].endswith("Z") or "customer_id" in e:
            raise WrongError("an offset, or two ids of a customer")
        key = e["idempotency_key"]
        found.append(Event(key, key, e["external_customer_id"], e["event_name"], _number(e["properties"]["value"])))
    return found


def openmeter(body: Any) -> list[Event]:
    """CloudEvents with a subject and an object as data; source and id (openmeter: api/openapi.yaml)."""
    return [
        Event((e["source"], e["id"]), e["id"], e["subject"], e["type"], _text(e["data"]["value"]))
        for e in body
        if e["specversion"] == "1.0"
    ]


def m3ter(body: Any) -> list[Event]:
    """Start and end, numbers in measure, texts in metadata; uid (m3ter-sdk-python: MeasurementRequestParam)."""
    found = []
    for m in body["measurements"]:
        if not m["ts"] < m["ets"] or not all(isinstance(text, str) for text in m["metadata"].values()):
            raise WrongError("no span, or metadata that is no text")
        found.append(Event(m["uid"], m["uid"], m["account"], m["meter"], _number(m["measure"]["value"])))
    return found


def amberflo(body: Any) -> list[Event]:
    """A repeat is the same in all its attributes (amberflo: metering-python)."""
    return [
        Event(json.dumps(e, sort_keys=True, default=str), e["uniqueId"], e["customerId"], e["meterApiName"], v)
        for e in body
        if (v := _number(e["meterValue"])) is not None and isinstance(e["meterTimeInMillis"], int)
    ]


def togai(body: Any) -> list[Event]:
    """Up to ten attributes; id (togai: openapi, IngestBatchEventRequest)."""
    found = []
    for e in body["events"]:
        (attribute,) = e["attributes"]
        found.append(Event(e["id"], e["id"], e["accountId"], e["schemaName"], _text(attribute["value"])))
    return found


def flexprice(body: Any) -> list[Event]:
    """Known by time and id together (flexprice: migrations, ORDER BY timestamp, id)."""
    return [
        Event((e["timestamp"], e["event_id"]), e["event_id"], e["external_customer_id"], e["event_name"], v)
        for e in body["events"]
        if (v := _text(e["properties"]["value"])) is not None
    ]


def meteroid(body: Any) -> list[Event]:
    """Texts alone in properties; event_id and customer_id (meteroid: api_rest/events/model.rs)."""
    if not (body["allow_partial_failures"] and body["allow_backfilling"]):
        raise WrongError("one wrong event, or one of yesterday, would refuse all")
    return [
        Event((e["event_id"], e["customer_id"]), e["event_id"], e["customer_id"], e["code"], v)
        for e in body["events"]
        if (v := _text(e["properties"]["value"])) is not None
    ]


def polar(body: Any) -> list[Event]:
    """Known by external_id (polar: events/ingest)."""
    found = [(e["external_id"], e["external_customer_id"], e["name"], e["metadata"]["value"]) for e in body["events"]]
    return [Event(i, i, c, d, _number(v)) for i, c, d, v in found]


def killbill(body: Any) -> list[Event]:
    """One subscription; known by it and trackingId (killbill: DefaultUsageUserApi.java)."""
    (unit,) = body["unitUsageRecords"]
    (usage,) = unit["usageRecords"]
    key = (body["subscriptionId"], body["trackingId"])
    return [Event(key, body["trackingId"], body["subscriptionId"], unit["unitType"], _number(usage["amount"]))]


def lago(body: Any) -> list[Event]:
    """Seconds as text; subscription and transaction_id (lago-api: events/create_batch_service.rb)."""
    found = []
    for e in body["events"]:
        seconds, _, fraction = e["timestamp"].partition(".")
        if not seconds.isdecimal() or len(fraction) != 3:
            raise WrongError("no seconds of the epoch")
        key = (e["external_subscription_id"], e["transaction_id"])
        found.append(Event(key, e["transaction_id"], key[0], e["code"], _text(e["properties"]["value"])))
    return found


def stripe_v1(form: dict[str, str]) -> list[Event]:
    """A form with one event (docs.stripe.com/api/billing/meter-event/create)."""
    told = form["event_name"], form["payload[stripe_customer_id]"], form["payload[value]"], form["timestamp"]
    if not told[3].isdecimal() or len(form["identifier"]) > 100:
        raise WrongError("no seconds, or an identifier of over a hundred characters")
    return [Event(form["identifier"], form["identifier"], told[1], told[0], Decimal(told[2]))]


def stripe_v2(body: Any) -> list[Event]:
    """Texts in payload, up to a hundred (docs.stripe.com/api/v2/billing/meter-event-stream/create)."""
    return [
        Event(e["identifier"], e["identifier"], e["payload"]["stripe_customer_id"], e["event_name"], v)
        for e in body["events"]
        if (v := _text(e["payload"]["value"])) is not None and e["timestamp"].endswith("Z")
    ]


CLOUD = "application/cloudevents-batch+json"  # letter by letter (openmeter: openmeter/ingest)
FORM = "application/x-www-form-urlencoded"
BASIC = "Basic " + base64.b64encode(f"admin:{TOKEN}".encode()).decode()
VENDORS: dict[str, Vendor] = {
    "metronome": Vendor(metronome, 200, gzip=True),
    "orb": Vendor(orb, 200, most=500, wrong="lists, takes none", body='{"validation_failed":[]}'),
    "openmeter": Vendor(openmeter, 204, content_type=CLOUD, wrong="takes up to it", body=""),
    "m3ter": Vendor(m3ter, 200, most=1000, secret="Bearer granted", wrong="later", body='{"result":"accepted"}'),
    "amberflo": Vendor(amberflo, 200, header="x-api-key", secret=TOKEN, gzip=True),
    "togai": Vendor(togai, 202, most=500, repeat="listed", wrong="lists, takes rest"),
    "flexprice": Vendor(flexprice, 202, header="x-api-key", secret=TOKEN, most=1000),
    "meteroid": Vendor(meteroid, 200, wrong="lists, takes rest", body='{"failures":[]}'),
    "polar": Vendor(polar, 200, body='{"inserted":1,"duplicates":0}'),
    "killbill": Vendor(killbill, 201, secret=BASIC, most=1, repeat="refused"),
    "lago": Vendor(lago, 200, target="/api/v1/events/batch", repeat="rolled back", wrong="rolled back"),
    "stripe-v1": Vendor(stripe_v1, 200, "/v1/billing/meter_events", FORM, most=1, repeat="refused"),
    "stripe-v2": Vendor(stripe_v2, 200, "/v2/billing/meter_event_stream", secret="Bearer session-1", wrong="later"),
}
PROBLEM: dict[str, Callable[[Event], object]] = {
    "orb": lambda e: {"idempotency_key": e.id, "validation_errors": ["unknown event"]},
    "togai": lambda e: {"message": "no such schema", "eventPayload": {"id": e.id}},
    "meteroid": lambda e: {"event_id": e.id, "reason": "unknown code"},
}
LISTED = {"orb": "validation_failed", "togai": "errors", "meteroid": "failures"}
REFUSED = {
    "killbill": {"code": 50000, "message": "A usage record with tracking ID x already exists"},
    "stripe-v1": {"error": {"type": "invalid_request_error", "message": f"{REPEAT}x."}},
}


@dataclass
class Back:
    """One vendor's back end: what it holds, what it was asked, and what goes wrong next.

    Faults: `lost before`, `lost after`, `stopped midway`; a status, which is answered and nothing taken; a status and
    `after`, which is answered though all was taken; `forgets`: of what it knew it forgets what is as old as `horizon`,
    seconds, lets it. Time in seconds.
    """

    name: str
    vendor: Vendor
    faults: deque[str] = field(default_factory=deque)
    now: Callable[[], float] = float
    horizon: float | None = None
    known: dict[object, float] = field(default_factory=dict)
    held: list[Event] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)
    wrongs: list[str] = field(default_factory=list)
    sessions: int = 0
    port: int = 0

    @property
    def url(self) -> str:
        """Where records are posted."""
        return f"http://127.0.0.1:{self.port}{self.vendor.target}"

    def totals(self) -> dict[tuple[str, str], Decimal]:
        """What would be billed, by customer and dimension."""
        sums: dict[tuple[str, str], Decimal] = {}
        for event in self.held:
            key = (event.customer, event.dimension)
            sums[key] = sums.get(key, Decimal(0)) + event.value
        return sums

    def answer(self, request: Request) -> tuple[int, str] | None:
        """Status and body; None: the connection breaks off."""
        self.requests.append(request)
        if request.target in ("/oauth/token", "/v2/billing/meter_event_session"):
            return self._granted(request)
        fault = self.faults.popleft() if self.faults else ""
        if fault.isdecimal():
            return int(fault), '{"error":"by the script"}'
        if fault == "forgets" and self.horizon is not None:
            self.known = {key: at for key, at in self.known.items() if self.now() - at < self.horizon}
        said = None if fault == "lost before" else self._taken(request, fault)
        if fault.endswith(" after"):
            return None if fault == "lost after" else (int(fault.split()[0]), "{}")
        return said

    def _granted(self, request: Request) -> tuple[int, str]:
        if request.target == "/oauth/token":
            # The grant as JSON, the credentials as Basic (m3ter-sdk-python: _client.py)
            granted = request.headers.get("authorization") == BASIC and json.loads(request.body)["grant_type"]
            return (200, '{"access_token":"granted","expires_in":3600}') if granted else (401, "{}")
        self.sessions += 1
        return 200, json.dumps({"authentication_token": f"session-{self.sessions}", "expires_at": "later"})

    def _taken(self, request: Request, fault: str) -> tuple[int, str]:
        try:
            events = self._read(request)
        except (WrongError, ValueError, LookupError, TypeError) as error:
            self.wrongs.append(f"{error!r}: {request.body!r}")
            return 400, "not understood"
        if isinstance(events, tuple):
            return events
        if fault == "stopped midway" and self.vendor.wrong == "takes up to it":
            self._take(events[: len(events) // 2])
            return 500, "kafka"
        return self._judged(events)

    def _read(self, request: Request) -> list[Event] | tuple[int, str]:
        vendor = self.vendor
        secret = f"Bearer session-{self.sessions}" if self.name == "stripe-v2" else vendor.secret
        if request.headers.get(vendor.header) != secret:
            return 401, "billing_meter_event_session_expired"
        if request.target != vendor.target or request.headers["content-type"] != vendor.content_type:
            raise WrongError(f"{request.target} {request.headers['content-type']}")
        body = request.body
        if vendor.gzip != (request.headers.get("content-encoding") == "gzip"):
            raise WrongError("compression")
        if self.name == "m3ter" and len(body) >= 512_000:  # www.m3ter.com: ingest-api-limits
            return 403, "too large"
        if vendor.content_type == FORM:
            return vendor.read(dict(parse_qsl(body.decode(), strict_parsing=True)))
        plain = gzip.decompress(body) if vendor.gzip else body
        events = vendor.read(json.loads(plain, parse_float=Decimal))
        if self.name == "lago" and len(events) > vendor.most:
            return 422, '{"status":422,"error_details":{"events":["too_many_events"]}}'
        if not 1 <= len(events) <= vendor.most:
            raise WrongError(f"{len(events)} events")
        return events

    def _take(self, events: list[Event]) -> None:
        for event in events:
            if event.key not in self.known:
                self.known[event.key] = self.now()
                self.held.append(event)

    def _judged(self, events: list[Event]) -> tuple[int, str]:
        vendor, name = self.vendor, self.name
        bad = [event for event in events if event.dimension == "bad"]
        known = [event for event in events if event.key in self.known]
        if vendor.repeat == "rolled back" and (bad or known):
            return 422, _rolled_back(events, bad, known)
        if known and vendor.repeat == "refused":
            return 400, json.dumps(REFUSED[name])
        if vendor.repeat == "listed":  # the use of an id again is rejected for 45 days
            bad += [event for event in known if event not in bad]
        if not bad or vendor.wrong == "later":
            self._take(events)
            return vendor.success, vendor.body
        return self._wronged(events, bad)

    def _wronged(self, events: list[Event], bad: list[Event]) -> tuple[int, str]:
        """What becomes of a batch of which some are bad."""
        vendor, name = self.vendor, self.name
        if vendor.wrong == "takes up to it":  # one by one into Kafka, up to the first that fails
            self._take(events[: events.index(bad[0])])
            return 400, '{"title":"Bad Request"}'
        if vendor.wrong == "refuses all":
            return 400, '{"message":"one is wrong"}'
        listed = json.dumps({LISTED[name]: [PROBLEM[name](event) for event in bad]})
        if vendor.wrong == "lists, takes none":
            return 400, listed
        self._take([event for event in events if event not in bad])
        return (207 if name == "togai" else vendor.success), listed


def _rolled_back(events: list[Event], bad: list[Event], known: list[Event]) -> str:
    """Insert, then roll back if anything is wrong (lago-api: create_batch_service.rb, api_errors.rb)."""
    details = {str(i): {"code": ["value_is_invalid"]} for i, event in enumerate(events) if event in bad}
    details |= {str(i): {"transaction_id": ["value_already_exist"]} for i, event in enumerate(events) if event in known}
    return json.dumps({"status": 422, "code": "validation_errors", "error_details": details})


@asynccontextmanager
async def running(name: str, *faults: str) -> AsyncIterator[Back]:
    """The back end of a vendor, on a free port."""
    back = Back(name, VENDORS[name], deque(faults))

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while (request := await read_request(reader)) is not None:
                if (said := back.answer(request)) is None:
                    break
                status, body = said
                head = f"HTTP/1.1 {status} Said\r\nContent-Length: {len(body.encode())}\r\n\r\n"
                writer.write((head if status != 204 else "HTTP/1.1 204 Said\r\n\r\n").encode() + body.encode())
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()

    async with listening(serve) as back.port:
        yield back
