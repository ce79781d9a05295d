"""Records as CloudEvents on a Kafka topic: one message each, keyed by the customer, so that theirs stay in order.

The producer is idempotent: within one life of it, what the library sends again is there once. Across lives it is not,
so that who reads the topic discards a repeated pair of source and id, as the specification of CloudEvents has it. A
message of which no good report came may have arrived, also one that the library had still in its queue: it may have
sent it before. So a cluster that cannot be reached is found out before anything is handed to the library.
"""

import asyncio
import time
from collections import deque
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
from confluent_kafka import KafkaError, KafkaException, Producer

from agent.credentials import Password, Tls, UnusableError
from agent.model import NS_PER_S
from agent.sinks import Answer, Entry, Finding, Outcome, Terms
from agent.sinks.cloudevents import SINGLE, structured
from agent.spool.outbox import Submission

REACH_SECONDS = 10.0
POLL_SECONDS = 0.002
HEARD = 20  # errors of the library beside its reports, of which the last tell why nobody answers
HEADERS: list[tuple[str, str | bytes | None]] = [("content-type", SINGLE.encode())]
REJECTED = (KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.INVALID_MSG, KafkaError.INVALID_RECORD)
REFUSED = (
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.CLUSTER_AUTHORIZATION_FAILED,
    KafkaError.UNKNOWN_TOPIC_OR_PART,
    KafkaError._AUTHENTICATION,  # noqa: SLF001 - so the library calls its own codes
    KafkaError._UNKNOWN_TOPIC,  # noqa: SLF001
)


class _Keyed(msgspec.Struct):
    subject: str = ""


_keyed = msgspec.json.Decoder(_Keyed)


