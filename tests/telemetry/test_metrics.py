"""The metrics keep their names, tell the truth about what they were told, and name no customer unasked."""

import re
from collections.abc import Mapping

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from prometheus_client import REGISTRY
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from agent.clock import Verdict
from agent.model import NS_PER_S, Balance
from agent.telemetry import METRICS, SpoolLevels, Telemetry

GOLDEN = """\
metering_sweep_duration_seconds histogram source
metering_sweeps_total counter source outcome
metering_last_sample_age_seconds gauge source
metering_watermark_lag_seconds gauge source
metering_anomalies_total counter source reason
metering_gaps_total counter source reason
metering_kubernetes_api_requests_total counter source
metering_kubernetes_api_relists_total counter source
metering_kubernetes_api_failing gauge source
metering_kubernetes_metadata_age_seconds gauge source
metering_books_anchor_seconds_total counter anchor meter
metering_books_booked_seconds_total counter anchor meter
metering_books_unattributed_seconds_total counter anchor meter
metering_books_in_flight_seconds gauge anchor meter
metering_books_overrun_seconds_total counter anchor meter
metering_open_windows gauge
metering_records_total counter kind
metering_recorded_quantity_total counter customer dimension
metering_unattributed_held_records gauge
metering_spool_bytes gauge
metering_spool_free_bytes gauge
metering_spool_undelivered_records gauge
metering_spool_oldest_undelivered_age_seconds gauge
metering_spool_absorbable_outage_seconds gauge
metering_node_death_loss_seconds gauge
metering_sink_outcomes_total counter sink outcome
metering_sink_stuck_records gauge sink outcome
metering_sink_backlog_records gauge sink
metering_sink_oldest_unsent_age_seconds gauge sink
metering_clock_steps_total counter verdict
metering_clock_offset_seconds gauge
metering_config_generation gauge
metering_config_last_reload_successful gauge
metering_config_last_reload_success_timestamp_seconds gauge
metering_build_info gauge version
process_resident_memory_bytes gauge
process_cpu_seconds_total counter
"""


class Clocks:
    """Both clocks, moved by hand."""

    def __init__(self) -> None:
        self.up = 1_000 * NS_PER_S
        self.utc = 1_800_000_000 * NS_PER_S

    def pass_(self, seconds: int) -> None:
        self.up += seconds * NS_PER_S
        self.utc += seconds * NS_PER_S

    def telemetry(self, *, customer_labels: bool = False) -> Telemetry:
        return Telemetry("1.2.3", boottime=lambda: self.up, billing=lambda: self.utc, customer_labels=customer_labels)


@pytest.fixture
def clocks() -> Clocks:
    """Two clocks that stand until they are moved."""
    return Clocks()


def levels(*, free: int = 0, appended: int = 0, oldest: int | None = None) -> SpoolLevels:
    """The spool after a commit, of which only these numbers matter here."""
    return SpoolLevels(open_windows=7, size=4096, free=free, appended=appended, undelivered=3, oldest=oldest, held=2)


def configure(telemetry: Telemetry, **changes: object) -> None:
    """Accept a configuration of one source and one sink, with changes."""
    settings = {"window": 300 * NS_PER_S, "lateness": 120 * NS_PER_S, "sources": ["host"], "sinks": ["files"]}
    telemetry.configured(1, **(settings | changes))  # type: ignore[arg-type]


def lived(clocks: Clocks, *, customer_labels: bool) -> Telemetry:
    """An agent to which everything happened once; its customer is acme."""
    telemetry = clocks.telemetry(customer_labels=customer_labels)
    configure(telemetry)
    telemetry.swept("host", seconds=0.01, stamp=clocks.up)
    telemetry.committed("host", clocks.up)
    telemetry.gap("host", "no_sample")
    telemetry.followed("host", requests=9, relists=1, failing=True, heard=clocks.up)
    telemetry.balanced(Balance("customers.slice", "cpu.time", 50, 50, 0, 0, 0), unattributed=20)
    telemetry.recorded("usage", customer="acme", dimension="cpu_core_seconds", quantity=30)
    telemetry.recorded("unattributed", customer=None, dimension="cpu_core_seconds", quantity=20)
    telemetry.spool(levels(free=600, appended=0))
    clocks.pass_(300)
    telemetry.spool(levels(free=600, appended=600))
    telemetry.backlog("files", 3, clocks.utc)
    telemetry.stuck("files", {"ambiguous": 1})
    telemetry.clock_observed(Verdict.STEADY, 5)
    return telemetry


