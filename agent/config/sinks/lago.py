from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal
from urllib.parse import urlsplit

from pydantic import Field

from agent.config.scalars import FilePath
from agent.config.sinks.section import Found, Remote

if TYPE_CHECKING:
    from agent.sinks.login import Login


class Lago(Remote):
    """Records as events of Lago, whose customers are subscriptions."""

    kind: Literal["lago"]
    """`lago`."""
    token_file: FilePath
    """File with the API key; read again when Lago refuses it. No default."""
    max_batch: Annotated[int, Field(ge=1, le=10_000, strict=True)] = 100
    """Most events in a request. Default 100, as Lago has it."""

    @property
    def needs_ids(self) -> bool:
        """It knows subscriptions, by ids of their own."""
        return True

    @property
    def unvouched(self) -> frozenset[str]:
        """The codes of which nobody has said that it adds them: it is asked."""
        return self.asked()

    def arguments(self) -> Mapping[str, object]:
        """What its sink is made of, beside id and role, as plain values."""
        from agent.sinks.login import Bearer

        login: Login = Bearer(self.token_file)
        return {**super().arguments(), "login": login, "max_batch": self.max_batch, "unvouched": self.unvouched}

    def secrets(self) -> Mapping[str, Path | None]:
        """The files that nobody else should be able to read, by key."""
        return {"token_file": self.token_file, **super().secrets()}

    def problems(self) -> Found:
        """What it can be wrong about by itself: keys below it, what and cure."""
        yield from super().problems()
        yield from self.unnamed()
        if not urlsplit(self.url).path.endswith("/events/batch"):
            yield ("url",), "Lago takes batches at an address whose path ends in /events/batch. Correct it."
