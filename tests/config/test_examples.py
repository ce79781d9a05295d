"""The files in `config/` are the reference: they load, say what the schema says, and hold every key there is."""

import re
from pathlib import Path
from typing import Any

import pytest

from agent.config import CloudEvents, Config, json_schema, load
from agent.config.document import parse
from agent.config.sinks import Http, Lago, Remote, Stripe
from agent.model import Meter

from .written import load as load_written
from .written import text

CONFIG = Path(__file__).parents[2] / "config"


UNITS = {"cpu.time": "ns", "memory.working_set": "byte·ms"}


def _known(kind: str, *names: str) -> dict[str, tuple[Meter, ...]]:
    return {kind: tuple(Meter(name, UNITS.get(name, "byte"), "counter", "exact", "") for name in names)}


KNOWN = {
    **_known("host", "host.network.transmit_bytes"),
    **_known("cgroups", "cpu.time", "memory.working_set", "io.write_bytes"),
    **_known("kubernetes", "cpu.time", "memory.working_set", "io.write_bytes"),
}
ANYTHING: dict[str, Any] = {"items": {"pattern": ""}}
REMOTE = (Http, Lago, Stripe)
EXAMPLES = ["agent.yaml", "minimal.yaml", "billing.yaml", "kubernetes.yaml"]


def _resolve(schema: dict[str, Any], root: dict[str, Any]) -> dict[str, Any]:
    while "$ref" in schema:
        schema = root["$defs"][schema["$ref"].rsplit("/", 1)[1]]
    return schema


def _branches(schema: dict[str, Any], root: dict[str, Any]) -> list[dict[str, Any]]:
    """The schemas of which one must hold."""
    schema = _resolve(schema, root)
    choices = schema.get("anyOf") or schema.get("oneOf")
    return [found for choice in choices for found in _branches(choice, root)] if choices else [schema]


def _fits(value: Any, schema: dict[str, Any], root: dict[str, Any]) -> bool:
    """As much of JSON Schema as pydantic writes for this file."""
    return any(_fits_one(value, branch, root) for branch in _branches(schema, root))


def _fits_one(value: Any, schema: dict[str, Any], root: dict[str, Any]) -> bool:
    kinds = {"string": str, "integer": int, "boolean": bool, "null": type(None), "array": list, "object": dict}
    if "type" in schema and not isinstance(value, kinds[schema["type"]]):
        return False
    if value not in schema.get("enum", [schema.get("const", value)]):
        return False
    if isinstance(value, list):
        return all(_fits(member, schema["items"], root) for member in value)
    if isinstance(value, dict):
        if not {"properties", "additionalProperties"} & schema.keys():
            schema = {**schema, "additionalProperties": ANYTHING}  # the body of a request
        whole = set(schema.get("required", ())) <= set(value) and len(value) >= schema.get("minProperties", 0)
        return whole and all((at := _under(schema, key)) and _fits(member, at, root) for key, member in value.items())
    if isinstance(value, int):
        return bool(schema.get("minimum", value) <= value <= schema.get("maximum", value))
    return re.search(schema.get("pattern", ""), str(value)) is not None


def _under(schema: dict[str, Any], key: str) -> dict[str, Any] | None:
    """The schema of what stands under a key: one of ours, or a name of the user's own; None where it may not stand."""
    found: dict[str, Any] | None = schema.get("properties", {}).get(key) or schema.get("additionalProperties") or None
    return found


def _keys_of(value: Any, schema: dict[str, Any], root: dict[str, Any]) -> set[tuple[str, str]]:
    """(section's type, key) of everything written in `value`."""
    keys: set[tuple[str, str]] = set()
    for branch in _branches(schema, root):
        if not _fits_one(value, branch, root):
            continue
        for member in value if isinstance(value, list) else ():
            keys |= _keys_of(member, branch["items"], root)
        for key, member in value.items() if isinstance(value, dict) else ():
            keys |= {(branch["title"], key)} if "properties" in branch else set()
            keys |= _keys_of(member, _under(branch, key) or {}, root)
    return keys


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_loads_and_fits_the_schema(name: str) -> None:
    """The two ways of checking a file agree on it."""
    path = CONFIG / name
    assert load(path, KNOWN, {"NODE_NAME": "n1"}, now=0).sinks
    assert _fits(parse(path.read_text(), name).values, json_schema(), json_schema())


