"""What the quick start meters, by what this user may do here.

The cgroup that the user already lives in, read without books. As root at the true root of the hierarchy: a group made
for the purpose, with a small burner inside. Where neither can be: the whole host.
"""

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from msgspec import Struct

from agent.config import Cgroups, Config, SourceSection
from agent.kinds import Remembered, build_source
from agent.sources import Source
from agent.sources.cgroups import CgroupSource
from agent.sources.hierarchy import Hierarchy, Layout

GROUP = "metering-quickstart-"  # and our pid

# The shell enters the groups before it becomes the burner: what that allocates is then charged to them.
_ENTER = 'python=$1 burner=$2; shift 2; for procs; do echo $$ > "$procs" || exit; done; exec "$python" -I -c "$burner"'

# A fifth of a core until its parent is gone.
BURNER = """\
import os, time
parent = os.getppid()
while os.getppid() == parent:
    end = time.perf_counter() + 0.02
    while time.perf_counter() < end:
        pass
    time.sleep(0.08)
"""

_CGROUP_METERS = """\
  - {meter: cpu.time, dimension: cpu_core_seconds}
  - {meter: memory.working_set, dimension: memory}
  - {meter: alive.time}"""
_HOST_METERS = """\
  - {meter: host.cpu.time, dimension: cpu_core_seconds, group_by: [mode], customer: demo}
  - {meter: host.memory.used, dimension: memory, customer: demo}"""


def _delegated(section: SourceSection, cfg: Config, _: Remembered) -> Source:
    """One group, without books: others may write its name, and whoever owns its parent may meter it too."""
    if not isinstance(section, Cgroups):
        return build_source(section, cfg)
    wanted = frozenset(entry.meter for entry in cfg.meters)
    return CgroupSource(section.id, str(section.root), section.include, books=False, wanted=wanted)


class Scene(Struct, frozen=True):
    """A source, its meters and the customer's `match`, as YAML; how it is read; and what to say of it."""

    saying: str
    source: str
    meters: str
    match: str = '[{cgroup: "**"}]'
    build: Callable[[SourceSection, Config, Remembered], Source] = build_source
    lock_anchors: bool = True


@contextlib.contextmanager
def scene(layout: Layout, cgroups: str) -> Iterator[Scene]:
    """Choose what to meter; make and remove the group and its burner where that is ours to do.

    `cgroups` is /proc/self/cgroup.
    """
    own = _own(layout, cgroups)
    top = layout.cpu("")
    if own is not None:
        source = f"{{kind: cgroups, include: [{json.dumps(own)}]}}"
        yield Scene(f"the cgroup you are in, {own}", source, _CGROUP_METERS, build=_delegated, lock_anchors=False)
    elif top is not None and os.geteuid() == 0 and os.access(top.root, os.W_OK):
        hierarchies = {h.root: h for name in ("memory", "blkio", "pids") if (h := layout.controller(name)) is not None}
        with _burning([top, *(h for root, h in hierarchies.items() if root != top.root)]) as name:
            source = f"{{kind: cgroups, include: [{name}]}}"
            yield Scene(f"a cgroup made for it, {name}, in which a small burner runs", source, _CGROUP_METERS)
    else:
        yield Scene("the whole host, for there is no cgroup of yours", "{kind: host}", _HOST_METERS, match="[]")


def _own(layout: Layout, cgroups: str) -> str | None:
    """This process's own group in the hierarchy that counts its CPU time; None when that is the root, or not seen."""
    paths: dict[str, str] = {}
    for line in cgroups.splitlines():
        _, controllers, path = line.split(":", 2)
        paths.update(dict.fromkeys(controllers.split(",") if controllers else ["unified"], path.strip("/")))
    for hierarchy in (layout.v1.get("cpuacct"), layout.unified):
        path = paths.get(hierarchy.name, "") if hierarchy is not None else ""
        if hierarchy is not None and path and layout.cpu(path) == hierarchy:
            return path
    return None


@contextlib.contextmanager
def _burning(hierarchies: list[Hierarchy]) -> Iterator[str]:
    """A group of its own in each hierarchy with a burner in it, for as long as the context lasts; its name."""
    name = f"{GROUP}{os.getpid()}"
    with contextlib.ExitStack() as stack:
        for hierarchy in hierarchies:
            _remove_left_over(Path(hierarchy.root))
            directory = Path(hierarchy.directory(name))
            directory.mkdir()
            stack.callback(_remove, directory)
        procs = [f"{hierarchy.directory(name)}/cgroup.procs" for hierarchy in hierarchies]
        # In a session of its own: Ctrl-C is for us, and the burner ends when we have read its last counter.
        command = ["sh", "-c", _ENTER, "sh", sys.executable, BURNER, *procs]
        burner = subprocess.Popen(command, start_new_session=True)  # noqa: S603 - our own words
        stack.callback(burner.wait)
        stack.callback(burner.kill)
        yield name


def _remove(directory: Path) -> None:
    """The kernel lets go of the last process a moment after its death."""
    for _ in range(100):
        try:
            directory.rmdir()
        except FileNotFoundError:
            return
        except OSError:
            time.sleep(0.02)
        else:
            return


def _remove_left_over(root: Path) -> None:
    """Groups of a quick start that was killed: their burners have ended by themselves."""
    for directory in root.glob(f"{GROUP}*"):
        if not Path("/proc", directory.name.removeprefix(GROUP)).exists():
            with contextlib.suppress(OSError):
                directory.rmdir()
