from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from agent.config.scalars import Duration, FilePath
from agent.config.sinks.section import Found, Remote


class Webhook(Remote):
    """Records posted to a receiver of your own, signed as the Standard Webhooks specification has it."""

    kind: Literal["webhook"]
    """`webhook`."""
    secret_file: FilePath
    """File with the key, `whsec_` and 24 to 64 bytes in base64; on two lines two, while one replaces the other. Read
    for each request. No default."""
    max_batch: Annotated[int, Field(ge=1, le=10_000, strict=True)] = 100
    """Most records in a request. Default 100."""
    dedupe_horizon: Duration | None = None
    """How long the receiver discards a record whose id it has seen; `0s`: it does not. A billing sink must say, for
    what may have arrived is sent again only within it. Default for a copy: for ever."""

    @property
    def remembers(self) -> int | None:
        """How long it discards a repeated id, ns; None: for ever."""
        return self.dedupe_horizon

    def arguments(self) -> Mapping[str, object]:
        """What its sink is made of, beside id and role, as plain values."""
        names = ("secret_file", "max_batch", "dedupe_horizon")
        return {**super().arguments(), **{name: getattr(self, name) for name in names}}

    def secrets(self) -> Mapping[str, Path | None]:
        """The files that nobody else should be able to read, by key."""
        return {"secret_file": self.secret_file, **super().secrets()}

    def problems(self) -> Found:
        """What it can be wrong about by itself: keys below it, what and cure."""
        for place, text in super().problems():
            clear = "what is signed would cross the network in the clear. Use https."
            yield place, clear if place == ("url",) else text
        if self.role != "billing":
            return
        if self.dedupe_horizon is None:
            text = "not written, and a billing sink must say how long the receiver discards an id it has seen"
            yield ("dedupe_horizon",), f"{text}. Write 32d, or what it does; 0s if it takes everything again."
        told = self.dimensions
        if told is None or any(dimension.aggregation is None for dimension in told.values()):
            text = "records are deltas, and this receiver cannot be asked whether it adds them"
            yield ("dimensions",), f"{text}. Name the dimensions, each with `aggregation: sum`, if it does."
