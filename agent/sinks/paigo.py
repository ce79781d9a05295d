"""Paigo: one record per request, whose id it keeps as metadata and never looks at (OpenAPI 1.10).

It has no idempotency key, so that a second POST bills twice. What may have arrived is looked for in the customer's own
usage, by our id. What it has under the same dimension, time and value but without an id may be ours or another's: then
nothing is known.
"""

import datetime as dt
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path

import msgspec
from msgspec import Struct

from agent.credentials import Tls, Token
from agent.errors import SinkError
from agent.model import NS_PER_MS, NS_PER_S
from agent.record import is_uuid, rfc3339
from agent.sinks import Answer, Entry, Finding, Holding, Look, Terms
from agent.sinks.login import NoReplyError
from agent.sinks.meaning import DELIVERED, Meaning, Reply
from agent.sinks.oauth2 import ClientCredentials
from agent.sinks.wire import Wire
from agent.spool.outbox import Item, Submission

ID = "meteringRecordId"
"""The key of the metadata under which our record's id lies."""
READ_BYTES = 16 << 20  # usage of one customer, as it is read back
LIST_BYTES = 4 << 20
SPAN = 24 * 3600 * NS_PER_S  # of usage that is asked for at a time, for what it holds: there are no pages

# "The body will not be loaded into the database on any 400 error."
STATUSES: Mapping[int, Meaning] = {201: DELIVERED, 400: Meaning("split", definite=True)}

_encoder = msgspec.json.Encoder(order="sorted")


class _Frozen(Struct, rename="camel"):
    """A record as it was rendered."""

    customer_id: str
    dimension_id: str
    timestamp: str
    record_value: str
    metadata: dict[str, object]


class _Used(Struct, rename="camel"):
    """One thing that a customer used (BasicUsageDocument)."""

    timestamp: str
    record_value: str
    metadata: dict[str, object] | None = None


class _OfDimension(Struct, rename="camel"):
    dimension_id: str
    usage: list[_Used]


class _Usage(Struct):
    data: list[_OfDimension]


class _Dimension(Struct, rename="camel"):
    dimension_id: str
    dimension_name: str = ""
    aggregation_method: str = "max"  # its default


class _Dimensions(Struct):
    data: list[_Dimension]


