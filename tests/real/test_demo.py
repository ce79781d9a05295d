"""`make demo-delivery` shows what it says, from a clone."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.real
@pytest.mark.timeout(180)
def test_the_demonstration_ends_with_equal_totals() -> None:
    """A record sent three times is explained, one is settled by a person, who is in the trail; both ends agree."""
    run = subprocess.run(
        [sys.executable, "-m", "tests.upstream.demo"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert "attempt 3" in run.stdout
    assert "-- a person looks at the receiver: it has" in run.stdout
    assert "seen in its list of events" in run.stdout.partition("$ metering-agent spool audit")[2]
    assert run.stdout.count(" equal") == 3
    assert "0 more than once" in run.stdout
