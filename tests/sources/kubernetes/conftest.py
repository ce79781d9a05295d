"""The nodes that the tests of pods read."""

from pathlib import Path

import pytest

from tests.sources.kubernetes.node import Node


@pytest.fixture(params=["v1-cgroupfs", "v2-systemd", "hybrid-cgroupfs", "v1-systemd", "v2-cgroupfs"])
def node(request: pytest.FixtureRequest, tmp_path: Path) -> Node:
    """Each layout and each driver."""
    return Node(tmp_path, *request.param.split("-"))


@pytest.fixture
def one(tmp_path: Path) -> Node:
    """A hybrid node, where neither layout nor driver matters."""
    return Node(tmp_path, "hybrid")
