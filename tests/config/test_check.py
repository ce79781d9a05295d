"""What spans sections: customers who claim one thing, names that must exist, space, and what is only worth a notice."""

import os
import time
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from agent.attribution import Customer, Rules
from agent.config import load as load_file
from agent.config import retention_bytes
from agent.config.owners import CustomerEntry, Match
from agent.config.ties import ties
from agent.errors import ConfigError
from agent.model import Dimension
from agent.pattern import overlap
from agent.sources.kubernetes.meters import METERS

from .written import KNOWN, NOW, load, problems, text

CURE = "Give one of them a narrower pattern or disjoint dates."


def two(first: str, second: str) -> str:
    """Two customers, on lines 5 and 6, each with this inside their entry."""
    return text(customers=f"customers:\n  - {{id: a, {first}}}\n  - {{id: b, {second}}}")


@pytest.mark.parametrize(
    ("key", "first", "second"),
    [
        ("unit", "a.service", "a.service"),
        ("unit", "a-*.service", "*-web.service"),
        ("slice", "a.slice", "?.slice"),
        ("uid", "1000", "10*"),
        ("cgroup", "x/*", "x/y"),
        ("unit_property", "X-Customer=a", "X-Customer=*"),
    ],
)
def test_two_customers_who_match_one_thing_tie(key: str, first: str, second: str) -> None:
    """Order never decides who pays, so a provable tie is refused, naming both lines."""
    assert problems(two(f"match: [{{{key}: '{first}'}}]", f"match: [{{{key}: '{second}'}}]")) == [
        f"agent.yaml:6: customers[1].match[0].{key}: matches what customers[0] (line 5) matches. {CURE}"
    ]


def test_selectors_of_several_labels_tie_when_all_of_them_do() -> None:
    """The whole selector is named, since no single key is at fault."""
    same = "match: [{uid: 1000, unit: 'a-*'}]"
    assert problems(two(same, same)) == [
        f"agent.yaml:6: customers[1].match[0]: matches what customers[0] (line 5) matches. {CURE}"
    ]
    assert load(two("match: [{uid: 1000, unit: 'a-*'}]", "match: [{uid: 1001, unit: 'a-*'}]"))


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("match: [{unit: a-*.service}]", "match: [{unit: b-*.service}]"),
        ("match: [{unit: a.slice}]", "match: [{slice: a.slice}]"),
        ("match: [{unit_property: X-A=1}]", "match: [{unit_property: X-B=1}]"),
        ("match: [{unit: a}], until: 2026-01-01", "match: [{unit: a}], from: 2026-01-01"),
        ("match: [{cgroup: x/a}]", "match: [{cgroup: x/ab}]"),
        ("match: [{unit: a}, {unit: a*}]", "match: [{unit: b}]"),
    ],
)
def test_what_is_no_provable_tie_is_accepted(first: str, second: str) -> None:
    """Different names, different labels, disjoint dates, and one customer twice."""
    assert load(two(first, second))


@pytest.mark.parametrize(
    ("outer", "inner"),
    [("x/a", "x/a/b/c"), ("x/*", "x/a/b"), ("x/*", "x/*/b"), ("x/a", "x/a/*"), ("*/b", "c/b/d/**")],
)
def test_a_customer_inside_another_is_refused_in_either_order(outer: str, inner: str) -> None:
    """A match owns its whole subtree, so the inner customer would never be billed."""
    large, small = f"match: [{{cgroup: '{outer}'}}]", f"match: [{{cgroup: '{inner}'}}]"
    at = "agent.yaml:6: customers[1].match[0].cgroup"
    assert problems(two(large, small)) == [
        f"{at}: lies inside what customers[0] (line 5) owns, and a match owns everything inside it. {CURE}"
    ]
    assert problems(two(small, large)) == [
        f"{at}: owns everything inside it, and so what customers[0] (line 5) matches. {CURE}"
    ]


@given(st.lists(st.tuples(st.integers(0, 2), st.text("ab*?/", min_size=1, max_size=4)), max_size=5))
def test_ties_found_by_prefix_are_all_ties(claims: list[tuple[int, str]]) -> None:
    """Skipping pairs whose literal beginnings differ misses none: compared with looking at every pair."""
    customers = [
        CustomerEntry.model_construct(match=tuple(Match.model_construct(unit=p) for who, p in claims if who == c))
        for c in range(3)
    ]
    expected = sum(overlap(p, q) for i, (who, p) in enumerate(claims) for other, q in claims[i + 1 :] if who != other)
    assert len(list(ties(customers, lambda _: 1))) == expected


