"""The daemon's 0600 socket in the data directory: one line of JSON asks, one answers.

Who asks is what the kernel says of the socket's other end, not what the request says.
"""

import asyncio
import json
import os
import socket
import struct
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

from agent.errors import AgentError, CannotStartError

SOCKET = "control"
PATIENCE = 120  # seconds for an answer: an act on a large backlog is one transaction
_LINE = 64 << 10
_CREDENTIALS = struct.Struct("3i")  # unix(7), struct ucred: pid, uid, gid

Answer = Callable[[str, Mapping[str, object]], Awaitable[object]]
"""Gets who asks and the request's other fields."""


async def serve(directory: Path, answers: Mapping[str, Answer]) -> asyncio.Server:
    """Answer requests by name until the server is closed. An error is answered as `{"error": …}`."""
    path = directory / SOCKET
    path.unlink(missing_ok=True)

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(5):
                name, arguments = _request(await reader.readline(), answers)
        except (ValueError, TimeoutError):
            reply: dict[str, object] = {"error": f"not a request. Known: {', '.join(sorted(answers))}"}
        else:
            try:
                reply = {"answer": await answers[name](_asker(writer), arguments)}
            except AgentError as e:
                reply = {"error": str(e)}
        writer.write(json.dumps(reply).encode() + b"\n")
        await writer.drain()
        writer.close()

    old = os.umask(0o177)
    try:
        return await asyncio.start_unix_server(talk, path=str(path), limit=_LINE)
    finally:
        os.umask(old)


def _request(line: bytes, answers: Mapping[str, Answer]) -> tuple[str, Mapping[str, object]]:
    """What is asked for, and with what. Raises ValueError."""
    request = json.loads(line)
    name = request.pop("do", None) if isinstance(request, dict) else None
    if not isinstance(name, str) or name not in answers:
        raise ValueError(name)
    return name, request


def _asker(writer: asyncio.StreamWriter) -> str:
    """The user at the other end."""
    channel = writer.get_extra_info("socket")
    _, uid, _ = _CREDENTIALS.unpack(channel.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
    return f"uid {uid}"


def ask(directory: Path, what: str, **arguments: object) -> object:
    """Ask the daemon that runs on `directory`. Raises CannotStartError when none does, AgentError for what it says."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as channel:
        channel.settimeout(PATIENCE)
        try:
            channel.connect(str(directory / SOCKET))
        except OSError as e:
            raise CannotStartError(
                f"no agent answers in {directory} ({e.strerror}). Start it, or name its --config."
            ) from e
        try:
            channel.sendall(json.dumps({**arguments, "do": what}).encode() + b"\n")
            reply = json.loads(channel.makefile("rb").readline() or b'{"error": "no answer"}')
        except OSError as e:
            cure = "`metering-agent spool audit` lists what was done."
            raise AgentError(f"{what}: the agent in {directory} has not answered ({e}). {cure}") from e
    if "error" in reply:
        raise AgentError(reply["error"])
    return reply["answer"]
