"""What a cgroup may be called: the labels that root controls, and none where anyone else could have written the name.

Whoever may create directories somewhere chooses the names there. So a group is known by name only if root alone
could make every directory on its way, and none above it is delegated (ACCOUNTING §2). Otherwise it has no labels:
it matches nothing, and its nearest ancestor that does owns it.
"""

import os
import re
import stat

from agent.sources.hierarchy import Hierarchy, Layout, printable
from agent.sources.units import Units, unit_of

DELEGATE = ("user.delegate", "trusted.delegate")  # systemd marks the cgroup itself; the latter is seen by root only
_USER_SLICE = re.compile(r"user-([0-9]+)\.slice")


class Ownership:
    """The labels of groups on one machine. `root_uid` is the uid that root has in this file system."""

    def __init__(self, layout: Layout, units: Units, root_uid: int = 0) -> None:
        self._units, self._root_uid = units, root_uid
        marked = [layout.unified, layout.v1.get("systemd")]  # where systemd manages, and so marks, its groups
        self._marked = [h for h in marked if h is not None]

    def labels(self, hierarchy: Hierarchy, path: str, owner: int, *, trusted: bool = False) -> dict[str, str]:
        """The labels of the group `path` as things stand: `cgroup`, `uid`; below systemd `unit`, `slice`, `property.…`.

        `uid` is the `owner` of its directory unless that is root; in a user-UID.slice it is that user. `slice` is the
        nearest slice, the group itself if it is one. `trusted` skips the question who could write the name: for a
        group that configuration names itself and that bills nobody.
        """
        if not trusted and not self._root_named(hierarchy, path):
            return {}
        labels = {"cgroup": printable(path)}
        if owner != self._root_uid:
            labels["uid"] = str(owner)
        unit = unit_of(path) if self._units.booted() else None
        if unit is None:
            return labels
        labels["unit"] = printable(unit)
        parts = path.split("/")
        enclosing = [part for part in parts if part.endswith(".slice")]
        if enclosing:
            labels["slice"] = printable(enclosing[-1])
        for part in parts:
            if user := _USER_SLICE.fullmatch(part):
                labels["uid"] = user[1]
        for key, value in self._units.read(unit).properties.items():
            labels[f"property.{key}"] = value
        return labels

    def _root_named(self, hierarchy: Hierarchy, path: str) -> bool:
        above = ""
        for part in path.split("/"):
            if not self._root_rules(hierarchy.directory(above)) or (above and self._delegated(hierarchy, above)):
                return False
            above = f"{above}/{part}" if above else part
        return True

    def _root_rules(self, directory: str) -> bool:
        """Whether only root may create in this directory."""
        try:
            found = os.stat(directory)
        except OSError:
            return False
        others = found.st_mode & stat.S_IWOTH or (found.st_mode & stat.S_IWGRP and found.st_gid != 0)
        return found.st_uid == self._root_uid and not others

    def _delegated(self, hierarchy: Hierarchy, path: str) -> bool:
        for marked in {hierarchy, *self._marked}:
            for name in DELEGATE:
                try:
                    if os.getxattr(marked.directory(path), name) == b"1":
                        return True
                except OSError:
                    continue  # not marked, not visible to us, or not there
        unit = unit_of(path) if self._units.booted() else None
        return unit is not None and self._units.read(unit).delegates
