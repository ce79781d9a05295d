"""ACCOUNTING §5: usage of pods of which nothing but the UID is known yet. Booked at once, owned when it can be."""

import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from agent.attribution import WAITING, Customer
from agent.errors import SpoolError
from agent.model import Dimension
from tests.laws.life import Life, plan
from tests.laws.scene import CPU_SECONDS, MINUTE, NOON, S

ACME = Customer("acme", ({"namespace": "acme"},))
GLOBEX = Customer("globex", ({"namespace_labels": "tenant=globex"},))
WAIT = 30 * S
KNOWN = {
    "acme": {"namespace": "acme", "pod": "web"},
    "globex": {"namespace": "blue", "pod": "db", "namespace_label.tenant": "globex"},
    None: {"namespace": "lost", "pod": "x"},
}


def cluster(path: Path, *customers: Customer, dimensions: tuple[Dimension, ...] = (CPU_SECONDS,)) -> Life:
    """A node whose anchor is `a.slice`, already metered, and without pods yet."""
    life = Life(path, plan=plan(*(customers or (ACME, GLOBEX)), metadata_wait=WAIT, dimensions=dimensions))
    life.kernel.remove("a.slice/u")
    life.start().sweep()
    return life


def appear(life: Life, uid: str, used: int = 0) -> None:
    """A pod's group is made, and nothing is known of it."""
    life.kernel.make(f"a.slice/pod{uid}", pod_uid=uid)
    life.kernel.burn(f"a.slice/pod{uid}", used)


def introduce(life: Life, uid: str, customer: str | None) -> None:
    """Its metadata comes, whether it still lives or not."""
    labels = {"pod_uid": uid, **KNOWN[customer]}
    life.source.introduced[uid] = labels
    if (node := life.kernel.nodes.get(f"a.slice/pod{uid}")) is not None:
        node.labels = labels


def test_what_comes_within_the_window_never_shows(tmp_path: Path) -> None:
    """No record says unattributed: the open share is given to the owner."""
    life = cluster(tmp_path)
    appear(life, "1", 500)
    life.sweep(after=10 * S)
    introduce(life, "1", "acme")
    life.kernel.burn("a.slice/pod1", 70)
    life.sweep(after=15 * S)
    life.sweep(after=MINUTE)
    assert [(r.kind, r.customer, r.quantity, r.flags) for r in life.records()] == [
        ("usage", "acme", 570, ()),
    ]


def test_a_window_waits_for_metadata_and_no_longer_than_it_may(tmp_path: Path) -> None:
    """It closes with all its records metadata_wait after its watermark, at most."""
    life = cluster(tmp_path)
    appear(life, "1", 500)
    life.sweep(after=50 * S)
    life.sweep(after=15 * S)
    assert life.records() == []
    life.sweep(after=20 * S)
    assert life.records() == []
    life.sweep(after=10 * S)
    assert [(r.kind, r.quantity, r.metadata["reason"]) for r in life.records()] == [("unattributed", 500, WAITING.rule)]


def test_later_metadata_makes_a_pair_for_who_is_not_asked_to_reach_back(tmp_path: Path) -> None:
    """The rules of its own time decide; `reattribute` is for what no rule gave to anybody."""
    life = cluster(tmp_path)
    appear(life, "1", 500)
    for _ in range(3):
        life.sweep(after=50 * S)
    introduce(life, "1", "globex")
    life.sweep(after=S)
    first, taken, given_ = life.records()
    assert (first.quantity, taken.quantity, given_.quantity) == (500, -500, 500)
    assert (taken.key(), given_.customer, given_.kind) == (first.key(), "globex", "usage")
    assert (given_.start, given_.end) == (first.start, first.end)
    life.source.introduced["1"] = {"pod_uid": "1", **KNOWN["globex"]}  # told again: nothing is moved twice
    life.sweep(after=S)
    assert len(life.records()) == 3


def test_what_a_reload_cuts_while_nothing_is_known_finds_its_owner_too(tmp_path: Path) -> None:
    """The cut closes it as unattributed; metadata that comes after it makes the pair all the same."""
    life = cluster(tmp_path)
    appear(life, "1", 500)
    life.sweep(after=10 * S)
    life.adopt(ACME, GLOBEX, metadata_wait=WAIT, window=2 * MINUTE)
    assert [(r.kind, r.quantity) for r in life.records()] == [("unattributed", 500)]
    introduce(life, "1", "acme")
    life.sweep(after=S)
    assert life.balance() == {"acme": 500}


