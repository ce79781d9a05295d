from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from agent.address import is_loopback
from agent.config.scalars import Duration, FilePath, Url, written, written_duration
from agent.config.sinks.section import Found, Remote
from agent.model import NS_PER_S
from agent.record import is_uuid

LONGEST_DELAY = 12 * 3600 * NS_PER_S  # two of them fit into the day after which a person must look


class Paigo(Remote):
    """Records as usage at Paigo, each in a request of its own."""

    kind: Literal["paigo"]
    """`paigo`."""
    url: Url = written("https://api.prod.paigo.tech")
    """Where its API is. Default: the address that Paigo documents. `${NAME}` is read from the environment."""
    client_id_file: FilePath
    """File with the client id, by which tokens are asked for. No default."""
    client_secret_file: FilePath
    """File with the client secret. No default."""
    token_url: Url = written("https://auth.paigo.tech/oauth/token")
    """Where tokens are asked for. Default: the address that Paigo documents. Environment."""
    audience: Annotated[str, Field(min_length=1)] = "https://qnonyh1pc7.execute-api.us-east-1.amazonaws.com"
    """For which API tokens are asked. Default: the one that Paigo documents."""
    visibility_delay: Duration = written("10m")
    """How long after it was taken usage may still not be seen when it is read back. What may have arrived is looked for
    after it, and again after as long; only then is it sent again. At most 12h. Default 10m."""
    concurrency: Annotated[int, Field(ge=1, le=256, strict=True)] = 32
    """Most requests at a time. Default 32."""

    @property
    def remembers(self) -> int | None:
        """How long it discards a repeated id, ns: never."""
        return 0

    @property
    def unvouched(self) -> frozenset[str]:
        """What the sink calls the dimensions of which nobody has said that it adds them: it is asked."""
        return frozenset(map(self.told, self.dimensions or {})) - self.summed()

    def refuses(self, customer: str) -> str | None:
        """Why no customer can be known there by this id; None: one can."""
        return None if is_uuid(customer) else f"{customer} is not an id of Paigo's, a UUID"

    def arguments(self) -> Mapping[str, object]:
        """What its sink is made of, beside id and role, as plain values."""
        names = ("client_id_file", "client_secret_file", "token_url", "audience", "visibility_delay", "unvouched")
        return {**super().arguments(), **{name: getattr(self, name) for name in names}}

    def secrets(self) -> Mapping[str, Path | None]:
        """The files that nobody else should be able to read, by key."""
        return {"client_secret_file": self.client_secret_file, **super().secrets()}

    def files(self) -> Mapping[str, Path | None]:
        """The other files that it reads, by key."""
        return {"client_id_file": self.client_id_file, **super().files()}

    def problems(self) -> Found:
        """What it can be wrong about by itself: keys below it, what and cure."""
        yield from super().problems()
        if self.token_url.startswith("http://") and not is_loopback(self.token_url):
            yield ("token_url",), "the client secret would be sent in the clear. Write https:// there."
        if self.role != "billing":
            yield ("role",), "Paigo bills whatever it is sent, and has no place for usage of nobody. Remove this."
        if self.dimensions is None:
            yield ("dimensions",), "not written, and Paigo knows each by an id of its own. Name them, each with its id."
        for name, told in (self.dimensions or {}).items():
            if not is_uuid(told.id or ""):
                said = "no id" if told.id is None else f"{told.id} is not an id of Paigo's, a UUID"
                yield ("dimensions", name, "id"), f"{said}. Write the dimensionId that Paigo shows."
        if self.visibility_delay > LONGEST_DELAY:
            said = f"{written_duration(self.visibility_delay)} is longer than what is waited for"
            yield ("visibility_delay",), f"{said}. Write 12h or less."
