"""What root wrote about a systemd unit: its `X-` properties and whether it delegates its cgroup.

Unit files are read as systemd.unit(5) says: the first fragment of the search path, then every drop-in by file name;
the last assignment of a key wins. They are on disk what systemd will load next, which is what root means by now.
"""

import os
import re
from collections.abc import Callable, Iterator, Mapping

from msgspec import Struct

from agent.model import NS_PER_S

SEARCH = (
    "etc/systemd/system.control",
    "run/systemd/system.control",
    "run/systemd/transient",
    "run/systemd/generator.early",
    "etc/systemd/system",
    "run/systemd/system",
    "run/systemd/generator",
    "usr/local/lib/systemd/system",
    "usr/lib/systemd/system",
    "lib/systemd/system",
    "run/systemd/generator.late",
)
CHECK_EVERY = 60 * NS_PER_S  # how long the files of one unit are taken as unchanged
KEEP = 10 * CHECK_EVERY  # how long a unit that nobody asks about is remembered
_UNIT = re.compile(r".+\.(?:service|scope|slice|socket|mount|swap)", re.DOTALL)
_NO = {"0", "no", "n", "false", "f", "off"}


class UnitFile(Struct, frozen=True):
    """What a unit's files say. `properties`: `X-Key` of any section, and `X-Section.Key` of sections named `X-…`."""

    properties: Mapping[str, str] = {}
    delegates: bool = False


class _Known(Struct):
    checked: int
    signature: tuple[tuple[str, int, int, int], ...]
    file: UnitFile


class Units:
    """The unit files of one machine below `root`, remembered until they change."""

    def __init__(self, root: str, clock: Callable[[], int]) -> None:
        self._root, self._clock = root, clock
        self._known: dict[str, _Known] = {}
        self._listed: dict[str, tuple[int, frozenset[str]]] = {}  # search directory → its mtime and names

    def booted(self) -> bool:
        """Whether systemd runs this machine, as sd_booted(3) asks it."""
        return os.path.isdir(os.path.join(self._root, "run/systemd/system"))

    def read(self, unit: str) -> UnitFile:
        """What the files of `unit` say, at most a minute old."""
        now = self._clock()
        known = self._known.get(unit)
        if known is not None and now - known.checked < CHECK_EVERY:
            return known.file
        paths = self._paths(unit)
        signature = tuple(_stamp(path) for path in paths)
        file = known.file if known is not None and known.signature == signature else _parse(paths)
        self._known[unit] = _Known(now, signature, file)
        return file

    def forget_old(self) -> None:
        """Drop units that nobody asked about for ten minutes: transient ones come without end."""
        oldest = self._clock() - KEEP
        self._known = {unit: known for unit, known in self._known.items() if known.checked >= oldest}

    def _paths(self, unit: str) -> list[str]:
        """The files that define the unit, in the order in which they are applied."""
        stem, _, suffix = unit.rpartition(".")
        template = f"{stem.partition('@')[0]}@.{suffix}" if "@" in stem else None
        found: list[str] = []
        for name in (unit, template):
            fragment = next((d for d in SEARCH if name in self._names(d)), None) if name else None
            if fragment is not None:
                found.append(self._resolve(f"{fragment}/{name}"))
                break
        drop_ins: dict[str, str] = {}  # file name → path; the most specific directory holding a name wins
        for name in _drop_in_names(unit, template):
            for directory in SEARCH:
                if f"{name}.d" in self._names(directory):
                    for file in self._names(f"{directory}/{name}.d"):
                        if file.endswith(".conf"):
                            drop_ins.setdefault(file, f"{directory}/{name}.d/{file}")
        return [*found, *(self._resolve(drop_ins[file]) for file in sorted(drop_ins))]

    def _names(self, directory: str) -> frozenset[str]:
        path = os.path.join(self._root, directory)
        try:
            changed = os.stat(path).st_mtime_ns
            listed = self._listed.get(directory)
            if listed is None or listed[0] != changed:
                listed = self._listed[directory] = changed, frozenset(os.listdir(path))
        except OSError:
            self._listed.pop(directory, None)
            return frozenset()
        return listed[1]

    def _resolve(self, path: str) -> str:
        """Follow a unit's symlinks inside `root`: an alias may be absolute, and a mounted host is not ours."""
        path = os.path.join(self._root, path)
        for _ in range(8):
            try:
                target = os.readlink(path)
            except OSError:
                break
            path = os.path.join(self._root, target.lstrip("/")) if target.startswith("/") else _beside(path, target)
        return path


def unit_of(path: str) -> str | None:
    """The unit whose cgroup `path` is, where systemd owns it: every directory above is a slice. Else None."""
    *above, last = path.split("/")
    name = last.removeprefix("_")  # systemd escapes what would clash with the kernel's files
    return name if all(a.endswith(".slice") for a in above) and _UNIT.fullmatch(name) else None


def _drop_in_names(unit: str, template: str | None) -> Iterator[str]:
    """Most specific first: `a-b.service`, `a@.service` for instances, `a-.service`, `service`."""
    yield unit
    if template:
        yield template
    stem, _, suffix = unit.rpartition(".")
    prefix = stem.rstrip("-").rpartition("-")[0]
    while prefix:
        yield f"{prefix}-.{suffix}"
        prefix = prefix.rpartition("-")[0]
    yield suffix


def _parse(paths: list[str]) -> UnitFile:
    properties: dict[str, str] = {}
    delegates = False
    for path in paths:
        for section, key, value in _assignments(path):
            if key.startswith("X-"):
                properties[key] = value
            elif section.startswith("X-"):
                properties[f"{section}.{key}"] = value
            elif key == "Delegate":
                delegates = value.lower() not in _NO  # an empty list of controllers delegates too
    return UnitFile({k: v for k, v in properties.items() if v}, delegates)


def _assignments(path: str) -> Iterator[tuple[str, str, str]]:
    """Every (section, key, value) of one file; a masked or vanished file has none."""
    try:
        with open(path, encoding="utf-8", errors="backslashreplace") as file:
            text = file.read()
    except OSError:
        return
    section = ""
    logical = ""
    for line in text.splitlines():
        stripped = line.strip()
        if stripped.startswith(("#", ";")) or (not stripped and not logical):
            continue  # a comment does not end a continued line
        logical += stripped
        if logical.endswith("\\"):
            logical = f"{logical[:-1]} "
            continue
        if logical.startswith("[") and logical.endswith("]"):
            section = logical[1:-1]
        elif "=" in logical:
            key, _, value = logical.partition("=")
            yield section, key.strip(), value.strip()
        logical = ""


def _stamp(path: str) -> tuple[str, int, int, int]:
    try:
        found = os.stat(path)
    except OSError:
        return path, 0, 0, 0
    return path, found.st_mtime_ns, found.st_ino, found.st_size


def _beside(path: str, target: str) -> str:
    return os.path.normpath(os.path.join(os.path.dirname(path), target))
