"""A source that asks the API server says so: in metrics at each sweep, in the log when it begins to fail and mends."""

import io

import pytest

from agent.reporting import Reporter, log_to
from agent.sources import Stats
from agent.telemetry import Telemetry
from tests.telemetry.test_metrics import Clocks


def test_how_asking_goes_is_shown_and_its_failing_said_once(capsys: pytest.CaptureFixture[str]) -> None:
    """DESIGN §8: transitions are logged once, and a scrape shows what stands."""
    clocks, log = Clocks(), io.StringIO()
    log_to(log)
    reporter = Reporter(Telemetry("1", boottime=lambda: clocks.up, billing=lambda: clocks.utc))
    reporter.followed("kubernetes", Stats(requests=3, last_heard=clocks.up))
    for _ in range(2):
        reporter.followed(
            "kubernetes", Stats(requests=5, relists=1, last_heard=clocks.up, failing="403: no list of pods")
        )
    body, _ = reporter.telemetry.render()
    text = body.decode()
    assert 'metering_kubernetes_api_requests_total{source="kubernetes"} 5' in text
    assert 'metering_kubernetes_api_relists_total{source="kubernetes"} 1' in text
    reporter.followed("kubernetes", Stats(requests=6))
    assert log.getvalue().count("403: no list of pods") == 1
    assert log.getvalue().count("event=recovered") == 1
