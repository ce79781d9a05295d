"""A body as somebody writes it in YAML: JSON with references to the record in it. Strict, and nothing is run. Pure.

A text such as `{id}` is a reference, `{value|number}` one with a form, `{{` a brace. A reference may stand inside a
text, and in a key; alone it keeps the type of its form, and where the record has no such label, its key is
left out. The key `{group.*}` stands for every label of the record. Whatever is not known is refused when the template
is read, and what a record cannot say when it is rendered: nothing is guessed.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from difflib import get_close_matches

import msgspec
from msgspec import Struct

from agent.record import rfc3339
from agent.sinks import Entry

DIGITS = 15  # as many as a double keeps, and with one most receivers read a number of JSON
LABELS = "group.*"
_MS = 10**6
_REFERENCE = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")
_encoder = msgspec.json.Encoder(order="sorted")

_FIELDS: Mapping[str, Callable[[Entry], str]] = {
    "id": lambda entry: entry.id,
    "customer": lambda entry: entry.customer,
    "dimension": lambda entry: entry.dimension,
    "unit": lambda entry: entry.unit,
    "kind": lambda entry: entry.record.kind,
    "meter": lambda entry: entry.record.meter,
    "policy": lambda entry: entry.record.policy,
    "source": lambda entry: entry.record.source,
}
_TIMES: Mapping[str, Callable[[Entry], int]] = {
    "at": lambda entry: entry.at,
    "start": lambda entry: entry.record.start,
    "end": lambda entry: entry.record.end,
}
_TIME_FORMS: Mapping[str, Callable[[int], object]] = {
    "": rfc3339,
    "seconds": lambda ns: f"{rfc3339(ns)[:19]}Z",
    "ms": lambda ns: f"{rfc3339(ns)[:23]}Z",
    "unix_decimal": lambda ns: f"{ns // (1000 * _MS)}.{ns // _MS % 1000:03}",
    "unix": lambda ns: ns // (1000 * _MS),
    "unix_ms": lambda ns: ns // _MS,
}


def _number(value: str) -> msgspec.Raw:
    """A decimal as a number of JSON, as it is written: no float comes near it."""
    if len(value.lstrip("-0.").replace(".", "")) > DIGITS:
        raise ValueError(
            f"{value} has more than {DIGITS} digits, which a number of JSON may lose: choose a larger unit"
        )
    return msgspec.Raw(value.encode())


def _integer(value: str) -> int:
    whole, _, decimals = value.partition(".")
    if decimals.strip("0"):
        raise ValueError(f"{value} is no whole number, and only such are taken: write scale: 0")
    return int(whole)


_VALUE_FORMS: Mapping[str, Callable[[str], object]] = {
    "": lambda value: value,
    "number": _number,
    "integer": _integer,
}

Body = Mapping[str, "Body"] | Sequence["Body"] | str | int | bool | None


class TemplateError(ValueError):
    """A template that cannot be used: `where` below the body, and what with its cure."""

    def __init__(self, where: tuple[str | int, ...], what: str) -> None:
        super().__init__(what)
        self.where = where


class _Reference(Struct, frozen=True):
    name: str
    form: str = ""

    def of(self, entry: Entry) -> object:
        """What the record says there; None: it has no such label."""
        if self.name in _FIELDS:
            return _FIELDS[self.name](entry)
        if self.name in _TIMES:
            return _TIME_FORMS[self.form](_TIMES[self.name](entry))
        if self.name == "value":
            return _VALUE_FORMS[self.form](entry.value)
        if self.name == "group":
            return dict(entry.record.group)
        return entry.record.group.get(self.name.removeprefix("group."))


Text = tuple[str | _Reference, ...]


class Template:
    """Renders one record as one JSON value. Raises TemplateError where it is not sound."""

    def __init__(self, body: Body) -> None:
        self._body = body
        self._texts = {(place, text): _read(place, text) for place, text in _strings(body, ())}
        for (place, _), text in self._texts.items():
            whole = len(text) == 1
            for part in text:
                if isinstance(part, _Reference) and not whole and part.name == "group":
                    raise TemplateError(place, "{group} is a mapping and stands alone. Write {group.LABEL} in a text.")
        self.names = {part.name for text in self._texts.values() for part in text if isinstance(part, _Reference)}
        self.beside_labels = frozenset(_beside_labels(body))
        self.id_path = next(
            (place for (place, _), text in self._texts.items() if text == (_Reference("id"),) and _is_value(place)),
            None,
        )

    def render(self, entry: Entry) -> bytes:
        """Canonical JSON: the same entry gives the same bytes. Raises ValueError for what cannot be told so."""
        return _encoder.encode(self._value(self._body, (), entry))

    def id_of(self, payload: bytes) -> object:
        """The record's id in what was rendered."""
        found = msgspec.json.decode(payload)
        for step in self.id_path or ():
            found = found[step]
        return found

    def _value(self, body: Body, place: tuple[str | int, ...], entry: Entry) -> object:
        if isinstance(body, str):
            return self._text(self._texts[place, body], entry, alone=True)
        if isinstance(body, Mapping):
            return self._mapping(body, place, entry)
        if isinstance(body, Sequence):
            return [self._value(inner, (*place, index), entry) for index, inner in enumerate(body)]
        return body

    def _mapping(self, body: Mapping[str, Body], place: tuple[str | int, ...], entry: Entry) -> dict[str, object]:
        told: dict[str, object] = {}
        for key, inner in body.items():
            at = (*place, key)
            if key == f"{{{LABELS}}}":
                pairs: Mapping[str, object] = entry.record.group
            else:
                value = self._value(inner, at, entry)
                if value is None and inner is not None:
                    continue
                pairs = {str(self._text(self._texts[(*at, KEY), key], entry, alone=False)): value}
            if twice := sorted(pairs.keys() & told.keys()):
                raise ValueError(f"two values for {twice[0]} in the body: rename the label, or the key of the template")
            told |= pairs
        return told

    @staticmethod
    def _text(text: Text, entry: Entry, *, alone: bool) -> object:
        if alone and len(text) == 1 and isinstance(text[0], _Reference):
            return text[0].of(entry)
        said = []
        for part in text:
            value = part if isinstance(part, str) else part.of(entry)
            if value is None:
                assert isinstance(part, _Reference)
                raise ValueError(f"no label {part.name.removeprefix('group.')}, which the body names inside a text")
            said.append(bytes(value).decode() if isinstance(value, msgspec.Raw) else str(value))
        return "".join(said)


