"""File sink: NDJSON files that appear whole, once, and are never written again (ACCOUNTING §7).

A batch is written to a hidden temporary file and synced, the spool notes that it leaves, and a rename makes it
visible. After a crash a batch that was leaving and whose temporary file is there is renamed; one whose file is gone was
visible already, and is not made again even if a shipper has taken it. So no line ever appears in two files.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Collection
from pathlib import Path

import msgspec
from msgspec import Struct

from agent.errors import SinkError
from agent.record import nanoseconds
from agent.sinks import Answer, Entry, Finding, Holding, Terms
from agent.spool.identity import private_directory, sync_directory
from agent.spool.outbox import Submission


class _Line(Struct):
    """What a line says that is held against the ledger."""

    id: str
    dimension: str
    quantity: str
    end: str
    customer: str | None = None


_line = msgspec.json.Decoder(_Line)


class FileSink:
    """Writes `records-<epoch>-<first>-<last>.ndjson` into one directory. The epoch keeps names apart for ever."""

    kind = "file"
    terms = Terms(max_batch=10_000, negative=True, verbatim=True, staged=True)

    def __init__(self, sink_id: str, role: str, path: Path) -> None:
        self.id, self.role = sink_id, role
        self._path = private_directory(path, f"sinks[{sink_id}].path")

    def render(self, entry: Entry) -> bytes:
        """Never asked for: files hold the ledger's own lines."""
        raise NotImplementedError

    async def stage(self, submission: Submission) -> None:
        """Write and sync the temporary file and its name."""
        await asyncio.to_thread(self._write, submission)

    async def send(self, submission: Submission) -> Answer:
        """Make the file visible; if its temporary file is gone, it was."""
        return await asyncio.to_thread(self._show, submission)

    async def ask(self) -> list[Finding]:
        """Whether the directory can be written."""
        cure = f"Make {self._path} a directory that the agent may write."
        return [Finding("directory", os.access(self._path, os.W_OK | os.X_OK), str(self._path), cure)]

    async def holdings(self, start: int, end: int, customers: Collection[str]) -> AsyncIterator[Holding]:
        """Every line of these customers that is visible, by its window's end. Raises SinkError with the cure.

        What a shipper has taken away is not there any more.
        """
        for file in sorted(self._path.glob("records-*.ndjson")):
            for number, line in enumerate(await asyncio.to_thread(self._read, file), 1):
                try:
                    said = _line.decode(line)
                    at = nanoseconds(said.end)
                except ValueError as error:
                    cure = "Was it written by another program? Move it away."
                    raise SinkError(f"sinks[{self.id}]: {file}, line {number}: {error}. {cure}") from error
                if start <= at < end and (said.customer or "") in customers:
                    yield Holding(said.customer or "", said.dimension, said.quantity, at, said.id)

    async def close(self) -> None:
        """Nothing is kept open."""

    def _read(self, file: Path) -> list[bytes]:
        try:
            return file.read_bytes().splitlines()
        except OSError as e:
            raise SinkError(f"sinks[{self.id}]: {file}: {e.strerror}. Run this as the agent's user.") from e

    def _write(self, submission: Submission) -> None:
        try:
            with open(self._temporary(submission), "wb", opener=lambda p, f: os.open(p, f | os.O_TRUNC, 0o600)) as file:
                file.writelines(item.payload + b"\n" for item in submission.items)
                file.flush()
                os.fsync(file.fileno())
            sync_directory(self._path)
        except OSError as e:
            raise SinkError(
                f"sinks[{self.id}]: {self._path}: {e.strerror}. Free space there, or mend its permissions."
            ) from e

    def _show(self, submission: Submission) -> Answer:
        name = f"records-{submission.name}.ndjson"
        why = name
        try:
            try:
                self._temporary(submission).rename(self._path / name)
            except FileNotFoundError:
                why = f"{name}, visible before"
            sync_directory(self._path)
        except OSError as e:
            return Answer(outcome="retry", why=f"sinks[{self.id}]: {self._path}: {e.strerror}. Mend its permissions.")
        return Answer(outcome="delivered", why=why)

    def _temporary(self, submission: Submission) -> Path:
        return self._path / f".records-{submission.name}.ndjson.tmp"
