"""The daemon's 0600 socket in the data directory: one line of JSON asks, one answers."""

import asyncio
import json
import os
import socket
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

from agent.errors import AgentError, CannotStartError

SOCKET = "control"
_LINE = 64 << 10

Answer = Callable[[], Awaitable[object]]


async def serve(directory: Path, answers: Mapping[str, Answer]) -> asyncio.Server:
    """Answer requests by name until the server is closed. An error is answered as `{"error": …}`."""
    path = directory / SOCKET
    path.unlink(missing_ok=True)

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(5):
                request = json.loads(await reader.readline())
            reply = {"answer": await answers[request["do"]]()}
        except AgentError as e:
            reply = {"error": str(e)}
        except (ValueError, KeyError, TypeError, TimeoutError):
            reply = {"error": f"not a request. Known: {', '.join(sorted(answers))}"}
        writer.write(json.dumps(reply).encode() + b"\n")
        await writer.drain()
        writer.close()

    old = os.umask(0o177)
    try:
        return await asyncio.start_unix_server(talk, path=str(path), limit=_LINE)
    finally:
        os.umask(old)


def ask(directory: Path, what: str) -> object:
    """Ask the daemon that runs on `directory`. Raises CannotStartError when none does."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as channel:
        channel.settimeout(30)
        try:
            channel.connect(str(directory / SOCKET))
        except OSError as e:
            raise CannotStartError(
                f"no agent answers in {directory} ({e.strerror}). Start it, or name its --config."
            ) from e
        channel.sendall(json.dumps({"do": what}).encode() + b"\n")
        reply = json.loads(channel.makefile("rb").readline() or b'{"error": "no answer"}')
    if "error" in reply:
        raise AgentError(reply["error"])
    return reply["answer"]
