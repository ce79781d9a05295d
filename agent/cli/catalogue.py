"""What the program can do: meters, kinds of sources and sinks, from the values that the program itself runs on."""

from collections.abc import Sequence
from typing import Any

from msgspec import Struct

from agent.config import json_schema
from agent.kinds import KINDS
from agent.sources.kubernetes import meters as pods

SUMMARY = "kubernetes, basis: summary"  # the same meters, read elsewhere


class Metered(Struct, frozen=True):
    """One meter, and the kind of source that measures it."""

    name: str
    unit: str
    kind: str
    books: str
    source: str
    formula: str
    note: str


class Key(Struct, frozen=True):
    """One key of a section of the configuration."""

    name: str
    meaning: str


class Section(Struct, frozen=True):
    """One kind of source or sink: what it is, and what the configuration may say of it."""

    kind: str
    meaning: str
    keys: tuple[Key, ...]


def meters() -> tuple[Metered, ...]:
    """Every meter of this release."""
    return tuple(
        Metered(m.name, m.unit, m.kind, m.books, source, m.formula, m.note)
        for source, meters in (*KINDS.items(), (SUMMARY, pods.SUMMARY))
        for m in meters
    )


def sources() -> tuple[Section, ...]:
    """Every kind of source."""
    return _sections("sources")


def sinks() -> tuple[Section, ...]:
    """Every kind of sink."""
    return _sections("sinks")


def _sections(name: str) -> tuple[Section, ...]:
    """The kinds that may stand in a list of the configuration, as its JSON Schema describes them."""
    schema = json_schema()
    items = schema["properties"][name]["items"]
    references: Sequence[dict[str, Any]] = items.get("oneOf", [items])
    found = []
    for reference in references:
        section = schema["$defs"][reference["$ref"].rpartition("/")[2]]
        keys = tuple(Key(key, value.get("description", "")) for key, value in section["properties"].items())
        kind = section["properties"]["kind"]["const"]
        found.append(Section(kind, section["description"], tuple(key for key in keys if key.name != "kind")))
    return tuple(found)
