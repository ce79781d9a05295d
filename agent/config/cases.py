"""`check --cases FILE`: tests of attribution, written as YAML. This reads them; the CLI runs them.

A file is a list: `- {resource: {unit: acme-web.service, slice: acme.slice}, expect: acme}`, of a pod `- {resource:
{namespace: acme-prod, pod: web-1, namespace_label.tenant: acme}, expect: acme}`.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from msgspec import Struct

from agent.config.document import Document, Loc, Problem, parse, read, refuse, unknown_key
from agent.config.scalars import LABEL_SETS, shown

LABELS = ("unit", "slice", "cgroup", "uid", "namespace", "pod", "owner", "allowed_customers")
SETS = {"property.X-": "...", **{f"{name}.": "KEY" for name in LABEL_SETS}}  # beginning → what stands for the rest
KNOWN = [*LABELS, *(f"{prefix}{rest}" for prefix, rest in SETS.items())]
_OF_A_POD = ("pod", "owner", "allowed_customers", *(f"{name}." for name in LABEL_SETS))


class Case(Struct, frozen=True):
    """A resource with these labels is expected to be this customer's, or `unattributed`, or `system`."""

    labels: Mapping[str, str]
    expect: str
    line: int


def load_cases(path: Path) -> tuple[Case, ...]:
    """The cases of a file. Raises ConfigError with every problem, each with its line and cure."""
    return parse_cases(read(path), str(path))


def parse_cases(text: str, name: str) -> tuple[Case, ...]:
    """The cases in `text`; `name` stands for the file in messages. Raises ConfigError."""
    document = parse(text, name)
    problems = [*document.problems, *_problems(document)]
    if problems:
        refuse(name, problems)
    return tuple(
        Case({label: str(value) for label, value in case["resource"].items()}, case["expect"], document.line((index,)))
        for index, case in enumerate(document.values)
    )


def _problems(document: Document) -> Iterator[Problem]:
    if not isinstance(document.values, list) or not document.values:
        yield document.problem((), "not a list of cases. Write `- {resource: {unit: ...}, expect: ...}` lines.")
        return
    for index, case in enumerate(document.values):
        if isinstance(case, dict):
            yield from _case_problems(document, index, case)
        else:
            yield document.problem(
                (index,), f"{shown(case)} is not a case. Write `resource: {{...}}` and `expect: ...`."
            )


def _case_problems(document: Document, index: int, case: dict[str, Any]) -> Iterator[Problem]:
    for key in case:
        if key not in ("resource", "expect"):
            yield document.problem((index, key), unknown_key(key, ["resource", "expect"]))
    if not isinstance(case.get("expect"), str):
        yield document.problem((index, "expect"), "not a customer. Write a customer's id, unattributed or system.")
    labels = case.get("resource")
    if not isinstance(labels, dict) or not labels:
        yield document.problem((index, "resource"), "no labels. Write `resource: {unit: acme-web.service}`.")
        return
    for label, value in labels.items():
        loc: Loc = (index, "resource", label)
        if label not in LABELS and not any(label.startswith(prefix) and label != prefix for prefix in SETS):
            yield document.problem(loc, unknown_key(label, KNOWN))
        elif label.startswith(_OF_A_POD) and "namespace" not in labels:
            yield document.problem(loc, "a label of a pod that is in no namespace. Add `namespace: ...`.")
        if not isinstance(value, str) and (isinstance(value, bool) or not isinstance(value, int) or label != "uid"):
            yield document.problem(loc, f"{shown(value)} is not text. Write the label's value, in quotes if need be.")
