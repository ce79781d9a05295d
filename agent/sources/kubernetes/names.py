"""How the kubelet names a pod's cgroup, and how the kernel names the cgroup of a process. Pure.

In the anchor (`kubepods`, or `kubepods.slice` where systemd makes the groups; with --cgroup-root something stands
before it) lie the pods of the class Guaranteed, and a group for each other class with its pods. What lies in a pod's
group is no pod, whatever it is called: containers, and what tenants make inside of them.
"""

import re
from collections.abc import Mapping
from functools import lru_cache

CLASSES = ("burstable", "besteffort")
_SLICE = ".slice"
_POD = re.compile(r"pod([0-9A-Za-z][0-9A-Za-z.-]*)")  # a UUID; of a static pod 32 hex digits, or what its file says
_POD_SLICE = re.compile(r"pod([0-9A-Za-z][0-9A-Za-z._]*)\.slice")  # in systemd's names a dash is a step down


def classes(anchor: str) -> tuple[str, ...]:
    """The groups in which the pods of the lower classes lie."""
    stem = _stem(anchor)
    return tuple(f"{anchor}/{name}" if stem is None else f"{anchor}/{stem}-{name}{_SLICE}" for name in CLASSES)


@lru_cache(maxsize=8192)
def uid_of(anchors: tuple[str, ...], path: str) -> str | None:
    """The UID of the pod whose cgroup is `path`, below one of `anchors`; None of any other group."""
    above, _, name = path.rpartition("/")
    for anchor in anchors:
        if above != anchor and above not in classes(anchor):
            continue
        stem = _stem(above)
        if stem is None:
            found = _POD.fullmatch(name)
        else:
            found = _POD_SLICE.fullmatch(name.removeprefix(f"{stem}-")) if name.startswith(f"{stem}-") else None
        return found[1].replace("_", "-") if found else None
    return None


def holding(groups: Mapping[str, str], process: str) -> str | None:
    """Which of `groups` a process is in, by its path in /proc/PID/cgroup. `groups`: last part of the path → path.

    To a reader in a cgroup namespace, paths begin at its own group and lead up by `..`: then only their ends compare.
    """
    steps = process.strip("/").split("/")
    up = 0
    while up < len(steps) and steps[up] == "..":
        up += 1
    for step in steps[up:]:  # the first that could be one: what comes below it a tenant may have named
        path = groups.get(step)
        if path is not None:
            inside, parts = f"{'/'.join(steps[up:])}/", path.split("/")
            ends = ("/".join(parts[n:]) for n in (range(len(parts)) if up else (0,)))
            return path if any(inside.startswith(f"{end}/") for end in ends) else None
    return None


def _stem(path: str) -> str | None:
    """The name of a slice without its suffix; None where systemd did not name it."""
    name = path.rpartition("/")[2]
    return name.removesuffix(_SLICE) if name.endswith(_SLICE) else None
