"""Debian's own Prometheus scrapes a live listener, and its linter finds nothing to say."""

import asyncio
import json
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from agent.clock import Verdict
from agent.model import Balance
from agent.telemetry import METRICS, SpoolLevels, Telemetry, listen
from tests.conftest import require

pytestmark = pytest.mark.real

CURE = "missing: apt-get install prometheus (the packaged service need not run)"
BINDING_SECONDS = 30  # for prometheus to open its empty database


def boottime() -> int:
    """The clock that the agent's ages are taken by."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def measured() -> Telemetry:
    """An agent to which everything happened once; the books of its anchor close with 0.25 s in flight."""
    telemetry = Telemetry("1.2.3", boottime=boottime, billing=time.time_ns, customer_labels=True)
    telemetry.configured(1, window=1, lateness=0, sources=["cgroups", "host"], sinks=["files"])
    telemetry.swept("cgroups", seconds=0.01, stamp=boottime())
    telemetry.committed("cgroups", boottime())
    telemetry.anomaly("cgroups", "inferred_reset")
    telemetry.gap("cgroups", "no_sample")
    moved, debt = 12_000_000_007, -250_000_000
    telemetry.balanced(Balance("customers.slice", "cpu.time", moved, moved - debt, debt, debt, 0), unattributed=7)
    telemetry.recorded("usage", customer='a "quoted"\\\ncustomer', dimension="cpu", quantity=12_000_000_000)
    for appended in (0, 4096):
        telemetry.spool(SpoolLevels(2, 8192, 1 << 30, appended, 1, time.time_ns(), 0))
    telemetry.settled("files", "delivered", 3)
    telemetry.backlog("files", 1, time.time_ns())
    telemetry.stuck("files", {})
    telemetry.clock_observed(Verdict.ACCEPTED, 5)
    telemetry.followed("cgroups", requests=9, relists=1, failing=False, heard=boottime())
    return telemetry


def fetch(url: str) -> Any:
    """A JSON answer of Prometheus; None until it answers with one."""
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            body = answer.read()
            return json.loads(body) if body.startswith(b"{") else body
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return None


def until(found: Callable[[], Any], what: str) -> Any:
    """What `found` finds, as soon as it does."""
    deadline = time.monotonic() + BINDING_SECONDS
    while time.monotonic() < deadline:
        if result := found():
            return result
        time.sleep(0.1)
    raise AssertionError(f"{what} within {BINDING_SECONDS} s")


@contextmanager
def prometheus(home: Path, target: str) -> Iterator[str]:
    """A Prometheus of our own, on a free loopback port, that scrapes `target` each second."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    config = home / "prometheus.yml"
    config.write_text(
        f"scrape_configs: [{{job_name: agent, scrape_interval: 1s, static_configs: [{{targets: ['{target}']}}]}}]\n"
    )
    storage = f"--storage.tsdb.path={home / 'data'}"
    command = ["prometheus", f"--config.file={config}", storage, f"--web.listen-address={address}"]
    with (home / "log").open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        try:
            until(lambda: process.poll() is not None or fetch(f"http://{address}/-/ready"), "prometheus is ready")
            assert process.poll() is None, (home / "log").read_text()
            yield f"http://{address}"
        finally:
            process.kill()


def scraped(home: Path, target: str) -> dict[str, Any]:
    """What Prometheus says of the target after its second scrape: health, metadata, every series, the books."""
    with prometheus(home, target) as server:

        def query(expression: str) -> Any:
            answer = fetch(f"{server}/api/v1/query?{urlencode({'query': expression})}")
            return answer["data"]["result"] if answer else None

        until(lambda: query('count_over_time(up{job="agent"}[1m]) >= 2'), "two scrapes")
        books = "metering_books_anchor_seconds_total - metering_books_booked_seconds_total"
        return {
            "target": fetch(f"{server}/api/v1/targets")["data"]["activeTargets"][0],
            "metadata": fetch(f"{server}/api/v1/targets/metadata")["data"],
            "series": query('{job="agent"}'),
            "books": query(f"abs({books} - metering_books_in_flight_seconds)"),
        }


def test_prometheus_scrapes_a_live_listener(tmp_path: Path) -> None:
    """Every metric of the table arrives with its type and help, and the books close in PromQL."""
    require(shutil.which("prometheus") is not None, f"prometheus {CURE}")

    async def run() -> dict[str, Any]:
        listener = await listen("127.0.0.1", 0, measured(), lambda: None, lambda: None)
        try:
            return await asyncio.to_thread(scraped, tmp_path, "{}:{}".format(*listener.address))
        finally:
            await listener.close()

    seen = asyncio.run(run())
    assert (seen["target"]["health"], seen["target"]["lastError"]) == ("up", "")
    metadata = {(entry["metric"].removesuffix("_total"), entry["type"], entry["help"]) for entry in seen["metadata"]}
    table = {(metric.name.removesuffix("_total"), metric.type, metric.help) for metric in METRICS}
    assert table - metadata == set()
    names = {series["metric"]["__name__"] for series in seen["series"]}
    assert {name for name in names if name.startswith("metering_sweep_duration_seconds_")} == {
        f"metering_sweep_duration_seconds_{part}" for part in ("bucket", "count", "sum")
    }
    customers = {series["metric"].get("customer") for series in seen["series"]} - {None}
    assert customers == {'a "quoted"\\\ncustomer'}
    assert [float(series["value"][1]) for series in seen["books"]] == [pytest.approx(0, abs=1e-9)]


def test_promtool_finds_nothing_to_say() -> None:
    """`promtool check metrics` passes the text exposition without a word."""
    require(shutil.which("promtool") is not None, f"promtool {CURE}")
    exposition, _ = measured().render()
    lint = subprocess.run(["promtool", "check", "metrics"], input=exposition, capture_output=True, check=False)
    assert (lint.returncode, lint.stdout, lint.stderr) == (0, b"", b"")
