"""What is known of a pod, and who is asked for it."""

from collections.abc import Collection, Mapping
from typing import Protocol

from msgspec import Struct

from agent.sources import Stats


class Facts(Struct, frozen=True):
    """What is known of one pod. Equal facts are the same object, so that an unchanged pod costs nothing.

    Levels are in the meter's base unit per millisecond: `cpu.time` in ns (one core is 1_000_000), `memory.working_set`
    in bytes. A pod without a limit has none of that name.
    """

    name: str  # namespace/pod
    labels: Mapping[str, str]  # as rules see them
    host_network: bool = False
    requests: Mapping[str, int] = {}  # meter → level
    limits: Mapping[str, int] = {}  # the same; absent: none
    extended: Mapping[str, int] = {}  # extended resource (nvidia.com/gpu) → whole units requested


class Pods(Protocol):
    """What a source asks. Written by the loop, read on the spool's thread."""

    def of(self, uid: str) -> Facts | None:
        """By the uid in the cgroup's name (a static pod: its config hash)."""

    def version(self) -> int:
        """Changes whenever some pod's facts did."""

    def introduced(self) -> Mapping[str, Mapping[str, str]]:
        """Uid → labels, of pods first known since the last call."""

    def remember(self, living: Collection[str]) -> Mapping[str, bytes | None]:
        """What to persist since the last call; None deletes. `living` holds the uids that have a cgroup."""

    @property
    def stats(self) -> Stats:
        """How asking goes."""

    async def follow(self) -> None:
        """For ever. Raises nothing for what a network or an API server can do."""

    async def close(self) -> None:
        """Let go of every connection; safe to call twice."""
