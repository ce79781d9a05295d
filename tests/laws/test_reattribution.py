"""ACCOUNTING §5: unattributed usage that finds its owner while it is held, as pairs that only add."""

import contextlib
from pathlib import Path

from agent.attribution import Customer
from agent.model import Dimension
from agent.record import UsageRecord
from tests.laws.life import Life, plan
from tests.laws.scene import CPU_SECONDS, MINUTE, NOON, S

HOUR = 3600 * S


def acme(since: int = NOON, **match: str) -> Customer:
    """A customer who reaches back."""
    return Customer("acme", (match or {"unit": "u"},), since=since, reattribute=True)


def used(path: Path, ns: int = 60, **changes: object) -> Life:
    """A life in which unit `u`, nobody's, used `ns` in the first minute after noon, and it closed."""
    life = Life(path, plan=plan(**changes))  # type: ignore[arg-type]
    life.kernel.nodes["a.slice/u"].labels["unit"] = "u"
    life.start().sweep()
    life.kernel.burn("a.slice/u", ns)
    life.sweep(after=MINUTE)
    return life


def signed(records: list[UsageRecord]) -> list[tuple[str, str | None, int]]:
    """Kind, customer, quantity."""
    return [(r.kind, r.customer, r.quantity) for r in records]


def test_later_metadata_makes_a_pair(tmp_path: Path) -> None:
    """§5: −q unattributed, +q customer, same window, next n."""
    life = used(tmp_path)
    life.adopt(acme())
    (_, n0, first), (_, n1, taken), (_, m0, given) = life.rows()
    assert signed([first, taken, given]) == [
        ("unattributed", None, 60),
        ("unattributed", None, -60),
        ("usage", "acme", 60),
    ]
    assert (n0, n1, m0) == (0, 1, 0)
    assert taken.key() == first.key()
    assert (given.start, given.end) == (first.start, first.end)
    assert given.metadata["reattributed_from"] == first.id(0)


def test_a_pair_is_made_once(tmp_path: Path) -> None:
    """L2: neither another load nor a restart nor a later sweep makes it again."""
    life = used(tmp_path)
    life.adopt(acme())
    life.adopt(acme(), window=2 * MINUTE)
    life.kill()
    life.start()
    life.adopt(acme(since=NOON - HOUR))
    life.sweep(after=2 * MINUTE)
    assert life.balance() == {"acme": 60}


def test_a_pair_is_one_transaction(tmp_path: Path) -> None:
    """§5: never the one half without the other."""
    life = used(tmp_path)
    statements: list[str] = []

    def fail_on_second(cursor: object, sql: str, bindings: object) -> bool:
        if sql.startswith("INSERT INTO record"):
            statements.append(sql)
            if len(statements) == 2:
                raise RuntimeError("killed")
        return True

    life.spool.db.exec_trace = fail_on_second
    with contextlib.suppress(RuntimeError):
        life.adopt(acme())
    assert len(statements) == 2
    life.spool.db.exec_trace = None
    life.kill()
    life.start()
    assert life.balance() in ({None: 60}, {"acme": 60})


def test_a_residual_is_final(tmp_path: Path) -> None:
    """§5: it has no labels, so no rule can claim it later."""
    life = Life(tmp_path)
    life.start().sweep()
    life.kernel.burn("a.slice", 60)
    life.sweep(after=MINUTE)
    life.adopt(acme(unit="*"))
    life.adopt(acme(cgroup="**"))
    assert life.balance() == {None: 60}


def test_usage_older_than_the_hold_stays_unattributed(tmp_path: Path) -> None:
    """§5: hold = min(72 h, ¾ of the smallest max_age)."""
    life = used(tmp_path, hold=HOUR)
    life.pass_time(HOUR + 1)
    life.adopt(acme(), hold=HOUR)
    assert life.balance() == {None: 60}


def test_usage_within_the_hold_is_found(tmp_path: Path) -> None:
    """§5, the other side of the edge."""
    life = used(tmp_path, hold=HOUR)
    life.pass_time(HOUR)
    life.adopt(acme(), hold=HOUR)
    assert life.balance() == {"acme": 60}


def test_without_reattribute_the_past_stays(tmp_path: Path) -> None:
    """§5: a past `from` alone acts from load time."""
    life = used(tmp_path)
    life.adopt(Customer("acme", ({"unit": "u"},), since=NOON))
    assert life.balance() == {None: 60}


def test_a_record_across_the_owners_from_is_split_there_by_time(tmp_path: Path) -> None:
    """L6: acme reaches back to 20 s; a third of the minute stays nobody's."""
    life = used(tmp_path, ns=61)
    life.adopt(acme(since=NOON + 20 * S))
    assert life.balance() == {"acme": 61 - 61 // 3, None: 61 // 3}


def test_usage_in_open_windows_is_found_when_it_closes(tmp_path: Path) -> None:
    """§5: what was booked to nobody before the load, in a window that closes after it."""
    life = used(tmp_path)
    life.kernel.burn("a.slice/u", 7)
    life.sweep(after=30 * S)
    life.adopt(acme())
    life.sweep(after=30 * S)
    assert life.balance() == {"acme": 67}


def test_what_the_new_owner_would_own_by_its_parent_is_found_too(tmp_path: Path) -> None:
    """§2 with §5: a match owns its whole subtree; the unit inside acme's slice has no label that matches."""
    life = Life(tmp_path)
    life.kernel.nodes["a.slice/u"].labels["unit"] = "acme.slice"
    life.kernel.make("a.slice/u/job", unit="job.service")
    life.start().sweep()
    life.kernel.burn("a.slice/u/job", 40)
    life.kernel.burn("a.slice/u", 2)
    life.sweep(after=MINUTE)
    life.adopt(acme(unit="acme.slice"))
    assert life.balance() == {"acme": 42}


def test_two_new_owners_of_equal_rank_leave_it_unattributed(tmp_path: Path) -> None:
    """§5: order never decides, later as little as at once."""
    life = used(tmp_path)
    life.adopt(acme(), Customer("beta", ({"unit": "u"},), since=NOON, reattribute=True))
    assert life.balance() == {None: 60}


def test_the_pair_is_grouped_as_the_customers_dimension_says(tmp_path: Path) -> None:
    """§6: the customer's record has the group that it would have had at once."""
    by_unit = (Dimension("cpu", "cpu.time", group_by=("unit",)),)
    life = used(tmp_path, dimensions=by_unit)
    life.adopt(acme(), dimensions=by_unit)
    assert life.records()[-1].group == {"unit": "u"}


def test_all_dimensions_of_a_meter_move(tmp_path: Path) -> None:
    """§5: a pair per record."""
    both = (CPU_SECONDS, Dimension("cpu-again", "cpu.time"))
    life = used(tmp_path, dimensions=both)
    life.adopt(acme(), dimensions=both)
    assert [life.balance(d.name) for d in both] == [{"acme": 60}, {"acme": 60}]


def test_late_unattributed_usage_is_found_as_well(tmp_path: Path) -> None:
    """§5, L7: a second delta of a record that was moved already; the clock went back over its window."""
    life = used(tmp_path)
    life.adopt(acme(since=NOON + HOUR))  # reaches back to nothing yet
    life.adopt(Customer("beta", ({"unit": "z"},), since=NOON, reattribute=True))
    life.wall -= 2 * MINUTE
    life.kernel.burn("a.slice/u", 5)
    life.sweep(after=30 * S)
    for _ in range(6):
        life.sweep(after=MINUTE)
    life.adopt(acme(since=0))
    assert life.balance() == {"acme": 65}
