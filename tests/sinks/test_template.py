"""A body as somebody writes it: what it says is exactly what the record says, and what it may not say is refused."""

import json
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.sinks.template import Body, Template, TemplateError
from tests.sinks.test_cloudevents import entry, record


def told(body: Body, **kw: object) -> object:
    """What a body comes to, numbers as they are written."""
    return json.loads(Template(body).render(entry(**kw)), parse_float=Decimal, parse_int=Decimal)  # type: ignore[arg-type]


def test_references_keep_their_types_and_texts_are_joined() -> None:
    """Alone a value of its own kind; inside a text, text; braces by two."""
    body: Body = {
        "n": "{value|number}",
        "t": "{value}",
        "s": "{customer}/{dimension}",
        "b": "{{id}}",
        "c": [1, None],
    }
    assert told(body, value="12.50") == {
        "n": Decimal("12.50"), "t": "12.50", "s": "acme/cpu", "b": "{id}", "c": [1, None],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("form", "said"),
    [
        ("{end}", "2026-11-23T12:05:00.000000000Z"),
        ("{end|seconds}", "2026-11-23T12:05:00Z"),
        ("{end|ms}", "2026-11-23T12:05:00.000Z"),
        ("{end|unix}", 1795435500),
        ("{end|unix_ms}", 1795435500000),
        ("{end|unix_decimal}", "1795435500.000"),
    ],
)
def test_times_as_vendors_write_them(form: str, said: object) -> None:
    """Cut, never rounded: no instant leaves its second."""
    assert told({"t": form}) == {"t": said}


def test_labels_are_told_one_by_one_or_all_at_once() -> None:
    """One that the record lacks is left out with its key."""
    body: Body = {"{group.*}": "{group.*}", "ns": "{group.namespace}", "no": "{group.pod}", "all": "{group}"}
    assert told(body) == {"namespace": "acme-prod", "ns": "acme-prod", "all": {"namespace": "acme-prod"}}


def test_keys_may_be_what_the_record_says() -> None:
    """Such as a measurement's field."""
    assert told({"{dimension}": "{value|integer}"}, value="12.000") == {"cpu": 12}


@pytest.mark.parametrize(
    ("body", "value", "why"),
    [
        ({"v": "{value|number}"}, "1234567890.1234567", "more than 15 digits"),
        ({"v": "{value|integer}"}, "1.5", "no whole number"),
        ({"v": "x{group.pod}"}, "1", "no label pod"),
        ({"namespace": "x", "{group.*}": "{group.*}"}, "1", "two values for namespace"),
    ],
)
def test_what_cannot_be_told_is_refused(body: Body, value: str, why: str) -> None:
    """By the record: it waits for a person, and is not told wrongly."""
    with pytest.raises(ValueError, match=why):
        Template(body).render(entry(value=value))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("{idd}", r"Did you mean \{id\}\?"),
        ("{value|numbr}", "Did you mean number"),
        ("{id|number}", r"number is no form of \{id\}"),
        ("{value|}", "nothing is no form"),
        ("{", "a lone {"),
        ("}", "a lone }"),
        ("{}", "is nothing that a record says"),
        ("{value.__class__}", "is nothing that a record says"),
        ("a {group}", "stands alone"),
        ("{group.}", "is nothing that a record says"),
        ("{group.*}", "is a key"),
    ],
)
def test_a_template_that_is_not_sound_is_refused_where_it_stands(text: str, why: str) -> None:
    """When it is read, with the cure."""
    with pytest.raises(TemplateError, match=why) as raised:
        Template({"outer": [{"a": text}]})
    assert raised.value.where == ("outer", 0, "a")


def test_the_id_is_found_again_in_what_was_rendered() -> None:
    """Wherever the template has it as a value of its own."""
    template = Template({"a": [{"b": "{id}"}], "c": "x{id}"})
    assert template.id_path == ("a", 0, "b")
    assert template.id_of(template.render(entry())) == record().id(0)
    assert Template({"c": "x{id}", "{id}": "y"}).id_path is None


@given(st.decimals(allow_nan=False, allow_infinity=False, places=6, min_value=-(10**8), max_value=10**8))
def test_no_digit_of_a_number_is_lost(value: Decimal) -> None:
    """As it is written, so it is sent."""
    assert Template({"v": "{value|number}"}).render(entry(value=f"{value:f}")) == f'{{"v":{value:f}}}'.encode()


@given(st.dictionaries(st.text(min_size=1, max_size=9), st.text(max_size=9), max_size=4), st.text(max_size=20))
def test_nothing_that_a_record_says_is_read_as_a_template(group: dict[str, str], customer: str) -> None:
    """Labels and names are data, whatever braces they hold; the same record gives the same bytes."""
    body: Body = {"who": "{customer}", "labels": {"{group.*}": "{group.*}"}, "text": "[{customer}]"}
    of, turned = record(group=group), record(group=dict(reversed(group.items())))
    template = Template(body)
    payload = template.render(entry(of, customer=customer))
    assert payload == template.render(entry(turned, customer=customer))
    assert json.loads(payload) == {"who": customer, "labels": group, "text": f"[{customer}]"}