class KafkaSink:
    """Produces to one topic, which must be there."""

    kind = "kafka"

    def __init__(
        self,
        sink_id: str,
        role: str,
        servers: str,
        topic: str,
        *,
        plaintext: bool = False,
        mechanism: str = "PLAIN",
        username: str | None = None,
        password_file: Path | None = None,
        tls: Tls = Tls(),  # noqa: B008 - it cannot change
        timeout: int = 30 * NS_PER_S,
        max_batch: int = 2_000,
        max_bytes: int = 16 << 20,
        max_age: int | None = None,
        dedupe_horizon: int | None = None,
        negative: bool = False,
    ) -> None:
        """Open nothing yet. `servers` as in `bootstrap.servers`; `timeout` and `dedupe_horizon` in ns.

        `dedupe_horizon`: how long who reads the topic knows a repeated id.
        """
        self.id, self.role, self._topic, self._seconds = sink_id, role, topic, timeout / NS_PER_S
        self.terms = Terms(
            max_batch=max_batch,
            max_bytes=max_bytes,
            max_age=max_age,
            dedupe_horizon=dedupe_horizon,
            negative=negative,
        )
        self._password = None if password_file is None else Password(password_file)
        self._settings: dict[str, Any] = {
            "bootstrap.servers": servers,
            "client.id": "metering-agent",
            "enable.idempotence": True,
            "acks": "all",
            "linger.ms": 5,
            "compression.type": "lz4",
            "message.timeout.ms": round(self._seconds * 2000),  # ours ends before
            "socket.connection.setup.timeout.ms": 5_000,
            "reconnect.backoff.max.ms": 1_000,
            "log_level": 0,  # what fails is told by reports
            "security.protocol": f"{'SASL_' if username else ''}{'PLAINTEXT' if plaintext else 'SSL'}",
        }
        if username is not None:
            self._settings |= {"sasl.mechanism": mechanism, "sasl.username": username}
        names = {"ca_file": "ssl.ca.location", "cert_file": "ssl.certificate.location", "key_file": "ssl.key.location"}
        self._settings |= {names[name]: str(path) for name, path in tls.files}
        self._producer: Producer | None = None
        self._heard: deque[KafkaError] = deque(maxlen=HEARD)

    def render(self, entry: Entry) -> bytes:
        """One event as canonical JSON. Raises ValueError for what a CloudEvent does not take."""
        return structured(entry, anonymous=True)

    async def stage(self, submission: Submission) -> None:
        """Nothing is made ready."""

    async def send(self, submission: Submission) -> Answer:
        """Produce the events as they were frozen, and wait for the report of each."""
        try:
            producer = await self._reached()
        except UnusableError as error:
            why = f"sinks[{self.id}].{error}. Mend the file; nothing is sent without it."
            return Answer(outcome="retry", why=why, left=False, blocked=True)
        except KafkaException as error:
            failed: KafkaError = error.args[0]
            cure = f". Mend sinks[{self.id}], its topic or what is granted; everything is kept"
            refused = failed.code() in REFUSED
            why = f"{_said(failed)}{cure if refused else ''}"
            return Answer(outcome="retry", why=why, left=False, blocked=refused)
        items: dict[int, tuple[Outcome, str]] = {}
        try:
            await self._produced(producer, submission, items)
        finally:
            if len(items) < len(submission.items) or any(outcome != "delivered" for outcome, _ in items.values()):
                self._forget()  # its sequence may have a gap, after which it takes nothing
        seqs = [item.seq for item in submission.items]
        unsure = [seq for seq in seqs if seq not in items or items[seq][0] == "ambiguous"]
        why = next((why for outcome, why in items.values() if outcome != "delivered"), "all acknowledged")
        if unsure:
            why = f"no good report of {len(unsure)} of {len(seqs)} messages within {self._seconds:g} s"
            return Answer(outcome="ambiguous", why=why, items=items)
        refused = any(outcome == "retry" for outcome, _ in items.values())
        return Answer(outcome="retry" if refused else "delivered", why=why, items=items, blocked=refused)

    async def ask(self) -> list[Finding]:
        """Whether the cluster can be reached, takes our credentials and has the topic. Sends nothing."""
        try:
            await self._reached()
        except UnusableError as error:
            return [Finding("topic", False, str(error), "Mend the file.")]
        except KafkaException as error:
            return [Finding("topic", False, _said(error.args[0]), f"Mend sinks[{self.id}], or make {self._topic}.")]
        return [Finding("topic", True, self._topic)]

    async def close(self) -> None:
        """Let go of connections."""
        self._forget()

    # -- the library -----------------------------------------------------------------------------------------------

    async def _reached(self) -> Producer:
        """A producer whose cluster answers and has the topic. Raises UnusableError and KafkaException."""
        if self._producer is None:
            secret = {} if self._password is None else {"sasl.password": self._password.text()}
            self._producer = Producer({**self._settings, **secret, "error_cb": self._heard.append})
        producer = self._producer
        try:
            found = await asyncio.to_thread(producer.list_topics, self._topic, min(REACH_SECONDS, self._seconds))
        except KafkaException as error:
            self._heard.clear()
            producer.poll(0)  # what it heard meanwhile says more than that nobody answered
            self._forget()
            said = next((heard for heard in self._heard if heard.code() in REFUSED), None)
            raise KafkaException(said or error.args[0]) from error
        wrong = found.topics[self._topic].error
        if wrong is not None:
            raise KafkaException(wrong)
        return producer

    async def _produced(
        self, producer: Producer, submission: Submission, items: dict[int, tuple[Outcome, str]]
    ) -> None:
        """Fill in what became of each, for as long as there is time."""
        until = time.monotonic() + self._seconds
        for item in submission.items:
            key = _keyed.decode(item.payload).subject.encode()
            told = partial(_report, items, item.seq)
            while item.seq not in items and time.monotonic() < until:
                try:
                    producer.produce(self._topic, item.payload, key, headers=HEADERS, on_delivery=told)
                    break
                except BufferError:  # its queue is full
                    producer.poll(0)
                    await asyncio.sleep(POLL_SECONDS)
                except KafkaException as error:
                    _report(items, item.seq, error.args[0], None)
        while len(items) < len(submission.items) and time.monotonic() < until:
            producer.poll(0)
            await asyncio.sleep(POLL_SECONDS)

    def _forget(self) -> None:
        """End this producer; what it still had may have been sent or not."""
        if self._producer is not None:
            self._producer.purge(in_queue=True, in_flight=True, blocking=False)
            self._producer.poll(0)
            self._producer = None


def _report(items: dict[int, tuple[Outcome, str]], seq: int, error: KafkaError | None, _message: object) -> None:
    """Note what a delivery report says of one message."""
    if error is None:
        items[seq] = "delivered", "acknowledged by all in-sync replicas"
    elif error.code() in REJECTED:
        items[seq] = "rejected", _said(error)
    else:
        items[seq] = "retry" if error.code() in REFUSED else "ambiguous", _said(error)


def _said(error: KafkaError) -> str:
    return " ".join(f"{error.name()}: {error.str()}".split())[:300]
