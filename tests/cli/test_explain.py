"""`explain`: any record can be retold from what the spool keeps (L12)."""

import json

import pytest

from agent.attribution import Customer
from agent.delivery.quantity import Measure
from agent.delivery.rendering import Route
from agent.model import NS_PER_S
from agent.sinks import Answer
from agent.spool import ledger
from tests.cli.conftest import ACME, EPOCH, Ask, Stage
from tests.spool.draining import Billing, drain

UNATTRIBUTED, CPU, MEMORY = "1", "2", "3"  # the stage's first window
LATE = Customer("late", ({"cgroup": "customers.slice/stray"},), reattribute=True)


def test_a_record_tells_counters_children_rule_and_a_sum_that_adds_up(stage: Stage, ask: Ask) -> None:
    """From what to what each counter moved, what its children took of that, by which rule, and the total."""
    told = ask("explain", CPU)
    assert "customer acme (usage)" in told
    assert "quantity   0.000005035 core-seconds, exactly 5,035 ns" in told
    assert "counter cpu.time went from 0 to 5,000 ns: +5,000" in told
    assert "its metered children moved 5,000 ns" in told
    assert "5,035 − 5,000 = 35 ns" in told
    assert told.count("rule: customers[acme].match[0] cgroup=customers.slice/acme") == 2
    assert "observed: 2027-01-15T08:00:00Z – 08:00:10Z" in told
    assert "Sum: 5,000 + 35 = 5,035 ns, which is its quantity." in told


def test_a_gauge_is_told_as_a_level_that_was_held(stage: Stage, ask: Ask) -> None:
    """A level has no rise: what it was, and what it came to over time."""
    told = ask("explain", MEMORY)
    assert "level memory.working_set was 4,096 byte at first and 4,096 byte at last" in told
    assert "Sum: 40,960,000 = 40,960,000 byte·ms" in told


def test_the_text_stays_when_rule_and_cgroup_are_gone(stage: Stage, ask: Ask) -> None:
    """The evidence is the record's own: neither the configuration nor the kernel is asked."""
    stage.deliver()
    before = [ask("explain", name) for name in (UNATTRIBUTED, CPU, MEMORY)]
    stage.groups.cpu = {"customers.slice": stage.groups.cpu["customers.slice"]}
    stage.metering.adopt(stage.plan())
    stage.run(0)
    stage.groups.now += 20 * 10**9
    stage.metering.sweep(stage.groups)
    assert [ask("explain", name) for name in (UNATTRIBUTED, CPU, MEMORY)] == before


def test_a_window_that_a_span_only_touches_says_what_share_fell_into_it(stage: Stage, ask: Ask) -> None:
    """A counter's rise over a window's edge is split by time: its evidence shows the whole rise and the part."""
    stage.groups.now += 5 * 10**9
    stage.groups.burn("customers.slice/stray", 1000)
    stage.metering.sweep(stage.groups)
    stage.groups.now += 10 * 10**9
    stage.groups.burn("customers.slice/stray", 100)
    stage.metering.sweep(stage.groups)
    told = ask("explain", "4")
    assert "counter cpu.time went from 1,500 to 2,600 ns: +1,100" in told
    assert "1,050 ns of it in this window, the rest before, after or another owner's" in told
    assert "interpolated" in told


def test_delivery_is_told_sink_by_sink(stage: Stage, ask: Ask) -> None:
    """Owed until it is sent, then the file and the time; a billing sink never gets what is not billed."""
    assert "Sink files (file, billing): still owed" in ask("explain", CPU)
    stage.deliver()
    told = ask("explain", CPU)
    (file,) = (stage.home / "out").glob("*.ndjson")
    assert f"Sink files (file, billing): delivered at 2027-01-15T08:01:00Z: {file.name}" in told
    assert "Sink files (file, billing): never: unattributed is not billed" in ask("explain", UNATTRIBUTED)


def test_a_record_that_was_sent_three_times_tells_each_time_and_how_it_was_rounded(stage: Stage, ask: Ask) -> None:
    """Every attempt with its time and what came back, how it ended, and a value whose arithmetic can be checked."""
    lost, full = Answer(outcome="ambiguous", why="timed out"), Answer(outcome="retry", why="503: busy")
    sink = Billing("files", lost, full)
    route = Route(measures={"cpu": Measure("cpu", "kilo", per=1000, scale=1), "memory": Measure("memory", "byte·ms")})
    for minute in (1, 2, 3):
        drain(sink, stage.outbox, EPOCH + minute * 60 * NS_PER_S, route)
        if minute == 1:
            assert "under way: it may have arrived since 2027-01-15T08:01:00Z" in ask("explain", CPU)
    told = ask("explain", CPU)
    assert "delivered at 2027-01-15T08:03:00Z: 202" in told
    assert "submitted  5.0 kilo: 5,035 ns + 0 ns carried in = 5.0 · 1,000 ns + 35 ns carried on" in told
    assert [line.split("Z  ")[1] for line in told.splitlines() if line.startswith("  attempt")] == [
        "ambiguous: timed out",
        "retry: 503: busy",
        "delivered: 202",
    ]


