"""The machines that the sources' tests read."""

from pathlib import Path

import pytest

from tests.sources.machine import Machine


@pytest.fixture(params=["v1", "v2", "hybrid"])
def machine(request: pytest.FixtureRequest, tmp_path: Path) -> Machine:
    """Each layout in turn."""
    return Machine(tmp_path, request.param)


@pytest.fixture
def v1(tmp_path: Path) -> Machine:
    """A machine with v1 alone."""
    return Machine(tmp_path, "v1")


@pytest.fixture
def v2(tmp_path: Path) -> Machine:
    """A machine with v2 alone."""
    return Machine(tmp_path, "v2")
