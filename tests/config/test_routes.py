"""Which dimension goes to which sink and how it is told, as the configuration's words become plain values."""

import pytest

from agent.config import CloudEvents, Config, FileSink, route, sink_of
from agent.config.scalars import NS

from .written import KNOWN, load, problems, text

METERS = {meter.name: meter for kind in KNOWN.values() for meter in kind}
TWO = "meters: [{meter: cpu.time}, {meter: memory.working_set, dimension: ram}]"
EVENTS = "id: events, kind: cloudevents, profile: openmeter-v1, url: https://b.example/events, dedupe_horizon: 32d"


def events(config: Config) -> CloudEvents:
    """The sink that speaks HTTP."""
    (found,) = (sink for sink in config.sinks if isinstance(sink, CloudEvents))
    return found


def test_a_dimension_is_told_by_the_sinks_name_and_unit() -> None:
    """What is not written has our name and the base unit, without decimals."""
    config = load(
        text(
            meters=TWO,
            sinks=f"sinks: [{{{EVENTS}, timestamp: mid,"
            " dimensions: {cpu_time: {id: cpu, unit: core-hour, scale: 9, rounding: half-up}, ram: {}}}]",
        )
    )
    found = route(config, events(config), METERS)
    assert found.measures is not None
    cpu, ram = found.measures["cpu_time"], found.measures["ram"]
    assert (cpu.name, cpu.unit, cpu.scale, cpu.rounding, found.timestamp) == ("cpu", "core-hour", 9, "half-up", "mid")
    assert (ram.name, ram.of("byte·ms").unit, ram.scale) == ("ram", "byte·ms", 0)


def test_a_customer_is_told_by_the_sinks_own_id() -> None:
    """Only at the sink that is named; who has none there keeps ours."""
    config = load(
        text(
            sinks=f"sinks: [{{{EVENTS}, role: copy}}, {{id: files, kind: file, path: /o}}]",
            customers="customers: [{id: a, ids: {events: cus_1}}, {id: b}]",
        )
    )
    files = next(sink for sink in config.sinks if isinstance(sink, FileSink))
    assert dict(route(config, events(config), METERS).customers) == {"a": "cus_1"}
    assert dict(route(config, files, METERS).customers) == {}


def test_what_no_billing_sink_takes_is_noted_once() -> None:
    """As unrouted, by the first billing sink; a copy that takes it changes nothing, and a notice says so early."""
    config = load(
        text(
            meters=TWO,
            sinks=f"sinks: [{{id: files, kind: file, path: /o, role: copy}}, {{{EVENTS}, dimensions: {{ram: {{}}}}}}]",
        )
    )
    assert route(config, events(config), METERS).orphans == {"cpu_time"}
    assert route(config, config.sinks[0], METERS).orphans == frozenset()
    assert config.notices == (
        "agent.yaml:3: sinks: no billing sink takes cpu_time: such records are kept as unrouted.",
    )


def test_two_billing_sinks_may_share_the_dimensions() -> None:
    """Each takes its own; nothing is billed twice, and nothing is left."""
    other = EVENTS.replace("id: events", "id: other").replace("b.example", "c.example")
    config = load(
        text(
            meters=TWO,
            sinks=f"sinks: [{{{EVENTS}, dimensions: {{ram: {{}}}}}}, {{{other}, dimensions: {{cpu_time: {{}}}}}}]",
        )
    )
    assert config.notices == ()
    assert [route(config, sink, METERS).orphans for sink in config.sinks] == [frozenset(), frozenset()]


def test_a_billing_sink_is_asked_of_what_nobody_vouches_for() -> None:
    """By the sink's names; a copy bills nobody, whatever its meters do."""
    dimensions = "dimensions: {cpu_time: {id: cpu}, ram: {aggregation: sum}}"
    assert events(load(text(meters=TWO, sinks=f"sinks: [{{{EVENTS}, {dimensions}}}]"))).unvouched == {"cpu"}
    copy = events(load(text(meters=TWO, sinks=f"sinks: [{{{EVENTS}, role: copy, {dimensions}}}]")))
    assert copy.unvouched == frozenset()


def test_a_section_is_kept_as_it_was_written() -> None:
    """The spool holds no value of the environment: what may be a secret there stays there."""
    written = EVENTS.replace("https://b.example/events", "'https://${HOST}/events'")
    config = load(text(sinks=f"sinks: [{{{written}, role: copy}}]"), HOST="b.example")
    assert b"${HOST}" in config.written_sinks["events"]
    kept = sink_of(config.written_sinks["events"], {"HOST": "c.example"})
    assert kept.destination != events(config).destination
    assert sink_of(config.written_sinks["events"], {"HOST": "b.example"}) == events(config)


def test_unattributed_usage_is_held_no_longer_than_sinks_take_it() -> None:
    """Three quarters of the least max_age: whoever is found later could not be billed."""
    sinks = f"sinks: [{{{EVENTS}, role: copy, max_age: 4d}}, {{id: files, kind: file, path: /o}}]"
    assert load(text(sinks=sinks)).hold() == 72 * NS["h"]
    assert load(text(sinks=sinks.replace("4d", "2d"))).hold() == 36 * NS["h"]


def test_a_dimension_of_an_unknown_meter_is_told_once() -> None:
    """The meter is what is wrong; the sink that names its dimension is right."""
    written = text(
        meters="meters: [{meter: cpu.tme, dimension: cpu}]",
        sinks=f"sinks: [{{{EVENTS}, role: copy, dimensions: {{cpu: {{unit: GB}}}}}}]",
    )
    assert [problem.split(": ")[1] for problem in problems(written)] == ["meters[0].meter"]


STRIPE = "sinks: [{id: s, kind: stripe, role: copy, token_file: /t}]"


def test_a_customer_without_that_vendors_id_is_told_of_by_check() -> None:
    """Such a sink knows nobody by our ids: the usage would wait for a person."""
    assert problems(text(sinks=STRIPE, customers="customers: [{id: a, ids: {s: cus_1}}, {id: b}]")) == [
        "agent.yaml:4: customers[1].ids: b has no id at s, which knows customers by its own alone. Add `ids: {s: ...}`."
    ]


def test_only_those_who_have_an_id_there_are_known_to_such_a_sink() -> None:
    """Also of customers whom a label names and nobody declares."""
    config = load(text(sinks=STRIPE, customers="customers: [{id: a, ids: {s: cus_1}}]"))
    told = route(config, config.sinks[0], METERS)
    assert (told.needs_ids, told.customers) == (True, {"a": "cus_1"})


@pytest.mark.parametrize(("key", "wrong"), [("unit", True), ("units", False)])
def test_a_label_that_would_hide_a_key_of_the_body_is_told_of_by_check(key: str, wrong: bool) -> None:
    """Every record of the dimension would wait for a person."""
    labels = f"{{{key}: '{{unit}}', '{{group.*}}': '{{group.*}}'}}"
    body = f"body: {{a: '{{id}}', b: '{{value}}', c: '{{customer}}', d: {labels}}}"
    answers = "answers: [{status: 200, means: delivered}]"
    told = f"url: https://b.example/u, {body}, {answers}, dimensions: {{cpu_time: {{}}}}"
    written = text(
        meters="meters: [{meter: cpu.time, group_by: [unit]}]",
        sinks=f"sinks: [{{id: s, kind: http, role: copy, {told}}}]",
    )
    if not wrong:
        assert load(written).sinks
        return
    why = "the label unit and a key of the body have one name, so cpu_time could not be told. Rename that key."
    assert problems(written) == [f"agent.yaml:3: sinks[0]: {why}"]
