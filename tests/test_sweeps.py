"""What sources learn over the network, told to whoever watches the agent."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from agent import sweeps
from agent.model import Meter
from agent.sources import Asked


class Distant:
    """A source that follows a server, and says how that goes."""

    id = "kubernetes"
    meters: tuple[Meter, ...] = ()

    def sweep(self) -> Any:
        raise AssertionError

    def close(self) -> None:
        raise AssertionError

    async def follow(self) -> None:
        await asyncio.sleep(3600)

    def asked(self) -> Asked | None:
        return Asked(requests=3, relists=1, failing=True, heard=42)


def test_how_asking_a_server_goes_is_told_to_telemetry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Or an alert on it never fires."""
    monkeypatch.setattr(sweeps, "IDLE_SECONDS", 0)
    told: list[Any] = []
    heard = asyncio.Event()

    def followed(source: str, **facts: Any) -> None:
        told.append((source, facts))
        heard.set()

    reporter: Any = SimpleNamespace(telemetry=SimpleNamespace(followed=followed))
    nobody: Any = None

    async def run() -> None:
        swept = sweeps.Sweeps(nobody, reporter, nobody, lambda: None)
        swept.sources["kubernetes"] = Distant()
        task = asyncio.create_task(swept.follow())
        await heard.wait()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(run())
    assert told[0] == ("kubernetes", {"requests": 3, "relists": 1, "failing": True, "heard": 42})
