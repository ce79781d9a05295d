"""The one thread that owns the database, as those see it who are not on it."""

from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar

T = TypeVar("T")


class OnThread(Protocol):
    """Runs a blocking call on the spool's thread."""

    def __call__(self, act: Callable[..., T], *args: object) -> Awaitable[T]:
        """Its result."""
