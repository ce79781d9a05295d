"""What sections of sinks have in common: every sink, those that tell records in words of their own, those over HTTP."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, StrictBool

from agent.address import is_loopback
from agent.config.document import Loc
from agent.config.scalars import (
    NS,
    Duration,
    FilePath,
    Identifier,
    Instant,
    Scale,
    Size,
    Url,
    VendorName,
    written,
    written_duration,
)
from agent.config.section import Section
from agent.credentials import Tls as Pems

LEAST_BYTES = 4 << 10  # names and labels of one record, at their longest that is usual

Found = Iterator[tuple[Loc, str]]


class DimensionAtSink(Section):
    """How one dimension is told to one sink."""

    id: VendorName | None = None
    """What the sink calls it. Default: its name here."""
    unit: str | None = None
    """The unit of its values, such as `core-second`, `GiB-hour` or `GB`. Default: the meter's base unit."""
    scale: Scale = 6
    """How many decimals a value has. What does not fit is carried exactly to the next record. Default 6; base units
    have none."""
    rounding: Literal["half-even", "half-up"] = "half-even"
    """What happens to a tie of the last decimal. Default half-even."""
    aggregation: Literal["sum"] | None = None
    """`sum`: you vouch that the sink adds what it gets. Default: a billing sink is asked, and where it cannot be, must
    be vouched for."""


class SinkSection(Section):
    """What all sinks have in common."""

    kind: str
    """Which back end it is."""
    id: Identifier
    """Names the sink for ever: what was delivered is remembered under it. No default."""
    role: Literal["billing", "copy"] = "billing"
    """`billing` gets what is billed, once; `copy` gets every record, unattributed, system and gaps too. Default
    billing."""
    since: Instant | None = Field(None, alias="from")
    """Records whose window closed at or after this date or RFC 3339 time are sent. Default: those closed after the
    sink was added."""

    @property
    def takes(self) -> frozenset[str] | None:
        """The dimensions it takes; None: all."""
        return None

    @property
    def destination(self) -> tuple[str, ...]:
        """What may not change while something that was frozen for it is unsettled: whom it goes to, in which form."""
        return (self.kind,)

    @property
    def place(self) -> tuple[str, str]:
        """The key that says where it goes, and its value: no two sinks may share it."""
        return "id", self.id

    @property
    def allows(self) -> int:
        """How long an attempt may take, ns."""
        return 0

    def arguments(self) -> Mapping[str, object]:
        """What its sink is made of, beside id and role, as plain values."""
        return {}

    def secrets(self) -> Mapping[str, Path | None]:
        """The files that nobody else should be able to read, by key."""
        return {}

    def files(self) -> Mapping[str, Path | None]:
        """The other files that it reads, by key."""
        return {}

    def problems(self) -> Found:
        """What it can be wrong about by itself: keys below it, what and cure."""
        yield from ()


class Told(SinkSection):
    """A sink that is told records in its own words: which dimensions, in which units, of whom, at what time."""

    dimensions: Annotated[dict[str, DimensionAtSink], Field(min_length=1)] | None = None
    """The dimensions it takes, and how they are told; a billing sink must name them. Default for a copy: all, in base
    units."""
    timestamp: Literal["start", "mid", "end", "hour"] = "end"
    """Which instant of the window is the record's time; `hour`: the start of its hour. Default end."""
    max_age: Duration | None = None
    """Older usage is not taken by the receiver: it is held for a person, and alarmed before. Default: any age is."""
    negative: StrictBool = False
    """Whether the receiver takes negative values, as corrections are. Default false: they are held for a person."""
    close_remainders_after: Duration = written("30d")
    """After so long without usage, what rounding has left of a customer and dimension (less than half of the last
    decimal) goes to the rounding account. Default 30d."""

    @property
    def takes(self) -> frozenset[str] | None:
        """The dimensions it takes; None: all."""
        return None if self.dimensions is None else frozenset(self.dimensions)

    @property
    def remembers(self) -> int | None:
        """How long it discards a repeated id, ns; None: for ever."""
        return None

    @property
    def needs_ids(self) -> bool:
        """Whether it knows customers by ids of its own alone."""
        return False

    @property
    def unvouched(self) -> frozenset[str]:
        """What the sink calls the dimensions of which nobody has said that it adds them: it is asked."""
        return frozenset()

    def refuses(self, customer: str) -> str | None:  # noqa: ARG002 - for those that do
        """Why no customer can be known there by this id; None: one can."""
        return None

    def asked(self) -> frozenset[str]:
        """What a billing sink that can be asked calls the dimensions that nobody vouches for."""
        return (
            frozenset(map(self.told, self.dimensions or {})) - self.summed() if self.role == "billing" else frozenset()
        )

    def unnamed(self) -> Found:
        """A billing sink that can be asked must say of what."""
        if self.role == "billing" and self.dimensions is None:
            text = "not written, and a billing sink is asked of each dimension whether it adds what it gets"
            yield ("dimensions",), f"{text}. Name them."

    def untold(self, label: str) -> str | None:  # noqa: ARG002 - for those that cannot tell all
        """Why no record with this label can be told there; None: it can."""
        return None

    def told(self, dimension: str) -> str:
        """What it calls a dimension."""
        return (self.dimensions or {}).get(dimension, DimensionAtSink()).id or dimension

    def summed(self) -> frozenset[str]:
        """What it calls the dimensions that somebody vouches for."""
        told = self.dimensions or {}
        return frozenset(self.told(name) for name, d in told.items() if d.aggregation is not None)


