"""Patterns over names and cgroup paths, as configuration writes them.

`*` is any run of characters but `/`, `**` any run at all, `?` one character but `/`; everything else is itself.
"""

import re
from functools import lru_cache

_TOKEN = re.compile(r"\*\*|\*|\?|.", re.DOTALL)
_REGEX = {"**": ".*", "*": "[^/]*", "?": "[^/]"}


@lru_cache(maxsize=4096)
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile("".join(_REGEX.get(t) or re.escape(t) for t in _TOKEN.findall(pattern)), re.DOTALL)


def matches(pattern: str, text: str) -> bool:
    """Whether the whole of `text` fits `pattern`."""
    return _compiled(pattern).fullmatch(text) is not None


def is_literal(pattern: str) -> bool:
    """Whether the pattern names one thing only."""
    return not any(c in pattern for c in "*?")


def anchor_of(pattern: str) -> str:
    """The literal directories before the first wildcard: `customers.slice/*/x` → `customers.slice`; may be empty."""
    if is_literal(pattern):
        return pattern
    literal = re.split(r"[*?]", pattern, maxsplit=1)[0]
    return literal.rpartition("/")[0]


def overlap(a: str, b: str) -> bool:
    """Whether some text fits both patterns (used to prove that two customers claim one thing)."""
    left, right = _TOKEN.findall(a), _TOKEN.findall(b)

    seen: set[tuple[int, int]] = set()
    todo = [(0, 0)]  # how far in each pattern some common beginning has come
    while todo:
        i, j = todo.pop()
        if (i, j) in seen:
            continue
        seen.add((i, j))
        if i == len(left) and j == len(right):
            return True
        if i < len(left) and left[i] in ("*", "**"):
            todo.append((i + 1, j))
        if j < len(right) and right[j] in ("*", "**"):
            todo.append((i, j + 1))
        if i < len(left) and j < len(right) and _share_character(left[i], right[j]):
            todo.append((i if left[i] in ("*", "**") else i + 1, j if right[j] in ("*", "**") else j + 1))
    return False


def _share_character(a: str, b: str) -> bool:
    wild = ("*", "**", "?")
    if a in wild and b in wild:
        return True
    if a in wild:
        return a == "**" or b != "/"
    if b in wild:
        return b == "**" or a != "/"
    return a == b
