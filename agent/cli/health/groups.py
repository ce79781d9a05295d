"""The cgroup hierarchies: how they are mounted, what is under the anchors, whether meters have their files there."""

import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from msgspec import Struct

from agent.cli.health import Check, described, judged
from agent.config import Cgroups, Config
from agent.pattern import matches
from agent.sources.devices import Devices
from agent.sources.hierarchy import Layout, printable
from agent.sources.kernel import boottime
from agent.sources.ownership import Ownership
from agent.sources.probe import formats
from agent.sources.units import Units

WALKED = 50_000  # directories that are looked at for each anchor, at most


class Under(Struct):
    """What lies under one source's anchors."""

    directories: int = 0
    metered: list[str] = []
    matched: dict[str, int] = {}


def cgroups(cfg: Config) -> tuple[list[Check], int]:
    """The checks of every such source, and how many directories are to be followed."""
    found: list[Check] = []
    directories = 0
    for section in cfg.sources:
        if isinstance(section, Cgroups):
            layout = Layout(str(section.root))
            found += hierarchies(section.id, layout)
            under = _walk(section, layout)
            directories += under.directories
            found += anchors(section.closed(), layout)
            found += _patterns(under)
            aspects = frozenset(a for a in ("limit", "request") if any(a in entry.policy for entry in cfg.meters))
            found += files(cfg, section.root, layout, under.metered, aspects)
            found += _named(section, layout, under)
    return found, directories


def hierarchies(source: str, layout: Layout) -> Iterator[Check]:
    """How the cgroups that a source reads are mounted."""
    kind = "v2" if not layout.v1 else "hybrid" if layout.unified is not None else "v1"
    counted = layout.unified is not None or "cpuacct" in layout.v1
    names = " ".join(sorted(layout.v1)) if layout.v1 else _controllers(layout)
    found = f"{kind} at {layout.base}: {names}" if counted else f"none at {layout.base}"
    cure = f"Mount the machine's cgroups there, or correct sources[{source}].root."
    yield judged("cgroups", f"hierarchies of {source}", "required", counted, found, cure)


def _controllers(layout: Layout) -> str:
    try:
        with open(f"{layout.base}/cgroup.controllers", encoding="ascii") as file:  # noqa: PTH123 - as sources name paths
            return file.read().strip()
    except OSError:
        return ""


def _walk(section: Cgroups, layout: Layout) -> Under:
    under = Under(matched=dict.fromkeys(section.include, 0))
    for anchor in section.closed():
        hierarchy = layout.cpu(anchor)
        if hierarchy is None:
            continue
        for directory, _, _ in os.walk(hierarchy.directory(anchor)):
            under.directories += 1
            path = printable(os.path.relpath(directory, hierarchy.root))
            fitting = [pattern for pattern in section.include if matches(pattern, path)]
            for pattern in fitting:
                under.matched[pattern] += 1
            if fitting:
                under.metered.append(path)
            if under.directories >= WALKED:
                break
    return under


def anchors(paths: Iterable[str], layout: Layout) -> Iterator[Check]:
    """Whether they are there, and whether only root can make groups in them."""
    for anchor in paths:
        what = f"anchor {anchor}"
        hierarchy = layout.cpu(anchor)
        if hierarchy is None:
            cure = "Nothing under it is metered until it is made. Is the name right?"
            yield judged("cgroups", what, "optional", holds=False, found="not there", cure=cure)
            continue
        try:
            status = os.stat(hierarchy.directory(anchor))  # noqa: PTH116
        except OSError as error:
            yield judged("cgroups", what, "required", None, str(error.strerror))
            continue
        safe = status.st_uid == 0 and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
        cure = "Who can make groups here can take a customer's name. Let root own it, or take it out of the anchors."
        yield judged("cgroups", what, "required", safe, f"{hierarchy.directory(anchor)}, {described(status)}", cure)


def _patterns(under: Under) -> Iterator[Check]:
    for pattern, count in under.matched.items():
        cure = "Nothing is metered by it now. `metering-agent once` shows what is; is the pattern right?"
        yield judged("cgroups", f"include {pattern}", "optional", count > 0, f"{count:,} groups", cure)


def files(cfg: Config, root: Path, layout: Layout, metered: Sequence[str], aspects: frozenset[str]) -> Iterator[Check]:
    """Of each meter that is asked for, whether any metered group has its file: a controller may be off."""
    wanted = frozenset(entry.meter for entry in cfg.meters)
    for form in formats(layout, Devices(str(root)), wanted, aspects):
        hierarchy = layout.controller(form.controller)
        what = (
            f"{', '.join(m for m in form.meters if m in wanted)}{'' if form.aspect == 'usage' else f' {form.aspect}'}"
        )
        if not metered:
            yield judged("cgroups", what, "optional", None, "no metered group to look at")
            continue
        having = sum(
            hierarchy is not None
            and any(all(os.path.exists(f"{hierarchy.directory(p)}/{f}") for f in files) for files in form.files)  # noqa: PTH110
            for p in metered
        )
        found = f"{having:,} of {len(metered):,} metered groups have the files of controller {form.controller}"
        cure = f"Switch the controller on, under systemd by `{_accounting(form.controller)}=yes` in the slice or unit."
        yield judged("cgroups", what, "required", having > 0, found, cure)


def _accounting(controller: str) -> str:
    return {"memory": "MemoryAccounting", "blkio": "IOAccounting", "pids": "TasksAccounting"}.get(
        controller, "CPUAccounting"
    )


def _named(section: Cgroups, layout: Layout, under: Under) -> Iterator[Check]:
    """Groups whose name somebody but root could have chosen own nothing by it (L11)."""
    ownership = Ownership(layout, Units(str(section.root), boottime))
    nameless = 0
    for path in under.metered:
        hierarchy = layout.cpu(path)
        if hierarchy is not None:
            try:
                owner = os.stat(hierarchy.directory(path)).st_uid  # noqa: PTH116
            except OSError:
                continue
            nameless += not ownership.labels(hierarchy, path, owner)
    found = f"{nameless:,} of {len(under.metered):,} groups of {section.id} could have been named by somebody but root"
    yield judged("cgroups", "names", "informative", holds=True, found=f"{found}: they match nothing by name")
