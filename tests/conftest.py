"""What all tests share: a real-server test skips with its reason on a laptop and fails in CI; laws repeat exactly."""

import os
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from tests.cluster.cluster import Cluster
from tests.cluster.programs import missing

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


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A real Kubernetes, brought up once; a test that asks for it is `real`, and patient: the first one builds it."""
    require(not missing(), missing())
    cluster = Cluster(tmp_path_factory.mktemp("cluster"), f"{os.getpid()}", bound=True)
    try:
        cluster.up()
        yield cluster
    finally:
        cluster.down()
