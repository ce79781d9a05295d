"""The vendors' own clients send what ours sends: the same record, the same recorder, the same request.

What may differ is named: each client's version headers, and the spelling of JSON where its meaning is equal.
"""

import asyncio
import gzip
import json
import os
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import pytest

from agent.kinds import build_sink
from tests.sinks.built import section_of
from tests.sinks.test_cloudevents import entry, submission
from tests.sinks.vendors import TOKEN

ANSWERS = {
    "/oauth/token": b'{"access_token":"granted","expires_in":9999999999,"token_type":"bearer"}',
    "/v2/billing/meter_event_session": b'{"object":"v2.billing.meter_event_session","authentication_token":"session",'
    b'"expires_at":"2030-01-01T00:00:00.000Z","id":"x","created":"2030-01-01T00:00:00.000Z","livemode":false}',
}
DONE = {
    "metronome": (200, b""),
    "orb": (200, b'{"validation_failed":[]}'),
    "m3ter": (200, b'{"result":"accepted"}'),
    "flexprice": (202, b'{"message":"accepted"}'),
    "lago": (200, b'{"events":[]}'),
    "stripe-v1": (200, b'{"object":"billing.meter_event"}'),
    "stripe-v2": (200, b"{}"),
}


class Recorded:
    """A request as it arrived."""

    def __init__(self, method: str, path: str, headers: dict[str, str], body: bytes) -> None:
        self.method, self.path, self.headers = method, path, headers
        self.body = gzip.decompress(body) if headers.get("content-encoding") == "gzip" else body

    @property
    def told(self) -> tuple[object, ...]:
        """What must be equal: method, path, who we are, the kind of body, and what the body means."""
        kind = self.headers["content-type"].partition(";")[0]
        if kind == "application/x-www-form-urlencoded":
            meaning: object = sorted(parse_qsl(self.body.decode(), strict_parsing=True))
        else:
            meaning = _said(json.loads(self.body, parse_float=Decimal))
        secret = self.headers.get("authorization"), self.headers.get("x-api-key")
        return self.method, self.path, *secret, (kind, meaning)


def _said(value: Any) -> Any:
    """Without keys that are null: Lago's client writes all that it knows."""
    if isinstance(value, dict):
        return {key: _said(inner) for key, inner in value.items() if inner is not None}
    return [_said(inner) for inner in value] if isinstance(value, list) else value


@contextmanager
def recorder(name: str) -> Iterator[tuple[str, list[Recorded]]]:
    """Answers each client as its vendor would, and keeps what it asked."""
    requests: list[Recorded] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", "0")))
            requests.append(Recorded("POST", self.path, {k.lower(): v for k, v in self.headers.items()}, body))
            status, answer = (200, ANSWERS[self.path]) if self.path in ANSWERS else DONE[name]
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name there
            """Not to standard error."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", requests
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def client(package: str, module: str) -> Any:
    """A vendor's client, or a skip; in CI it must be there."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # theirs
            found = import_module(module)
    except ImportError as error:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(f"{package} is not installed: {error}")
    print(f"{package} {version(package)}")
    return found


def ours(name: str, path: str, url: str, files: Path, requests: list[Recorded]) -> list[Recorded]:
    """What our sink sends for the record."""

    async def story() -> None:
        sink = build_sink(section_of(name, url + path, files))
        try:
            answer = await sink.send(submission(sink.render(RECORD)))
            assert answer.outcome == "delivered", answer.why
        finally:
            await sink.close()

    before = len(requests)
    asyncio.run(story())
    return requests[before:]


RECORD = entry(value="12.5", at=1_795_435_350_000_000_000)
ID, AT, START, END = RECORD.id, "2026-11-23T12:02:30.000Z", "2026-11-23T12:00:00.000Z", "2026-11-23T12:05:00.000Z"
GROUP = {"namespace": "acme-prod"}


def metronome(url: str) -> None:
    """metronome-sdk: v1.usage.ingest."""
    sdk = client("metronome-sdk", "metronome").Metronome(bearer_token=TOKEN, base_url=url, max_retries=0)
    told = {"transaction_id": ID, "customer_id": "acme", "event_type": "cpu", "timestamp": AT}
    sdk.v1.usage.ingest(usage=[{**told, "properties": {"value": "12.5", **GROUP}}])
    sdk.close()


