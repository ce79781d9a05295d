"""Any billing system that takes JSON over HTTP, by what its section says: the body, the batch, who we are, the answers.

Nothing of a vendor is written here. What one takes and answers is data (`config/presets`), so that one of which nobody
here has heard is twenty lines of YAML.
"""

import gzip
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import msgspec

from agent.credentials import Tls
from agent.model import NS_PER_S
from agent.sinks import Answer, Entry, Finding, Terms
from agent.sinks.login import Login, NoReplyError
from agent.sinks.rules import Rule, answer
from agent.sinks.template import Body, Template
from agent.sinks.wire import Wire
from agent.spool.outbox import Submission

ANSWER_BYTES = 1 << 20  # of an answer that may speak of every record

Shape = Literal["array", "list", "single", "ndjson"]


class HttpSink:
    """Sends each batch as one request, formed as the section says."""

    kind = "http"

    def __init__(
        self,
        sink_id: str,
        role: str,
        url: str,
        *,
        body: Body,
        shape: Shape,
        under: str = "",
        beside: Mapping[str, object] | None = None,
        method: str = "POST",
        content_type: str = "application/json",
        headers: Mapping[str, str] | None = None,
        compress: bool = False,
        rules: Sequence[Rule] = (),
        login: Login | None = None,
        tls: Tls = Tls(),  # noqa: B008 - it cannot change
        timeout: int = 30 * NS_PER_S,
        max_batch: int = 1,
        max_bytes: int = 1 << 20,
        concurrency: int = 4,
        rate: int | None = None,
        max_age: int | None = None,
        dedupe_horizon: int | None = None,
        negative: bool = False,
        asks: bool = False,
        dated: Callable[[int], None] | None = None,
    ) -> None:
        """Open nothing yet. Raises ValueError for a template or an address that cannot be used.

        `shape`: a bare `array`, a `list` under the key `under` with the constants `beside` it, one `single` object, or
        lines (`ndjson`). `rules` say what replies mean. `Terms` explains the terms, `Wire` the connection; times in ns.
        """
        self.id, self.role = sink_id, role
        self.terms = Terms(
            max_batch=1 if shape == "single" else max_batch,
            max_bytes=max_bytes,
            concurrency=concurrency,
            rate=rate,
            max_age=max_age,
            dedupe_horizon=dedupe_horizon,
            negative=negative,
            asks=asks,
        )
        self._template, self._rules = Template(body), rules
        self._shape, self._under, self._beside = shape, under, dict(beside or {})
        self._method, self._content_type, self._compress = method, content_type, compress
        self._headers = {**(headers or {}), **({"Content-Encoding": "gzip"} if compress else {})}
        self._wire = Wire(
            f"sinks[{sink_id}]",
            url,
            {},
            login=login,
            tls=tls,
            timeout=timeout,
            concurrency=concurrency,
            dated=dated,
        )

    def render(self, entry: Entry) -> bytes:
        """The body's template with the record in it. Raises ValueError for what cannot be told so."""
        return self._template.render(entry)

    def body(self, payloads: Sequence[bytes]) -> bytes:
        """What a request with these records holds, before it is compressed."""
        match self._shape:
            case "single":
                (one,) = payloads
                return one
            case "ndjson":
                return b"".join(payload + b"\n" for payload in payloads)
            case "array":
                return b"[%b]" % b",".join(payloads)
            case _:
                beside = {**self._beside, self._under: [msgspec.Raw(payload) for payload in payloads]}
                return msgspec.json.encode(beside, order="sorted")

    def shown(self, payloads: Sequence[bytes]) -> list[str]:
        """The request as it would leave, for people: without the secrets, and not compressed yet."""
        headers = {"Content-Type": self._content_type, **self._headers}
        return self._wire.shown(self._method, headers, self.body(payloads))

    async def stage(self, submission: Submission) -> None:
        """Nothing is made ready."""

    async def send(self, submission: Submission) -> Answer:
        """Send the records as they were frozen, and say what came of each."""
        payloads = [item.payload for item in submission.items]
        body = self.body(payloads)
        if self._compress:
            body = gzip.compress(body, mtime=0)
        try:
            reply = await self._wire.exchange(
                self._method, self._wire.url, body, self._content_type, ANSWER_BYTES, self._headers
            )
        except NoReplyError as error:
            return error.answer
        seqs = [item.seq for item in submission.items]
        return answer(reply, self._rules, seqs, lambda: [self._template.id_of(p) for p in payloads], self._wire.hide)

    async def ask(self) -> list[Finding]:
        """Whether it can be reached and does not refuse our credentials at once. It cannot be asked what it sums."""
        return [await self._wire.knock()]

    async def close(self) -> None:
        """Let go of connections."""
        await self._wire.close()
