"""Label selectors as Kubernetes writes them: `tenant=acme`, `tier in (gold, silver)`, `!trial`, joined by commas.

The syntax and its meaning are those of `kubectl --selector`: a requirement with `!=` or `notin` also holds where the
label is missing.
"""

import re
from collections.abc import Mapping
from functools import lru_cache

from msgspec import Struct

KEY = r"(?:[A-Za-z0-9](?:[A-Za-z0-9.-]{0,251}[A-Za-z0-9])?/)?[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?"
_VALUE = r"(?:[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?)?"
_REQUIREMENT = re.compile(
    rf"\s*(?:(?P<absent>!)\s*(?P<missing>{KEY})"
    rf"|(?P<key>{KEY})(?:\s*(?P<sign>==|=|!=)\s*(?P<value>{_VALUE})"
    rf"|\s+(?P<set>in|notin)\s*\((?P<values>[^()]*)\))?)\s*(?P<end>,|$)"
)


class Requirement(Struct, frozen=True):
    """One part of a selector. `values` is None where only the label's presence counts."""

    key: str
    values: frozenset[str] | None
    wanted: bool

    def holds(self, labels: Mapping[str, str], prefix: str) -> bool:
        """Whether the labels, of which only those under `prefix` are looked at, fit it."""
        value = labels.get(prefix + self.key)
        found = value is not None if self.values is None else value in self.values
        return found is self.wanted

    def __str__(self) -> str:
        """As it is written, in one spelling."""
        if self.values is None:
            return f"{'' if self.wanted else '!'}{self.key}"
        if len(self.values) == 1:
            return f"{self.key}{'=' if self.wanted else '!='}{min(self.values)}"
        return f"{self.key} {'in' if self.wanted else 'notin'} ({','.join(sorted(self.values))})"


def written(text: str) -> str:
    """The same selector in one spelling: requirements and values in order. Raises ValueError as `parse` does."""
    return ",".join(sorted({str(requirement) for requirement in parse(text)}))


@lru_cache(maxsize=4096)
def parse(text: str) -> tuple[Requirement, ...]:
    """The requirements of a selector. Raises ValueError saying where it cannot be read."""
    found: list[Requirement] = []
    at = 0
    while at < len(text) or not found:
        match = _REQUIREMENT.match(text, at)
        if match is None or (match["end"] and match.end() == len(text)):
            raise ValueError(
                f'not a label selector from "{text[at:]}" on: write tenant=acme, or tier in (gold, silver)'
            )
        found.append(_requirement(match))
        at = match.end()
    return tuple(found)


def selects(text: str, labels: Mapping[str, str], prefix: str = "") -> bool:
    """Whether a selector holds for the labels under `prefix`."""
    return all(requirement.holds(labels, prefix) for requirement in parse(text))


def _requirement(match: "re.Match[str]") -> Requirement:
    if match["absent"]:
        return Requirement(match["missing"], None, wanted=False)
    if match["sign"]:
        return Requirement(match["key"], frozenset({match["value"]}), match["sign"] != "!=")
    if match["set"]:
        values = [value.strip() for value in match["values"].split(",")]
        wrong = next((value for value in values if not re.fullmatch(_VALUE, value)), None)
        if wrong is not None:
            raise ValueError(f'"{wrong}" cannot be the value of a label')
        return Requirement(match["key"], frozenset(values), match["set"] == "in")
    return Requirement(match["key"], None, wanted=True)