def test_the_same_record_is_found_by_its_id_before_and_after_delivery(stage: Stage, ask: Ask) -> None:
    """The index of ids is filled at delivery; before it the record is looked for."""
    with ledger.opened(stage.home / "data") as db:
        entry = ledger.entry(db, int(CPU))
    assert entry is not None
    assert ask("explain", entry.id) == ask("explain", "record", CPU)
    stage.deliver()
    assert ask("explain", entry.id) == ask("explain", CPU)


def test_a_reattributed_pair_leads_back_to_what_was_measured(stage: Stage, ask: Ask) -> None:
    """Both halves show the first record's readings; the taking one shows that its key now sums to zero."""
    stage.metering.adopt(stage.plan(ACME, LATE))
    taken, given = ask("explain", "4"), ask("explain", "5")
    for told in (taken, given):
        assert "(number 1) held as unattributed" in told
        assert "counter cpu.time went from 0 to 1,500 ns" in told
    assert "to customer late, by rule customers[late].match[0] cgroup=customers.slice/stray" in given
    assert "n=1  -1,500 ns" in taken
    assert "  sum  0 ns" in taken


def test_a_gap_says_why_and_how_much_at_most(stage: Stage, ask: Ask) -> None:
    """An anchor that vanished leaves a gap with its bound, in words."""
    stage.groups.now += 2 * 10**9
    last = stage.groups.sweep()
    anchor = [r for r in last.readings if r.resource.name == "customers.slice"]
    stage.groups.now += 8 * 10**9
    end = stage.groups.sweep
    from msgspec import structs

    dying = structs.replace(anchor[0], gone=True)
    stage.groups.sweep = lambda: structs.replace(end(), readings=[dying], listing=frozenset())  # type: ignore[method-assign]
    stage.metering.sweep(stage.groups)
    with ledger.opened(stage.home / "data") as db:
        (gap, *_) = ledger.entries(db, kind="gap")
    told = ask("explain", gap.id)
    assert "Nothing was measured: anchor_gone: the anchor vanished" in told
    assert "At most 8.000000000 core-seconds (8,000,000,000 ns) is missing." in told


def test_evidence_past_its_retention_is_said_to_be_gone(stage: Stage, ask: Ask) -> None:
    """The record stays, its readings do not: the text says so and why."""
    with stage.spool.db:
        stage.spool.db.execute("DELETE FROM evidence")
    assert "Its readings are not kept: past `spool.evidence_retention`" in ask("explain", CPU)


def test_damaged_bytes_are_cried_out(stage: Stage, ask: Ask) -> None:
    """A record whose CRC is wrong is shown, and shown to be damaged."""
    stage.spool.db.execute("UPDATE record SET crc=crc+1 WHERE seq=2")
    assert "ITS BYTES ARE DAMAGED" in ask("explain", CPU)
    assert "CRC WRONG" in ask("spool", "show", CPU)


def test_a_customer_has_totals_and_newest_records(stage: Stage, ask: Ask) -> None:
    """Each dimension's sum over all that is kept, in both units."""
    stage.run(10)
    told = ask("explain", "customer", "acme")
    assert told == ask("explain", "acme")
    totals = [line.split() for line in told.splitlines() if line.startswith(("cpu", "memory"))]
    assert totals == [
        ["cpu", "2", "0.000010070", "core-seconds", "10,070", "ns"],
        ["memory", "2", "81,920.000", "byte-seconds", "81,920,000", "byte·ms"],
    ]


def test_a_resource_shows_its_part_of_each_record(stage: Stage, ask: Ask) -> None:
    """Who owned it and why, record by record."""
    told = ask("explain", "resource", "customers.slice/acme")
    assert told == ask("explain", "customers.slice/acme")
    assert "its part of 1 newest records" in told
    assert "0.000000035 core-seconds  for acme" in told
    assert "rule: customers[acme].match[0]" in told


@pytest.mark.parametrize("name", ["4711", "9" * 30, "00000000-0000-0000-0000-000000000000", "nobody-knows-this"])
def test_a_name_that_is_nothing_is_an_error_with_a_cure(stage: Stage, ask: Ask, name: str) -> None:
    """Exit 1 and one line, whatever was guessed."""
    assert name in ask("explain", name, code=1)


def test_a_kind_that_is_none_is_a_usage_error(stage: Stage, ask: Ask) -> None:
    """Two words, the first unknown: exit 2, and the known ones are listed."""
    assert "record, customer, resource, pod" in ask("explain", "node", "web", code=2)


def test_programs_get_the_same_as_json(stage: Stage, ask: Ask) -> None:
    """One document each; quantities are text, and the parts add up to the record."""
    told = json.loads(ask("explain", CPU, "--json"))
    assert sum(int(part["quantity"]) for part in told["parts"]) == int(told["record"]["quantity"]) == 5035
    assert {d["sink"]: d["state"] for d in told["deliveries"]} == {"files": "owed"}
    assert json.loads(ask("explain", "acme", "--json"))["totals"][0]["quantity"] == "5035"
    assert (
        json.loads(ask("explain", "customers.slice/stray", "--json"))["newest"][0]["part"]["rule"] == "no rule matched"
    )
