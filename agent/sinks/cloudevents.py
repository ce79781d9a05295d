"""CloudEvents 1.0 over HTTP: OpenMeter's two APIs, and any receiver of the CNCF's specification.

One record is one event in the structured JSON format. Its id is the record's, so that source and id tell a repeat.
Whether a receiver looks is for the operator to say: an OpenMeter that one hosts oneself does not, by default.
"""

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Literal
from urllib.parse import quote

import msgspec
from msgspec import Struct

from agent.credentials import Tls
from agent.model import NS_PER_S
from agent.record import rfc3339
from agent.sinks import Answer, Entry, Finding, Terms
from agent.sinks.login import NoReplyError
from agent.sinks.meaning import DELIVERED, DUPLICATE, Meaning, Reply
from agent.sinks.summing import Counter, summing
from agent.sinks.wire import Wire
from agent.spool.outbox import Submission

Profile = Literal["generic", "openmeter-v1", "openmeter-v3"]

SINGLE = "application/cloudevents+json"  # OpenMeter v1 compares it letter by letter: no charset
BATCH = "application/cloudevents-batch+json"
LIST_BYTES = 4 * 1024 * 1024  # a thousand meters with their descriptions: more than OpenMeter v1 lists
PAGE = 100  # meters at a time from OpenMeter v3
PAGES = 100
VALUE_PROPERTY = "$.value"
WANTED = f"event type {{}}, aggregation SUM and value property {VALUE_PROPERTY}"

# What the common table does not say of each. OpenMeter's 400 to a batch is no definite refusal: events are taken one
# by one, up to the first that fails.
STATUSES: Mapping[Profile, Mapping[int, Meaning]] = {
    "generic": {
        **dict.fromkeys((200, 201, 202, 204), DELIVERED),
        409: DUPLICATE,
        410: Meaning(
            "retry", definite=True, blocked=True, cure="It wants no more events. Remove the sink or mend url."
        ),
        415: Meaning("retry", definite=True, blocked=True, cure="It does not take this format. Mend url or max_batch."),
    },
    "openmeter-v1": {204: DELIVERED},
    "openmeter-v3": {202: DELIVERED},
}

_FORBIDDEN = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]")  # in any attribute, by its types
_encoder = msgspec.json.Encoder(order="sorted")


class _Meter(Struct, rename="camel"):
    """A meter as OpenMeter v1 lists it."""

    slug: str
    event_type: str
    aggregation: str
    value_property: str | None = None


class _MeterV3(Struct, rename={"slug": "key"}):
    """The same as v3 lists it."""

    slug: str
    event_type: str
    aggregation: str
    value_property: str | None = None


class _Count(Struct):
    total: int


class _Meta(Struct):
    page: _Count


class _Page(Struct):
    data: list[_MeterV3]
    meta: _Meta