class PaigoSink:
    """Posts records to `url`/usage."""

    kind = "paigo"

    def __init__(
        self,
        sink_id: str,
        role: str,
        url: str,
        *,
        token_url: str,
        audience: str,
        client_id_file: Path,
        client_secret_file: Path,
        tls: Tls = Tls(),  # noqa: B008 - it cannot change
        timeout: int = 30 * NS_PER_S,
        max_bytes: int = 1 << 20,
        concurrency: int = 32,
        rate: int | None = None,
        max_age: int | None = None,
        visibility_delay: int = 600 * NS_PER_S,
        negative: bool = False,
        unvouched: Collection[str] = (),
        dated: Callable[[int], None] | None = None,
    ) -> None:
        """Open nothing yet. Raises ValueError for an address that cannot be used.

        `Terms` explains the terms, `Wire` the connection; times in ns. `unvouched` are the ids of the dimensions that
        it must be seen to sum before anything is sent.
        """
        self.id, self.role, self._unvouched = sink_id, role, sorted(unvouched)
        self.terms = Terms(
            max_batch=1,
            max_bytes=max_bytes,
            concurrency=concurrency,
            rate=rate,
            max_age=max_age,
            dedupe_horizon=0,
            negative=negative,
            asks=bool(unvouched),
            visibility_delay=visibility_delay,
        )
        name = f"sinks[{sink_id}]"
        login = ClientCredentials(
            f"{name}.token",
            token_url,
            Token(client_id_file, "client_id_file"),
            Token(client_secret_file, "client_secret_file"),
            form="json",
            place="body",
            asked=(("audience", audience),),
            tls=tls,
            timeout=timeout,
        )
        self._wire = Wire(
            name,
            url.rstrip("/") + "/usage",
            STATUSES,
            login=login,
            tls=tls,
            timeout=timeout,
            concurrency=concurrency,
            dated=dated,
        )

    def render(self, entry: Entry) -> bytes:
        """One usage record as canonical JSON. Raises ValueError for what is no id of Paigo's."""
        for what, text in (("customer", entry.customer), ("dimension", entry.dimension)):
            if not is_uuid(text):
                raise ValueError(f"{what} {text!r} is not an id of Paigo's, a UUID. Mend it, and requeue the record")
        record = entry.record
        metadata: dict[str, object] = {
            ID: entry.id,
            "source": record.source,
            "meter": record.meter,
            "unit": entry.unit,
            "start": rfc3339(record.start),
            "end": rfc3339(record.end),
            **{f"group.{name}": value for name, value in record.group.items()},
        }
        if record.corrects is not None:
            metadata["corrects"] = record.corrects
        return _encoder.encode(
            _Frozen(entry.customer.lower(), entry.dimension.lower(), _milliseconds(entry.at), entry.value, metadata)
        )

    async def stage(self, submission: Submission) -> None:
        """Nothing is made ready."""

    async def send(self, submission: Submission) -> Answer:
        """Post the record as it was frozen."""
        return await self._wire.deliver(submission.items[0].payload, "application/json")

    async def close(self) -> None:
        """Let go of connections."""
        await self._wire.close()

    # -- reading back ----------------------------------------------------------------------------------------------

    async def look(self, submission: Submission) -> Look:
        """Whether the customer's usage at that very time holds our id."""
        (item,) = submission.items
        frozen = msgspec.json.decode(item.payload, type=_Frozen)
        at = _instant(frozen.timestamp)
        try:
            reply = await self._usage(frozen.customer_id, at, at + NS_PER_S)
            used = _decoded(reply)
        except (NoReplyError, ValueError) as error:
            return Look(why=str(error), failed=True)
        return _recognised(item, frozen, used)

    async def holdings(self, start: int, end: int, customers: Collection[str]) -> AsyncIterator[Holding]:
        """All usage of these customers in `[start, end)`, ns, day by day. Raises SinkError with the cure."""
        for customer in customers:
            for since in range(start, end, SPAN):
                try:
                    used = _decoded(await self._usage(customer, since, min(since + SPAN, end)))
                except (NoReplyError, ValueError) as error:
                    cure = "Mend what it says, or ask for a shorter time."
                    raise SinkError(f"sinks[{self.id}]: usage of {customer}: {error}. {cure}") from error
                for dimension, one in used:
                    name = (one.metadata or {}).get(ID)
                    yield Holding(
                        customer=customer,
                        dimension=dimension.lower(),
                        value=one.record_value,
                        at=_instant(one.timestamp),
                        id=name if isinstance(name, str) else None,
                    )

    async def _usage(self, customer: str, start: int, end: int) -> Reply:
        """What it says that a customer used in `[start, end)`. Raises NoReplyError, or ValueError for a refusal."""
        query = {
            "aggregationInterval": "none",
            "ignoreEnrollmentDate": "true",
            "startTime": _milliseconds(start),
            "endTime": _milliseconds(end + NS_PER_MS - 1),
        }
        address = self._wire.url.join(f"customers/{customer}/usage").copy_merge_params(query)
        reply = await self._wire.exchange("GET", address, most=READ_BYTES)
        if reply.status != 200:
            raise ValueError(self._wire.tell(reply))
        return reply

    # -- asking ----------------------------------------------------------------------------------------------------

    async def ask(self) -> list[Finding]:
        """Whether it can be reached and takes our credentials, and whether each dimension sums what it gets."""
        try:
            reply = await self._wire.exchange("GET", self._wire.url.join("dimensions"), most=LIST_BYTES)
        except NoReplyError as error:
            return [Finding("reachable", False, str(error))]
        said = self._wire.tell(reply)
        if reply.status in (401, 403):
            return [Finding("credentials", False, said, f"Mend sinks[{self.id}].client_id_file or client_secret_file.")]
        try:
            if reply.status != 200:
                return [Finding("dimensions", False, said, f"Correct sinks[{self.id}].url.")]
            listed = msgspec.json.decode(reply.body, type=_Dimensions).data
        except ValueError:
            why = f"no list of dimensions: {said}"
            return [Finding("dimensions", False, why, f"Correct sinks[{self.id}].url.")]
        return [Finding("reachable", True, f"{reply.status}, {len(listed)} dimensions"), *self._sums(listed)]

    def _sums(self, listed: Iterable[_Dimension]) -> Iterator[Finding]:
        known = {dimension.dimension_id.lower(): dimension for dimension in listed}
        for name in self._unvouched:
            found = known.get(name.lower())
            if found is None:
                cure = f"Correct its id in sinks[{self.id}].dimensions, or create it there."
                yield Finding(f"dimension {name}", False, "there is none of this id", cure)
                continue
            sums = found.aggregation_method == "sum"
            why = f"{found.dimension_name or 'it'} takes the {found.aggregation_method} of what it gets"
            cure = "" if sums else "Records add up: set its aggregationMethod to sum, or it bills a fraction of them."
            yield Finding(f"dimension {name}", sums, why, cure)


def _instant(text: str) -> int:
    """A time of RFC 3339 in ns. Raises ValueError."""
    when = dt.datetime.fromisoformat(text)
    since = when.replace(tzinfo=when.tzinfo or dt.UTC) - dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
    return since // dt.timedelta(microseconds=1) * 1000


def _milliseconds(at: int) -> str:
    """RFC 3339 with a four-digit year and three decimals, as in its own examples."""
    return f"{rfc3339(at - at % NS_PER_MS)[:23]}Z"


def _decoded(reply: Reply) -> list[tuple[str, _Used]]:
    """Usage with its dimension. Raises ValueError for what is not all of it."""
    if len(reply.body) >= READ_BYTES:
        raise ValueError(f"more than {READ_BYTES >> 20} MiB of usage")
    try:
        usage = msgspec.json.decode(reply.body, type=_Usage)
    except ValueError as error:
        raise ValueError(f"not a customer's usage: {error}") from error
    return [(of.dimension_id, used) for of in usage.data for used in of.usage]


def _recognised(item: Item, frozen: _Frozen, usage: Iterable[tuple[str, _Used]]) -> Look:
    nameless: _Used | None = None
    count = 0
    for dimension, used in usage:
        count += 1
        name = (used.metadata or {}).get(ID)
        if name == frozen.metadata[ID]:
            return Look(found={item.seq: f"{ID} {name} is in its metadata there"}, why="its usage has our id")
        if name is None and dimension.lower() == frozen.dimension_id and used.record_value == frozen.record_value:
            nameless = used
    if nameless is not None:
        why = f"usage of the same dimension and value at {nameless.timestamp} has no {ID}: it may be this record or not"
        return Look(why=why, failed=True)
    return Look(why=f"not among the {count} things that the customer used at {frozen.timestamp}")
