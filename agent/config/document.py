"""YAML text → plain values, and the line on which each of them was written.

Only a small and safe part of YAML is read: mappings with text keys, lists, and scalars that are null, true, false, an
integer or text. What YAML 1.1 would make of `off`, `no`, `010` or `2026-01-01` stays the text that was written, so
that nothing is changed behind the writer's back. Size, depth, aliases and values are bounded before any of them can
cost time or memory.
"""

import re
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NoReturn

import yaml
from msgspec import Struct

from agent.errors import ConfigError

MAX_BYTES = 1 << 20
MAX_DEPTH = 20
MAX_ALIASES = 50  # an alias counts once for itself and once for each alias inside what it repeats
MAX_VALUES = 200_000  # what aliases repeat included

Loc = tuple[str | int, ...]  # ("customers", 0, "match")

# libyaml where PyYAML was built with it: a 1 MiB file takes a third of a second instead of ten.
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_INTEGER = re.compile(r"-?(?:0|[1-9][0-9]{0,17})")
_WORDS = {"": None, "~": None, "null": None, "true": True, "false": False}
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


class Place(Struct):
    """Where one value stands; the places inside it are found by key or index."""

    line: int
    inner: dict[str | int, "Place"] = {}
    values: int = 1  # this one and all inside it, aliases expanded
    aliases: int = 0  # expanded inside it
    depth: int = 1


class Problem(Struct, frozen=True, order=True):
    """One thing that is wrong: `text` says what, and ends with the cure."""

    line: int
    where: str
    text: str

    def shown(self, name: str) -> str:
        """One line: `agent.yaml:41: customers[1].id: what. Cure.`."""
        line = f"{self.where}: {self.text}" if self.where else self.text
        line = "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in line)
        return f"{name}:{self.line}: {line}"


class Document(Struct, frozen=True):
    """What a file says. `problems` are those that did not stop the reading: duplicate keys and the like."""

    name: str
    values: Any
    root: Place
    problems: tuple[Problem, ...] = ()

    def line(self, loc: Loc) -> int:
        """The line of `loc`, or of the nearest thing around it that was written."""
        place = self.root
        for step in loc:
            if step not in place.inner:
                break
            place = place.inner[step]
        return place.line

    def problem(self, loc: Loc, text: str) -> Problem:
        """A problem with what stands at `loc`."""
        return Problem(self.line(loc), dotted(loc), text)


def refuse(name: str, problems: list[Problem]) -> NoReturn:
    """Raise ConfigError with every problem, in the order of the file."""
    raise ConfigError([problem.shown(name) for problem in sorted(set(problems))])


def dotted(loc: Loc) -> str:
    """`("customers", 0, "match")` → `customers[0].match`, as error messages name it."""
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in loc).removeprefix(".")


def unknown_key(key: str, known: list[str]) -> str:
    """What to say of a key that nothing reads: the one that was probably meant, or all that there are."""
    close = get_close_matches(key, known, n=1)
    return f"unknown key. Did you mean {close[0]}?" if close else f"unknown key. Known here: {', '.join(known)}."