def test_ten_thousand_customers_are_checked_in_seconds() -> None:
    """A fleet's list of customers is one file for all nodes."""
    entries = "\n".join(
        f"  - {{id: c{i}, match: [{{unit: c{i}-*.service}}, {{slice: c{i}.slice}}]}}" for i in range(10_000)
    )
    begin = time.monotonic()
    assert len(load(text(customers=f"customers:\n{entries}")).customers) == 10_000
    assert time.monotonic() - begin < 20


def test_a_customer_declared_twice_names_both_lines() -> None:
    """Two entries would have two sets of dates."""
    assert problems(text(customers="customers:\n  - {id: a}\n  - {id: a}")) == [
        "agent.yaml:6: customers[1].id: a is already a customer's id on line 5. Give one of them another."
    ]


def test_a_payer_who_is_no_customer_is_refused() -> None:
    """The nearest name is offered."""
    written = text(customers="customers: [{id: house}]", attribution="attribution: {shared: {system: hose}}")
    assert problems(written) == [
        "agent.yaml:5: attribution.shared.system: hose is not a declared customer. Did you mean house?"
    ]


def test_a_section_that_is_wrong_does_not_echo_in_others() -> None:
    """With `customers` unreadable, nobody is told that a meter's customer is not declared; the rest is checked."""
    written = text(
        meters="meters: [{meter: cpu.time, customer: a}, {meter: nothing}]", customers="customers: [{id: a, nmae: A}]"
    )
    assert problems(written) == [
        "agent.yaml:2: meters[1].meter: no configured source measures nothing. `metering-agent meters` lists all.",
        "agent.yaml:4: customers[0].nmae: unknown key. Did you mean name?",
    ]


def test_a_cap_below_what_the_retention_needs_is_refused_with_the_figure() -> None:
    """Else the spool would shrink records that a dispute still needs."""
    agent = "agent: {window: 10s, sample_interval: 2s}"
    assert problems(text(agent=agent, spool="spool: {max_bytes: 1GiB}")) == [
        (
            "agent.yaml:5: spool.max_bytes: too small: reserve and retention need 4318MiB (20 resources, records in "
            "each window: 1). Write 4318MiB or more, a shorter retention, or a longer window."
        )
    ]
    assert load(text(agent=agent, spool="spool: {max_bytes: 4318MiB}"))


def test_the_space_follows_the_figures_of_accounting() -> None:
    """250 pods for 90 days: evidence 1.6 GiB, records at 80 per window 1.2 GiB."""
    config = load(text())
    assert retention_bytes(config, 250, 0) == 25_920 * 250 * 260
    assert retention_bytes(config, 0, 80) == 25_920 * 80 * 600
    assert round(retention_bytes(config, 250, 80) / (1 << 30), 1) == 2.7


def test_dimensions_carry_who_bears_the_system() -> None:
    """A meter's own `shared` counts before the one for all; `exclude` is nobody."""
    config = load(
        text(
            meters="meters: [{meter: cpu.time, policy: 'max(usage, request)'}, "
            "{meter: io.read, shared: {system: exclude}}, "
            "{meter: memory.working_set, dimension: ram, customer: b, group_by: [unit], shared: {system: b}}]",
            customers="customers: [{id: a}, {id: b}]",
            attribution="attribution: {shared: {system: a}}",
        )
    )
    assert config.dimensions() == (
        Dimension("cpu_time", "cpu.time", "max(request,usage)", (), None, "a"),
        Dimension("io_read", "io.read", "usage", (), None, None),
        Dimension("ram", "memory.working_set", "usage", ("unit",), "b", "b"),
    )


def test_rules_carry_every_selector() -> None:
    """As attribution reads them: labels and patterns, and times as integers."""
    config = load(
        text(
            customers="customers: [{id: a, from: 2026-01-01, until: 2027-01-01, reattribute: true, match: "
            "[{unit: a.service, slice: a.slice}, {uid: 7}, {unit_property: X-Customer=a=b}, {cgroup: c/d}]}]",
            attribution="attribution: {customer_labels: {unit_property: X-Payer}, system: [{unit: ssh.service}]}",
        )
    )
    assert config.rules() == Rules(
        customers=(
            Customer(
                "a",
                (
                    {"unit": "a.service", "slice": "a.slice"},
                    {"uid": "7"},
                    {"property.X-Customer": "a=b"},
                    {"cgroup": "c/d"},
                ),
                1767225600 * 10**9,
                1798761600 * 10**9,
                reattribute=True,
            ),
        ),
        customer_labels=("property.X-Payer",),
        system=({"unit": "ssh.service"},),
    )


