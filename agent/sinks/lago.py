"""Lago, by batches of events. A batch with anything wrong in it is rolled back whole, and told of by index.

So after a lost answer the same batch stores nothing new: what is there already counts as delivered, and the rest is
sent again without it. Lago takes an event of a code that no metric has, and bills nothing: it is asked before.
"""

from collections.abc import Collection
from typing import Any

import msgspec
from msgspec import Struct

from agent.sinks import Finding
from agent.sinks.http import HttpSink
from agent.sinks.login import NoReplyError
from agent.sinks.meaning import Reply
from agent.sinks.rules import Named, Rule, Said
from agent.sinks.summing import Counter, summing
from agent.sinks.template import Body

LIST_BYTES = 4 << 20
PAGES = 100
BODY: Body = {
    "transaction_id": "{id}",
    "external_subscription_id": "{customer}",
    "code": "{dimension}",
    "timestamp": "{at|unix_decimal}",
    "properties": {"value": "{value}", "{group.*}": "{group.*}"},
}
RULES = (
    Rule(frozenset({200}), "delivered"),
    Rule(frozenset({422}), "split", text="too_many_events", definite=True),
    Rule(
        frozenset({422}),
        "retry",
        definite=True,
        named=Named(("error_details",), "index", said=(Said("value_already_exist", "duplicate"),)),
    ),
)
WANTED = "code {}, aggregation sum_agg and field_name value"


class _Metric(Struct):
    code: str
    aggregation_type: str
    field_name: str | None = None


class _Pages(Struct):
    total_pages: int


class _Listed(Struct):
    billable_metrics: list[_Metric]
    meta: _Pages


class LagoSink(HttpSink):
    """Posts to `/api/v1/events/batch`, up to a hundred events at a time. A customer is a subscription here."""

    kind = "lago"

    def __init__(self, sink_id: str, role: str, url: str, *, unvouched: Collection[str] = (), **more: Any) -> None:
        """`unvouched` are its codes that must be seen to be summed before anything is sent; `HttpSink` has the rest."""
        super().__init__(
            sink_id, role, url, body=BODY, shape="list", under="events", rules=RULES, asks=bool(unvouched), **more
        )
        self._unvouched = sorted(unvouched)

    async def ask(self) -> list[Finding]:
        """Whether it takes our credentials, and whether its metrics sum what we send."""
        metrics: list[_Metric] = []
        address = self._wire.url.join("../billable_metrics")
        try:
            for page in range(1, 1 + PAGES):
                query = address.copy_merge_params({"per_page": 100, "page": page})
                reply = await self._wire.exchange("GET", query, most=LIST_BYTES)
                finding = self._wire.reached(reply)
                if not finding.ok:
                    return [finding]
                listed = _listed(reply)
                metrics += listed.billable_metrics
                if page >= listed.meta.total_pages:
                    break
        except NoReplyError as error:
            return [Finding("reachable", False, str(error))]
        except ValueError:
            why = f"no list of metrics at {address.path}: {finding.why}"
            return [Finding("metrics", False, why, f"Correct sinks[{self.id}].url.")]
        counters = [Counter(m.code, m.code, m.aggregation_type, m.field_name) for m in metrics]
        return [finding, *summing(self._unvouched, counters, _sums, WANTED)]


def _sums(counter: Counter) -> bool:
    return counter.aggregation == "sum_agg" and counter.value == "value"


def _listed(reply: Reply) -> _Listed:
    """The metrics of one reply. Raises ValueError for what is no such list."""
    if reply.status != 200:
        raise ValueError(reply.status)
    return msgspec.json.decode(reply.body, type=_Listed)
