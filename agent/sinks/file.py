"""File sink: NDJSON files that appear whole, once, and are never written again (ACCOUNTING §7).

A batch is written to a hidden temporary file and synced, the spool records it as prepared, and a rename makes it
visible. After a crash a prepared batch whose temporary file is there is renamed; one whose file is gone was visible
already, and is not made again even if a shipper has taken it. So no line ever appears in two files.
"""

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

from agent.errors import SinkError
from agent.spool.identity import private_directory, sync_directory
from agent.spool.outbox import Submission


class FileSink:
    """Writes `records-<epoch>-<first>-<last>.ndjson` into one directory. The epoch keeps names apart for ever."""

    kind = "file"
    max_batch = 10_000

    def __init__(self, sink_id: str, role: str, path: Path, epoch: str) -> None:
        self.id, self.role, self._epoch = sink_id, role, epoch[:12]
        self._path = private_directory(path, f"sinks[{sink_id}].path")

    def freeze(self, first: int, last: int, lines: Sequence[bytes]) -> tuple[str, bytes]:
        """Write and sync the temporary file and its name."""
        name = f"records-{self._epoch}-{first:012d}-{last:012d}.ndjson"
        digest = hashlib.sha256()
        try:
            with open(self._temporary(name), "wb", opener=lambda p, f: os.open(p, f | os.O_TRUNC, 0o600)) as file:
                for line in lines:
                    digest.update(line + b"\n")
                    file.write(line + b"\n")
                file.flush()
                os.fsync(file.fileno())
            sync_directory(self._path)
        except OSError as e:
            raise SinkError(
                f"sinks[{self.id}]: {self._path}: {e.strerror}. Free space there, or mend its permissions."
            ) from e
        return name, digest.digest()

    def deliver(self, submission: Submission) -> None:
        """Make the file visible; if its temporary file is gone, it was."""
        try:
            self._temporary(submission.name).rename(self._path / submission.name)
        except FileNotFoundError:
            return
        except OSError as e:
            raise SinkError(f"sinks[{self.id}]: {self._path}: {e.strerror}. Mend its permissions.") from e
        sync_directory(self._path)

    def sweep_up(self, prepared: Sequence[Submission]) -> None:
        """Remove temporary files that no prepared submission names."""
        wanted = {self._temporary(s.name) for s in prepared}
        for path in self._path.glob(".records-*.tmp"):
            if path not in wanted:
                path.unlink()

    def _temporary(self, name: str) -> Path:
        return self._path / f".{name}.tmp"
