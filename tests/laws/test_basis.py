"""A change of basis: other counters of the same pods. What they show is not usage, and the old ones end in a gap."""

from pathlib import Path

from tests.laws.life import Life
from tests.laws.scene import MINUTE, S


def test_a_change_of_basis_baselines_with_no_delta(tmp_path: Path) -> None:
    """Neither the new counters' totals nor the fall between the two is billed; windows end there."""
    life = Life(tmp_path).start()
    life.sweep()
    life.kernel.burn("a.slice/u", 100)
    life.sweep(after=15 * S)
    life.source.basis = "summary"
    life.kernel.make("a.slice/other-counters")  # keys that were in no listing before
    life.kernel.burn("a.slice/other-counters", 9_000)
    life.sweep(after=15 * S)
    assert life.total() == 100
    life.kernel.burn("a.slice/other-counters", 7)
    life.sweep(after=15 * S)
    life.sweep(after=MINUTE)
    by_basis = {r.basis: r for r in life.records() if r.kind != "gap"}
    assert {basis: r.quantity for basis, r in by_basis.items()} == {"cgroup": 100, "summary": 7}
    assert by_basis["cgroup"].end == by_basis["summary"].start
    (gap,) = (r for r in life.records() if r.kind == "gap")
    assert (gap.reason, gap.group) == ("basis", {"anchor": "a.slice"})
