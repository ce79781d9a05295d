"""Values as people write them: durations, sizes, instants, patterns, policies. No float is involved anywhere."""

import re
from datetime import date
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, PlainValidator, ValidationInfo, WithJsonSchema

from agent import selector
from agent.pattern import is_literal

NS: dict[str, int] = {"ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9, "d": 86400 * 10**9}
BYTES: dict[str, int] = {
    "B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12,
    "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40,
}  # fmt: skip
RESERVED = ("exclude", "unattributed", "system", "idle", "gap")  # words that stand where a customer's id may stand
ASPECTS = ("limit", "request", "usage")
GROUP_LABELS = (
    *("unit", "slice", "cgroup", "uid", "interface", "disk", "mountpoint", "mode"),
    *("namespace", "pod", "pod_uid", "owner", "extended_resource"),
)
LABEL_SETS = ("namespace_label", "node_label", "pod_label")  # each followed by a dot and a label's key

_DURATION = r"([0-9]{1,9})(ms|s|m|h|d)"
_SIZE = r"([0-9]{1,9})(B|kB|MB|GB|TB|KiB|MiB|GiB|TiB)"
_DATE = r"([0-9]{4})-([0-9]{2})-([0-9]{2})"
_TIME = r"([0-9]{2}):([0-9]{2}):([0-9]{2})(?:\.([0-9]{1,9}))?(?:[Zz]|([+-])([0-9]{2}):([0-9]{2}))"
_INSTANT = f"{_DATE}(?:[Tt ]{_TIME})?"
_REFERENCE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_EPOCH_DAY = date(1970, 1, 1).toordinal()


def shown(value: object) -> str:
    """A written value inside a message: text in quotes, shortened; a container by its kind."""
    if isinstance(value, str):
        return f'"{value}"' if len(value) <= 60 else f'"{value[:57]}..."'
    if isinstance(value, bool):
        return "true" if value else "false"
    if value is None:
        return "nothing"
    return str(value) if isinstance(value, int) else "a list" if isinstance(value, list) else "a mapping"


def duration(value: object) -> int:
    """`15s` → nanoseconds. Raises ValueError with the cure."""
    if isinstance(value, int) and not isinstance(value, bool):
        raise ValueError(f"{value} has no unit. Write {value}s, or another of the units ms, s, m, h, d.")
    found = re.fullmatch(_DURATION, value) if isinstance(value, str) else None
    if found is None:
        raise ValueError(f"{shown(value)} is not a duration. Write a number and a unit: 500ms, 10s, 5m, 1h, 90d.")
    return int(found[1]) * NS[found[2]]


def written_duration(ns: int) -> str:
    """Nanoseconds → the shortest way to write them as a duration."""
    unit = next((unit for unit in ("d", "h", "m", "s") if ns and ns % NS[unit] == 0), "ms")
    return f"{ns // NS[unit]}{unit}"


def size(value: object) -> int:
    """`16MiB` → bytes. Raises ValueError with the cure."""
    if isinstance(value, int) and not isinstance(value, bool):
        raise ValueError(f"{value} has no unit. Write {value}B, or another of the units kB, MB, GB, KiB, MiB, GiB.")
    found = re.fullmatch(_SIZE, value) if isinstance(value, str) else None
    if found is None:
        raise ValueError(f"{shown(value)} is not a size. Write a number and a unit: 16MiB, 4GiB, 1GB.")
    return int(found[1]) * BYTES[found[2]]


def instant(value: object) -> int:
    """A date, or an RFC 3339 time with its zone, → nanoseconds since the epoch, exactly. Raises ValueError."""
    found = re.fullmatch(_INSTANT, value) if isinstance(value, str) else None
    if found is None:
        raise ValueError(
            f"{shown(value)} is not a date or a time with its zone. Write 2026-01-31 or 2026-01-31T09:00:00Z."
        )
    year, month, day = int(found[1]), int(found[2]), int(found[3])
    hour, minute, second = (int(part or 0) for part in found.group(4, 5, 6))
    ahead = (int(found[9] or 0) * 60 + int(found[10] or 0)) * (-1 if found[8] == "-" else 1)
    if not 1970 <= year < 2200 or hour > 23 or minute > 59 or second > 59 or abs(ahead) >= 1440:
        raise ValueError(f"{shown(value)} is not a time between 1970 and 2200. Correct it.")
    try:
        days = date(year, month, day).toordinal() - _EPOCH_DAY
    except ValueError:
        raise ValueError(f"{shown(value)} is not a day of the calendar. Correct it.") from None
    seconds = ((days * 24 + hour) * 60 + minute - ahead) * 60 + second
    return seconds * 10**9 + int((found[7] or "").ljust(9, "0"))


def expand(value: str, info: ValidationInfo) -> str:
    """`${NAME}` → the environment's value. Raises ValueError naming every variable that is not set."""
    environ = (info.context or {}).get("environ", {})
    missing = [name for name in _REFERENCE.findall(value) if name not in environ]
    if missing:
        raise ValueError(f"environment variable {', '.join(missing)} is not set. Set it, or write the value here.")
    expanded = _REFERENCE.sub(lambda found: environ[found[1]], value)
    if not expanded.isprintable() or not expanded:
        raise ValueError(f"{shown(value)} is empty or has control characters. Write a value.")
    return expanded


def _label(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,252}", value):
        raise ValueError(f"{shown(value)} cannot be part of a record's source. Use letters, digits, dot, dash and _.")
    return value


def _listen(value: object, info: ValidationInfo) -> tuple[str, int] | None:
    found = None
    if isinstance(value, str):
        if value == "off":
            return None
        found = re.fullmatch(r"(?:\[([0-9A-Fa-f:.]+)\]|([^\s:\[\]]+)):([0-9]{1,5})", expand(value, info))
    if found is None or int(found[3]) > 65535:
        raise ValueError(f'{shown(value)} is not an address with a port. Write "127.0.0.1:9108", "[::1]:9108" or off.')
    return found[1] or found[2], int(found[3])


def _identifier(value: str) -> str:
    if not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,62}", value):
        raise ValueError(f"{shown(value)} is not an id. Use small letters, digits and dashes.")
    return value


