"""What breaks on a node while its pods are metered: no nanosecond is lost, none is billed twice."""

import pytest

from tests.cluster.faults import FAULTS, Struck, row, strike
from tests.cluster.installed import Installed
from tests.faults.report import publish, table

pytestmark = [pytest.mark.real, pytest.mark.timeout(1200)]

struck: dict[str, Struck] = {}


@pytest.mark.parametrize("fault", FAULTS)
def test_the_books_close_over_a_fault_and_a_pod_that_lives_through_it_is_billed_once(
    installed: Installed, fault: str
) -> None:
    """All that its own counter counted, to its customer; both, where its namespace changed hands (L1, L2)."""
    found = struck[fault] = strike(installed, fault)
    publish("faults on the node", table({name: row(one) for name, one in struck.items()}, "fault"))
    assert found.moved.difference == 0
    assert found.whole, f"used {found.used}, billed {found.billed}, no pod's {found.moved.residual}"
    assert found.billed.keys() == ({"acme", "globex"} if fault == "namespace relabelled" else {"acme"})