def read(path: Path) -> str:
    """The text of a file. ConfigError: it cannot be read, is larger than MAX_BYTES, or is not UTF-8."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ConfigError([f"{path}: cannot be read: {error.strerror}. Name a readable file."]) from None
    except ValueError as error:  # a NUL in the name
        raise ConfigError([f"{path}: cannot be read: {error}. Name a readable file."]) from None
    if len(data) > MAX_BYTES:
        raise ConfigError([f"{path}: larger than 1 MiB. Keep only the configuration in it."])
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError([f"{path}:{line}: byte {error.start} is not UTF-8. Save the file as UTF-8."]) from None


def parse(text: str, name: str) -> Document:
    """The one document in `text`. ConfigError: not YAML, more than one document, or beyond the bounds above."""
    if len(text.encode("utf-8", "surrogatepass")) > MAX_BYTES:
        raise ConfigError([f"{name}: larger than 1 MiB. Keep only the configuration in it."])
    if surrogate := re.search(r"[\ud800-\udfff]", text):
        line = text.count("\n", 0, surrogate.start()) + 1
        raise ConfigError([f"{name}:{line}: half of a character. Save the file as UTF-8."])
    try:
        return _Composer(text, name).document()
    except yaml.MarkedYAMLError as error:
        raise ConfigError([_syntax(error, text, name)]) from None
    except yaml.YAMLError as error:  # a reader's error has an offset and no mark
        offset = getattr(error, "position", 0)
        line = text.encode().count(b"\n", 0, offset) + 1
        reason = getattr(error, "reason", "cannot be read")
        raise ConfigError([f"{name}:{line}: not YAML: {reason}. Remove the character."]) from None


def _syntax(error: yaml.MarkedYAMLError, text: str, name: str) -> str:
    mark = error.problem_mark or error.context_mark
    line, column = (mark.line, mark.column) if mark else (0, 0)
    written = (text.splitlines() or [""])[line : line + 1]
    where = f"{name}:{line + 1}: column {column + 1}"
    if written and "\t" in written[0][: column + 1]:
        return f"{where}: a tab. Indent with spaces."
    return f"{where}: not YAML: {error.problem or error.context}. Check the indentation, quotes and colons here."


class _Composer:
    """Builds values from the parser's events, so that the bounds act before a value exists."""

    def __init__(self, text: str, name: str) -> None:
        self.name = name
        self.events: Iterator[Any] = yaml.parse(text, Loader=_LOADER)
        self.anchors: dict[str, tuple[Any, Place]] = {}
        self.problems: list[Problem] = []
        self.values = 0
        self.aliases = 0

    def document(self) -> Document:
        values, root = None, Place(1)
        next(self.events)  # the stream's start
        if isinstance(next(self.events), yaml.DocumentStartEvent):
            values, root = self._value(next(self.events), ())
            next(self.events)  # the document's end
            following = next(self.events)
            if isinstance(following, yaml.DocumentStartEvent):
                self._stop(following, "", "a second document. Keep one.")
        return Document(self.name, values, root, tuple(self.problems))

    def _value(self, event: Any, loc: Loc) -> tuple[Any, Place]:
        self._count(event, 1, len(loc) + 1)
        if isinstance(event, yaml.AliasEvent):
            return self._alias(event, loc)
        if event.tag is not None:
            self._note(event, loc, f"the tag {event.tag} is not read. Remove it; quote the value if it is text.")
        composed: tuple[Any, Place]
        if isinstance(event, yaml.ScalarEvent):
            composed = self._scalar(event, loc), Place(_line(event))
        elif isinstance(event, yaml.SequenceStartEvent):
            composed = self._sequence(event, loc)
        else:
            composed = self._mapping(event, loc)
        if event.anchor is not None:
            self.anchors[event.anchor] = composed
        return composed

    def _scalar(self, event: Any, loc: Loc) -> bool | int | str | None:
        text: str = event.value
        if _CONTROL.search(text):
            self._note(event, loc, "a line break or another control character. Write it on one line.")
        if not event.implicit[0]:  # quoted
            return text
        if text in _WORDS:
            return _WORDS[text]
        return int(text) if _INTEGER.fullmatch(text) else text

    def _sequence(self, start: Any, loc: Loc) -> tuple[list[Any], Place]:
        values: list[Any] = []
        place = Place(_line(start), {})
        while not isinstance(event := next(self.events), yaml.SequenceEndEvent):
            value, inner = self._value(event, (*loc, len(values)))
            _nest(place, len(values), inner)
            values.append(value)
        return values, place

    def _mapping(self, start: Any, loc: Loc) -> tuple[dict[str, Any], Place]:
        values: dict[str, Any] = {}
        place = Place(_line(start), {})
        while not isinstance(event := next(self.events), yaml.MappingEndEvent):
            key = self._key(event, loc)
            value, inner = self._value(next(self.events), (*loc, "?" if key is None else key))
            if key is None:
                continue
            if key in values:
                first = place.inner[key].line
                self._note(event, (*loc, key), f"written twice, first on line {first}. Keep one.")
                continue
            values[key] = value
            # The key's line, not the value's: that is where a reader looks. An aliased place stays as it is.
            _nest(place, key, Place(_line(event), inner.inner, inner.values, inner.aliases, inner.depth))
        return values, place

    def _key(self, event: Any, loc: Loc) -> str | None:
        """The key as text, whatever YAML would make of it; None, with a problem noted, where it is not a scalar."""
        if not isinstance(event, yaml.ScalarEvent):
            self._note(event, loc, "a key that is not text. Write `key: value`; quote what begins with [, { or *.")
            self._value(event, (*loc, "?"))
            return None
        if event.value == "<<" and event.implicit[0]:
            self._note(event, loc, "merge keys (<<) are not read. Write the keys out.")
            return None
        if event.tag is not None or _CONTROL.search(event.value):
            self._note(event, loc, "a key with a tag or a control character. Write it as plain text.")
        key: str = event.value
        return key

    def _alias(self, event: Any, loc: Loc) -> tuple[Any, Place]:
        if event.anchor not in self.anchors:
            text = f"*{event.anchor} repeats what is not complete yet. Define &{event.anchor} before it."
            self._stop(event, dotted(loc), text)
        value, place = self.anchors[event.anchor]
        self.aliases += 1 + place.aliases
        if self.aliases > MAX_ALIASES:
            self._stop(event, dotted(loc), f"more than {MAX_ALIASES} aliases, expanded. Write the values out.")
        self._count(event, place.values, len(loc) + place.depth)
        return value, Place(_line(event), place.inner, place.values, 1 + place.aliases, place.depth)

    def _count(self, event: Any, values: int, depth: int) -> None:
        self.values += values
        if self.values > MAX_VALUES:
            self._stop(event, "", f"more than {MAX_VALUES} values. Keep only the configuration in it.")
        if depth > MAX_DEPTH:
            self._stop(event, "", f"nested deeper than {MAX_DEPTH} levels. No key of this file needs that.")

    def _note(self, event: Any, loc: Loc, text: str) -> None:
        self.problems.append(Problem(_line(event), dotted(loc), text))

    def _stop(self, event: Any, where: str, text: str) -> NoReturn:
        refuse(self.name, [*self.problems, Problem(_line(event), where, text)])


def _line(event: Any) -> int:
    line: int = event.start_mark.line
    return line + 1


def _nest(outer: Place, step: str | int, inner: Place) -> None:
    outer.inner[step] = inner
    outer.values += inner.values
    outer.aliases += inner.aliases
    outer.depth = max(outer.depth, inner.depth + 1)


def mapping(document: Document, what: str) -> Mapping[str, Any]:
    """The document's root as a mapping. ConfigError: it is empty or something else; `what` names what is wanted."""
    if not isinstance(document.values, dict):
        found = "empty" if document.values is None else "a list" if isinstance(document.values, list) else "text"
        refuse(document.name, [*document.problems, Problem(document.root.line, "", f"{found}. Write {what}.")])
    return document.values
