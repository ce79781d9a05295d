"""Rows posted to a receiver of one's own, signed as the Standard Webhooks specification has it.

The receiver knows us by the signature, and a repeat by `webhook-id`, which is made of the body: what is sent again has
the id that it had. Parts of a batch have ids of their own, so that each row bears its record's id, too.
"""

import base64
import binascii
import hmac
import time
from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256
from pathlib import Path

from agent.credentials import TOKEN_BYTES, Tls, UnusableError
from agent.model import NS_PER_S
from agent.sinks import Answer, Entry, Finding, Terms
from agent.sinks.login import NoReplyError
from agent.sinks.meaning import DELIVERED, DUPLICATE, Meaning, judge
from agent.sinks.row import row
from agent.sinks.wire import Wire
from agent.spool.outbox import Submission

PREFIX = "whsec_"
KEYS = 2  # that are valid at a time, while one replaces the other
LEAST_BYTES, MOST_BYTES = 24, 64  # of a key, by the specification
STATUSES: Mapping[int, Meaning] = {
    **dict.fromkeys((200, 201, 202, 204), DELIVERED),
    409: DUPLICATE,
    410: Meaning("retry", definite=True, blocked=True, cure="It wants no more. Remove the sink or mend url."),
}


class WebhookSink:
    """Posts to `url`, signed with each key of `secret_file`."""

    kind = "webhook"

    def __init__(
        self,
        sink_id: str,
        role: str,
        url: str,
        *,
        secret_file: Path,
        tls: Tls = Tls(),  # noqa: B008 - it cannot change
        timeout: int = 30 * NS_PER_S,
        max_batch: int = 100,
        max_bytes: int = 1 << 20,
        concurrency: int = 4,
        rate: int | None = None,
        max_age: int | None = None,
        dedupe_horizon: int | None = None,
        negative: bool = False,
        dated: Callable[[int], None] | None = None,
        wall: Callable[[], float] = time.time,
    ) -> None:
        """Open nothing yet. Raises ValueError for an address that cannot be used.

        `Terms` explains the terms, `Wire` the connection; times in ns. `wall` gives the seconds of the epoch.
        """
        self.id, self.role, self._file, self._wall = sink_id, role, secret_file, wall
        self.terms = Terms(
            max_batch=max_batch,
            max_bytes=max_bytes,
            concurrency=concurrency,
            rate=rate,
            max_age=max_age,
            dedupe_horizon=dedupe_horizon,
            negative=negative,
        )
        self._wire = Wire(
            f"sinks[{sink_id}]",
            url,
            STATUSES,
            token_file=None,
            tls=tls,
            timeout=timeout,
            concurrency=concurrency,
            dated=dated,
        )

    def render(self, entry: Entry) -> bytes:
        """One row as canonical JSON."""
        return row(entry)

    async def stage(self, submission: Submission) -> None:
        """Nothing is made ready."""

    async def send(self, submission: Submission) -> Answer:
        """Post the rows as they were frozen; only the time and with it the signature are the attempt's."""
        rows = b",".join(item.payload for item in submission.items)
        body = b'{"data":[%b],"type":"usage.recorded"}' % rows
        name, now = f"msg_{sha256(body).hexdigest()[:32]}", int(self._wall())
        try:
            more = {
                "webhook-id": name,
                "webhook-timestamp": str(now),
                "webhook-signature": signature(self._keys(), name, now, body),
            }
            reply = await self._wire.exchange("POST", self._wire.url, body, "application/json", more=more)
        except UnusableError as error:
            why = f"sinks[{self.id}].{error}. Mend the file; nothing is sent without it."
            return Answer(outcome="retry", why=why, left=False, blocked=True)
        except NoReplyError as error:
            return error.answer
        return judge(reply, STATUSES, lambda said: said)

    async def ask(self) -> list[Finding]:
        """Whether it can be reached, and whether our keys can be used."""
        try:
            keys = len(self._keys())
            reply = await self._wire.exchange("OPTIONS", self._wire.url)
        except UnusableError as error:
            return [Finding("keys", False, str(error), f"Write {PREFIX} and the key in base64, one a line.")]
        except NoReplyError as error:
            return [Finding("reachable", False, str(error))]
        cure = f"Correct sinks[{self.id}].url: redirects are not followed."
        found = Finding("reachable", not reply.redirects, self._wire.tell(reply), cure if reply.redirects else "")
        return [Finding("keys", True, f"{keys} in use"), found]

    async def close(self) -> None:
        """Let go of connections."""
        await self._wire.close()

    def _keys(self) -> list[bytes]:
        """Those that stand in the file now. Raises UnusableError."""
        where = f"secret_file: {self._file}"
        try:
            with self._file.open("rb") as file:
                lines = file.read(TOKEN_BYTES).decode("ascii", "replace").split()
        except OSError as error:
            raise UnusableError(f"{where}: {error.strerror}") from error
        if not 1 <= len(lines) <= KEYS:
            raise UnusableError(f"{where}: {len(lines)} keys, and one or two can be used")
        keys = []
        for number, line in enumerate(lines, 1):
            try:
                key = base64.b64decode(line.removeprefix(PREFIX), validate=True)
            except binascii.Error:
                key = b""
            if not line.startswith(PREFIX) or not LEAST_BYTES <= len(key) <= MOST_BYTES:
                raise UnusableError(f"{where}: key {number} is not {PREFIX} and {LEAST_BYTES} to {MOST_BYTES} bytes")
            keys.append(key)
        return keys


def signature(keys: Sequence[bytes], name: str, seconds: int, body: bytes) -> str:
    """The header: a signature by each key, so that a receiver that knows either takes it."""
    signed = b"%b.%d.%b" % (name.encode(), seconds, body)
    digests = (base64.b64encode(hmac.digest(key, signed, "sha256")).decode() for key in keys)
    return " ".join(f"v1,{digest}" for digest in digests)
