"""Laws L2, L8 beside configurations that change: a billable record is one billing sink's, and is overlooked by none."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from agent.delivery.quantity import Measure
from agent.delivery.rendering import Route
from agent.spool.outbox import Outbox
from tests.spool.desk import Desk
from tests.spool.draining import Billing, drain
from tests.spool.ledger import NOON, append, opened, record

SINKS = ("one", "two")


class Pair:
    """Two billing systems over one spool, and the dimensions of each as the configuration has them now."""

    def __init__(self, path: Path) -> None:
        self.spool = opened(path)
        self.outbox = Outbox(self.spool)
        self.sinks = {name: Billing(name) for name in SINKS}
        self.owner: dict[str, str | None] = {"cpu": "one", "disk": "two"}
        self.number = 0
        for name in SINKS:
            self.register(name)

    def register(self, name: str) -> None:
        self.outbox.register(name, "fake", "billing", b"{}", since=0)

    def use(self, dimension: str) -> None:
        append(self.spool, structs.replace(record(self.number), dimension=dimension))
        self.number += 1

    def deliver(self, name: str) -> None:
        """All that this one can be sent."""
        if name not in self.outbox.sinks():
            return
        route = Route(
            measures={d: Measure(d, "") for d, owner in self.owner.items() if owner == name},
            orphans=[d for d, owner in self.owner.items() if owner is None] if name == "one" else (),
            elsewhere={d: owner or "one" for d, owner in self.owner.items() if (owner or "one") != name},
        )
        drain(self.sinks[name], self.outbox, NOON, route)

    def leave(self, name: str) -> None:
        """Out of the configuration, when it is owed nothing; and back, from the beginning."""
        self.deliver(name)
        if name in self.outbox.sinks():
            self.outbox.remove(self.outbox.sinks()[name])
        self.register(name)

    def sent(self) -> list[int]:
        """Every time that a record was sent, to whichever."""
        return sorted(seq for sink in self.sinks.values() for seq, _ in sink.sent)


happenings = st.one_of(
    st.tuples(st.just("use"), st.sampled_from(["cpu", "disk"])),
    st.tuples(st.just("deliver"), st.sampled_from(SINKS)),
    st.tuples(st.just("leave"), st.sampled_from(SINKS)),
    st.tuples(st.just("cpu"), st.sampled_from([*SINKS, None])),
    st.tuples(st.just("disk"), st.sampled_from([*SINKS, None])),
)


@given(script=st.lists(happenings, max_size=20))
def test_each_record_is_billed_once_whoever_takes_its_dimension_and_when(
    tmp_path_factory: pytest.TempPathFactory, script: list[tuple[str, str | None]]
) -> None:
    """Dimensions move between sinks that are behind or ahead, become nobody's, and sinks go and come back."""
    pair = Pair(tmp_path_factory.mktemp("pair"))
    pair.spool.db.pragma("synchronous", 0)
    for what, which in script:
        if what in pair.owner:
            pair.owner[what] = which
        else:
            getattr(pair, what)(which)
    pair.owner = {"cpu": "one", "disk": "two"}
    db = pair.spool.db
    for _ in range(2):
        for name in (*SINKS, *SINKS):
            pair.deliver(name)
        db.execute("UPDATE item SET outcome=NULL, at=NULL, why=NULL WHERE outcome='unrouted'")  # `spool requeue`
    assert pair.sent() == list(range(1, pair.number + 1))
    pair.spool.close()


def test_a_dimension_that_moves_takes_along_what_its_sink_had_not_looked_at(tmp_path: Path) -> None:
    """One was down for a day, and the other was not: the records between were neither's."""
    pair = Pair(tmp_path)
    pair.use("cpu")
    pair.deliver("two")
    pair.owner["cpu"] = "two"
    pair.deliver("one")
    pair.deliver("two")
    assert [seq for seq, _ in pair.sinks["two"].sent] == [1]
    pair.spool.close()


def test_a_dimension_that_moves_does_not_take_along_what_was_delivered(tmp_path: Path) -> None:
    """The other was behind: it would bill again what the one had."""
    pair = Pair(tmp_path)
    pair.use("cpu")
    pair.deliver("one")
    pair.owner["cpu"] = "two"
    pair.deliver("two")
    assert pair.sent() == [1]
    pair.spool.close()


def test_a_sink_that_comes_back_is_not_sent_again_what_it_had(tmp_path: Path) -> None:
    """`from` reaches back to before it was removed, by a slip, for a minute."""
    pair = Pair(tmp_path)
    pair.use("cpu")
    pair.leave("one")
    pair.deliver("one")
    assert pair.sent() == [1]
    pair.spool.close()


def test_what_no_sink_took_goes_to_the_one_that_takes_it_now(tmp_path: Path) -> None:
    """`explain` says: give its dimension a sink, then requeue it. That sink need not be the one that noted it."""
    desk = Desk(tmp_path)
    other = Billing("other")
    desk.outbox.register("other", "fake", "billing", b"{}", since=0)
    append(desk.spool, record())
    desk.drain(Route(measures={}, orphans=["cpu"]))
    drain(other, desk.outbox, NOON, Route(measures={}, elsewhere={"cpu": "billing"}))
    assert desk.state() == "unrouted"
    desk.act("spool requeue", record="1", sink="billing")
    desk.drain(Route(measures={}, elsewhere={"cpu": "other"}))
    drain(other, desk.outbox, NOON, Route(measures={"cpu": Measure("cpu", "")}))
    assert [seq for seq, _ in other.sent] == [1]
    desk.spool.close()
