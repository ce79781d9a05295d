"""What all tests share: a real-server test skips with its reason on a laptop and fails in CI."""

import os

import pytest


def require(condition: bool, reason: str) -> None:
    """Skip the test for `reason` unless `condition` holds; in CI that is a failure, for there it must run."""
    if not condition:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(reason)
