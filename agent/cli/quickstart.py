"""`metering-agent quickstart`: meter this machine now, and show each record as it arrives. All is kept in ./.run."""

import asyncio
import json
import logging
import os
import sys
from pathlib import Path

from agent import config
from agent.cli.scene import Scene, scene
from agent.cli.show import amount, bearer, lines, natural, seconds, span
from agent.cli.show import group as shown
from agent.config import Config
from agent.daemon import Daemon
from agent.errors import AgentError
from agent.kinds import KINDS
from agent.reporting import log_to
from agent.sources.hierarchy import Layout
from agent.spool import ledger
from agent.spool.ledger import Ledger, Sent

WINDOW, INTERVAL = 10, 2  # seconds
SMOKE_SECONDS = 60  # three times what a record takes
POLL_SECONDS = 0.25


def written(what: Scene, run: Path) -> str:
    """The configuration, as YAML."""
    return f"""\
# Written by `metering-agent quickstart`. A start for a configuration of your own: see config/agent.yaml.
agent:
  cluster: quickstart
  data_dir: {json.dumps(str(run / "data"))}
  run_dir: {json.dumps(str(run / "run"))}
  window: {WINDOW}s
  sample_interval: {INTERVAL}s
telemetry: {{listen: "127.0.0.1:0"}}
sources:
  - {what.source}
meters:
{what.meters}
customers:
  - {{id: demo, name: You, match: {what.match}}}
sinks:
  - {{id: files, kind: file, path: {json.dumps(str(run / "out"))}, role: copy}}
spool: {{max_bytes: 512MiB, retention: 1d, evidence_retention: 1d}}
"""


def quickstart(*, smoke: bool) -> int:
    """Meter until interrupted, or with `smoke` until a record is delivered; the exit code. Raises AgentError."""
    log_to(sys.stderr, least=logging.WARNING)  # what goes well is shown as records
    run = Path(".run").resolve()
    try:
        run.mkdir(mode=0o700, exist_ok=True)
        with scene(Layout(), Path("/proc/self/cgroup").read_text()) as what:
            text = written(what, run)
            (run / "agent.yaml").write_text(text)
            say(f"Metering {what.saying}, for customer demo: a reading every {INTERVAL} s, a record every {WINDOW} s.")
            say("The first record comes within 20 s. Ctrl-C stops.", "")

            def load() -> Config:  # its notices are about choices that nobody made here
                return config.parse(text, str(run / "agent.yaml"), KINDS, os.environ).noting(())

            return asyncio.run(_live(Daemon(load, build=what.build, lock_anchors=what.lock_anchors), smoke=smoke))
    except OSError as error:
        raise AgentError(f"{error.filename or run}: {error.strerror}. Run this in a directory of yours.") from error
    except KeyboardInterrupt:  # before the agent listened to it
        return 0


async def _live(daemon: Daemon, *, smoke: bool) -> int:
    running = asyncio.create_task(daemon.run(), name="agent")
    showing = asyncio.create_task(_show(daemon, smoke=smoke), name="show")
    await asyncio.wait({running, showing}, return_when=asyncio.FIRST_COMPLETED)
    daemon.stop()
    code = await running
    showing.cancel()
    await asyncio.wait({showing})
    if not showing.cancelled():
        showing.result()
    say("", f"Stopped. Everything is in {_near(daemon.config.agent.data_dir.parent)}; the next run goes on from there.")
    return code


async def _show(daemon: Daemon, *, smoke: bool) -> None:
    """Say each record as it is delivered; with `smoke`, end after the first. Raises AgentError when none comes."""
    while daemon.address is None:  # noqa: ASYNC110 - the spool is open by then; the daemon need not know of us
        await asyncio.sleep(POLL_SECONDS)
    say("Metrics: http://{}:{}/metrics".format(*daemon.address), "")
    out = daemon.config.agent.data_dir.parent / "out"
    with ledger.opened(daemon.config.agent.data_dir) as spool:
        seen = ledger.last_sent(spool)
        first = await _next(spool, seen, SMOKE_SECONDS if smoke else None)
        _tell(spool, first, out)
        example = ledger.between(spool, first.first, first.last)[0].id
        explain = f"{_program()} explain --data-dir {_near(daemon.config.agent.data_dir)} {example}"
        say("", "Why that much? In another terminal, or later:" if not smoke else "Why that much?", f"  {explain}", "")
        while not smoke:
            first = await _next(spool, first.id, None)
            _tell(spool, first, out)


async def _next(spool: Ledger, after: int, patience: float | None) -> Sent:
    """The next submission that arrived. Raises AgentError when `patience` seconds have passed."""
    waited = 0.0
    while not (sent := ledger.sent(spool, after)):
        if patience is not None and waited > patience:
            raise AgentError(f"no record came within {patience} s. Is anything said above?")
        await asyncio.sleep(POLL_SECONDS)
        waited += POLL_SECONDS
    return sent[0]


def _tell(spool: Ledger, sent: Sent, out: Path) -> None:
    """One submission in plain words."""
    for entry in ledger.between(spool, sent.first, sent.last):
        r = entry.record
        what = f"{r.dimension} {shown(r.group)}".strip()
        say(
            f"{bearer(r)}  {what}  {natural(r.quantity, r.base_unit)}  = {amount(r.quantity, r.base_unit)}",
            f"      {span(r.start, r.end)}, observed for {seconds(r.covered)}",
        )
    say(f"      in {_near(out / f'records-{sent.name}.ndjson')}")


def say(*text: str) -> None:
    """Print lines at once, also into a pipe."""
    lines(text)
    sys.stdout.flush()


def _near(path: Path) -> str:
    """A path as seen from here, where that is shorter."""
    return min(os.path.relpath(path), str(path), key=len)


def _program() -> str:
    """How this program was called."""
    called = Path(sys.argv[0])
    return _near(called) if called.name == "metering-agent" else f"{_near(Path(sys.executable))} -m agent"
