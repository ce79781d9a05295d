"""What pydantic found wrong → what a person reads: the place in the file, the fault, and the cure."""

from collections.abc import Callable
from difflib import get_close_matches
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from agent.config.document import Document, Loc, Problem, unknown_key
from agent.config.scalars import shown

_KINDS = ("sources", "sinks")  # the lists whose entries differ by `kind`


def problems_of(error: ValidationError, document: Document, model: type[BaseModel]) -> list[Problem]:
    """Every error of a failed validation of `model`, placed in the document."""
    return [
        document.problem(_written(found), _text(found, model))
        for found in error.errors(include_url=False)
        # A list is "too short" also when its members are all wrong, of which each is told.
        if not (found["type"] == "too_short" and found["input"])
    ]


def _written(found: Any) -> Loc:
    """The place as written: without the kind that pydantic puts after an index, and its mark of a wrong key."""
    loc: Loc = found["loc"]
    loc = (*loc[:2], *loc[3:]) if loc[0] in _KINDS and len(loc) > 2 else loc
    if found["type"] == "union_tag_invalid":
        return (*loc, "kind")
    return loc[:-1] if loc[-1] == "[key]" else loc


def _text(found: Any, model: type[BaseModel]) -> str:
    kind, loc, value = found["type"], found["loc"], found["input"]
    if kind == "extra_forbidden":
        return unknown_key(str(loc[-1]), _keys(model, loc[:-1]))
    if kind == "missing":
        return f"missing. Add `{loc[-1]}: ...`."
    if kind == "union_tag_not_found":
        return f"no kind. Add `kind: ...`; `metering-agent {loc[0]}` lists the kinds."
    if value is None:
        return "empty. Give it a value, or remove the key."
    says = _TEXTS.get(kind)
    return says(value, found.get("ctx", {})) if says else f"{found['msg']}. Correct it."


def _choice(value: object, expected: str) -> str:
    """`expected` is pydantic's list: `'host', 'cgroups' or 'x'`."""
    known = expected.replace(" or ", ", ").replace("'", "").split(", ")
    close = get_close_matches(str(value), known, n=1)
    cure = f"Did you mean {close[0]}?" if close else f"Write {expected.replace(chr(39), '')}."
    return f"{shown(value)} is not known here. {cure}"


def _not_text(value: object) -> str:
    cure = f'Quote it: "{shown(value)}"' if isinstance(value, bool | int) else "Write one value"
    return f"{shown(value)} is not text. {cure}."


# The kinds of error that the types in `sections.py` can raise, with the value and pydantic's context.
_TEXTS: dict[str, Callable[[Any, Any], str]] = {
    "value_error": lambda _, context: str(context["error"]),
    "string_type": lambda value, _: _not_text(value),
    "bool_type": lambda value, _: f"{shown(value)} is neither true nor false. Write true or false.",
    "tuple_type": lambda value, _: f"{shown(value)} is not a list. Write [...], or one `- ` line for each.",
    "too_short": lambda value, _: f"an empty {'mapping' if value == {} else 'list'}. Write at least one.",
    "dict_type": lambda value, _: f"{shown(value)} is not a mapping. Write `key: value` lines under it.",
    "int_type": lambda value, _: f"{shown(value)} is not a whole number. Write one, without quotes or a unit.",
    "greater_than_equal": lambda value, context: f"{value} is too small. Write {context['ge']} or more.",
    "less_than_equal": lambda value, context: f"{value} is too large. Write {context['le']} or less.",
    "model_type": lambda value, _: f"{shown(value)} is not a mapping. Write `key: value` lines under it.",
    "model_attributes_type": lambda value, _: f"{shown(value)} is not a mapping. Write `key: value` lines under it.",
    "union_tag_invalid": lambda _, context: _choice(context["tag"], context["expected_tags"]),
    "literal_error": lambda value, context: _choice(value, context["expected"]),
}


def _keys(model: type[BaseModel], loc: Loc) -> list[str]:
    """The keys that may stand at `loc`."""
    models = [model]
    for step in loc:
        if isinstance(step, int):
            continue
        fields = [(field.alias or name, field) for m in models for name, field in m.model_fields.items()]
        inner = [field.annotation for key, field in fields if key == step]
        if inner:
            models = [found for annotation in inner for found in _models(annotation)]
        elif all("kind" in m.model_fields for m in models):  # the kind that tells several models apart
            models = [m for m in models if step in get_args(m.model_fields["kind"].annotation)]
        # Else it is a name of the user's own, under which one of these models stands.
    return [field.alias or name for m in models for name, field in m.model_fields.items()]


def _models(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [found for argument in get_args(annotation) for found in _models(argument)]