def test_a_pod_that_is_nobodys_is_unattributed_under_its_own_name(tmp_path: Path) -> None:
    """So that a customer who reaches back can claim it by its labels."""
    life = cluster(tmp_path)
    appear(life, "1", 500)
    for _ in range(3):
        life.sweep(after=50 * S)
    introduce(life, "1", None)
    life.sweep(after=S)
    moved = life.records()[-1]
    assert (moved.kind, moved.quantity, moved.group["resource"]) == ("unattributed", 500, "lost/x")
    life.adopt(
        Customer("late", ({"namespace": "lost"},), since=NOON, reattribute=True),
        metadata_wait=WAIT,
    )
    assert life.balance() == {"late": 500}


def test_a_policy_of_cells_waits_alike(tmp_path: Path) -> None:
    """Cells that are not folded yet are given too."""
    life = cluster(tmp_path, dimensions=(Dimension("cpu", "cpu.time", policy="max(request,usage)"),))
    appear(life, "1", 500)
    life.sweep(after=20 * S)
    introduce(life, "1", "acme")
    life.sweep(after=15 * S)
    life.sweep(after=MINUTE)
    assert {r.customer for r in life.records()} == {"acme"}
    assert life.balance() == {"acme": 500}


def test_what_a_source_wants_back_is_committed_with_its_sweep(tmp_path: Path) -> None:
    """L2: neither ahead of the sweep nor behind it, and kept when a commit fails."""
    life = cluster(tmp_path)
    life.source.remember = {"1": b"one", "2": b"two"}
    life.veto_commits()
    life.sweep_that_fails()
    life.veto_commits(False)
    assert life.spool.remembered("cgroups") == {}
    life.source.remember = {"2": None, "3": b"three"}
    life.sweep(after=S)
    life.kill()
    life.start()
    assert life.spool.remembered("cgroups") == {"1": b"one", "3": b"three"}


steps = st.one_of(
    st.tuples(st.just("appear"), st.integers(0, 5), st.integers(0, 999)),
    st.tuples(st.just("burn"), st.integers(0, 5), st.integers(1, 999)),
    st.tuples(st.just("introduce"), st.integers(0, 5), st.just(0)),
    st.tuples(st.just("remove"), st.integers(0, 5), st.just(0)),
    st.tuples(st.just("sweep"), st.just(0), st.integers(1, 40)),
    st.tuples(st.just("kill"), st.just(0), st.just(0)),
    st.tuples(st.just("fail"), st.just(0), st.just(0)),
)


@settings(max_examples=60)
@given(st.lists(steps, max_size=40))
def test_every_unit_finds_its_owner_whenever_the_metadata_comes(plan_: list[tuple[str, int, int]]) -> None:
    """Whatever order births, deaths, metadata, windows, kills and failed commits come in, each owner has its own."""
    with tempfile.TemporaryDirectory() as directory:
        life = cluster(Path(directory))
        owners = ["acme", "globex", None]
        used: dict[str | None, int] = {}
        appeared: set[int] = set()
        known: set[int] = set()
        for what, pod, number in plan_:
            path = f"a.slice/pod{pod}"
            owner = owners[pod % 3]
            if what == "appear" and pod not in appeared:
                appeared.add(pod)
                appear(life, str(pod), number)
                used[owner] = used.get(owner, 0) + number
            elif what == "burn" and path in life.kernel.nodes:
                life.kernel.burn(path, number)
                used[owner] = used.get(owner, 0) + number
            elif what == "introduce" and pod in appeared - known:
                known.add(pod)
                introduce(life, str(pod), owner)
            elif what == "remove" and path in life.kernel.nodes:
                life.source.read()
                life.kernel.remove(path)
            elif what == "sweep":
                life.sweep(after=number * S)
            elif what == "kill":
                life.sweep()  # the books of a living source: what it has said is committed or said again
                life.kill()
                life.start()
            elif what == "fail":
                life.veto_commits()
                try:
                    life.sweep()
                except SpoolError:
                    life.veto_commits(False)
        for pod in sorted(appeared - known):
            introduce(life, str(pod), owners[pod % 3])
        life.sweep(after=S)
        life.sweep(after=2 * MINUTE)
        life.sweep(after=2 * MINUTE)
        assert life.balance() == {customer: ns for customer, ns in used.items() if ns}
        assert all(b.booked + b.change == b.moved for b in life.sweep(after=S).commit.balances)
        life.stop()
