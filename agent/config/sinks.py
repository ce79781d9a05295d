"""Where records go, as typed values: one section for each kind of sink. The text under each key is its description."""

from typing import Annotated, Literal

from pydantic import Field, StrictBool

from agent.config.scalars import (
    Directory,
    Duration,
    FilePath,
    Identifier,
    Instant,
    Scale,
    Size,
    Url,
    VendorName,
    written,
)
from agent.config.section import Section


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


class FileSink(SinkSection):
    """Records as lines of JSON, in files that appear whole."""

    kind: Literal["file"]
    """`file`."""
    path: Directory
    """Directory for the files; the agent makes it. No default. `${NAME}` is read from the environment."""

    @property
    def destination(self) -> tuple[str, ...]:
        """What may not change while something that was frozen for it is unsettled: the directory."""
        return self.kind, str(self.path)


class Tls(Section):
    """Whom to trust, and who we are."""

    ca_file: FilePath | None = None
    """PEM file of the authorities that may have signed the server's certificate. Default: the system's."""
    cert_file: FilePath | None = None
    """PEM file of the client certificate, where the server asks for one. Default none."""
    key_file: FilePath | None = None
    """PEM file of its key. Default: it is in cert_file."""


class CloudEvents(SinkSection):
    """Records as CloudEvents over HTTP: OpenMeter, or any receiver of the CNCF's specification."""

    kind: Literal["cloudevents"]
    """`cloudevents`."""
    profile: Literal["generic", "openmeter-v1", "openmeter-v3"] = "generic"
    """What the receiver takes and answers: `generic`, `openmeter-v1` (self-hosted and cloud), `openmeter-v3` (Konnect).
    Default generic."""
    url: Url
    """Where events are posted, such as https://openmeter.example/api/v1/events; that of OpenMeter ends in /events. No
    default. `${NAME}` is read from the environment."""
    token_file: FilePath | None = None
    """File with the bearer token; read again when the receiver refuses it. Default: no token."""
    tls: Tls = written({})
    """PEM files: ca_file, cert_file, key_file. Default: the system's authorities, and no certificate of our own."""
    timeout: Duration = written("30s")
    """How long an answer may take, 1s or more; then the attempt is ambiguous. Default 30s."""
    dimensions: Annotated[dict[str, DimensionAtSink], Field(min_length=1)] | None = None
    """The dimensions it takes, and how they are told; a billing sink must name them. Default for a copy: all, in base
    units."""
    timestamp: Literal["start", "mid", "end", "hour"] = "end"
    """Which instant of the window is the event's time; `hour`: the start of its hour. Default end."""
    max_batch: Annotated[int, Field(ge=1, le=10_000, strict=True)] | None = None
    """Most events in a request. Default 1 for generic, for only a receiver that asks for batches takes them; else
    100."""
    max_bytes: Size = written("1MiB")
    """Most that a request's events may come to, 4KiB or more. Default 1MiB."""
    concurrency: Annotated[int, Field(ge=1, le=256, strict=True)] = 4
    """Most requests at a time. Default 4."""
    rate: Annotated[int, Field(ge=1, le=1_000_000, strict=True)] | None = None
    """Most requests in a second. Default: as fast as it answers."""
    max_age: Duration | None = None
    """Older usage is not taken by the receiver: it is held for a person, and alarmed before. Default: any age is."""
    dedupe_horizon: Duration | None = None
    """How long the receiver discards an event whose id it has seen; `0s`: it does not. A billing sink must say, for
    what may have arrived is sent again only within it. Default for a copy: for ever."""
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
    def unvouched(self) -> frozenset[str]:
        """What the sink calls the dimensions of which nobody has said that it adds them: it is asked."""
        if self.role != "billing" or self.profile == "generic":
            return frozenset()
        return frozenset(told.id or name for name, told in (self.dimensions or {}).items() if told.aggregation is None)

    @property
    def destination(self) -> tuple[str, ...]:
        """What may not change while something that was frozen for it is unsettled: whom it goes to, in which form."""
        return self.kind, self.profile, self.url


SinkEntry = Annotated[FileSink | CloudEvents, Field(discriminator="kind")]
