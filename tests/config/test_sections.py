"""Each section by itself: how values are written, what they become, and what is said of a wrong one."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from agent.config.scalars import NS, duration, instant, policy, size, written_duration
from agent.config.sources import Cgroups

from .written import load, problems, text

# Hypothesis wants its bounds without a zone.
FIRST, LAST = (datetime.fromisoformat(day) for day in ("1970-01-02", "2199-12-30"))


def test_the_defaults_are_those_of_the_reference() -> None:
    """What is not written is as DESIGN §9 has it."""
    config = load(text(), NODE="n1")
    assert (config.agent.cluster, config.agent.data_dir) == ("default", Path("/var/lib/metering-agent"))
    assert config.agent.run_dir == Path("/run/metering-agent")
    assert (config.agent.window, config.agent.sample_interval) == (300 * 10**9, 15 * 10**9)
    assert (config.agent.fresh_boot, config.agent.shutdown_budget) == (600 * 10**9, 20 * 10**9)
    assert config.agent.clock.accept_after == 86400 * 10**9
    assert (config.telemetry.listen, config.telemetry.customer_labels) == (("127.0.0.1", 9108), False)
    assert (config.spool.max_bytes, config.spool.reserve) == (4 << 30, 16 << 20)
    assert config.spool.retention == config.spool.evidence_retention == 90 * NS["d"]
    assert config.attribution.unattributed.hold == 72 * NS["h"]
    source = config.sources[0]
    assert isinstance(source, Cgroups)
    assert (source.id, source.root, source.closed()) == ("cgroups", Path("/"), ("a.slice",))


def test_a_loaded_configuration_cannot_be_changed() -> None:
    """What was checked is what runs."""
    with pytest.raises(ValueError, match="frozen"):
        load(text()).agent.window = 1


@pytest.mark.parametrize(
    ("written", "ns"),
    [("500ms", 5 * 10**8), ("10s", 10**10), ("5m", 3 * 10**11), ("1h", 3600 * 10**9), ("90d", 7776000 * 10**9)],
)
def test_durations_become_exact_nanoseconds(written: str, ns: int) -> None:
    """And are written back as they were."""
    assert duration(written) == ns
    assert written_duration(ns) == written


@pytest.mark.parametrize(
    ("written", "count"), [("16MiB", 1 << 24), ("4GiB", 1 << 32), ("1GB", 10**9), ("7B", 7), ("2kB", 2000)]
)
def test_sizes_become_exact_bytes(written: str, count: int) -> None:
    """Binary and decimal units differ by what they say."""
    assert size(written) == count


@pytest.mark.parametrize(
    ("written", "ns"),
    [
        ("1970-01-01", 0),
        ("2026-01-01", 1767225600 * 10**9),
        ("2026-01-01T00:00:00Z", 1767225600 * 10**9),
        ("2026-01-01 01:30:00+01:30", 1767225600 * 10**9),
        ("2025-12-31t20:00:00.000000001-04:00", 1767225600 * 10**9 + 1),
        ("2024-02-29T23:59:59.5z", 1709251199 * 10**9 + 5 * 10**8),
    ],
)
def test_dates_and_times_become_exact_nanoseconds(written: str, ns: int) -> None:
    """No float lies between, so the last digit is kept."""
    assert instant(written) == ns


@given(st.datetimes(FIRST, LAST, timezones=st.timezones()))
def test_any_time_is_read_as_the_standard_library_reads_it(moment: datetime) -> None:
    """To the microsecond, in every zone whose offset RFC 3339 can write."""
    offset = moment.utcoffset()
    assume(offset is not None and offset.seconds % 60 == 0)
    since = moment - datetime(1970, 1, 1, tzinfo=UTC)
    ns = ((since.days * 86400 + since.seconds) * 10**6 + since.microseconds) * 1000
    assert instant(moment.isoformat()) == ns


@pytest.mark.parametrize(
    ("written", "canonical"),
    [
        ("usage", "usage"),
        ("max(request,usage)", "max(request,usage)"),
        ("max(usage, request)", "max(request,usage)"),
        (" max ( limit ,usage ) ", "max(limit,usage)"),
    ],
)
def test_a_policy_has_one_way_of_being_stored(written: str, canonical: str) -> None:
    """Two spellings of one policy are one key of one record."""
    assert policy(written) == canonical


def test_the_environment_is_read_where_it_is_said() -> None:
    """In names, paths and addresses."""
    config = load(
        text(
            agent="agent: {cluster: '${C}-eu', node: '${NODE}', data_dir: '${D}/spool'}",
            t="telemetry: {listen: '${L}'}",
        ),
        C="prod",
        D="/data",
        L="[::1]:0",
    )
    assert (config.agent.cluster, config.agent.node) == ("prod-eu", "n1")
    assert (config.agent.data_dir, config.telemetry.listen) == (Path("/data/spool"), ("::1", 0))


def test_telemetry_can_be_off() -> None:
    """`off` is the word, and YAML does not make it false."""
    assert load(text(telemetry="telemetry: {listen: off}")).telemetry.listen is None


def test_derived_anchors_are_the_outermost_directories() -> None:
    """`a.slice/b.slice/*` lies in the books of a.slice already."""
    source = load(
        text(sources="sources: [{kind: cgroups, include: [a.slice/*, a.slice/b.slice/**, c.scope]}]")
    ).sources[0]
    assert isinstance(source, Cgroups)
    assert source.closed() == ("a.slice", "c.scope")


LINES = {"sources": 1, "meters": 2, "sinks": 3}  # as `written.text` puts them; any other section comes fourth


def _wrong() -> list[tuple[str, str, str]]:
    """`wrong.txt`: blocks of a section, as written, and the problem it makes; here with the section's name."""
    blocks = (Path(__file__).parent / "wrong.txt").read_text().strip().split("\n\n")
    return [
        (section.partition(":")[0], section, expected)
        for section, _, expected in (block.partition("\n  ") for block in blocks)
    ]


@pytest.mark.parametrize(("name", "section", "expected"), _wrong(), ids=[expected for _, _, expected in _wrong()])
def test_a_wrong_value_is_named_with_its_line_and_cure(name: str, section: str, expected: str) -> None:
    """The whole message, so that none is the library's own: nothing about money is guessed."""
    assert problems(text(**{name: section}), EMPTY="") == [f"agent.yaml:{LINES.get(name, 4)}: {expected}"]


def test_a_pattern_too_long_to_compare_is_refused() -> None:
    """Without wildcards it may be as long as a path."""
    assert load(text(customers=f"customers: [{{id: a, match: [{{unit: '{'x' * 200}y'}}]}}]"))
    assert problems(text(customers=f"customers: [{{id: a, match: [{{unit: '*{'x' * 200}'}}]}}]")) == [
        (
            "agent.yaml:4: customers[0].match[0].unit: longer than 200 characters (4096 without wildcards). "
            "Write a shorter pattern."
        )
    ]
