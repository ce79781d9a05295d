import ipaddress
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, PlainValidator, StrictBool, ValidationInfo, WithJsonSchema

from agent.config.scalars import Duration, FilePath, Size, VendorName, expand, shown, written
from agent.config.sinks.section import Found, Tls, Told, spoken
from agent.credentials import Tls as Pems

_SERVER = r"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9_.-]+):[0-9]{1,5}"


def _servers(value: object, info: ValidationInfo) -> str:
    text = expand(value, info) if isinstance(value, str) else ""
    if not re.fullmatch(f"{_SERVER}(?:,{_SERVER})*", text):
        cure = "Write one such as kafka-1.example:9093, or several with commas"
        raise ValueError(f"{shown(value)} is not a list of servers with their ports. {cure}.")
    return text


def _topic(value: object) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"[A-Za-z0-9._-]{1,249}", value) or value in (".", ".."):
        raise ValueError(f"{shown(value)} is not a topic. Use letters, digits, dot, dash and _.")
    return value


Servers = Annotated[str, PlainValidator(_servers), WithJsonSchema({"type": "string", "minLength": 1})]
Topic = Annotated[str, PlainValidator(_topic), WithJsonSchema({"type": "string", "minLength": 1})]


class Kafka(Told):
    """Records as CloudEvents on a topic of Apache Kafka or Confluent, keyed by the customer."""

    kind: Literal["kafka"]
    """`kafka`."""
    servers: Servers
    """The brokers to begin with, as HOST:PORT, with commas between them. No default. `${NAME}` is read from the
    environment."""
    topic: Topic
    """The topic; it must be there. No default."""
    plaintext: StrictBool = False
    """Whether what is sent crosses the network without TLS. Default false."""
    tls: Tls = written({})
    """PEM files: ca_file, cert_file, key_file. Default: the system's authorities, and no certificate of our own."""
    username: VendorName | None = None
    """Whom we are to the brokers; at Confluent, the API key. Default: nobody, or whom our certificate says."""
    password_file: FilePath | None = None
    """File with the password; at Confluent, the API secret. Default: there is no user name either."""
    mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = "PLAIN"
    """How the password is told. Default PLAIN."""
    dedupe_horizon: Duration | None = None
    """How long who reads the topic discards an event whose source and id it has seen; `0s`: it does not. A billing sink
    must say, for what may have arrived is sent again only within it. Default for a copy: for ever."""
    timeout: Duration = written("30s")
    """How long the reports of a batch may take, 1s or more; what has none then is ambiguous. Default 30s."""
    max_batch: Annotated[int, Field(ge=1, le=50_000, strict=True)] = 2_000
    """Most events that are under way. Default 2000."""
    max_bytes: Size = written("16MiB")
    """Most that they may come to, 4KiB or more. Default 16MiB."""

    @property
    def remembers(self) -> int | None:
        """How long it discards a repeated id, ns; None: for ever."""
        return self.dedupe_horizon

    @property
    def destination(self) -> tuple[str, ...]:
        """What may not change while something that was frozen for it is unsettled: whom it goes to, in which form."""
        return self.kind, self.servers, self.topic

    @property
    def place(self) -> tuple[str, str]:
        """The key that says where it goes, and its value: no two sinks may share it."""
        return "topic", f"{self.topic} of {self.servers}"

    @property
    def allows(self) -> int:
        """How long an attempt may take, ns."""
        return self.timeout

    def arguments(self) -> Mapping[str, object]:
        """What its sink is made of, beside id and role, as plain values."""
        names = ("servers", "topic", "plaintext", "username", "password_file", "mechanism", "dedupe_horizon")
        return {
            **{name: getattr(self, name) for name in (*names, "timeout", "max_batch", "max_bytes", "max_age")},
            "tls": Pems(self.tls.ca_file, self.tls.cert_file, self.tls.key_file),
            "negative": self.negative or self.role == "copy",
        }

    def secrets(self) -> Mapping[str, Path | None]:
        """The files that nobody else should be able to read, by key."""
        return {"password_file": self.password_file, "tls.key_file": self.tls.key_file}

    def files(self) -> Mapping[str, Path | None]:
        """The other files that it reads, by key."""
        return {"tls.ca_file": self.tls.ca_file, "tls.cert_file": self.tls.cert_file}

    def problems(self) -> Found:
        """What it can be wrong about by itself: keys below it, what and cure."""
        if self.plaintext and self.tls != Tls():
            yield ("tls",), "plaintext knows no TLS. Leave one of them out."
        if self.plaintext and self.username is not None and not all(map(_is_here, self.servers.split(","))):
            yield ("plaintext",), "the password would cross the network in the clear. Leave plaintext out."
        if (self.username is None) != (self.password_file is None):
            yield ("password_file",), "a user name and a password belong together. Write both, or neither."
        yield from spoken(self.timeout, self.max_bytes, self.tls)
        if self.role == "billing":
            yield from self._billed()

    def _billed(self) -> Found:
        if self.dedupe_horizon is None:
            text = "not written, and a billing sink must say how long who reads the topic discards an id it has seen"
            yield ("dedupe_horizon",), f"{text}. Write 32d, or what it does; 0s if it takes everything again."
        told = self.dimensions
        if told is None or any(dimension.aggregation is None for dimension in told.values()):
            text = "records are deltas, and who reads the topic cannot be asked whether it adds them"
            yield ("dimensions",), f"{text}. Name the dimensions, each with `aggregation: sum`, if it does."


def _is_here(server: str) -> bool:
    """Whether a server is on this machine."""
    host = server.rpartition(":")[0].strip("[]")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
