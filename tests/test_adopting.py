"""DESIGN §7: one drain for a sink, though a reload, an act of a person and an end that is noticed come together."""

import asyncio
import os
from pathlib import Path

from agent import config
from agent.config import Config, SourceSection
from agent.daemon import Daemon
from agent.kinds import Remembered
from agent.sources import Source
from tests.cli.conftest import Groups
from tests.config.written import KNOWN

FILE = """\
agent: {{data_dir: {0}/data, run_dir: {0}/run, window: 10s, sample_interval: 1s}}
telemetry: {{listen: "127.0.0.1:0"}}
sources: [{{kind: cgroups, include: ["customers.slice/*"]}}]
meters: [{{meter: cpu.time}}]
sinks: [{{id: files, kind: file, path: "{0}/{1}"}}]
spool: {{retention: 1d, evidence_retention: 1d}}
"""


def written(home: Path, directory: str) -> Config:
    """A configuration with one file sink."""
    return config.parse(FILE.format(home, directory), "agent.yaml", KNOWN, os.environ)


def build(_section: SourceSection, _cfg: Config, _remembered: Remembered) -> Source:
    """Nothing is measured here."""
    return Groups()


def drains() -> list[str]:
    """The names of those that run."""
    return [task.get_name() for task in asyncio.all_tasks() if task.get_name().startswith("drain ")]


def test_adopting_twice_at_once_leaves_one_drain_for_each_sink(tmp_path: Path) -> None:
    """The one that nobody knew went on sending beside the other."""

    async def story() -> list[str]:
        daemon = Daemon(lambda: written(tmp_path, "one"), build=build, lock_anchors=False)
        await daemon._on_thread(daemon._open)
        await daemon._adopt_sinks(daemon.config)
        await asyncio.sleep(0.05)
        fresh = written(tmp_path, "two")
        await asyncio.gather(*(daemon._adopt_sinks(fresh) for _ in range(3)))
        running = drains()
        await daemon.drains.abandon()
        await daemon._on_thread(daemon._close)
        daemon._thread.shutdown()
        return running

    assert asyncio.run(story()) == ["drain files"]


def test_when_a_pause_is_answered_nothing_is_under_way(tmp_path: Path) -> None:
    """What is dropped after it was sent all the same, for it had been taken ahead."""

    async def story() -> list[list[str]]:
        daemon = Daemon(lambda: written(tmp_path, "one"), build=build, lock_anchors=False)
        await daemon._on_thread(daemon._open)
        await daemon._adopt_sinks(daemon.config)
        found = [drains()]
        for act in ("sink pause", "sink resume"):
            await daemon._answers()[act]("uid 7", {"sink": "files"})
            found.append(drains())
        await daemon.drains.abandon()
        await daemon._on_thread(daemon._close)
        daemon._thread.shutdown()
        return found

    assert asyncio.run(story()) == [["drain files"], [], ["drain files"]]


def test_a_reload_with_a_sink_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    """It ended the agent, and each start after it."""
    (tmp_path / "two").touch()  # no directory can be made there
    asked: list[str] = []

    def load() -> Config:
        asked.append("one" if not asked else "two/out")
        return written(tmp_path, asked[-1])

    async def story() -> tuple[bool, list[str], int]:
        daemon = Daemon(load, build=build, lock_anchors=False)
        running = asyncio.create_task(daemon.run())
        while not drains():  # noqa: ASYNC110 - nothing tells when it runs
            await asyncio.sleep(0.05)
        await asyncio.sleep(0.2)
        daemon._reload.set()
        while len(asked) < 2:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        await asyncio.sleep(0.5)
        lives, found = not running.done(), drains()
        daemon.stop()
        return lives, found, await running

    assert asyncio.run(story()) == (True, ["drain files"], 0)
