import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, PlainValidator, StrictBool, ValidationInfo, WithJsonSchema

from agent.address import is_loopback
from agent.config.scalars import Duration, FilePath, Label, Size, Url, expand, shown, written
from agent.config.sinks.section import Found, Told, spoken

_BUCKET = r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](?:/[A-Za-z0-9!_.*'()=/-]*)?"


def _bucket(value: object, info: ValidationInfo) -> str:
    text = expand(value, info) if isinstance(value, str) else ""
    if not re.fullmatch(_BUCKET, text) or "//" in text[5:]:
        raise ValueError(f"{shown(value)} is not a place in a bucket. Write one such as s3://usage/metering.")
    return text.rstrip("/")


Bucket = Annotated[str, PlainValidator(_bucket), WithJsonSchema({"type": "string", "format": "uri"})]


class S3(Told):
    """Records as files in a bucket of your own, each named by its content and written once."""

    kind: Literal["s3"]
    """`s3`."""
    url: Bucket
    """The bucket, and what the names of its files begin with: `s3://BUCKET/PREFIX`. No default. `${NAME}` is read from
    the environment."""
    endpoint: Url | None = None
    """The server, where it is not Amazon's: MinIO, Ceph, R2 or another that knows `If-None-Match`. Default: Amazon."""
    region: Label = "us-east-1"
    """The bucket's region. Default us-east-1."""
    credentials_file: FilePath | None = None
    """File as the AWS CLI has it, whose profile [default] is used; read again each minute. Default: the environment
    (AWS_ACCESS_KEY_ID and so on), a pod's web identity, or the machine's role."""
    layout: Literal["rows", "paigo"] = "rows"
    """What a row holds: `rows`, all that a record says; `paigo`, the five fields that Paigo's datastore takes. Default
    rows."""
    format: Literal["ndjson", "parquet"] = "ndjson"
    """`ndjson`: lines of JSON; `parquet`. Default ndjson."""
    compression: Literal["none", "gzip", "zstd"] = "gzip"
    """How files are compressed. Default gzip."""
    negative: StrictBool = True
    """Whether negative values, as corrections are, become rows. Default true; else they are held for a person."""
    timeout: Duration = written("60s")
    """How long a file may take, 1s or more; then the attempt is ambiguous. Default 60s."""
    max_batch: Annotated[int, Field(ge=1, le=100_000, strict=True)] = 10_000
    """Most rows in a file. Default 10000."""
    max_bytes: Size = written("64MiB")
    """Most that they may come to as JSON, 4KiB or more. Default 64MiB."""
    concurrency: Annotated[int, Field(ge=1, le=64, strict=True)] = 2
    """Most files at a time. Default 2."""

    @property
    def destination(self) -> tuple[str, ...]:
        """What may not change while something that was frozen for it is unsettled: whom it goes to, in which form."""
        return self.kind, self.endpoint or "", self.url, self.layout, self.format, self.compression

    @property
    def place(self) -> tuple[str, str]:
        """The key that says where it goes, and its value: no two sinks may share it."""
        return "url", f"{self.endpoint or ''}{self.url}"

    @property
    def allows(self) -> int:
        """How long an attempt may take, ns."""
        return self.timeout

    def arguments(self) -> Mapping[str, object]:
        """What its sink is made of, beside id and role, as plain values."""
        names = ("url", "endpoint", "region", "credentials_file", "layout", "format", "compression", "timeout")
        return {
            **{name: getattr(self, name) for name in (*names, "max_batch", "max_bytes", "concurrency", "max_age")},
            "negative": self.negative or self.role == "copy",
        }

    def secrets(self) -> Mapping[str, Path | None]:
        """The files that nobody else should be able to read, by key."""
        return {"credentials_file": self.credentials_file}

    def problems(self) -> Found:
        """What it can be wrong about by itself: keys below it, what and cure."""
        if self.endpoint is not None and self.endpoint.startswith("http://") and not is_loopback(self.endpoint):
            yield ("endpoint",), "what is sent would cross the network in the clear. Use https."
        if self.layout == "paigo" and self.format != "ndjson":
            yield ("format",), "Paigo takes lines of JSON. Write ndjson, or leave it out."
        if self.layout == "paigo" and self.role == "billing":
            told = self.dimensions
            if told is None or any(dimension.aggregation is None for dimension in told.values()):
                text = "records are deltas, and files cannot be asked whether Paigo adds them"
                yield ("dimensions",), f"{text}. Name the dimensions, each with `aggregation: sum`, if it does."
        yield from spoken(self.timeout, self.max_bytes)
