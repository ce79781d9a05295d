"""Stripe's meter events: one at a time by v1, or by hundreds over the stream of v2 with a session of fifteen minutes.

A repeated identifier is refused for a day, with a 400 whose words alone tell it from other ones: it is delivered.
What v2 finds wrong with an event it says later, to a webhook.
"""

import asyncio
from collections.abc import Callable, Collection
from typing import Any, Literal
from urllib.parse import urlencode

import msgspec
from msgspec import Struct

from agent.credentials import Tls
from agent.sinks import Answer, Entry, Finding
from agent.sinks.http import HttpSink
from agent.sinks.login import Bearer, Headers, Login, NoReplyError
from agent.sinks.rules import Rule
from agent.sinks.summing import Counter, summing
from agent.sinks.template import Body
from agent.sinks.wire import Wire

REPEAT = "An event already exists with identifier"  # the only sign: it has no code
VERSION = "2024-09-30.acacia"  # of the API: the first that has both ways
LIST_BYTES = 4 << 20
PAGES = 100
EVENTS, SESSION, STREAM = (
    "/v1/billing/meter_events",
    "/v2/billing/meter_event_session",
    "/v2/billing/meter_event_stream",
)
METERS = "/v1/billing/meters"
BODY: Body = {
    "event_name": "{dimension}",
    "identifier": "{id}",
    "timestamp": "{at|ms}",
    "payload": {"stripe_customer_id": "{customer}", "value": "{value}"},
}
RULES = (
    Rule(frozenset({200}), "delivered"),
    Rule(frozenset({400}), "duplicate", text=REPEAT, records="one", definite=True),
    Rule(frozenset({400}), "rejected", records="one", definite=True),
)
WANTED = "event_name {}, formula sum and the value key value"

Api = Literal["v1", "v2-stream"]


class _Session(Struct):
    authentication_token: str


class _Keyed(Struct, frozen=True):
    event_payload_key: str = ""


class _Aggregation(Struct):
    formula: str


class _Meter(Struct):
    id: str
    event_name: str
    default_aggregation: _Aggregation
    value_settings: _Keyed = _Keyed()


class _Page(Struct):
    data: list[_Meter]
    has_more: bool = False


class StripeSink(HttpSink):
    """Posts meter events. `url` and `stream_url` are the two addresses of the vendor, without a path."""

    kind = "stripe"

    def __init__(
        self,
        sink_id: str,
        role: str,
        url: str,
        *,
        api: Api,
        stream_url: str,
        login: Bearer,
        tls: Tls,
        timeout: int,
        unvouched: Collection[str] = (),
        dated: Callable[[int], None] | None = None,
        **more: Any,
    ) -> None:
        """`unvouched` are its names of events that must be seen to be summed; `HttpSink` has the rest."""
        base, stream = url.rstrip("/"), stream_url.rstrip("/")
        self._api, self._unvouched = api, sorted(unvouched)
        wire = Wire(
            f"sinks[{sink_id}]", base + METERS, {}, login=login, tls=tls, timeout=timeout, concurrency=1, dated=dated
        )
        self._asked = wire
        streams = api == "v2-stream"
        super().__init__(
            sink_id,
            role,
            stream + STREAM if streams else base + EVENTS,
            body=BODY,
            shape="list" if streams else "single",
            under="events" if streams else "",
            content_type="application/json" if streams else "application/x-www-form-urlencoded",
            headers={"Stripe-Version": VERSION},
            rules=RULES,
            login=Session(wire) if streams else login,
            tls=tls,
            timeout=timeout,
            dated=dated,
            asks=bool(unvouched),
            **more,
        )

    def render(self, entry: Entry) -> bytes:
        """One event: JSON for the stream, a form for v1."""
        if self._api == "v2-stream":
            return super().render(entry)
        pairs = (
            ("event_name", entry.dimension),
            ("identifier", entry.id),
            ("payload[stripe_customer_id]", entry.customer),
            ("payload[value]", entry.value),
            ("timestamp", str(entry.at // 10**9)),
        )
        return urlencode(pairs, safe="[]").encode()

    async def ask(self) -> list[Finding]:
        """Whether it takes our key, and whether its meters sum what we send."""
        meters: list[_Meter] = []
        try:
            for _ in range(PAGES):
                query: dict[str, str | int] = {"limit": 100, **({"starting_after": meters[-1].id} if meters else {})}
                address = self._asked.url.copy_merge_params(query)
                reply = await self._asked.exchange("GET", address, most=LIST_BYTES, more={"Stripe-Version": VERSION})
                finding = self._asked.reached(reply)
                if not finding.ok:
                    return [finding]
                page = msgspec.json.decode(reply.body, type=_Page)
                meters += page.data
                if not page.has_more or not page.data:
                    break
        except NoReplyError as error:
            return [Finding("reachable", False, str(error))]
        except ValueError:
            why = f"no list of meters at {METERS}: {finding.why}"
            return [Finding("meters", False, why, f"Correct sinks[{self.id}].url, and give the key the right to read.")]
        counters = [
            Counter(m.id, m.event_name, m.default_aggregation.formula, m.value_settings.event_payload_key)
            for m in meters
        ]
        return [finding, *summing(self._unvouched, counters, _sums, WANTED)]

    async def close(self) -> None:
        """Let go of connections."""
        await super().close()
        await self._asked.close()


class Session(Login):
    """The token of a stream's session: asked for with the key, and again when it has expired (a 401 says so)."""

    key, names = "token_file", ("Authorization",)

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._lock = asyncio.Lock()
        self._token = ""

    async def headers(self) -> Headers:
        """With the session in use, or the first one."""
        async with self._lock:
            return await self._told() if self._token else await self._begun()

    async def again(self, refused: Headers, /) -> Headers:
        """With a new session, unless somebody has begun one since."""
        async with self._lock:
            told = await self._told()
            return told if told != refused else await self._begun()

    def hide(self, said: str) -> str:
        """Without key and token."""
        said = self._wire.hide(said)
        return said.replace(self._token, "[token]") if self._token else said

    async def close(self) -> None:
        """Let go of the connection."""
        await self._wire.close()

    async def _told(self) -> Headers:
        return {"Authorization": f"Bearer {self._token}"}

    async def _begun(self) -> Headers:
        address = self._wire.url.join(SESSION)
        try:
            reply = await self._wire.exchange(
                "POST", address, b"{}", "application/json", more={"Stripe-Version": VERSION}
            )
        except NoReplyError as error:  # whatever became of the question, no usage has left
            why, blocked = f"no session: {error.answer.why}", error.answer.blocked
            raise NoReplyError(Answer(outcome="retry", why=why, left=False, blocked=blocked)) from error
        try:
            if reply.status != 200:
                raise ValueError(reply.status)  # noqa: TRY301 - one way out for all that is no session
            self._token = msgspec.json.decode(reply.body, type=_Session).authentication_token
        except ValueError as error:
            refused = reply.status in (401, 403)
            cure = ". Mend token_file; everything is kept" if refused else ""
            why = f"no session: {self._wire.tell(reply)}{cure}"
            raise NoReplyError(Answer(outcome="retry", why=why, left=False, blocked=refused)) from error
        return await self._told()


def _sums(counter: Counter) -> bool:
    return counter.aggregation == "sum" and counter.value == "value"
