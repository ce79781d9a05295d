"""Where usage comes from. A source measures and labels; it decides nothing about money.

A source may read /proc, /sys and local sockets. It needs no root for its own sake, starts no process, holds no clock
beside CLOCK_BOOTTIME, and keeps nothing that a restart would miss.
"""

from typing import Protocol, runtime_checkable

from msgspec import Struct

from agent.model import Meter, Sweep


class Source(Protocol):
    """One place that is read. `sweep` blocks for milliseconds at most: kernel files only, no disk, no network."""

    id: str
    meters: tuple[Meter, ...]

    def sweep(self) -> Sweep:
        """Read everything now, parents before children. Raises SourceError when nothing could be read."""

    def close(self) -> None:
        """Release files and locks; safe to call twice."""


@runtime_checkable
class Watched(Source, Protocol):
    """A source whose resources come and go between sweeps."""

    def fileno(self) -> int:
        """Readable when a resource may have come or gone (inotify)."""

    def next_read_within(self, now: int) -> int:
        """How soon after boottime `now` the counters should be read again; both in ns."""

    def read(self) -> bool:
        """Keep the latest counters of what lives; True when one died, so that a sweep should follow at once."""


@runtime_checkable
class Followed(Source, Protocol):
    """A source that learns about its resources beside its sweeps, over the network."""

    async def follow(self) -> None:
        """For ever: keep what is known up to date. Raises nothing for what a network or a server can do."""


class Asked(Struct, frozen=True):
    """How asking a server goes: counts since the start, and the boottime at which it was last heard."""

    requests: int
    relists: int
    failing: bool
    heard: int


@runtime_checkable
class Asking(Protocol):
    """What asks a server, and can say how that goes."""

    def asked(self) -> Asked | None:
        """As things stand; None where nobody is asked."""
