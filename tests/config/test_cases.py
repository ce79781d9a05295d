"""`check --cases`: the file that says who should own what."""

from pathlib import Path

import pytest

from agent.config.cases import Case, load_cases, parse_cases
from agent.errors import ConfigError

NO_LABELS = "no labels. Write `resource: {unit: acme-web.service}`."


def test_cases_are_read_with_their_lines(tmp_path: Path) -> None:
    """A failing case is then found in the file."""
    path = tmp_path / "cases.yaml"
    path.write_text(
        "- resource: {unit: a.service, property.X-Customer: acme}\n  expect: acme\n"
        "- {resource: {uid: 1000}, expect: unattributed}\n"
    )
    assert load_cases(path) == (
        Case({"unit": "a.service", "property.X-Customer": "acme"}, "acme", 1),
        Case({"uid": "1000"}, "unattributed", 3),
    )


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("", ": not a list of cases. Write `- {resource: {unit: ...}, expect: ...}` lines."),
        ("a: 1", ": not a list of cases. Write `- {resource: {unit: ...}, expect: ...}` lines."),
        ("- x", ': [0]: "x" is not a case. Write `resource: {...}` and `expect: ...`.'),
        ("- {resource: {uid: 1}}", ": [0].expect: not a customer. Write a customer's id, unattributed or system."),
        ("- {expect: a}", f": [0].resource: {NO_LABELS}"),
        ("- {resource: {}, expect: a}", f": [0].resource: {NO_LABELS}"),
        ("- {resource: {uid: 1}, expect: a, expects: b}", ": [0].expects: unknown key. Did you mean expect?"),
        ("- {resource: {unti: b}, expect: a}", ": [0].resource.unti: unknown key. Did you mean unit?"),
        (
            "- {resource: {unit: 7}, expect: a}",
            ": [0].resource.unit: 7 is not text. Write the label's value, in quotes if need be.",
        ),
        (
            "- {resource: {namespace: a, namespace_label.: b}, expect: a}",
            ": [0].resource.namespace_label.: unknown key. Did you mean namespace_label.KEY?",
        ),
        (
            "- {resource: {namespace_label.tenant: b}, expect: a}",
            ": [0].resource.namespace_label.tenant: a label of a pod that is in no namespace. Add `namespace: ...`.",
        ),
        ("- {resource: {uid: 1, uid: 2}, expect: a}", ": [0].resource.uid: written twice, first on line 1. Keep one."),
    ],
)
def test_a_wrong_case_is_named_with_its_line_and_cure(written: str, expected: str) -> None:
    """A case that tests nothing is worse than none."""
    with pytest.raises(ConfigError) as raised:
        parse_cases(written, "cases.yaml")
    assert raised.value.problems == [f"cases.yaml:1{expected}"]


def test_all_problems_of_all_cases_are_told_at_once() -> None:
    """In the order of the file."""
    with pytest.raises(ConfigError) as raised:
        parse_cases("- {expect: a}\n- {resource: {unit: b}}\n", "cases.yaml")
    assert [problem.split(": ")[0] for problem in raised.value.problems] == ["cases.yaml:1", "cases.yaml:2"]