def _customer(value: str) -> str:
    if value in RESERVED:
        raise ValueError(f"{value} means something else where a customer's id may stand. Choose another id.")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._@:+-]{0,127}", value):
        raise ValueError(f"{shown(value)} is not a customer's id. Use letters, digits and . _ @ : + - (at most 128).")
    return value


def _bearer(value: str) -> str:
    return value if value == "exclude" else _customer(value)


def _dimension(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_.-]{0,99}", value):
        raise ValueError(f"{shown(value)} is not a dimension's name. Use letters, digits, _ . and -, a letter first.")
    return value


def pattern(value: str) -> str:
    """A pattern over names (`agent/pattern.py`). Raises ValueError."""
    if not value:
        raise ValueError("empty, which matches nothing. Write a name or a pattern such as acme-*.service.")
    if "${" in value:
        raise ValueError(f"{shown(value)} refers to the environment, which is not read here. Write the name.")
    # Comparing two patterns takes as many steps as the product of their lengths.
    if len(value) > (4096 if is_literal(value) else 200):
        raise ValueError("longer than 200 characters (4096 without wildcards). Write a shorter pattern.")
    return value


def _unit(value: str) -> str:
    if "/" in value:
        raise ValueError(f"{shown(value)} is a path, and a unit's name has no /. Write `cgroup:` for a path.")
    return pattern(value)


def cgroup_path(value: str) -> str:
    """A pattern over cgroup paths, relative to the root of the hierarchy. Raises ValueError."""
    if value.startswith("/"):
        cure = f"Write {value.lstrip('/')}" if value.strip("/") else "Write a directory such as system.slice"
        raise ValueError(f"{shown(value)} begins with /, but paths start at the cgroup root. {cure}.")
    if any(step in ("", ".", "..") for step in value.split("/")) and value:
        raise ValueError(f"{shown(value)} has an empty step, . or .. in it. Write the plain path, no / at its end.")
    return pattern(value)


def anchor(value: str) -> str:
    """A directory of the cgroup hierarchy, literal. Raises ValueError."""
    if value in ("", "/", "."):
        raise ValueError(f"{shown(value)} is the root, whose books cannot close. Name a directory: system.slice.")
    if not is_literal(value):
        raise ValueError(f"{shown(value)} has a wildcard, but an anchor is one directory. Name each of them.")
    return cgroup_path(value)


def _uid(value: object) -> str:
    text = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
    if not isinstance(text, str) or not re.fullmatch(r"(?:0|[1-9*?][0-9*?]{0,9})", text):
        raise ValueError(f"{shown(value)} is not a user id. Write its number, such as 1000, or a pattern such as 10??.")
    return text


def _property(value: str) -> str:
    if not re.fullmatch(r"X-[A-Za-z0-9-]+", value):
        raise ValueError(f"{shown(value)} is not a unit's own property. Write its name, such as X-Customer.")
    return value


def _property_value(value: str) -> str:
    name, equals, wanted = value.partition("=")
    if not equals or not wanted:
        raise ValueError(f"{shown(value)} has no value. Write a property and its value, such as X-Customer=acme.")
    _property(name)
    pattern(wanted)
    return value


def _selector(value: str) -> str:
    """A selector over labels, as `agent/selector.py` reads it → the same in one spelling. Raises ValueError."""
    try:
        return selector.written(value)
    except ValueError as error:
        raise ValueError(f"{shown(value)}: {error}.") from None


def _label_key(value: str) -> str:
    if not re.fullmatch(selector.KEY, value):
        raise ValueError(f"{shown(value)} is not the key of a label. Write one such as billing/customer.")
    return value


def _group_label(value: str) -> str:
    prefix, dot, key = value.partition(".")
    if value not in GROUP_LABELS and not (dot and prefix in LABEL_SETS and re.fullmatch(selector.KEY, key)):
        known = (*GROUP_LABELS, *(f"{name}.KEY" for name in LABEL_SETS))
        close = get_close_matches(value, known, n=1)
        cure = f"Did you mean {close[0]}?" if close else f"Write one of {', '.join(known)}."
        raise ValueError(f"{shown(value)} is not a label of any resource. {cure}")
    return value


