"""One agent, installed by its chart, for all tests that meter pods."""

from collections.abc import Iterator

import pytest

from tests.cluster import neighbours
from tests.cluster.cluster import Cluster
from tests.cluster.installed import Installed


@pytest.fixture(scope="session")
def installed(cluster: Cluster) -> Iterator[Installed]:
    """It meters the session's cluster, in which three customers and nobody have pods."""
    installed = Installed(cluster)
    installed.install()
    cluster.apply(*neighbours.NAMESPACES, *neighbours.LIVING)
    yield installed
    installed.uninstall()
