"""A PostgreSQL server of the test's own, as Debian ships it, and a proxy before it that can lose an answer."""

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Self

import psycopg

PASSWORD = "s3cret-postgres"
SYNCED = ("-c", "fsync=on", "-c", "shared_buffers=32MB", "-c", "logging_collector=off")


def programs() -> Path | None:
    """The directory of the newest server's programs."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    return found[-1].parent if found else None


def missing() -> str:
    """Why no server can be run here, with the cure; empty if one can."""
    if os.geteuid() != 0:
        return "PostgreSQL is run as another user here, which needs root"
    return "" if programs() else "postgresql is missing: apt-get install it"


class Postgres:
    """One server on a port of the loopback, run as `nobody` in a directory of its own."""

    def __init__(self, directory: Path) -> None:
        """Make the cluster. `directory` must lie where `nobody` may go."""
        bin_directory = programs()
        assert bin_directory is not None
        self._bin, self._home = bin_directory, directory
        self.password_file = directory / "password"
        self.password_file.write_text(PASSWORD)
        shutil.chown(directory, "nobody")
        shutil.chown(self.password_file, "nobody")
        self.port = free_port()
        self.url = f"postgresql://postgres@127.0.0.1:{self.port}/postgres"
        self._process: subprocess.Popen[bytes] | None = None
        options = ("-A", "scram-sha-256", "-U", "postgres", f"--pwfile={self.password_file}", "--no-sync")
        self._as_nobody("initdb", "-D", directory / "data", *options, "--locale=C.UTF-8").wait(30)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.end(signal.SIGINT)

    def start(self) -> None:
        """Until it answers."""
        options = ("-c", "listen_addresses=127.0.0.1", "-c", f"port={self.port}", "-k", self._home)
        self._process = self._as_nobody("postgres", "-D", self._home / "data", *options, *SYNCED)
        for _ in range(400):
            with contextlib.suppress(psycopg.OperationalError):
                self.rows("SELECT 1")
                return
            time.sleep(0.05)
        raise TimeoutError("PostgreSQL does not answer")

    def end(self, by: signal.Signals = signal.SIGKILL) -> None:
        """End it and all its backends: they notice the death of their parent."""
        assert self._process is not None
        self._process.send_signal(by)
        self._process.wait(20)

    def rows(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        """What a statement gives, as the superuser, on a connection of its own."""
        with psycopg.connect(self.url, password=PASSWORD, autocommit=True, connect_timeout=5) as connection:
            cursor = connection.execute(statement.encode(), values)
            return cursor.fetchall() if cursor.description else []

    def _as_nobody(self, program: str, *argv: object) -> "subprocess.Popen[bytes]":
        user = ("setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups")
        command = [*user, str(self._bin / program), *map(str, argv)]
        log = (self._home / "log").open("ab")
        with log:
            return subprocess.Popen(command, stdout=log, stderr=log, cwd=self._home)


Lose = Callable[[bytes], bool]
"""Whether the answer to what a client just sent is lost: the server gets it, and the connection breaks."""


@asynccontextmanager
async def losing(port: int, lose: Lose) -> AsyncIterator[int]:
    """A port before the server's."""
    handlers: set[asyncio.Task[None]] = set()

    async def back(upstream: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await upstream.read(65536):
            writer.write(data)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        handlers.add(asyncio.current_task())  # type: ignore[arg-type]
        upstream, to_server = await asyncio.open_connection("127.0.0.1", port)
        returning = asyncio.create_task(back(upstream, writer))
        try:
            while data := await reader.read(65536):
                lost = lose(data)
                if lost:
                    returning.cancel()
                    await asyncio.wait([returning])
                to_server.write(data)
                await to_server.drain()
                if lost:
                    await upstream.read(65536)  # the server has done it, and said so
                    break
        except (ConnectionError, asyncio.CancelledError):
            pass  # one end is gone, or the test is over
        finally:
            returning.cancel()
            await asyncio.gather(returning, return_exceptions=True)
            for end in (writer, to_server):
                end.close()
                with contextlib.suppress(ConnectionError):
                    await end.wait_closed()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for handler in handlers:
            handler.cancel()
        await asyncio.gather(*handlers, return_exceptions=True)


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
