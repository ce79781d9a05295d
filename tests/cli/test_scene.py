"""What the quick start chooses to meter, by where it runs."""

from pathlib import Path

import pytest

from agent.cli import scene as scenes
from agent.cli.quickstart import written
from agent.cli.scene import Scene, scene
from agent.config import Cgroups, parse
from agent.kinds import KINDS
from agent.sources.cgroups import CgroupSource
from agent.sources.hierarchy import Layout

SCOPE = "user.slice/user-1000.slice/app-gnome\\x2dterminal.scope"


def unified(root: Path, *groups: str) -> Layout:
    """A machine with cgroup v2 and these groups."""
    top = root / "sys/fs/cgroup"
    for group in ("", *groups):
        (top / group).mkdir(parents=True)
    (top / "cgroup.controllers").write_text("cpu memory pids\n")
    return Layout(str(root))


def hybrid(root: Path, *groups: str) -> Layout:
    """A machine with v1 controllers, and these groups in the v2 tree beside them."""
    for name in ("cpuacct", "memory", "unified"):
        (root / "sys/fs/cgroup" / name).mkdir(parents=True)
    for group in groups:
        (root / "sys/fs/cgroup/unified" / group).mkdir(parents=True)
    (root / "sys/fs/cgroup/unified/cgroup.controllers").write_text("")
    return Layout(str(root))


def test_a_user_in_a_group_meters_that_group_without_books(tmp_path: Path) -> None:
    """A delegated group: read alone, under no lock; its backslash survives the YAML."""
    with scene(unified(tmp_path, SCOPE), f"0::/{SCOPE}\n") as what:
        assert not what.lock_anchors
        cfg = parse(written(what, tmp_path), "agent.yaml", KINDS, {})
        (section,) = cfg.sources
        assert isinstance(section, Cgroups)
        assert section.include == (SCOPE,)
        source = what.build(section, cfg, lambda _: {})
        assert isinstance(source, CgroupSource)
        assert {meter.books for meter in source.meters} == {"none"}
        source.close()


def test_on_hybrid_the_group_may_exist_in_the_unified_tree_only(tmp_path: Path) -> None:
    """systemd without CPUAccounting leaves everybody at the root of cpuacct; the v2 tree counts CPU all the same."""
    cgroups = f"4:memory:/elsewhere\n2:cpuacct:/\n1:name=systemd:/{SCOPE}\n0::/{SCOPE}\n"
    with scene(hybrid(tmp_path, SCOPE), cgroups) as what:
        assert SCOPE in what.saying


@pytest.mark.parametrize("cgroups", ["0::/\n", "0::/not/mounted/here\n", "2:cpuacct:/\n0::/\n", ""])
def test_without_a_group_and_without_the_right_to_make_one_it_is_the_host(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cgroups: str
) -> None:
    """In a container's own namespace, or unprivileged at the root."""
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    with scene(unified(tmp_path), cgroups) as what:
        assert "kind: host" in what.source
        parse(written(what, tmp_path), "agent.yaml", KINDS, {})


def test_a_path_that_looks_like_yaml_is_only_a_path(tmp_path: Path) -> None:
    """The directory of the clone is written as text, whatever is in its name."""
    run = tmp_path / "a: {b}, 'c' \"d\" # e"
    cfg = parse(written(Scene("x", "{kind: host}", scenes._HOST_METERS, match="[]"), run), "agent.yaml", KINDS, {})
    assert cfg.agent.data_dir == run / "data"
    assert cfg.sinks[0].role == "copy"
