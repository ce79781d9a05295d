"""Files of rows in a bucket of one's own, each named by what is in it and written only if it is not there.

The name is a digest of the rows as they were frozen, before any compression: a file that is sent again, by this process
or another, with this release or the next, has the name that it had, and the bucket says that it has it. So a submission
is never sent in parts. Its partition is the day on which it was frozen, which is as fixed as its rows are.
"""

import asyncio
import configparser
import datetime as dt
import gzip
import time
from collections.abc import AsyncIterator, Collection
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

import msgspec
import obstore
from obstore.exceptions import (
    AlreadyExistsError,
    BaseError,
    NotSupportedError,
    PermissionDeniedError,
    UnauthenticatedError,
)
from obstore.store import S3Store

from agent.credentials import UnusableError
from agent.errors import SinkError
from agent.model import NS_PER_S
from agent.record import nanoseconds, rfc3339
from agent.sinks import Answer, Entry, Finding, Holding, Terms
from agent.sinks.encoding import LARGEST, Compression, Format, encoded, fits, suffix
from agent.sinks.row import row
from agent.spool.outbox import Submission

if TYPE_CHECKING:
    from obstore.store import S3Credential

Layout = Literal["rows", "paigo"]

CONNECT = dt.timedelta(seconds=10)
FRESH = dt.timedelta(minutes=1)  # for so long credentials are used before their file is read again
UNREACHED = "ConnectError("  # how the library tells that no connection stood
TYPES = {".parquet": "application/vnd.apache.parquet", ".ndjson": "application/x-ndjson"}
_json = msgspec.json.Encoder(order="sorted")


