from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import Field

from agent.config.scalars import Duration, FilePath
from agent.config.sinks.section import Found, Remote


class CloudEvents(Remote):
    """Records as CloudEvents over HTTP: OpenMeter, or any receiver of the CNCF's specification."""

    kind: Literal["cloudevents"]
    """`cloudevents`."""
    profile: Literal["generic", "openmeter-v1", "openmeter-v3"] = "generic"
    """What the receiver takes and answers: `generic`, `openmeter-v1` (self-hosted and cloud), `openmeter-v3` (Konnect).
    Default generic."""
    token_file: FilePath | None = None
    """File with the bearer token; read again when the receiver refuses it. Default: no token."""
    max_batch: Annotated[int, Field(ge=1, le=10_000, strict=True)] | None = None
    """Most events in a request. Default 1 for generic, for only a receiver that asks for batches takes them; else
    100."""
    dedupe_horizon: Duration | None = None
    """How long the receiver discards an event whose id it has seen; `0s`: it does not. A billing sink must say, for
    what may have arrived is sent again only within it. Default for a copy: for ever."""

    @property
    def remembers(self) -> int | None:
        """How long it discards a repeated id, ns; None: for ever."""
        return self.dedupe_horizon

    @property
    def unvouched(self) -> frozenset[str]:
        """What the sink calls the dimensions of which nobody has said that it adds them: it is asked."""
        return frozenset() if self.profile == "generic" else self.asked()

    @property
    def destination(self) -> tuple[str, ...]:
        """What may not change while something that was frozen for it is unsettled: whom it goes to, in which form."""
        return self.kind, self.profile, self.url

    def arguments(self) -> Mapping[str, object]:
        """What its sink is made of, beside id and role, as plain values."""
        names = ("profile", "token_file", "max_batch", "dedupe_horizon", "unvouched")
        return {**super().arguments(), **{name: getattr(self, name) for name in names}}

    def secrets(self) -> Mapping[str, Path | None]:
        """The files that nobody else should be able to read, by key."""
        return {"token_file": self.token_file, **super().secrets()}

    def problems(self) -> Found:
        """What it can be wrong about by itself: keys below it, what and cure."""
        yield from super().problems()
        if self.profile != "generic" and not urlsplit(self.url).path.endswith("/events"):
            yield ("url",), "OpenMeter takes events at an address whose path ends in /events. Correct it."
        if self.role != "billing":
            return
        if self.dedupe_horizon is None:
            text = "not written, and a billing sink must say how long the receiver discards an id it has seen"
            yield ("dedupe_horizon",), f"{text}. Write 32d, or what it states; 0s if it takes everything again."
        told = self.dimensions
        if self.profile == "generic" and (told is None or any(d.aggregation is None for d in told.values())):
            text = "records are deltas, and this receiver cannot be asked whether it adds them"
            yield ("dimensions",), f"{text}. Name the dimensions, each with `aggregation: sum`, if it does."
        else:
            yield from self.unnamed()