class Tls(Section):
    """Whom to trust, and who we are."""

    ca_file: FilePath | None = None
    """PEM file of the authorities that may have signed the server's certificate. Default: the system's."""
    cert_file: FilePath | None = None
    """PEM file of the client certificate, where the server asks for one. Default none."""
    key_file: FilePath | None = None
    """PEM file of its key. Default: it is in cert_file."""


def spoken(timeout: int, max_bytes: int, tls: Tls | None = None) -> Found:
    """What is wrong with how a server is spoken to, whatever the protocol: keys of the section, what and cure."""
    if tls is not None and tls.key_file is not None and tls.cert_file is None:
        yield ("tls", "key_file"), "a key without its certificate. Add cert_file."
    if timeout < NS["s"]:
        yield ("timeout",), f"{written_duration(timeout)} is shorter than 1s. Write 1s or more."
    if max_bytes < LEAST_BYTES:
        yield ("max_bytes",), "smaller than one record may be. Write 4KiB or more."


class Remote(Told):
    """A sink over HTTP."""

    url: Url
    """Where it is posted to. No default. `${NAME}` is read from the environment."""
    tls: Tls = written({})
    """PEM files: ca_file, cert_file, key_file. Default: the system's authorities, and no certificate of our own."""
    timeout: Duration = written("30s")
    """How long an answer may take, 1s or more; then the attempt is ambiguous. Default 30s."""
    max_bytes: Size = written("1MiB")
    """Most that a request's records may come to, 4KiB or more. Default 1MiB."""
    concurrency: Annotated[int, Field(ge=1, le=256, strict=True)] = 4
    """Most requests at a time. Default 4."""
    rate: Annotated[int, Field(ge=1, le=1_000_000, strict=True)] | None = None
    """Most requests in a second. Default: as fast as it answers."""

    @property
    def destination(self) -> tuple[str, ...]:
        """What may not change while something that was frozen for it is unsettled: whom it goes to, in which form."""
        return self.kind, self.url

    @property
    def place(self) -> tuple[str, str]:
        """The key that says where it goes, and its value: no two sinks may share it."""
        return "url", self.url

    @property
    def allows(self) -> int:
        """How long an attempt may take, ns."""
        return self.timeout

    def arguments(self) -> Mapping[str, object]:
        """What its sink is made of, beside id and role, as plain values."""
        return {
            "url": self.url,
            "tls": Pems(self.tls.ca_file, self.tls.cert_file, self.tls.key_file),
            "timeout": self.timeout,
            "max_bytes": self.max_bytes,
            "concurrency": self.concurrency,
            "rate": self.rate,
            "max_age": self.max_age,
            "negative": self.negative or self.role == "copy",
        }

    def secrets(self) -> Mapping[str, Path | None]:
        """The files that nobody else should be able to read, by key."""
        return {"tls.key_file": self.tls.key_file}

    def files(self) -> Mapping[str, Path | None]:
        """The other files that it reads, by key."""
        return {"tls.ca_file": self.tls.ca_file, "tls.cert_file": self.tls.cert_file}

    def problems(self) -> Found:
        """What it can be wrong about by itself: keys below it, what and cure."""
        plain = self.url.startswith("http://")
        shown = next((key for key, file in self.secrets().items() if file is not None and key != "tls.key_file"), None)
        if plain and shown is not None and not is_loopback(self.url):
            yield ("url",), f"what is in {shown} would be sent in the clear. Write https://, or leave it out."
        if plain and self.tls != Tls():
            yield ("tls",), "the url is http://, which knows no TLS. Write https:// there, or leave tls out."
        yield from spoken(self.timeout, self.max_bytes, self.tls)