class S3Sink:
    """Puts files under `s3://bucket/prefix`, at Amazon's or at `endpoint`."""

    kind = "s3"

    def __init__(
        self,
        sink_id: str,
        role: str,
        url: str,
        *,
        endpoint: str | None = None,
        region: str = "us-east-1",
        credentials_file: Path | None = None,
        layout: Layout = "rows",
        format: Format = "ndjson",  # noqa: A002 - as the configuration calls it
        compression: Compression = "gzip",
        timeout: int = 60 * NS_PER_S,
        max_batch: int = 10_000,
        max_bytes: int = 64 << 20,
        concurrency: int = 2,
        max_age: int | None = None,
        negative: bool = True,
    ) -> None:
        """Open nothing yet. `timeout` is in ns. Without `credentials_file`, the environment's and the machine's."""
        self.id, self.role, self._layout, self._format, self._compression = sink_id, role, layout, format, compression
        self.terms = Terms(
            max_batch=max_batch,
            max_bytes=max_bytes,
            concurrency=concurrency,
            max_age=max_age,
            negative=negative,
            splits=False,
        )
        self._suffix, self._file = suffix(format, compression), credentials_file
        place = urlsplit(url)
        told: dict[str, Any] = {} if endpoint is None else {"endpoint": endpoint, "virtual_hosted_style_request": False}
        if credentials_file is not None:
            told["credential_provider"] = self._credentials
        self._seconds = timeout / NS_PER_S
        self._store = S3Store(
            place.netloc,
            prefix=place.path.strip("/") or None,
            region=region,
            client_options={
                "timeout": dt.timedelta(seconds=self._seconds),
                "connect_timeout": min(CONNECT, dt.timedelta(seconds=self._seconds / 2)),
                "allow_http": endpoint is not None and endpoint.startswith("http://"),
            },
            retry_config={"max_retries": 0, "retry_timeout": dt.timedelta(seconds=self._seconds)},
            **told,
        )

    def render(self, entry: Entry) -> bytes:
        """One row as canonical JSON. Raises ValueError for what its file cannot hold."""
        if self._layout == "paigo":
            return _json.encode(
                {
                    "timestamp": rfc3339(entry.at),
                    "customerId": entry.customer,
                    "dimensionId": entry.dimension,
                    "recordValue": entry.value,
                    "metadata": {"recordId": entry.id},
                }
            )
        if self._format == "parquet" and not fits(entry.value):
            raise ValueError(f"{entry.value} {entry.unit}: a file of Parquet holds less than {LARGEST}")
        return row(entry)

    async def stage(self, submission: Submission) -> None:
        """Nothing is made ready."""

    async def send(self, submission: Submission) -> Answer:
        """Put the rows as they were frozen into a file of their own."""
        rows = [item.payload for item in submission.items]
        name = self.name(submission)
        try:
            body = await asyncio.to_thread(encoded, rows, self._format, self._compression)
            async with asyncio.timeout(self._seconds):
                attributes = {"Content-Type": TYPES.get(self._suffix, "application/octet-stream")}
                try:
                    await obstore.put_async(
                        self._store, name, body, mode="create", use_multipart=False, attributes=attributes
                    )
                except AlreadyExistsError:  # or two of us at once, of whom neither may have succeeded: it is looked at
                    await obstore.head_async(self._store, name)
                    return Answer(outcome="duplicate", why=f"{name} was there")
        except (BaseError, OSError, UnusableError) as error:  # a TimeoutError is an OSError
            return self._failed(error)
        return Answer(outcome="delivered", why=name)

    def name(self, submission: Submission) -> str:
        """Where a submission goes, below the prefix."""
        day = rfc3339(submission.prepared)[:10]
        digest = sha256(b"\n".join(item.payload for item in submission.items)).hexdigest()[:40]
        return f"date={day}/{digest}{self._suffix}"

    async def ask(self) -> list[Finding]:
        """Whether the bucket can be reached and takes our credentials. Writes nothing."""
        try:
            async with asyncio.timeout(self._seconds):
                await obstore.list(self._store, "date=0", chunk_size=1).collect_async()
        except (BaseError, OSError, UnusableError) as error:
            failed = self._failed(error)
            return [Finding("bucket", False, failed.why, f"Mend sinks[{self.id}] or its credentials.")]
        return [Finding("bucket", True, "it can be listed")]

    async def holdings(self, start: int, end: int, customers: Collection[str]) -> AsyncIterator[Holding]:
        """All rows of these customers whose time lies in `[start, end)`, ns. Raises SinkError with the cure.

        Every file is read, for one of today may hold usage of last month.
        """
        if self._format == "parquet" or self._compression == "zstd":
            raise SinkError(f"sinks[{self.id}]: only lines of JSON, plain or gzip, are read back. Query the files.")
        try:
            async for listed in obstore.list(self._store):
                for name in (meta["path"] for meta in listed if meta["path"].endswith(self._suffix)):
                    found = bytes(await (await obstore.get_async(self._store, name)).bytes_async())
                    for line in (gzip.decompress(found) if self._compression == "gzip" else found).splitlines():
                        held = self._held(line)
                        if held.customer in customers and start <= held.at < end:
                            yield held
        except (BaseError, OSError, UnusableError, ValueError) as error:
            raise SinkError(f"sinks[{self.id}]: {_said(error)}. Mend its credentials, or what is not ours.") from error

    async def close(self) -> None:
        """The library lets go of connections by itself."""

    # -- what came back --------------------------------------------------------------------------------------------

    def _held(self, line: bytes) -> Holding:
        told = msgspec.json.decode(line)
        if self._layout == "paigo":
            names = ("customerId", "dimensionId", "recordValue")
            customer, dimension, value = (told[name] for name in names)
            return Holding(customer, dimension, value, nanoseconds(told["timestamp"]), told["metadata"]["recordId"])
        return Holding(told["customer"], told["dimension"], told["quantity"], nanoseconds(told["at"]), told["id"])

    def _failed(self, error: Exception) -> Answer:
        """What an attempt that failed means. Any may be made again, whatever it did: the name knows a repeat."""
        said = _said(error) if str(error) else f"not done within {self._seconds:g} s"
        if isinstance(error, UnusableError):
            why = f"sinks[{self.id}].{said}. Mend the file; nothing is sent without it."
            return Answer(outcome="retry", why=why, left=False, blocked=True)
        if isinstance(error, PermissionDeniedError | UnauthenticatedError | FileNotFoundError | NotSupportedError):
            why = f"{said}. Mend sinks[{self.id}], its bucket or its credentials; everything is kept"
            return Answer(outcome="retry", why=why, definite=True, blocked=True)
        if UNREACHED in str(error):
            return Answer(outcome="retry", why=said, left=False)
        return Answer(outcome="ambiguous", why=said)

    def _credentials(self) -> "S3Credential":
        """Those of the profile `default`, as they stand in the file now. Raises UnusableError."""
        found = configparser.RawConfigParser()
        assert self._file is not None
        try:
            found.read_string(self._file.read_text())
            profile = found["default"]
            key, secret = profile["aws_access_key_id"], profile["aws_secret_access_key"]
        except (OSError, UnicodeDecodeError, configparser.Error, KeyError) as error:
            why = error.strerror if isinstance(error, OSError) else "no access key of a profile [default]"
            raise UnusableError(f"credentials_file: {self._file}: {why}") from None
        return {
            "access_key_id": key,
            "secret_access_key": secret,
            "token": profile.get("aws_session_token"),
            "expires_at": dt.datetime.fromtimestamp(time.time(), dt.UTC) + FRESH,
        }


def _said(error: BaseException) -> str:
    """One line for people. The library's errors go on with how they are represented: that is left out."""
    return " ".join(str(error).split("Debug source:")[0].split())[:300]
