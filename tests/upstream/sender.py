"""A plain sender, with the standard library's own HTTP client: what the double is tested by."""

import http.client
import json
import ssl
from decimal import Decimal
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from tests.upstream.process import Upstream
from tests.upstream.rules import BATCH, SINGLE, V1

BROKEN = (ConnectionError, http.client.HTTPException)  # what no readable answer raises


class Said(NamedTuple):
    """An answer."""

    status: int
    headers: dict[str, str]
    body: bytes


def usage(number: int | str, subject: str, value: object = "1", **more: Any) -> dict[str, Any]:
    """One event; its id is one of the test's own, for its source is its subject."""
    event = {"specversion": "1.0", "id": f"{number}", "source": subject, "type": "cpu", "subject": subject}
    return {**event, "data": {"value": value}, **more}


def post(
    upstream: Upstream,
    said: object,
    path: str = V1,
    kind: str | None = None,
    context: ssl.SSLContext | None = None,
    **headers: str,
) -> Said:
    """Send events on a connection of their own. Raises what http.client does when it breaks off."""
    address = urlsplit(upstream.url)
    host, port = address.hostname or "", address.port
    connection = (
        http.client.HTTPSConnection(host, port, timeout=10, context=context)
        if context
        else http.client.HTTPConnection(host, port, timeout=10)
    )
    body = said if isinstance(said, bytes) else json.dumps(said).encode()
    kind = kind or (BATCH if isinstance(said, list) else SINGLE)
    try:
        connection.request("POST", path, body, {"Content-Type": kind, **headers})
        response = connection.getresponse()
        return Said(response.status, dict(response.getheaders()), response.read())
    finally:
        connection.close()


def billed(upstream: Upstream, subject: str) -> Decimal:
    """What a customer owes."""
    return upstream.totals().sums.get((subject, "cpu"), Decimal(0))


def ask(upstream: Upstream, method: str, path: str) -> Said:
    """A request that is no usage."""
    connection = http.client.HTTPConnection(urlsplit(upstream.url).netloc, timeout=10)
    try:
        connection.request(method, path, headers={"WebHook-Request-Origin": "us.example"})
        response = connection.getresponse()
        return Said(response.status, dict(response.getheaders()), response.read())
    finally:
        connection.close()
