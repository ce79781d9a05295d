"""Law L1 by Hypothesis: random trees that live on while they are read, against a kernel that charges all ancestors.

Every step of a script is something that happens in the world. During a sweep or a read the world goes on too: before
each single read some group burns. So the books are proven under every skew, order of deaths and resets there is.
"""

from collections.abc import Iterator

from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from agent.model import NS_PER_MS
from tests.laws.kernel import Kernel, KernelSource
from tests.laws.scene import MINUTE, Line, customer

ROOT = "c.slice"
PLACES = [f"{ROOT}/{a}{rest}" for a in ("acme", "beta", "free") for rest in ("", "/1", "/2", "/1/x")]
MS = NS_PER_MS

burns = st.integers(0, 3_000_000)
place = st.sampled_from([ROOT, *PLACES])
happenings = st.one_of(
    st.tuples(st.just("burn"), place, burns),
    st.tuples(st.just("make"), place, burns),
    st.tuples(st.just("remove"), place, burns),
    st.tuples(st.just("remove unseen"), place, burns),
    st.tuples(st.just("read"), place, burns),
    st.tuples(st.just("sweep"), place, burns),
    st.tuples(st.just("sweep"), place, burns),
)
resets = st.tuples(st.just("reset"), place, burns)
leavings = st.one_of(st.tuples(st.just("hide"), place, burns), st.tuples(st.just("show"), place, burns))
meanwhile = st.lists(st.tuples(place, burns), max_size=8)


