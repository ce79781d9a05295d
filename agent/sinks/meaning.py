"""What an HTTP reply means for the submission that it answers (laws L9, L10). Pure: sinks differ in tables alone."""

import datetime as dt
from collections.abc import Callable, Mapping
from email.utils import parsedate_to_datetime
from functools import lru_cache
from http.client import responses
from typing import Literal

import httpx
from msgspec import Struct

from agent.model import NS_PER_S
from agent.sinks import Answer, Outcome

TOLD_CHARACTERS = 200  # of a reply, to people
LONGEST_WAIT = 24 * 3600 * NS_PER_S  # a slip in a Retry-After must not stop delivery for ever
_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)

Hide = Callable[[str], str]
"""Covers credentials in what is told to people."""


class Meaning(Struct, frozen=True):
    """What a status says of a submission (`Answer` explains the fields), and what to do about it."""

    outcome: Outcome | Literal["split"]
    definite: bool = False
    blocked: bool = False
    cure: str = ""


DELIVERED = Meaning("delivered")
DUPLICATE = Meaning("duplicate")
UNSURE = Meaning("ambiguous")
REDIRECTED = Meaning(
    "retry",
    definite=True,
    blocked=True,
    cure="The url redirects, which is not followed. Correct it; everything is kept.",
)
CREDENTIALS = Meaning(
    "retry",
    definite=True,
    blocked=True,
    cure="It does not take our credentials. Mend token_file or tls.cert_file; everything is kept.",
)
WRONG_PLACE = Meaning(
    "retry", definite=True, blocked=True, cure="Nothing there takes events. Mend url or profile; everything is kept."
)
COMMON: Mapping[int, Meaning] = {
    400: Meaning("split"),
    401: CREDENTIALS,
    403: CREDENTIALS,
    404: WRONG_PLACE,
    405: WRONG_PLACE,
    410: WRONG_PLACE,
    413: Meaning("split", definite=True),
    415: WRONG_PLACE,
    422: Meaning("split"),
    429: Meaning("retry", definite=True),
}
"""What a status means unless the sink knows better. One that is not listed redirects, or says nothing for sure."""


class Reply(Struct, frozen=True):
    """What came back whole, but for a body beyond what was asked for."""

    status: int
    headers: httpx.Headers
    body: bytes

    @property
    def redirects(self) -> bool:
        """Whether it sends us elsewhere; nobody follows."""
        return 300 <= self.status < 400

    def tell(self, hide: Hide) -> str:
        """Status and words for people: one line, in which `hide` has covered what it must."""
        words = self.headers.get("location", "") if self.redirects else ""
        words = hide(words or self.body.decode(errors="replace"))[: 8 * TOLD_CHARACTERS]
        plain = " ".join("".join(c if c.isprintable() else " " for c in words).split())[:TOLD_CHARACTERS]
        status = f"{self.status} {responses.get(self.status, '')}".rstrip()
        return f"{status}: {plain}" if plain else status


def judge(reply: Reply, statuses: Mapping[int, Meaning], hide: Hide) -> Answer:
    """What a reply means by the sink's own table and, for what that does not list, the common one."""
    meaning = statuses.get(reply.status) or COMMON.get(reply.status) or (REDIRECTED if reply.redirects else UNSURE)
    said = reply.tell(hide)
    return Answer(
        outcome=meaning.outcome,
        why=f"{said}. {meaning.cure}" if meaning.cure else said,
        definite=meaning.definite,
        blocked=meaning.blocked,
        after=asked_to_wait(reply.headers) if meaning.outcome in ("retry", "ambiguous") else None,
    )


def asked_to_wait(headers: Mapping[str, str]) -> int | None:
    """Retry-After in ns: seconds, or a date, which is measured against the server's own (RFC 9110 §10.2.3)."""
    asked = headers.get("retry-after", "").strip()
    if asked.isascii() and asked.isdecimal():
        return min(int(asked[:12]) * NS_PER_S, LONGEST_WAIT)
    until, now = http_date(asked), http_date(headers.get("date", ""))
    return None if until is None or now is None else min(max(until - now, 0) * NS_PER_S, LONGEST_WAIT)


@lru_cache(maxsize=8)  # replies of the same second say the same
def http_date(text: str) -> int | None:
    """Seconds of the epoch; None for what is no date."""
    try:
        when = parsedate_to_datetime(text)
    except (TypeError, ValueError, OverflowError):
        return None
    return (when.replace(tzinfo=when.tzinfo or dt.UTC) - _EPOCH) // dt.timedelta(seconds=1)
