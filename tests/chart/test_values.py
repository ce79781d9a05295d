"""values.yaml, its schema and the chart's page say the same; a typo is refused before anything is installed."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from agent.config.sections import Config
from tests.chart.programs import CHART, refused, render
from tests.docs.pages import code, page, section, table

VALUES: dict[str, Any] = yaml.safe_load((CHART / "values.yaml").read_text())
SCHEMA: dict[str, Any] = json.loads((CHART / "values.schema.json").read_text())
GIVEN_BY_HELM = {"global"}
WHOLE = {  # what inside them is Kubernetes' business, or the agent's
    *(f"config.{name}" for name in ("agent", "telemetry", "attribution", "spool")),
    *("affinity", "nodeSelector", "resources", "seLinuxOptions", "dashboard.labels"),
}


def keys(values: dict[str, Any], above: str = "") -> Iterator[str]:
    """Every value that can be set, in the order of the file."""
    for name, value in values.items():
        key = f"{above}{name}"
        if isinstance(value, dict) and value and key not in WHOLE:
            yield from keys(value, f"{key}.")
        else:
            yield key


def known(schema: dict[str, Any], above: str = "") -> Iterator[str]:
    """The same, of the schema."""
    for name, inner in schema["properties"].items():
        key = f"{above}{name}"
        if "properties" in inner and key not in WHOLE:
            yield from known(inner, f"{key}.")
        else:
            yield key


def closed(schema: dict[str, Any], above: str = "") -> Iterator[str]:
    """Keys of objects that take whatever name there is."""
    for name, inner in schema.get("properties", {}).items():
        if inner.get("type") == "object" and inner.get("additionalProperties") is not False:
            yield f"{above}{name}"
        yield from closed(inner, f"{above}{name}.")


def test_schema_and_page_list_every_value() -> None:
    """In the order of the file, with its default where that is short."""
    assert set(known(SCHEMA)) - GIVEN_BY_HELM == set(keys(VALUES))
    rows = table(section(page("helm/metering-agent/README.md"), "Values"))
    assert [code(row[0]) for row in rows] == list(keys(VALUES))
    for key, default, _ in rows:
        value: Any = VALUES
        for step in code(key).split("."):
            value = value[step]
        if default not in {"see below", "see the file"}:
            assert yaml.safe_load(code(default)) == value, key


def test_the_sections_of_the_configuration_are_the_agents() -> None:
    """A section that the agent learns can be set at once."""
    assert SCHEMA["properties"]["config"]["properties"].keys() == Config.model_fields.keys()
    assert VALUES["config"].keys() == Config.model_fields.keys()


def test_names_are_free_only_where_the_chart_cannot_know_them() -> None:
    """The agent checks its own sections, Kubernetes its own."""
    free = {key for key in closed(SCHEMA) if key.partition(".")[0] not in {"config", "resources", "affinity"}}
    assert free == {
        *GIVEN_BY_HELM,
        *("nodeSelector", "podLabels", "podAnnotations", "serviceAccount.annotations"),
        *("podMonitor.labels", "prometheusRule.labels", "dashboard.labels", "dashboard.annotations"),
    }


@pytest.mark.real
@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"toleration": []}, "toleration"),
        ({"config": {"sink": []}}, "sink"),
        ({"config": {"sources": []}}, "sources"),
        ({"config": {"customers": [{"name": "Acme"}]}}, "id"),
        ({"config": {"agent": {"shutdown_budget": "20"}}}, "shutdown_budget"),
        ({"config": {"agent": {"data_dir": "var/lib"}}}, "data_dir"),
        ({"image": {"digest": "sha256:short"}}, "digest"),
        ({"image": {"pullPolicy": "Sometimes"}}, "pullPolicy"),
        ({"networkPolicy": {"enable": False}}, "enable"),
        ({"secrets": ["Not A Name"]}, "secrets"),
        ({"secrets": [{"token": "s3cret"}]}, "secrets"),
        ({"runAsUser": "root"}, "runAsUser"),
        ({"updateStrategy": {"maxSurge": 1}}, "maxSurge"),
        ({"updateStrategy": {"maxUnavailable": 0}}, "maxUnavailable"),
        ({"admissionPolicy": {"enabled": True}}, "groups"),
        ({"admissionPolicy": {"validationActions": ["Allow"]}}, "validationActions"),
    ],
)
def test_a_value_that_would_do_nothing_or_harm_is_refused_by_name(values: dict[str, Any], named: str) -> None:
    """helm reads the schema before it renders."""
    said = refused(values)
    assert named in said
    assert "s3cret" not in said


@pytest.mark.real
def test_a_policy_that_guards_nothing_is_refused() -> None:
    """Somebody would rely on it."""
    said = refused(
        {"admissionPolicy": {"enabled": True, "groups": ["a"]}, "config": {"attribution": {"customer_labels": None}}}
    )
    assert "nothing decides who pays by a label" in said


@pytest.mark.real
def test_every_label_that_a_customer_is_found_by_is_guarded() -> None:
    """Whatever Kubernetes' syntax of selectors can say, beside what names customers outright."""
    selectors = {"namespace_labels": "tenant in (acme, b-c),x.io/y!=z, !gone", "pod_labels": "app==web,exists"}
    config = {
        "customers": [
            {"id": "acme", "match": [{"namespace": "a"}, selectors, {"namespace_labels": "tenant notin (c)"}]}
        ],
        "attribution": {"pod_labels": {"keys": ["paigoCustomerId"], "allow_annotation": "billing/allowed"}},
    }
    policies = {"enabled": True, "groups": ["platform"], "keys": ["own"]}
    objects = render({"admissionPolicy": policies, "config": config})
    guards = [each["spec"] for each in objects if each["kind"] == "ValidatingAdmissionPolicy"]
    assert len(guards) == 3
    for spec in guards:
        keys = {each["name"]: each["expression"] for each in spec["variables"]}["keys"]
        assert json.loads(keys) == sorted(
            {
                *("billing/customer", "paigoCustomerId", "billing/allowed", "own"),
                *("tenant", "x.io/y", "gone", "app", "exists"),
            }
        )


@pytest.mark.real
def test_the_chart_can_be_part_of_another() -> None:
    """helm then hands it `global`."""
    assert render({"global": {"imageRegistry": "elsewhere"}}) == render()
