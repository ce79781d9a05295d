"""What the loop listens to of its sources, while a reload takes them away."""

import asyncio
import socket
from typing import Any

from agent import sweeps
from agent.model import Meter


class Near:
    """A source that is watched."""

    id = "near"
    meters: tuple[Meter, ...] = ()

    def __init__(self) -> None:
        self.end, self.other = socket.socketpair()

    def sweep(self) -> Any:
        raise AssertionError

    def close(self) -> None:
        raise AssertionError

    def fileno(self) -> int:
        return self.end.fileno()

    def next_read_within(self, now: int) -> int:
        raise AssertionError

    def read(self) -> bool:
        raise AssertionError


def test_a_descriptor_that_a_reload_closed_may_be_given_to_a_connection() -> None:
    """Which goes on being served: to forget the source ends neither it nor the agent."""
    source = Near()

    async def run() -> None:
        ears = sweeps.Ears(asyncio.get_running_loop())
        ears.listen([source], lambda: None)
        number = source.fileno()
        source.end.close()
        mine, theirs = socket.socketpair()
        assert mine.fileno() == number  # the lowest that is free
        reader, writer = await asyncio.open_connection(sock=mine)
        ears.listen([], lambda: None)
        theirs.send(b"served")
        assert await reader.readexactly(6) == b"served"
        writer.close()
        await writer.wait_closed()
        theirs.close()

    asyncio.run(run())
    source.other.close()