def shown(telemetry: Telemetry) -> Mapping[str, float]:
    """The exposition as `name{label values}` → value, labels in the order of the table."""
    order = {metric.name.removesuffix("_total"): (*metric.labels, "le") for metric in METRICS}
    body, _ = telemetry.render()
    seen = {}
    for family in parse_text(body.decode()):
        for sample in family.samples:
            values = [sample.labels[label] for label in order[family.name] if label in sample.labels]
            seen[f"{sample.name}{{{','.join(values)}}}"] = sample.value
    return seen


def test_the_table_is_the_one_that_users_know() -> None:
    """Names, types and labels are an interface: changing one breaks somebody's alert."""
    assert "".join(" ".join((m.name, m.type, *m.labels)) + "\n" for m in METRICS) == GOLDEN


def test_every_metric_is_named_and_explained_as_prometheus_wants_it() -> None:
    """Our prefix, `_total` on counters only, base units, one sentence of help."""
    for metric in METRICS:
        assert metric.name.startswith("metering_") or metric.name in {
            "process_resident_memory_bytes",
            "process_cpu_seconds_total",
        }
        assert metric.name.endswith("_total") == (metric.type == "counter")
        assert not re.search("milli|micro|nano|_(ms|ns|us|kb|mb)(_|$)", metric.name)
        assert metric.help.endswith(".")
        assert len(metric.help) > 20
    assert len({metric.name for metric in METRICS}) == len(METRICS)


def test_a_scrape_shows_exactly_the_table_in_either_format(clocks: Clocks) -> None:
    """Once everything has happened, both formats hold every metric of the table with its type and help; no others."""
    telemetry = lived(clocks, customer_labels=True)
    table = {(metric.name.removesuffix("_total"), metric.type, metric.help) for metric in METRICS}
    text, _ = telemetry.render()
    assert {(f.name, f.type, f.documentation) for f in parse_text(text.decode())} == table
    open_metrics, _ = telemetry.render("application/openmetrics-text; version=1.0.0")
    assert {(f.name, f.type, f.documentation) for f in parse_openmetrics(open_metrics.decode())} == table  # type: ignore[no-untyped-call]
    for family in parse_text(text.decode()):
        labels = next(metric.labels for metric in METRICS if metric.name.removesuffix("_total") == family.name)
        assert all(set(sample.labels) - {"le"} == set(labels) for sample in family.samples)
    assert [family.name for family in REGISTRY.collect() if family.name.startswith("metering_")] == []


def test_no_customer_is_named_unless_configured(clocks: Clocks) -> None:
    """A scrape is read by more people than the bills are."""
    body, _ = lived(clocks, customer_labels=False).render()
    assert b"acme" not in body
    assert b"customer=" not in body
    named = shown(lived(clocks, customer_labels=True))
    assert named["metering_recorded_quantity_total{acme,cpu_core_seconds}"] == 30


def test_a_negative_delta_never_makes_the_customer_counter_fall(clocks: Clocks) -> None:
    """A falling counter would read as a restart and be counted twice."""
    telemetry = lived(clocks, customer_labels=True)
    telemetry.recorded("correction", customer="acme", dimension="cpu_core_seconds", quantity=-10)
    assert shown(telemetry)["metering_recorded_quantity_total{acme,cpu_core_seconds}"] == 30
    assert shown(telemetry)["metering_records_total{correction}"] == 1


