"""UsageRecord: an additive delta with an identity that is fixed before it touches the disk (DESIGN L3). Pure.

id = UUIDv5 of (recipe, source, meter, kind, customer, dimension, sorted group, start, end, n), as canonical JSON. The
stored body is canonical JSON too: sorted keys, no spaces, quantities and times as text, so that the same record has
the same bytes on every retry and every machine.
"""

import datetime as dt
import uuid
from collections.abc import Mapping
from functools import lru_cache
from hashlib import blake2b, sha1

import msgspec
from msgspec import UNSET, Struct, UnsetType

from agent.model import NS_PER_S, Kind

RECIPE = 1
NAMESPACE = uuid.UUID("6d1f5c1e-3b1a-5f0e-9f57-6f2c1a7c0b5d")  # of this project's record ids; never to be changed
_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


class UsageRecord(Struct, frozen=True):
    """DESIGN §9's record. `n` and with it the id are given by the spool, which knows how many deltas went before."""

    kind: Kind
    source: str
    meter: str
    policy: str
    dimension: str
    customer: str | None
    group: Mapping[str, str]
    start: int
    end: int
    quantity: int
    base_unit: str
    basis: str
    covered: int
    flags: tuple[str, ...] = ()
    metadata: Mapping[str, object] = {}
    reason: str | None = None  # of a gap
    bound: int | None = None  # of a gap: at most this much is missing
    corrects: str | None = None  # the id that a correction amends

    def key(self) -> bytes:
        """What all deltas of one window and owner share; 16 bytes, for the spool's index."""
        return blake2b(self._identity(), digest_size=16).digest()

    def id(self, n: int) -> str:
        """The record's id as its n-th delta: a UUIDv5 (RFC 9562), written out because the library's takes longer."""
        digest = bytearray(
            sha1(NAMESPACE.bytes + b"%b,%d]" % (self._identity()[:-1], n), usedforsecurity=False).digest()
        )
        digest[6] = digest[6] & 0x0F | 0x50
        digest[8] = digest[8] & 0x3F | 0x80
        text = digest.hex()
        return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:32]}"

    def body(self, n: int) -> bytes:
        """The canonical JSON that is stored, without the sequence number that the spool adds."""
        return _encoder.encode(
            _Body(
                base_unit=self.base_unit,
                basis=self.basis,
                bound=UNSET if self.bound is None else str(self.bound),
                corrects=UNSET if self.corrects is None else self.corrects,
                covered=seconds(self.covered),
                customer=self.customer,
                dimension=self.dimension,
                end=rfc3339(self.end),
                flags=sorted(self.flags),
                group=self.group,
                id=self.id(n),
                kind=self.kind,
                meter=self.meter,
                metadata=self.metadata,
                n=n,
                policy=self.policy,
                quantity=str(self.quantity),
                reason=UNSET if self.reason is None else self.reason,
                source=self.source,
                start=rfc3339(self.start),
            )
        )

    def _identity(self) -> bytes:
        group = sorted(self.group.items())
        names = (RECIPE, self.source, self.meter, self.kind, self.customer, self.dimension)
        return msgspec.json.encode((*names, group, self.start, self.end))

    @classmethod
    def parse(cls, body: bytes) -> "UsageRecord":
        """The record of a stored body."""
        f = msgspec.json.decode(body)
        return cls(
            kind=f["kind"],
            source=f["source"],
            meter=f["meter"],
            policy=f["policy"],
            dimension=f["dimension"],
            customer=f["customer"],
            group=f["group"],
            start=nanoseconds(f["start"]),
            end=nanoseconds(f["end"]),
            quantity=int(f["quantity"]),
            base_unit=f["base_unit"],
            basis=f["basis"],
            covered=int(f["covered"].replace(".", "")),
            flags=tuple(f["flags"]),
            metadata=f["metadata"],
            reason=f.get("reason"),
            bound=int(f["bound"]) if "bound" in f else None,
            corrects=f.get("corrects"),
        )


class _Body(Struct):
    """A stored body. Its fields stand in alphabetical order, and the encoder sorts what is inside them: canonical."""

    base_unit: str
    basis: str
    bound: str | UnsetType
    corrects: str | UnsetType
    covered: str
    customer: str | None
    dimension: str
    end: str
    flags: list[str]
    group: Mapping[str, str]
    id: str
    kind: Kind
    metadata: Mapping[str, object]
    meter: str
    n: int
    policy: str
    quantity: str
    reason: str | UnsetType
    source: str
    start: str
    v: int = 1


_encoder = msgspec.json.Encoder(order="deterministic")


def with_seq(body: bytes, seq: int) -> bytes:
    """The line of a stored body with its sequence number, still canonical.

    `seq` sorts right before `source`, and nothing after the last `"source":` can hold that text unescaped.
    """
    at = body.rindex(b'"source":')
    return b'%b"seq":%d,%b' % (body[:at], seq, body[at:])


def record_id(body: bytes) -> uuid.UUID:
    """The id in a stored body."""
    return uuid.UUID(_identified.decode(body).id)


class _Identified(Struct):
    id: str


_identified = msgspec.json.Decoder(_Identified)


@lru_cache(maxsize=64)
def rfc3339(ns: int) -> str:
    """UTC with nine digits: 2026-11-23T12:00:00.000000000Z."""
    whole, fraction = divmod(ns, NS_PER_S)
    return f"{_EPOCH + dt.timedelta(seconds=whole):%Y-%m-%dT%H:%M:%S}.{fraction:09d}Z"


@lru_cache(maxsize=64)  # records of one window follow each other
def nanoseconds(text: str) -> int:
    """The inverse of `rfc3339`, in integers."""
    whole = dt.datetime.fromisoformat(f"{text[:19]}+00:00") - _EPOCH
    return (whole.days * 86_400 + whole.seconds) * NS_PER_S + int(text[20:29])


def seconds(ns: int) -> str:
    """Decimal seconds with nine digits, exactly."""
    return f"{ns // NS_PER_S}.{ns % NS_PER_S:09d}"


def is_uuid(text: str) -> bool:
    """Whether this is a UUID as it is usually written: 36 characters, in hexadecimal."""
    try:
        return str(uuid.UUID(text)) == text.lower()
    except ValueError:
        return False
