"""Rows as the bytes of one file: lines of JSON or Parquet, plain or compressed. The same rows give the same bytes."""

import gzip
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from importlib import import_module
from typing import Any, Literal

import msgspec

from agent.record import nanoseconds
from agent.sinks.row import FIELDS

Format = Literal["ndjson", "parquet"]
Compression = Literal["none", "gzip", "zstd"]

DIGITS, SCALE = 38, 18  # of a decimal in Parquet, and how many of them stand behind the point
LARGEST = Decimal(10) ** (DIGITS - SCALE)
SUFFIXES: Mapping[Compression, str] = {"none": "", "gzip": ".gz", "zstd": ".zst"}


def suffix(form: Format, compression: Compression) -> str:
    """What a file's name ends in; Parquet compresses inside. Raises ModuleNotFoundError where a library is missing."""
    if form == "parquet" or compression == "zstd":
        import_module("pyarrow")
    return ".parquet" if form == "parquet" else f".ndjson{SUFFIXES[compression]}"


def encoded(rows: Sequence[bytes], form: Format, compression: Compression) -> bytes:
    """One file of rows, which are canonical JSON."""
    if form == "parquet":
        return _parquet(rows, compression)
    lines = b"".join(row + b"\n" for row in rows)
    if compression == "gzip":
        return gzip.compress(lines, 6, mtime=0)
    if compression == "zstd":
        import pyarrow as pa

        return bytes(pa.compress(lines, codec="zstd", asbytes=True))
    return lines


def fits(value: str) -> bool:
    """Whether a decimal can stand in a Parquet file as it is."""
    return abs(Decimal(value)) < LARGEST


def _parquet(rows: Sequence[bytes], compression: Compression) -> bytes:
    import pyarrow as pa
    from pyarrow import parquet

    decimal, time = pa.decimal128(DIGITS, SCALE), pa.timestamp("ns", tz="UTC")
    special: dict[str, tuple[Any, Callable[[Any], Any]]] = {
        **dict.fromkeys(("quantity", "bound"), (decimal, Decimal)),
        **dict.fromkeys(("at", "window_start", "window_end"), (time, nanoseconds)),
        "labels": (pa.map_(pa.string(), pa.string()), lambda labels: sorted(labels.items())),
        "flags": (pa.list_(pa.string()), list),
    }
    read = [msgspec.json.decode(row) for row in rows]
    columns = {}
    for name in FIELDS:
        kind, convert = special.get(name, (pa.string(), str))
        told = (row.get(name) for row in read)
        columns[name] = pa.array([None if value is None else convert(value) for value in told], type=kind)
    out = pa.BufferOutputStream()
    parquet.write_table(pa.table(columns), out, compression=compression, coerce_timestamps=None)
    return bytes(out.getvalue())