def orb(url: str) -> None:
    """orb-billing: events.ingest."""
    sdk = client("orb-billing", "orb").Orb(api_key=TOKEN, base_url=f"{url}/v1", max_retries=0)
    told = {"idempotency_key": ID, "external_customer_id": "acme", "event_name": "cpu", "timestamp": AT}
    sdk.events.ingest(events=[{**told, "properties": {"value": 12.5, **GROUP}}])
    sdk.close()


def m3ter(url: str) -> None:
    """m3ter: usage.submit, after its own token."""
    m3 = client("m3ter", "m3ter")
    sdk = m3.M3ter(api_key="admin", api_secret=TOKEN, org_id="org", base_url=url, max_retries=0)
    told = {"uid": ID, "meter": "cpu", "account": "acme", "ts": START, "ets": END}
    sdk.usage.submit(measurements=[{**told, "measure": {"value": 12.5}, "metadata": GROUP}])
    sdk.close()


def flexprice(url: str) -> None:
    """flexprice: events.ingest_events_bulk."""
    told = {"event_id": ID, "external_customer_id": "acme", "event_name": "cpu", "timestamp": AT}
    event = {**told, "source": RECORD.record.source, "properties": {"value": "12.5", **GROUP}}
    with client("flexprice", "flexprice").Flexprice(api_key_auth=TOKEN, server_url=url) as sdk:
        sdk.events.ingest_events_bulk(events=[event])


def lago(url: str) -> None:
    """lago-python-client: events.batch_create."""
    client("lago-python-client", "lago_python_client")
    models, top = import_module("lago_python_client.models.event"), import_module("lago_python_client.client")
    event = models.Event(
        transaction_id=ID,
        external_subscription_id="acme",
        code="cpu",
        timestamp="1795435350.000",
        properties={"value": "12.5", **GROUP},
    )
    top.Client(api_key=TOKEN, api_url=url).events.batch_create(models.BatchEvent(events=[event]))


def stripe_client(url: str) -> Any:
    """stripe's client, at one address."""
    sdk = client("stripe", "stripe")
    return sdk.StripeClient(TOKEN, base_addresses={"api": url, "meter_events": url}, max_network_retries=0)


def stripe_v1(url: str) -> None:
    """stripe: v1.billing.meter_events.create."""
    payload = {"stripe_customer_id": "acme", "value": "12.5"}
    told = {"event_name": "cpu", "identifier": ID, "payload": payload, "timestamp": 1795435350}
    stripe_client(url).v1.billing.meter_events.create(told)


def stripe_v2(url: str) -> None:
    """stripe: a session, then v2.billing.meter_event_stream.create with its token."""
    session = stripe_client(url).v2.billing.meter_event_session.create()
    sdk = client("stripe", "stripe")
    stream = sdk.StripeClient(
        session.authentication_token, base_addresses={"api": url, "meter_events": url}, max_network_retries=0
    )
    payload = {"stripe_customer_id": "acme", "value": "12.5"}
    told = {"event_name": "cpu", "identifier": ID, "payload": payload, "timestamp": AT}
    stream.v2.billing.meter_event_stream.create({"events": [told]})


CLIENTS: dict[str, tuple[Callable[[str], None], str]] = {
    "metronome": (metronome, "/v1/ingest"),
    "orb": (orb, "/v1/ingest"),
    "m3ter": (m3ter, "/organizations/org/measurements"),
    "flexprice": (flexprice, "/events/bulk"),
    "lago": (lago, "/api/v1/events/batch"),
    "stripe-v1": (stripe_v1, ""),
    "stripe-v2": (stripe_v2, ""),
}


@pytest.mark.filterwarnings("ignore")  # of the clients
@pytest.mark.parametrize("name", CLIENTS)
def test_the_vendors_own_client_sends_the_same(name: str, tmp_path: Path) -> None:
    """Request by request, the ones that get a token or a session too."""
    send, path = CLIENTS[name]
    with recorder(name) as (url, requests):
        send(url)
        theirs = list(requests)
        assert [r.told for r in ours(name, path, url, tmp_path, requests)] == [r.told for r in theirs]
        assert theirs[-1].path == path or not path