class CloudEventsSink:
    """Posts events to `url`, in batches where the receiver takes them."""

    kind = "cloudevents"

    def __init__(
        self,
        sink_id: str,
        role: str,
        url: str,
        profile: Profile = "generic",
        *,
        token_file: Path | None = None,
        tls: Tls = Tls(),  # noqa: B008 - it cannot change
        timeout: int = 30 * NS_PER_S,
        max_batch: int | None = None,
        max_bytes: int = 1 << 20,
        concurrency: int = 4,
        rate: int | None = None,
        max_age: int | None = None,
        dedupe_horizon: int | None = None,
        negative: bool = False,
        unvouched: Collection[str] = (),
        dated: Callable[[int], None] | None = None,
    ) -> None:
        """Open nothing yet. Raises ValueError for an address that cannot be used.

        `Terms` explains the terms, `Wire` the connection; times in ns. `max_batch` is 1 by default for a generic
        receiver, for only one that asks for batches takes them, and else 100. `unvouched` are the sink's names of the
        dimensions that it must be seen to sum before anything is sent.
        """
        self.id, self.role, self._profile, self._unvouched = sink_id, role, profile, sorted(unvouched)
        self.terms = Terms(
            max_batch=max_batch or (1 if profile == "generic" else 100),
            max_bytes=max_bytes,
            concurrency=concurrency,
            rate=rate,
            max_age=max_age,
            dedupe_horizon=dedupe_horizon,
            negative=negative,
            asks=bool(unvouched),
        )
        self._wire = Wire(
            f"sinks[{sink_id}]",
            url,
            STATUSES[profile],
            token_file=token_file,
            tls=tls,
            timeout=timeout,
            concurrency=concurrency,
            dated=dated,
        )
        if profile != "generic" and not self._wire.url.path.endswith("/events"):
            raise ValueError(f"sinks[{sink_id}].url: the address of OpenMeter's API ends in /events.")

    def render(self, entry: Entry) -> bytes:
        """One event as canonical JSON. Raises ValueError for what a CloudEvent, or OpenMeter, does not take."""
        return structured(entry, anonymous=self._profile == "generic")

    def shown(self, payloads: Sequence[bytes]) -> list[str]:
        """The request as it would leave, for people: without the token."""
        single = self.terms.max_batch == 1
        body = payloads[0] if single else b"[%b]" % b",".join(payloads)
        return self._wire.shown("POST", {"Content-Type": SINGLE if single else BATCH}, body)

    async def stage(self, submission: Submission) -> None:
        """Nothing is made ready."""

    async def send(self, submission: Submission) -> Answer:
        """Post the events as they were frozen."""
        payloads = [item.payload for item in submission.items]
        if len(payloads) == 1 and self.terms.max_batch == 1:
            return await self._wire.deliver(payloads[0], SINGLE)
        return await self._wire.deliver(b"[%b]" % b",".join(payloads), BATCH)

    async def ask(self) -> list[Finding]:
        """Whether it can be reached and takes our credentials; of OpenMeter, whether its meters sum what we send."""
        if self._profile == "generic":
            return [await self._wire.knock()]
        try:
            return await self._ask_openmeter()
        except NoReplyError as error:
            return [Finding("reachable", False, str(error))]

    async def close(self) -> None:
        """Let go of connections."""
        await self._wire.close()

    # -- asking ----------------------------------------------------------------------------------------------------

    async def _ask_openmeter(self) -> list[Finding]:
        meters: list[_Meter | _MeterV3] = []
        address = self._wire.url.join("meters")
        for page in range(1, 1 + PAGES):
            query = {} if self._profile == "openmeter-v1" else {"page[size]": PAGE, "page[number]": page}
            reply = await self._wire.exchange("GET", address.copy_merge_params(query), most=LIST_BYTES)
            finding = self._wire.reached(reply)
            if not finding.ok:
                return [finding]
            try:
                listed, total = _listed(self._profile, reply)
            except ValueError:
                cure = f"Correct sinks[{self.id}].url or profile."
                return [Finding("meters", False, f"no list of meters at {address.path}: {finding.why}", cure)]
            meters += listed
            if len(meters) >= total or not listed:
                break
        counters = [Counter(m.slug, m.event_type, m.aggregation, m.value_property) for m in meters]
        return [finding, *summing(self._unvouched, counters, _summed, WANTED)]


def _summed(meter: Counter) -> bool:
    return meter.aggregation.upper() == "SUM" and meter.value == VALUE_PROPERTY


def structured(entry: Entry, *, anonymous: bool) -> bytes:
    """One event as canonical JSON. Raises ValueError for what a CloudEvent does not take.

    `anonymous`: usage that is nobody's has no subject.
    """
    record = entry.record
    attributes = {
        "id": entry.id,
        "source": _uri(record.source),
        "specversion": "1.0",
        "subject": entry.customer,
        "type": entry.dimension,
    }
    if not entry.customer and anonymous:  # usage that is nobody's, which a copy may get
        del attributes["subject"]
    for name, text in attributes.items():
        if name != "id" and (wrong := _wrong(name, text)) is not None:
            raise ValueError(wrong)
    data: dict[str, object] = {
        "dimension": record.dimension,
        "end": rfc3339(record.end),
        "flags": sorted(record.flags),
        "group": record.group,
        "kind": record.kind,
        "meter": record.meter,
        "start": rfc3339(record.start),
        "unit": entry.unit,
        "value": entry.value,
    }
    if record.corrects is not None:
        data["corrects"] = record.corrects
    if record.kind == "gap":
        data |= {"reason": record.reason, "bound": None if record.bound is None else str(record.bound)}
    time = rfc3339(entry.at)
    return _encoder.encode({**attributes, "time": time, "datacontenttype": "application/json", "data": data})


def _listed(profile: Profile, reply: Reply) -> tuple[Sequence[_Meter | _MeterV3], int]:
    """The meters of one reply, and how many there are in all. Raises ValueError for what is no such list."""
    if reply.status != 200:
        raise ValueError(reply.status)
    if profile == "openmeter-v1":
        meters = msgspec.json.decode(reply.body, type=list[_Meter])
        return meters, len(meters)
    page = msgspec.json.decode(reply.body, type=_Page)
    return page.data, page.meta.page.total


@lru_cache(maxsize=4096)  # few senders, customers and dimensions, of many records
def _wrong(name: str, text: str) -> str | None:
    """Why an attribute of an event cannot be this; None when it can."""
    if not text:
        return f"no {name}: an event needs one"
    return f"{name} {text!r}: holds a character that an event may not" if _FORBIDDEN.search(text) else None


@lru_cache(maxsize=64)
def _uri(source: str) -> str:
    """A record's source as the URI reference that an event's must be."""
    return quote(source, safe="/")
