"""ACCOUNTING §§3–4, DESIGN §8: what a reload changes is cut first, under the old plan; then the new one acts."""

from pathlib import Path

from agent.model import Dimension, Reading, Sample, Sweep
from tests.laws.kernel import KernelSource
from tests.laws.life import Life, plan
from tests.laws.scene import CPU_SECONDS, MINUTE, NOON, S, customer

ACME = customer("acme", unit="u")
BY_UNIT = Dimension("cpu", "cpu.time", group_by=("unit",))


def begun(path: Path, **changes: object) -> Life:
    """A life with acme's unit, swept once at noon."""
    life = Life(path, plan=plan(ACME, **changes))  # type: ignore[arg-type]
    life.kernel.nodes["a.slice/u"].labels["unit"] = "u"
    life.start().sweep()
    return life


def spans(life: Life) -> list[tuple[int, int, int]]:
    """(start, end, quantity) of acme's records, in seconds after noon."""
    return [((r.start - NOON) // S, (r.end - NOON) // S, r.quantity) for r in life.records() if r.customer == "acme"]


def test_a_reload_that_changes_a_meter_cuts_its_windows(tmp_path: Path) -> None:
    """§4: the old group up to the cut, the new one from there; nothing is twice."""
    life = begun(tmp_path)
    life.kernel.burn("a.slice/u", 20)
    life.sweep(after=20 * S)
    life.adopt(ACME, dimensions=[BY_UNIT])
    life.kernel.burn("a.slice/u", 40)
    life.sweep(after=40 * S)
    assert spans(life) == [(0, 20, 20), (20, 60, 40)]
    assert [r.group for r in life.records() if r.customer == "acme"] == [{}, {"unit": "u"}]


def test_a_reload_that_changes_nothing_cuts_nothing(tmp_path: Path) -> None:
    """§4: SIGHUP without an edit, and a restart, leave windows whole."""
    life = begun(tmp_path)
    life.kernel.burn("a.slice/u", 20)
    life.sweep(after=20 * S)
    life.adopt(ACME)
    life.kill()
    life.start()
    life.sweep(after=40 * S)
    assert spans(life) == [(0, 60, 20)]


def test_a_reload_that_changes_another_meter_leaves_this_ones_windows(tmp_path: Path) -> None:
    """§4: *a reload that changes the meter*."""
    life = begun(tmp_path, dimensions=[CPU_SECONDS, Dimension("io", "io.read")])
    life.kernel.burn("a.slice/u", 20)
    life.sweep(after=20 * S)
    life.adopt(ACME, dimensions=[CPU_SECONDS])
    life.sweep(after=40 * S)
    assert spans(life) == [(0, 60, 20)]


def test_another_window_length_cuts_and_goes_on_aligned(tmp_path: Path) -> None:
    """§4: UTC-aligned before and after."""
    life = begun(tmp_path)
    life.kernel.burn("a.slice/u", 70)
    life.sweep(after=70 * S)
    life.adopt(ACME, window=2 * MINUTE)
    life.kernel.burn("a.slice/u", 50)
    life.sweep(after=50 * S)
    assert spans(life) == [(0, 60, 60), (60, 70, 10), (70, 120, 50)]


def test_a_change_of_plan_while_the_agent_was_down_cuts_where_it_stopped(tmp_path: Path) -> None:
    """§4: killed, edited, started: the open windows close by the plan under which they were opened."""
    life = begun(tmp_path)
    life.kernel.burn("a.slice/u", 20)
    life.sweep(after=20 * S)
    life.kill()
    life.kernel.burn("a.slice/u", 40)
    life.pass_time(40 * S)
    life.plan = plan(ACME, dimensions=[BY_UNIT])
    life.start().sweep()
    assert spans(life) == [(0, 20, 20), (20, 60, 40)]


def test_a_removed_dimension_closes_and_a_new_one_starts_at_the_reload(tmp_path: Path) -> None:
    """§4: a new dimension bills nothing from before it was configured."""
    life = begun(tmp_path)
    life.kernel.burn("a.slice/u", 20)
    life.sweep(after=20 * S)
    life.adopt(ACME, dimensions=[Dimension("new", "cpu.time")])
    life.kernel.burn("a.slice/u", 40)
    life.sweep(after=40 * S)
    assert (life.balance("cpu"), life.balance("new")) == ({"acme": 20}, {"acme": 40})


class IoSource(KernelSource):
    """Reads I/O as well, while it is wanted, as the real source does."""

    wanted = True

    def sweep(self) -> Sweep:
        swept = super().sweep()
        if self.wanted:
            swept.readings[:] = [
                Reading(r.resource, (*r.samples, Sample("io.read", s.identity, s.value, s.taken)), r.gone)
                for r in swept.readings
                for s in r.samples
            ]
        return swept


def test_a_meter_that_left_the_configuration_and_returns_baselines(tmp_path: Path) -> None:
    """§3: what (re)enters baselines, a meter as a group does; the time between is not billed."""
    io = Dimension("io", "io.read")
    life = begun(tmp_path, dimensions=[CPU_SECONDS, io])
    life.source = source = IoSource(life.kernel)
    life.kernel.burn("a.slice/u", 10)
    life.sweep(after=20 * S)
    life.kernel.burn("a.slice/u", 10)
    life.sweep(after=20 * S)
    life.adopt(ACME)
    source.wanted = False
    life.kernel.burn("a.slice/u", 1000)
    life.sweep(after=MINUTE)
    source.wanted = True
    life.adopt(ACME, dimensions=[CPU_SECONDS, io])
    for burnt in (100, 3):
        life.kernel.burn("a.slice/u", burnt)
        life.sweep(after=MINUTE)
    assert life.balance("io").get("acme") == 10 + 3


def test_a_shutdown_commits_its_cut(tmp_path: Path) -> None:
    """DESIGN §8: what was measured is in records once the process is gone, not in open windows."""
    life = begun(tmp_path)
    life.kernel.burn("a.slice/u", 20)
    life.sweep(after=20 * S)
    life.stop()
    life.start()
    assert spans(life) == [(0, 20, 20)]
    assert [row.shares for row in life.spool.snapshot().rows if row.shares] == []


def test_the_windows_of_a_removed_source_still_close(tmp_path: Path) -> None:
    """L8: what it measured is not stranded in an open window."""
    life = begun(tmp_path)
    life.kernel.burn("a.slice/u", 20)
    life.sweep(after=20 * S)
    life.adopt(ACME, feeds=("other",))
    life.source = KernelSource(life.kernel, "other")
    life.sweep(after=40 * S)
    life.sweep(after=MINUTE)
    assert spans(life) == [(0, 60, 20)]


def test_segments_that_no_usage_can_reach_any_more_are_forgotten(tmp_path: Path) -> None:
    """DESIGN §12, flat: a thousand restarts must not make each commit longer."""
    life = begun(tmp_path)
    sizes = []
    for _ in range(40):
        life.kernel.burn("a.slice/u", 1)
        life.sweep(after=10 * MINUTE)
        life.stop()
        life.start()
        sizes.append(len(life.spool.meta("segments") or b""))
    assert sizes[-1] == sizes[-20]


def test_what_is_born_after_a_reload_is_the_new_customers_in_full(tmp_path: Path) -> None:
    """§5: the span since the sweep that the reload made must not be cut at the milliseconds it then took."""
    life = begun(tmp_path)
    life.sweep(after=20 * S)
    life.pass_time(3_000_000)
    life.metering.adopt(plan(ACME, customer("beta", unit="b")), just_swept=True)
    life.kernel.make("a.slice/b", unit="b")
    life.kernel.burn("a.slice/b", 10**6)
    life.sweep(after=S)
    life.sweep(after=40 * S)
    assert life.balance()["beta"] == 10**6
