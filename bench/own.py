"""Delivery to systems of one's own: a backlog through a drain into a real PostgreSQL and a real S3 server.

Both are processes on this machine and this disk, so that they take their share of its cores. PostgreSQL syncs each
commit; the S3 server leaves its files to the page cache.
"""

import shutil
import tempfile
from pathlib import Path

from msgspec import Struct

from bench import spool
from bench.delivery import Sent, table, through
from bench.fresh import fresh
from bench.scale import Scale
from bench.table import count
from tests.own.gateway import Gateway
from tests.own.postgres import Postgres, missing
from tests.own.programs import absent


class Work(Struct):
    """A spool in `data`, and where it is delivered to: a database, or a bucket's `endpoint` in a `format`."""

    data: str
    url: str
    secret: str
    endpoint: str = ""
    format: str = ""


def into_rows(work: Work) -> Sent:
    """Deliver all to PostgreSQL."""
    from agent.delivery.rendering import Route
    from agent.sinks.postgres import PostgresSink

    sink = PostgresSink(spool.SINK, "billing", work.url, password_file=Path(work.secret))
    return through(sink, Route(), Path(work.data))


def into_files(work: Work) -> Sent:
    """Deliver all to S3."""
    from agent.delivery.rendering import Route
    from agent.sinks.s3 import S3Sink

    form, compression = ("parquet", "zstd") if work.format == "parquet" else ("ndjson", "gzip")
    sink = S3Sink(
        spool.SINK,
        "billing",
        work.url,
        endpoint=work.endpoint,
        credentials_file=Path(work.secret),
        format=form,  # type: ignore[arg-type]
        compression=compression,  # type: ignore[arg-type]
    )
    return through(sink, Route(), Path(work.data))


def run(scale: Scale, data: Path) -> None:
    """Print the table."""
    records = max(spool.BATCH, scale.records // 5)
    columns: dict[str, Sent] = {}
    if why := missing():
        print(f"without PostgreSQL: {why}")
    else:
        columns["PostgreSQL"] = _rows(records, data)
    if why := absent("go"):
        print(f"without S3: {why}")
    else:
        for form in ("ndjson", "parquet"):
            columns[f"S3, {form}"] = _files(records, data, form)
    table(f"{count(records)} records", columns, "≥ 20,000 /s")


def _rows(records: int, data: Path) -> Sent:
    home = Path(tempfile.mkdtemp(prefix="bench-postgres-"))  # where its user may go
    try:
        with tempfile.TemporaryDirectory(dir=data) as directory, Postgres(home) as server:
            fresh(spool.fill, spool.Work(records, directory))
            sent = fresh(into_rows, Work(directory, server.url, str(server.password_file)))
            kept = server.rows("SELECT count(*) FROM usage_records")[0][0]
    finally:
        shutil.rmtree(home)
    if (sent.records, kept) != (records, records):
        raise RuntimeError(f"{records} records, {sent.records} acknowledged, {kept} rows")
    return sent


def _files(records: int, data: Path, form: str) -> Sent:
    with tempfile.TemporaryDirectory(dir=data) as directory:
        fresh(spool.fill, spool.Work(records, directory))
        (Path(directory) / "gateway").mkdir()
        with Gateway(Path(directory) / "gateway") as server:
            place = f"s3://{server.bucket.name}/usage"
            sent = fresh(into_files, Work(directory, place, str(server.credentials_file), server.endpoint, form))
    if sent.records != records:
        raise RuntimeError(f"{records} records, {sent.records} acknowledged")
    return sent