class World:
    """A kernel, its source, and the line; `during` is what burns in the midst of reads."""

    def __init__(self, during: list[tuple[str, int]]) -> None:
        self.kernel = Kernel(0)
        for path in (ROOT, *PLACES):
            self.make(path)
        self.source = KernelSource(self.kernel)
        self.during: Iterator[tuple[str, int]] = iter(())
        self._during = during
        self.source.between = self.go_on
        self.line = Line(customer("acme", unit="acme"), customer("beta", unit="beta"))
        self.burnt: dict[str | None, int] = {}  # owner → what was burnt in its subtree
        self.anchor_seen: int | None = None
        self.in_flight = 0

    def make(self, path: str) -> None:
        if path.rpartition("/")[0] in {*self.kernel.nodes, ""} and path not in self.kernel.nodes:
            unit = path.removeprefix(f"{ROOT}/")
            self.kernel.make(path, **({"unit": unit} if unit in ("acme", "beta") else {}))

    def burn(self, path: str, ns: int) -> None:
        if path in self.kernel.nodes:
            self.kernel.burn(path, ns)
            owner = next((o for o in ("acme", "beta") if f"{path}/".startswith(f"{ROOT}/{o}/")), None)
            self.burnt[owner] = self.burnt.get(owner, 0) + ns

    def remove(self, path: str) -> bool:
        if path not in self.kernel.nodes or any(p.startswith(f"{path}/") for p in self.kernel.nodes) or path == ROOT:
            return False
        self.kernel.remove(path)
        return True

    def go_on(self) -> None:
        for path, ns in self.during:
            self.kernel.boottime += MS
            self.burn(path, ns)
            break

    def sweep(self) -> None:
        """One sweep, and L1 in it: Σ booked + Δin_flight = Δanchor."""
        self.kernel.boottime += 1000 * MS
        self.during = iter(self._during)
        sweep = self.source.sweep()
        commit = self.line.sweep(sweep)
        for usage in (c.record.quantity for c in commit.closed):
            assert usage >= 0
        (anchor,) = [r.samples[0].value for r in sweep.readings if r.resource.name == ROOT]
        for balance in commit.balances:
            assert balance.booked + balance.change == balance.moved
            assert balance.in_flight == self.in_flight + balance.change
            assert balance.in_flight <= 0
            assert balance.overrun == 0
            self.in_flight = balance.in_flight
            if self.anchor_seen is not None and anchor >= self.anchor_seen:
                assert balance.moved == anchor - self.anchor_seen
        self.anchor_seen = anchor

    def booked(self, owner: str | None) -> int:
        return self.line.billed(owner) + self.line.open(owner)

    def happen(self, what: str, path: str, ns: int) -> None:
        if what == "burn":
            self.burn(path, ns)
        elif what == "make":
            self.make(path)
            self.burn(path, ns)
        elif what.startswith("remove"):
            self.burn(path, ns)
            if what == "remove":
                self.source.read()
                self.burn(path, ns // 2)  # the tail that no reading saw
            if self.remove(path) and what == "remove unseen":
                self.source._kept = {k: v for k, v in self.source._kept.items() if v[1].resource.name != path}
        elif what == "read":
            self.source.read()
        elif what == "sweep":
            self.sweep()
        elif what == "reset" and path in self.kernel.nodes:
            self.kernel.nodes[path].value = min(self.kernel.nodes[path].value, ns // 1000)
        elif what == "hide" and path != ROOT:
            self.source.hidden.add(path)
        elif what == "show":
            self.source.hidden.discard(path)


@given(st.lists(happenings, max_size=60), meanwhile)
def test_books_close_in_every_sweep_and_every_customer_gets_its_own_slices_total(
    script: list[tuple[str, str, int]], during: list[tuple[str, int]]
) -> None:
    """L1: and the sum is not only right, it is each customer's own: what its slice's counter says when all is still.

    The slices of acme and beta live; inside them groups are born, die with and without a last reading, and burn between
    any two reads. When everything has come to rest, two sweeps see it: each customer has exactly what was burnt in its
    slice, nobody has the rest, and nothing is in flight.
    """
    world = World(during)
    world.sweep()
    world.burnt = dict.fromkeys(world.burnt, 0)
    before = {path: world.kernel.nodes[path].value for path in (ROOT, f"{ROOT}/acme", f"{ROOT}/beta")}
    seen = dict.fromkeys(("acme", "beta"), 0)
    for reading in world.line.books.tracks["cgroups"].values():
        if reading.resource.name in before:
            before[reading.resource.name] = reading.marks["cpu.time"].value
    for what, path, ns in script:
        if what.startswith("remove") and path.count("/") < 2:
            continue  # the customers' slices stay; that they may go is the next test
        world.happen(what, path, ns)
    world._during = []
    world.during = iter(())
    world.sweep()
    world.sweep()
    assert world.in_flight == 0
    for owner in seen:
        counter = world.kernel.nodes[f"{ROOT}/{owner}"].value
        assert world.booked(owner) == counter - before[f"{ROOT}/{owner}"]
    total = world.kernel.nodes[ROOT].value - before[ROOT]
    assert sum(world.booked(owner) for owner in ("acme", "beta", None)) == total


@given(st.lists(st.one_of(happenings, resets, leavings), max_size=60), meanwhile)
def test_nothing_is_booked_twice_whatever_dies_is_reset_or_leaves(
    script: list[tuple[str, str, int]], during: list[tuple[str, int]]
) -> None:
    """L1, L2, L4: also where counters fall and groups leave the configuration, no more is booked than was burnt.

    But for what is in flight: a parent that was reset to no less than its mark shows no fall, only children that moved
    more than it did. That is a debt, and published.
    """
    world = World(during)
    world.sweep()
    world._during, world.during = [], iter(())
    world.sweep()  # what was in flight at the baseline is settled
    world._during = during
    world.burnt = {}
    start = sum(world.booked(owner) for owner in ("acme", "beta", None))
    for step in script:
        world.happen(*step)
        booked = sum(world.booked(owner) for owner in ("acme", "beta", None)) - start
        assert booked + world.in_flight <= sum(world.burnt.values())


@given(st.lists(happenings, max_size=40), meanwhile)
def test_a_sweep_that_is_split_over_windows_books_the_same(
    script: list[tuple[str, str, int]], during: list[tuple[str, int]]
) -> None:
    """L6 with L1: the length of the windows changes no total."""
    totals = []
    for window in (MINUTE, 1000 * MS, 700 * MS):
        world = World(during)
        world.line = Line(customer("acme", unit="acme"), customer("beta", unit="beta"), window=window)
        world.sweep()
        for step in script:
            world.happen(*step)
        totals.append([world.booked(owner) for owner in ("acme", "beta", None)])
    assert totals[0] == totals[1] == totals[2]


@given(st.lists(burns, min_size=2, max_size=12), st.randoms(use_true_random=False))
def test_children_read_in_any_order_after_their_parents_never_over_book(values: list[int], random: object) -> None:
    """L1: Σ booked lies between the truth at the first read and the truth at the last."""
    kernel, line = Kernel(0), Line()
    kernel.make(ROOT)
    paths = [f"{ROOT}/{i}" for i in range(len(values))]
    for path in paths:
        kernel.make(path)
    source = KernelSource(kernel)
    line.sweep(source.sweep())
    burnt = 0
    for _ in range(3):
        floor = burnt
        kernel.boottime += 1000 * MS
        steps = iter(zip(paths, values, strict=True))

        def go_on(steps: Iterator[tuple[str, int]] = steps) -> None:
            nonlocal burnt
            for path, ns in steps:
                kernel.burn(path, ns)
                burnt += ns
                break

        source.between = go_on
        sweep = source.sweep()
        tail = sweep.readings[1:]
        random.shuffle(tail)  # type: ignore[attr-defined]
        commit = line.sweep(structs.replace(sweep, readings=[sweep.readings[0], *tail]))
        total = line.billed(None) + line.open()
        assert floor <= total <= burnt
        assert total + commit.balances[0].in_flight <= burnt