def _fingerprint(value: str) -> str:
    digits = value.replace(":", "").lower()
    if not re.fullmatch(r"[0-9a-f]{64}", digits):
        raise ValueError(f"{shown(value)} is not a SHA-256 in hex. Write the 64 digits of the certificate's.")
    return digits


def policy(value: str) -> str:
    """`usage`, `limit`, `request` or `max(a, b)` of two of them → the same without spaces, a and b sorted."""
    found = re.fullmatch(r" *max *\( *([a-z]+) *, *([a-z]+) *\) *", value)
    words = sorted(found.groups()) if found else [value.strip(" ")]
    if any(word not in ASPECTS for word in words) or len(set(words)) < len(words):
        raise ValueError(f"{shown(value)} is not a policy. Write usage, request, limit or max(a, b) of two of them.")
    return f"max({words[0]},{words[1]})" if found else words[0]


def _directory(value: object, info: ValidationInfo) -> Path:
    if not isinstance(value, str) or not value:
        raise ValueError(f"{shown(value)} is not a path. Write one, in quotes if it looks like something else.")
    return Path(expand(value, info))


def _file(value: object, info: ValidationInfo) -> Path:
    path = _directory(value, info)
    if not path.is_absolute():
        raise ValueError(f"{shown(value)} is not an absolute path. Write one that begins with /.")
    return path


def _url(value: object, info: ValidationInfo) -> str:
    text = expand(value, info) if isinstance(value, str) else ""
    try:
        found = urlsplit(text)
        host, _ = found.hostname, found.port
    except ValueError:
        found, host = urlsplit(""), None
    if "@" in found.netloc:  # what may be a password is not repeated
        raise ValueError("holds a name or a password. Put the token into a file, and name it in token_file.")
    if found.scheme not in ("http", "https") or not host or found.fragment or " " in text:
        cure = "Write one such as https://billing.example/api/v1/events"
        raise ValueError(f"{shown(value)} is not an address of HTTP. {cure}.")
    return text


def _scale(value: object) -> int:
    text = str(value)
    if isinstance(value, bool) or not re.fullmatch(r"[0-9]{1,2}", text) or int(text) > 18:
        raise ValueError(f"{shown(value)} is not a number of decimals. Write one from 0 to 18.")
    return int(text)


def _vendor_name(value: str) -> str:
    if not value or not value.isprintable() or len(value) > 200:
        raise ValueError(f"{shown(value)} is empty, longer than 200 characters or has control characters. Correct it.")
    return value


def written(default: object) -> Any:
    """A default as a user would write it: validated like a written value, and shown so in the schema."""
    return Field(default, validate_default=True)


def _text(**schema: object) -> WithJsonSchema:
    return WithJsonSchema({"type": "string", **schema})


Duration = Annotated[int, PlainValidator(duration), _text(pattern=f"^{_DURATION}$")]  # ns
Size = Annotated[int, PlainValidator(size), _text(pattern=f"^{_SIZE}$")]  # bytes
Instant = Annotated[int, PlainValidator(instant), _text(pattern=f"^{_INSTANT}$")]  # ns since the epoch, UTC
Label = Annotated[str, AfterValidator(expand), AfterValidator(_label)]
Directory = Annotated[Path, PlainValidator(_directory), _text(minLength=1)]
FilePath = Annotated[Path, PlainValidator(_file), _text(minLength=1)]
Url = Annotated[str, PlainValidator(_url), _text(format="uri")]
VendorName = Annotated[str, AfterValidator(_vendor_name)]
Scale = Annotated[int, PlainValidator(_scale), WithJsonSchema({"type": "integer", "minimum": 0, "maximum": 18})]
Listen = Annotated[tuple[str, int] | None, PlainValidator(_listen), _text()]
Identifier = Annotated[str, AfterValidator(_identifier)]
CustomerId = Annotated[str, AfterValidator(_customer)]
Bearer = Annotated[str, AfterValidator(_bearer)]
DimensionName = Annotated[str, AfterValidator(_dimension)]
NamePattern = Annotated[str, AfterValidator(_unit)]
CgroupPattern = Annotated[str, AfterValidator(cgroup_path)]
Anchor = Annotated[str, AfterValidator(anchor)]
Uid = Annotated[str, PlainValidator(_uid), WithJsonSchema({"anyOf": [{"type": "integer"}, {"type": "string"}]})]
Property = Annotated[str, AfterValidator(_property)]
PropertyValue = Annotated[str, AfterValidator(_property_value)]
Policy = Annotated[str, AfterValidator(policy)]
LabelSelector = Annotated[str, AfterValidator(_selector)]
LabelKey = Annotated[str, AfterValidator(_label_key)]
GroupLabel = Annotated[str, AfterValidator(_group_label)]
Fingerprint = Annotated[str, AfterValidator(_fingerprint)]