@given(st.lists(st.tuples(st.integers(0, 10**15), st.integers(-(10**8), 0), st.integers(0, 10**6)), max_size=20))
def test_law_1_the_books_close_in_what_is_shown(sweeps: list[tuple[int, int, int]]) -> None:
    """L1: anchor = booked + in flight at any scrape, as far as a float of seconds can say; overruns add up."""
    telemetry, before = Clocks().telemetry(), 0
    for moved, in_flight, overrun in sweeps:
        change, before = in_flight - before, in_flight
        balance = Balance("a", "cpu.time", moved, moved - change, in_flight, change, overrun)
        telemetry.balanced(balance, unattributed=(moved - change) // 2)
        seen = shown(telemetry)
        anchor, booked, flying = (
            seen[f"metering_books_{what}{{a,cpu.time}}"]
            for what in ("anchor_seconds_total", "booked_seconds_total", "in_flight_seconds")
        )
        assert anchor == pytest.approx(booked + flying, rel=1e-15, abs=1e-9)
    if sweeps:
        total = sum(overrun for _, _, overrun in sweeps)
        assert seen["metering_books_overrun_seconds_total{a,cpu.time}"] == total / NS_PER_S


def test_ages_grow_although_nothing_reports(clocks: Clocks) -> None:
    """A hung agent looks old, not well; nothing unsent is an age of zero; time never runs backwards."""
    telemetry = lived(clocks, customer_labels=False)
    telemetry.swept("host", seconds=0.01, stamp=clocks.up - NS_PER_S)
    telemetry.swept("host", seconds=9.0, stamp=None)
    telemetry.committed("host", clocks.up - 16 * NS_PER_S)
    telemetry.backlog("files", 1, clocks.utc - 40 * NS_PER_S)
    clocks.pass_(10)
    seen = shown(telemetry)
    assert seen["metering_last_sample_age_seconds{host}"] == 11
    assert seen["metering_watermark_lag_seconds{host}"] == 26
    assert seen["metering_sink_oldest_unsent_age_seconds{files}"] == 50
    assert seen["metering_spool_oldest_undelivered_age_seconds{}"] == 0
    telemetry.backlog("files", 1, clocks.utc + NS_PER_S)
    assert shown(telemetry)["metering_sink_oldest_unsent_age_seconds{files}"] == 0


def test_sweeps_are_counted_by_outcome_and_by_how_long_they_took(clocks: Clocks) -> None:
    """A bucket holds all sweeps up to its bound, bound included."""
    telemetry = clocks.telemetry()
    for seconds, stamp in [(0.005, 1), (0.006, 1), (0.05, 1), (60.0, None)]:
        telemetry.swept("host", seconds=seconds, stamp=stamp)
    seen = shown(telemetry)
    duration = "metering_sweep_duration_seconds"
    up_to = {le: seen[f"{duration}_bucket{{host,{le}}}"] for le in ("0.005", "0.02", "0.05", "5.0", "+Inf")}
    assert up_to == {"0.005": 1, "0.02": 2, "0.05": 3, "5.0": 3, "+Inf": 4}
    assert seen[f"{duration}_sum{{host}}"] == pytest.approx(60.061)
    assert seen[f"{duration}_count{{host}}"] == 4
    assert (seen["metering_sweeps_total{host,success}"], seen["metering_sweeps_total{host,failure}"]) == (3, 1)


def test_what_is_known_beforehand_starts_at_zero_and_ends_with_its_configuration(clocks: Clocks) -> None:
    """The first failure is an increase from 0; a source or sink that was removed leaves no stale age to alarm on."""
    telemetry = clocks.telemetry()
    configure(telemetry)
    seen = shown(telemetry)
    for series in (
        "metering_sweeps_total{host,failure}",
        "metering_anomalies_total{host,inferred_reset}",
        "metering_sink_outcomes_total{files,conflict}",
        "metering_records_total{gap}",
        "metering_clock_steps_total{unconfirmed}",
        "metering_sweep_duration_seconds_count{host}",
    ):
        assert seen[series] == 0
    telemetry.anomaly("host", "inferred_reset", 2)
    telemetry.settled("files", "ambiguous", 5)
    telemetry.committed("host", clocks.up)
    configure(telemetry, sources=["cgroups", "host"])
    seen = shown(telemetry)
    assert seen["metering_anomalies_total{host,inferred_reset}"] == 2
    assert seen["metering_sink_outcomes_total{files,ambiguous}"] == 5
    configure(telemetry, sources=["cgroups"], sinks=[])
    assert [series for series in shown(telemetry) if "host" in series or "files" in series] == []


def test_a_refused_configuration_shows_beside_the_one_that_goes_on(clocks: Clocks) -> None:
    """Generation and time are those of the last good one."""
    telemetry = clocks.telemetry()
    configure(telemetry)
    good = clocks.utc
    clocks.pass_(60)
    telemetry.refused()
    seen = shown(telemetry)
    assert seen["metering_config_last_reload_successful{}"] == 0
    assert seen["metering_config_generation{}"] == 1
    assert seen["metering_config_last_reload_success_timestamp_seconds{}"] == good / NS_PER_S


def test_a_node_s_death_takes_window_lateness_and_the_worse_lag(clocks: Clocks) -> None:
    """L8: the most a death can take is a metric; a sink that stands still makes it grow, as does a source."""
    telemetry = clocks.telemetry()
    configure(telemetry)
    loss = "metering_node_death_loss_seconds{}"
    assert shown(telemetry)[loss] == 420
    telemetry.committed("host", clocks.up - 15 * NS_PER_S)
    assert shown(telemetry)[loss] == 435
    telemetry.spool(levels(oldest=clocks.utc - 3600 * NS_PER_S))
    assert shown(telemetry)[loss] == 420 + 3600
    telemetry.spool(levels(oldest=None))
    clocks.pass_(5)
    assert shown(telemetry)[loss] == 440


def test_the_outage_that_still_fits_follows_the_last_hour(clocks: Clocks) -> None:
    """Unknown before a window has passed; free bytes over the hour's growth; endless when nothing is written."""
    telemetry = clocks.telemetry()
    configure(telemetry)
    fits = "metering_spool_absorbable_outage_seconds{}"
    appended = 0
    telemetry.spool(levels(free=1_000_000, appended=appended))
    clocks.pass_(299)
    telemetry.spool(levels(free=1_000_000, appended=appended))
    assert fits not in shown(telemetry)
    for _ in range(400):  # 100 bytes a second for a good hour and a half
        clocks.pass_(15)
        appended += 1500
        telemetry.spool(levels(free=1_000_000, appended=appended))
    assert shown(telemetry)[fits] == 10_000
    for _ in range(245):
        clocks.pass_(15)
        telemetry.spool(levels(free=1_000_000, appended=appended))
    assert shown(telemetry)[fits] == float("inf")


def test_a_clock_step_counts_once_however_often_it_is_seen(clocks: Clocks) -> None:
    """An unconfirmed step is observed at every sweep until it is accepted; that is two events, not hundreds."""
    telemetry = clocks.telemetry()
    for verdict in (Verdict.STEADY, Verdict.UNCONFIRMED, Verdict.UNCONFIRMED, Verdict.ACCEPTED, Verdict.STEADY):
        telemetry.clock_observed(verdict, -2_500_000_000)
    for verdict in (Verdict.ACCEPTED, Verdict.ACCEPTED, Verdict.UNCONFIRMED):
        telemetry.clock_observed(verdict, -2_500_000_000)
    seen = shown(telemetry)
    assert seen["metering_clock_steps_total{unconfirmed}"] == 2
    assert seen["metering_clock_steps_total{accepted}"] == 3
    assert seen["metering_clock_offset_seconds{}"] == -2.5


def test_the_process_is_shown_by_its_memory_and_time(clocks: Clocks) -> None:
    """Two numbers of the process, none of the platform."""
    seen = shown(clocks.telemetry())
    assert 10_000_000 < seen["process_resident_memory_bytes{}"] < 1_000_000_000
    assert seen["process_cpu_seconds_total{}"] > 0
    assert [series for series in seen if series.startswith("python_")] == []


@given(st.lists(st.text(st.characters(exclude_categories=())), min_size=1, max_size=5, unique=True))
@example(["\udc80", "\udc81"])
def test_no_name_breaks_a_scrape(names: list[str]) -> None:
    """Anchors are directory names and may hold any byte, line ends and surrogates included."""
    telemetry = Clocks().telemetry()
    for name in names:
        telemetry.balanced(Balance(name, "cpu.time", 1, 1, 0, 0, 0), unattributed=0)
    body, _ = telemetry.render("application/openmetrics-text; version=1.0.0")
    series = [line for line in body.decode().split("\n") if line.startswith("metering_books_anchor_seconds_total{")]
    assert len(set(series)) == len(names)