KEY = "\0key"  # marks, in a place, that a mapping's key is meant and not its value


def _beside_labels(body: Body) -> Iterator[str]:
    """The keys that stand where all labels do, too: a label of one of these names would hide it."""
    inner: Sequence[Body] = ()
    if isinstance(body, Mapping):
        inner = list(body.values())
        if f"{{{LABELS}}}" in body:
            yield from (key for key in body if "{" not in key)
    elif not isinstance(body, str | int | None):
        inner = body
    for one in inner:
        yield from _beside_labels(one)


def _is_value(place: tuple[str | int, ...]) -> bool:
    return not any(step == KEY or (isinstance(step, str) and "{" in step) for step in place)


def _strings(body: Body, place: tuple[str | int, ...]) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """Every text of a template with its place."""
    if isinstance(body, str):
        yield place, body
    elif isinstance(body, Mapping):
        for key, inner in body.items():
            if key == f"{{{LABELS}}}":
                if inner != key:
                    raise TemplateError((*place, key), f'stands for every label. Write `"{key}": "{key}"`.')
                continue
            yield (*place, key, KEY), key
            yield from _strings(inner, (*place, key))
    elif isinstance(body, Sequence):
        for index, inner in enumerate(body):
            yield from _strings(inner, (*place, index))


def _read(place: tuple[str | int, ...], text: str) -> Text:
    parts: list[str | _Reference] = []
    end = 0
    for found in _REFERENCE.finditer(text):
        if found.start() > end:
            parts.append(text[end : found.start()])
        end = found.end()
        if found[0] in ("{{", "}}"):
            parts.append(found[0][0])
        elif found[1] is None:
            raise TemplateError(place, f"a lone {found[0]}. Write it twice if it is meant so.")
        else:
            parts.append(_reference(place, found[1]))
    if end < len(text) or not parts:
        parts.append(text[end:])
    return tuple(parts)


def _reference(place: tuple[str | int, ...], written: str) -> _Reference:
    name, bar, form = written.partition("|")
    known = (*_FIELDS, *_TIMES, "value", "group")
    if name == LABELS:
        raise TemplateError(place, f'{{{LABELS}}} is a key. Write `"{{{LABELS}}}": "{{{LABELS}}}"`.')
    if name not in known and not (name.startswith("group.") and len(name) > 6):
        close = get_close_matches(name, known, n=1)
        cure = f"Did you mean {{{close[0]}}}?" if close else f"Known: {', '.join(known)}, group.LABEL."
        raise TemplateError(place, f"{{{name}}} is nothing that a record says. {cure}")
    forms = _TIME_FORMS if name in _TIMES else _VALUE_FORMS if name == "value" else {"": str}
    if form not in forms or (bar and not form):
        close = get_close_matches(form, forms, n=1)
        others = ", ".join(filter(None, forms))
        cure = f"Did you mean {close[0]}?" if close else f"Known: {others}." if others else f"Write {{{name}}}."
        raise TemplateError(place, f"{form or 'nothing'} is no form of {{{name}}}. {cure}")
    return _Reference(name, form)
