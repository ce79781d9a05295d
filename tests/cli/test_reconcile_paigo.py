"""Records from the spool to Paigo and back again, by the commands, over real sockets: the double has its own thread."""

import asyncio
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from agent.cli.app import app
from agent.clock import Moment
from agent.config import load as load_config
from agent.config import route
from agent.delivery.drain import Drain
from agent.delivery.rendering import Route
from agent.kinds import KINDS, METERS, build_sink
from agent.sinks import Sink
from tests.cli.conftest import EPOCH, Ask, Stage
from tests.sinks.doubles import served
from tests.sinks.paigo_double import SECRET, Paigo
from tests.sinks.property import CUSTOMERS, DIMENSIONS
from tests.spool.draining import at_once

ACME, CPU = CUSTOMERS["acme"], DIMENSIONS["cpu"]


class Apart(threading.Thread):
    """A Paigo that runs beside the command; `url` once it does."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        now = EPOCH / 1e9 + 86_400
        self.paigo = Paigo(now=lambda: now, customers=CUSTOMERS.values(), dimensions={CPU: "sum"})
        self.url, self._ready, self._loop = "", threading.Event(), asyncio.new_event_loop()
        self._ended = asyncio.Event()

    def run(self) -> None:
        async def whole() -> None:
            async with served(self.paigo) as self.url:
                self._ready.set()
                await self._ended.wait()

        self._loop.run_until_complete(whole())
        self._loop.close()

    def begin(self) -> None:
        """Wait until it can be reached."""
        self.start()
        self._ready.wait(10)

    def end(self) -> None:
        """Nothing of it is left."""
        self._loop.call_soon_threadsafe(self._ended.set)
        self.join(10)


@pytest.fixture
def apart() -> Iterator[Apart]:
    """For one test."""
    running = Apart()
    running.begin()
    yield running
    running.end()


def configured(home: Path, url: str) -> Path:
    """The stage's spool, and a sink of that Paigo."""
    for name, words in (("id", "me"), ("secret", SECRET)):
        (home / name).write_text(words)
        (home / name).chmod(0o600)
    path = home / "agent.yaml"
    path.write_text(f"""\
agent: {{data_dir: {home}/data, run_dir: {home}/run}}
sources: [{{kind: cgroups, include: ["customers.slice/**"]}}]
meters: [{{meter: cpu.time, dimension: cpu}}]
customers: [{{id: acme, match: [{{cgroup: customers.slice/acme}}], ids: {{paigo: {ACME}}}}}]
sinks:
  - id: paigo
    kind: paigo
    url: {url}
    token_url: {url}/oauth/token
    client_id_file: {home}/id
    client_secret_file: {home}/secret
    dimensions: {{cpu: {{id: {CPU}, unit: core-second, scale: 9}}}}
""")
    return path


async def deliver(stage: Stage, sink: Sink, told: Route) -> None:
    """All that the sink is owed."""
    now = Moment(EPOCH + 60 * 10**9, EPOCH + 60 * 10**9)
    one = Drain(sink, told, stage.outbox, at_once, now=lambda: now, chance=lambda: 0.5, told=lambda _sink, _turn: None)
    one.finish()
    await one.run()
    await sink.close()


def test_what_paigo_holds_is_confirmed_and_what_it_lost_is_named(
    stage: Stage, tmp_path: Path, ask: Ask, apart: Apart
) -> None:
    """The value that was frozen, rounded as it was; then Paigo loses it, and holds what another node sent."""
    path = configured(tmp_path, apart.url)
    cfg = load_config(path, KINDS, {})
    (section,) = cfg.sinks
    stage.outbox.register("paigo", "paigo", "billing", b"{}", since=0)
    asyncio.run(deliver(stage, build_sink(section), route(cfg, section, METERS)))
    stage.spool.close()
    argv = ["reconcile", "paigo", "--from", "2027-01-15", "--to", "2027-01-16", "--config", str(path)]
    done = CliRunner().invoke(app, argv)
    assert done.exit_code == 0, done.output
    assert "0.000005035" in done.output
    assert "confirmed" in ask("explain", "2")
    apart.paigo.used[0].metadata = {"meteringRecordId": "of another node"}
    done = CliRunner().invoke(app, [*argv, "--json"])
    assert done.exit_code == 1
    (line,) = json.loads(done.output)["lines"]
    assert (line["here"], line["there"], line["others"]) == ("0.000005035", "0", "0.000005035")
    assert [d["what"] for d in line["discrepancies"]] == ["missing there"]