def test_what_may_surprise_is_a_notice() -> None:
    """A past date reaches back only if asked to, and records without a sink stay where they are."""
    written = text(
        sinks="",
        customers="customers:\n  - {id: a, match: [{unit: a}], from: 2026-01-01}\n"
        "  - {id: b, match: [{unit: b}], from: 2026-01-01, reattribute: true}\n"
        "  - {id: c, match: [{unit: c}], from: 2028-01-01}\n"
        "  - {id: d, match: [{unit: d}]}\n  - {id: e}",
    )
    assert load(written).notices == (
        (
            "agent.yaml:5: customers[0].from: 2026-01-01 is past: a acts from load time. "
            "Say `reattribute: true` to reach back."
        ),
        "agent.yaml:4: customers: without `from`, a customer acts from load time: d.",
        "agent.yaml:1: sinks: no sink: records stay in the spool. Add `- {id: files, kind: file, path: ...}`.",
    )
    assert load(text()).notices == ()


def test_a_file_that_others_may_write_is_a_notice(tmp_path: Path) -> None:
    """They could change who is billed."""
    path = tmp_path / "agent.yaml"
    path.write_text(text())
    path.chmod(0o644)
    assert load_file(path, KNOWN, {}, NOW).notices == ()
    path.chmod(0o646)
    assert load_file(path, KNOWN, {}, NOW).notices == (
        f"{path}: writable by others, who could change who is billed. Run `chmod go-w {path}`.",
    )


def test_a_file_that_another_user_owns_is_a_notice(tmp_path: Path) -> None:
    """The owner can always make it writable."""
    if os.geteuid() != 0:
        pytest.skip("only root can give a file away")
    path = tmp_path / "agent.yaml"
    path.write_text(text())
    path.chmod(0o644)
    os.chown(path, 65534, 65534)
    assert load_file(path, KNOWN, {}, NOW).notices == (
        f"{path}: owned by user 65534, who could change who is billed. Give it to root.",
    )


KEYS = st.sampled_from(
    [
        "agent",
        "window",
        "clock",
        "sources",
        "kind",
        "id",
        "include",
        "anchors",
        "meters",
        "meter",
        "policy",
        "group_by",
        "shared",
        "system",
        "customers",
        "match",
        "unit",
        "cgroup",
        "uid",
        "unit_property",
        "from",
        "until",
        "attribution",
        "customer_labels",
        "sinks",
        "path",
        "role",
        "spool",
        "max_bytes",
        "retention",
        "x",
    ]
)
WORDS = ["host", "cgroups", "file", "5m", "0s", "0ms", "1GiB", "a/*", "**", "*a", "${X}", "max(a,b)", "cpu.time"]
SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.dates() | st.text(max_size=8) | st.sampled_from(WORDS)
)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4), max_leaves=20
)


def what_is_wrong(written: str) -> list[str]:
    """The problems of a file that may be sound."""
    try:
        load(written)
    except ConfigError as error:
        return error.problems
    return []


@given(st.text() | st.text(alphabet="ab:-[]{}&*!|>'\"%@`#, \n\t\\?<=~0") | VALUES.map(yaml.safe_dump))
def test_no_text_raises_anything_but_config_error(written: str) -> None:
    """Whatever is in the file, a person reads a message and no trace."""
    for sections in (written, text(customers=f"customers: {written}"), text(sources=f"sources: {written}")):
        for problem in what_is_wrong(sections):
            assert problem.startswith("agent.yaml:")
            assert problem.isprintable()


@given(st.dictionaries(KEYS, VALUES, max_size=6))
def test_no_values_raise_anything_but_config_error(values: dict[str, object]) -> None:
    """As above, for files that come closer to sound ones."""
    for written in ({**yaml.safe_load(text()), **values}, {**yaml.safe_load(text()), "customers": [values]}):
        what_is_wrong(yaml.safe_dump(written))


def test_a_kubelets_summary_is_asked_for_no_more_than_it_tells_and_beside_no_groups() -> None:
    """What it cannot measure would be billed as nothing, and its counters would spoil the groups' books."""
    pods = "{kind: kubernetes, basis: summary}"
    known = {**KNOWN, "kubernetes": METERS}
    found = problems(text(sources=f"sources: [{pods}]", meters="meters: [{meter: io.read_bytes}]"), known)
    assert found == [
        "agent.yaml:2: meters[0].meter: not told by a kubelet's summary. Write `basis: cgroup`, or remove it."
    ]
    groups = "{kind: cgroups, include: [a.slice/*]}"
    (beside,) = problems(text(sources=f"sources: [{pods}, {groups}]", meters="meters: [{meter: cpu.time}]"), known)
    assert "beside a kubelet's summary" in beside
