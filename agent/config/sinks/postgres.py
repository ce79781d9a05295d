import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import parse_qsl, urlsplit

from pydantic import Field, PlainValidator, StrictBool, ValidationInfo, WithJsonSchema

from agent.address import is_loopback
from agent.config.scalars import Duration, FilePath, Size, expand, shown, written
from agent.config.sinks.section import Found, Told, spoken

SETTINGS = ("channel_binding", "host", "sslcert", "sslkey", "sslmode", "sslrootcert")
ENCRYPTED = ("require", "verify-ca", "verify-full")


def _database(value: object, info: ValidationInfo) -> str:
    text = expand(value, info) if isinstance(value, str) else ""
    example = "Write one such as postgresql://metering@db.example:5432/billing?sslmode=verify-full"
    try:
        found = urlsplit(text)
        _ = found.port
    except ValueError:
        found = urlsplit("")
    settings = dict(parse_qsl(found.query))
    if found.password is not None or "password" in settings:  # it is not repeated
        raise ValueError("holds a password. Put it into a file, and name that in password_file.")
    if found.scheme not in ("postgresql", "postgres") or not found.path.strip("/") or found.fragment or " " in text:
        raise ValueError(f"{shown(value)} is not the address of a database. {example}.")
    if unknown := [name for name in settings if name not in SETTINGS]:
        raise ValueError(f"{unknown[0]} is not set here. After ? stand any of {', '.join(SETTINGS)}.")
    if not found.hostname and not settings.get("host", "").startswith("/"):
        raise ValueError(f"{shown(value)} names no host. {example}, or ?host=/run/postgresql for a socket.")
    return text


def _table(value: object) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"(?:[a-z_][a-z0-9_]{0,62}\.)?[a-z_][a-z0-9_]{0,62}", value):
        raise ValueError(f"{shown(value)} is not a table. Use small letters, digits and _: usage, or billing.usage.")
    return value


Database = Annotated[str, PlainValidator(_database), WithJsonSchema({"type": "string", "format": "uri"})]
Table = Annotated[str, PlainValidator(_table), WithJsonSchema({"type": "string", "minLength": 1})]


class Postgres(Told):
    """Records as rows of a PostgreSQL table of your own, once each for ever."""

    kind: Literal["postgres"]
    """`postgres`."""
    url: Database
    """Where it is, as libpq writes it: `postgresql://USER@HOST:PORT/DATABASE?sslmode=verify-full`. No default.
    `${NAME}` is read from the environment."""
    password_file: FilePath | None = None
    """File with the password; read for each connection. Default: none is given."""
    table: Table = "usage_records"
    """The table, with its schema before a dot if it needs one. Default usage_records."""
    create: StrictBool = True
    """Whether the table is made where it is missing. Default true."""
    negative: StrictBool = True
    """Whether negative values, as corrections are, become rows. Default true; else they are held for a person."""
    timeout: Duration = written("30s")
    """How long a transaction may take, 1s or more. Default 30s."""
    max_batch: Annotated[int, Field(ge=1, le=50_000, strict=True)] = 5_000
    """Most rows in a transaction. Default 5000."""
    max_bytes: Size = written("16MiB")
    """Most that they may come to as JSON, 4KiB or more. Default 16MiB."""
    concurrency: Annotated[int, Field(ge=1, le=64, strict=True)] = 2
    """Most connections. Default 2."""

    @property
    def destination(self) -> tuple[str, ...]:
        """What may not change while something that was frozen for it is unsettled: whom it goes to, in which form."""
        return self.kind, self.url, self.table

    @property
    def place(self) -> tuple[str, str]:
        """The key that says where it goes, and its value: no two sinks may share it."""
        return "table", f"{self.table} of {self.url}"

    @property
    def allows(self) -> int:
        """How long an attempt may take, ns."""
        return self.timeout

    def arguments(self) -> Mapping[str, object]:
        """What its sink is made of, beside id and role, as plain values."""
        names = ("url", "table", "password_file", "create", "timeout", "max_batch", "max_bytes", "concurrency")
        return {
            **{name: getattr(self, name) for name in names},
            "max_age": self.max_age,
            "negative": self.negative or self.role == "copy",
        }

    def secrets(self) -> Mapping[str, Path | None]:
        """The files that nobody else should be able to read, by key."""
        return {"password_file": self.password_file}

    def problems(self) -> Found:
        """What it can be wrong about by itself: keys below it, what and cure."""
        remote = urlsplit(self.url).hostname is not None and not is_loopback(self.url)
        if remote and dict(parse_qsl(urlsplit(self.url).query)).get("sslmode") not in ENCRYPTED:
            yield ("url",), "what is sent would cross the network in the clear. Add ?sslmode=verify-full."
        yield from spoken(self.timeout, self.max_bytes)
