"""What all tests share: a real-server test skips with its reason on a laptop and fails in CI; laws repeat exactly."""

import os

import pytest
from hypothesis import HealthCheck, settings

# The same examples each time: a red build can be had again, and a green one is no luck. Look for new ones with
# HYPOTHESIS_PROFILE=search.
settings.register_profile(
    "ci", deadline=None, derandomize=True, max_examples=100, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("search", parent=settings.get_profile("ci"), derandomize=False, max_examples=2000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


def require(condition: bool, reason: str) -> None:
    """Skip the test for `reason` unless `condition` holds; in CI that is a failure, for there it must run."""
    if not condition:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(reason)
