"""Paigo as its OpenAPI 1.10 and its documentation have it, in memory. It imports nothing from the agent.

What neither says of it is at its worst: it never recognises a repeat, and shows usage only after a while.
"""

import json
import re
from collections import deque
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from urllib.parse import parse_qs, urlsplit

from tests.sinks.double import Request
from tests.sinks.doubles import Said, Totals, UnreachedError

SECRET = "s3cret"
_USAGE = re.compile(r"/customers/([^/]+)/usage")


@dataclass
class Used:
    """One thing that it bills."""

    customer: str
    dimension: str
    at: datetime
    value: str
    metadata: object
    taken: float


class Paigo:
    """`faults` befall POST /usage; `unread` befall GET …/usage, in order. Time in seconds of the epoch."""

    def __init__(
        self,
        faults: Collection[str] = (),
        *,
        now: Callable[[], float],
        customers: Collection[str],
        dimensions: dict[str, str],
        shows_after: float = 0.0,
        unread: Collection[str] = (),
        lasts: float = 86_400.0,
    ) -> None:
        """`dimensions`: id → how it aggregates. `lasts`: how long a token does."""
        self.faults, self.unread, self.now = deque(faults), deque(unread), now
        self.customers, self.dimensions, self.shows_after, self.lasts = set(customers), dimensions, shows_after, lasts
        self.used: list[Used] = []
        self.tokens: dict[str, float] = {}
        self.granted = self.posted = self.looked = 0

    async def answer(self, request: Request) -> Said | None:
        """One request."""
        path = urlsplit(request.target).path
        if path == "/oauth/token":
            return self._grant(request)
        fault = ""
        if path == "/usage":
            fault = self.faults.popleft() if self.faults else ""
        elif _USAGE.fullmatch(path):
            fault = self.unread.popleft() if self.unread else ""
        if fault == "unreached":
            raise UnreachedError
        if fault == "expire":  # "expires_in": a token ends, or is revoked
            self.tokens.clear()
        if self.tokens.get(request.headers.get("authorization", ""), 0.0) <= self.now():
            return _said(401, "Unauthorized")  # security: bearer, on every operation
        if fault in ("429", "503"):
            return _said(int(fault), "later")
        if fault == "lost before":
            return None
        if fault == "400":  # "The body will not be loaded into the database on any 400 error."
            return _said(400, "Bad Request")
        said = self._route(request, path)
        return None if fault == "lost after" else _said(503, "late") if fault == "503 after" else said

    def _route(self, request: Request, path: str) -> Said:
        if request.method == "POST" and path == "/usage":
            self.posted += 1
            return self._take(request)
        if request.method == "GET" and path == "/dimensions":
            listed = [{"dimensionId": name, "aggregationMethod": how} for name, how in self.dimensions.items()]
            return Said(200, json.dumps({"message": "ok", "data": listed}).encode())
        if request.method == "GET" and (found := _USAGE.fullmatch(path)):
            self.looked += 1
            return self._show(found[1], parse_qs(urlsplit(request.target).query))
        return _said(404, "Not Found")

    def _grant(self, request: Request) -> Said:
        """Its documentation: POST, a JSON body of audience, grant_type, client_id, client_secret."""
        try:
            asked = json.loads(request.body)
        except ValueError:
            return _said(400, "not JSON")
        if asked.get("grant_type") != "client_credentials" or not asked.get("audience"):
            return _said(403, "unsupported grant")
        if asked.get("client_secret") != SECRET:
            return _said(401, "access_denied")
        self.granted += 1
        token = f"token-{self.granted}"
        self.tokens[f"Bearer {token}"] = self.now() + self.lasts
        granted = {"access_token": token, "expires_in": self.lasts, "token_type": "Bearer"}
        return Said(200, json.dumps(granted).encode())

    def _take(self, request: Request) -> Said:
        """CreateUsageDto: four fields are required; the value is a string; no record is recognised as a repeat."""
        try:
            body = json.loads(request.body)
            value, at = body["recordValue"], datetime.fromisoformat(body["timestamp"])
            if not isinstance(value, str) or not Decimal(value).is_finite() or body["timestamp"][4] != "-":
                return _said(400, "recordValue")
            customer, dimension = body["customerId"], body["dimensionId"]
        except (ValueError, KeyError, InvalidOperation):
            return _said(400, "Bad Request")
        if customer not in self.customers or dimension not in self.dimensions:
            return _said(400, "unknown customer or dimension")
        self.used.append(Used(customer, dimension, at, value, body.get("metadata"), self.now()))
        return _said(201, "created")

    def _show(self, customer: str, query: dict[str, list[str]]) -> Said:
        """Inclusive of the start, exclusive of the end, which "must be before the current time"."""
        if customer not in self.customers:
            return _said(404, "Customer Not Found")
        start, end = (datetime.fromisoformat(query[name][0]) for name in ("startTime", "endTime"))
        if not start < end or end.timestamp() >= self.now() or query.get("aggregationInterval") != ["none"]:
            return _said(400, "Bad Request")
        data = []
        for dimension in self.dimensions:
            usage = [
                {"timestamp": _rfc3339(used.at), "recordValue": used.value, "metadata": used.metadata}
                for used in self.used
                if (used.customer, used.dimension) == (customer, dimension)
                and start <= used.at < end
                and used.taken + self.shows_after <= self.now()
            ]
            if usage:
                data.append({"dimensionId": dimension, "usage": usage})
        return Said(200, json.dumps({"message": "ok", "data": data}).encode())

    def totals(self) -> Totals:
        """Exactly, whatever a dimension's aggregation would make of it."""
        return self.invoice()

    def invoice(self, month: str = "") -> Totals:
        """What one month, such as 2026-11, is billed: by the usage's own timestamp."""
        sums: Totals = {}
        for used in self.used:
            if f"{used.at:%Y-%m}".startswith(month):
                key = used.customer, used.dimension
                sums[key] = sums.get(key, Decimal(0)) + Decimal(used.value)
        return sums


def _rfc3339(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%dT%H:%M:%S}.{at.microsecond // 1000:03d}Z"


def _said(status: int, message: str) -> Said:
    return Said(status, json.dumps({"message": message}).encode())