def test_the_schema_refuses_what_loading_refuses() -> None:
    """So that an editor that knows the schema warns early."""
    values = parse((CONFIG / "minimal.yaml").read_text(), "minimal.yaml").values
    for wrong in (
        {"agent": {"window": 300}},
        {"agent": {"windo": "5m"}},
        {"sources": [{"kind": "x"}]},
        {"sinks": None},
        {"sinks": [{"id": "e", "kind": "cloudevents", "url": "https://b.example/x", "concurrency": 0}]},
        {"sinks": [{"id": "e", "kind": "cloudevents", "url": "https://b.example/x", "dimensions": {}}]},
        {"sinks": [{"id": "e", "kind": "cloudevents", "url": "https://b.example/x", "dimensions": {"a": {"x": "y"}}}]},
    ):
        assert not _fits({**values, **wrong}, json_schema(), json_schema())
    assert not _fits({"sources": []}, json_schema(), json_schema())


def test_the_reference_holds_every_key() -> None:
    """A key that the reference does not explain is a key nobody finds."""
    schema = json_schema()
    supported = {(kind["title"], key) for kind in (schema, *schema["$defs"].values()) for key in kind["properties"]}
    written = _keys_of(parse((CONFIG / "agent.yaml").read_text(), "agent.yaml").values, schema, schema)
    shared = {(kind.__name__, field.alias or key) for kind in REMOTE for key, field in Remote.model_fields.items()}
    assert written <= supported
    assert {key for _, key in shared} <= {
        key for kind, key in written if kind == "CloudEvents"
    }  # where they are explained
    assert supported - written <= shared


def test_every_value_the_reference_calls_default_is_the_default() -> None:
    """A reference that is wrong about defaults is worse than none."""
    path = CONFIG / "agent.yaml"
    lines = {number for number, line in enumerate(path.read_text().splitlines(), 1) if "# default" in line}
    document = parse(path.read_text(), "agent.yaml")
    properties = json_schema()["$defs"]
    by_section: dict[tuple[str | int, ...], str] = {
        ("agent",): "Agent",
        ("telemetry",): "Telemetry",
        ("spool",): "Spool",
        ("sources", 2): "Kubernetes",
        ("sources", 2, "kubelet"): "Kubelet",
        ("attribution", "pod_labels"): "PodLabelsSection",
        ("sinks", 0): "CloudEvents",
        ("sinks", 1): "Paigo",
        ("sinks", 2): "Http",
        ("sinks", 4, "oauth2"): "OAuth2",
        ("sinks", 5): "Lago",
        ("sinks", 6): "Stripe",
        ("sinks", 7): "Postgres",
        ("sinks", 8): "S3",
        ("sinks", 9): "Kafka",
        ("sinks", 10): "Webhook",
        ("sinks", 0, "dimensions", "cpu_core_seconds"): "DimensionAtSink",
    }
    checked = 0
    for place, model in by_section.items():
        section = document.values
        for step in place:
            section = section[step]
        for key, value in section.items():
            if document.line((*place, key)) in lines and "default" in properties[model]["properties"][key]:
                assert value == properties[model]["properties"][key]["default"], key
                checked += 1
    assert checked >= 38


def test_the_normative_section_of_a_cloudevents_sink_is_sound() -> None:
    """Written as the design has it, with every file in its place."""
    config = load_written(
        text(
            sinks="sinks:\n"
            "  - id: events\n"
            "    kind: cloudevents\n"
            "    profile: openmeter-v1\n"
            "    role: copy\n"
            "    url: https://openmeter.example/api/v1/events\n"
            "    token_file: /run/secrets/openmeter\n"
            "    tls: {ca_file: /tls/ca.pem, cert_file: /tls/agent.pem, key_file: /tls/agent.key}\n"
            "    max_batch: 100\n"
        )
    )
    (sink,) = config.sinks
    assert isinstance(sink, CloudEvents)
    assert (sink.role, sink.takes, sink.max_batch, sink.dedupe_horizon) == ("copy", None, 100, None)


def test_every_key_is_described() -> None:
    """The schema and the documentation are made of these texts."""
    schema = json_schema()
    for kind in (schema, *schema["$defs"].values()):
        for key, inner in kind["properties"].items():
            assert inner.get("description") or _resolve(inner, schema)["description"], (kind["title"], key)
    assert set(schema["properties"]) == set(Config.model_fields)
