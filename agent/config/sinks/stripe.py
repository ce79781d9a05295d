from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import Field

from agent.address import is_loopback
from agent.config.scalars import NS, Duration, FilePath, Url, written
from agent.config.sinks.section import Found, Remote

NAME_CHARACTERS = 100  # of an event_name


class Stripe(Remote):
    """Records as Stripe's meter events."""

    kind: Literal["stripe"]
    """`stripe`."""
    api: Literal["v1", "v2-stream"] = "v1"
    """`v1`: one event a request, checked at once. `v2-stream`: up to `max_batch`, checked later. Default v1."""
    url: Url = written("https://api.stripe.com")
    """Stripe's address, without a path. Default its own. `${NAME}` is read from the environment."""
    stream_url: Url = written("https://meter-events.stripe.com")
    """That of the stream, without a path. Default its own. `${NAME}` is read from the environment."""
    token_file: FilePath
    """File with the secret key; read again when Stripe refuses it. No default."""
    max_batch: Annotated[int, Field(ge=1, le=100, strict=True)] = 100
    """Most events in a request of the stream. Default 100, as Stripe has it."""
    max_age: Duration | None = written("35d")
    """Older usage is not taken by Stripe: it is held for a person, and alarmed before. Default 35d."""

    @property
    def needs_ids(self) -> bool:
        """It knows `cus_…` alone."""
        return True

    @property
    def remembers(self) -> int | None:
        """How long an identifier is known, ns: a day."""
        return 24 * NS["h"]

    @property
    def unvouched(self) -> frozenset[str]:
        """The events of which nobody has said that it adds them: it is asked."""
        return self.asked()

    @property
    def place(self) -> tuple[str, str]:
        """The key that says where it goes, and its value: two accounts have the same address."""
        return "token_file", str(self.token_file)

    @property
    def destination(self) -> tuple[str, ...]:
        """What may not change while something that was frozen for it is unsettled: whom it goes to, in which form."""
        return self.kind, self.api, self.url, self.stream_url

    def arguments(self) -> Mapping[str, object]:
        """What its sink is made of, beside id and role, as plain values."""
        from agent.sinks.login import Bearer

        return {
            **super().arguments(),
            "api": self.api,
            "stream_url": self.stream_url,
            "login": Bearer(self.token_file),
            "max_batch": self.max_batch,
            "dedupe_horizon": self.remembers,
            "unvouched": self.unvouched,
        }

    def secrets(self) -> Mapping[str, Path | None]:
        """The files that nobody else should be able to read, by key."""
        return {"token_file": self.token_file, **super().secrets()}

    def problems(self) -> Found:
        """What it can be wrong about by itself: keys below it, what and cure."""
        yield from super().problems()
        yield from self.unnamed()
        for key, url in (("url", self.url), ("stream_url", self.stream_url)):
            if urlsplit(url).path.strip("/"):
                yield (key,), "Stripe's paths are added to it. Write it without one."
        if self.stream_url.startswith("http://") and not is_loopback(self.stream_url):
            yield ("stream_url",), "the session's token would be sent in the clear. Write https:// there."
        for name in self.dimensions or {}:
            if len(self.told(name)) > NAME_CHARACTERS:
                text = f"longer than the {NAME_CHARACTERS} characters that an event_name may have"
                yield ("dimensions", name), f"{text}. Give it a shorter id."
