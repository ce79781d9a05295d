"""How CgroupSource follows births, deaths and renames: nothing twice, and nothing missed that the kernel kept."""

import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.errors import SourceError
from agent.model import NS_PER_MS, NS_PER_S
from tests.sources.machine import BOOT, Machine, named, names, values


def test_a_path_too_long_to_open_is_left_alone(v2: Machine) -> None:
    """A tenant may nest deeper than any path reaches; his ancestor pays, and nobody else is slowed down."""
    v2.group("a")
    held = os.open(v2.base / "a", os.O_RDONLY)
    for _ in range(30):
        os.mkdir("d" * 200, dir_fd=held)
        inner = os.open("d" * 200, os.O_RDONLY, dir_fd=held)
        os.close(held)
        held = inner
    os.close(held)
    source = v2.source(["a/*"], ["a"])
    assert 10 < len(source.sweep().listing) < 30
    assert not source._watch.blind
    source.close()


def test_a_group_that_lived_between_two_sweeps_is_read_as_gone_once(machine: Machine) -> None:
    """Born by inotify, read at once and each time after; its last values come with the next sweep."""
    machine.group("a")
    source = machine.source(["a/*"], ["a"])
    before = source.sweep()
    machine.group("a/job")
    machine.write("a/job", {"pids.current": "2\n"})
    assert source.read() is False
    machine.usage("a/job", 5000)
    assert source.read() is False
    machine.remove("a/job")
    assert source.read() is True
    sweep = source.sweep()
    assert names(sweep) == ["a", "a/job†"]
    gone = named(sweep, "a/job")
    assert (values(gone)["cpu.time"], values(gone)["pids"]) == (5000, 2)
    assert gone.resource.parent == sweep.readings[0].resource.key
    assert gone.resource.key not in before.listing | sweep.listing
    assert source.read() is False
    assert names(source.sweep()) == ["a"]
    source.close()


def test_gone_parents_come_before_gone_children(machine: Machine) -> None:
    """Whatever order they died in."""
    for path in ("a", "a/b", "a/b/c", "a/b/c/d"):
        machine.group(path)
    source = machine.source(["a/**"], ["a"])
    source.sweep()
    machine.remove("a/b/c/d")
    source.read()
    machine.remove("a/b")
    source.read()
    assert names(source.sweep()) == ["a", "a/b†", "a/b/c†", "a/b/c/d†"]
    source.close()


def test_a_name_taken_again_is_another_group(machine: Machine) -> None:
    """Both incarnations were born and one died before the first event was looked at."""
    machine.group("a")
    machine.group("a/b")
    machine.usage("a/b", 7000)
    source = machine.source(["a/*"], ["a"])
    old = named(source.sweep(), "a/b").resource.key
    machine.remove("a/b")
    machine.group("a/b")
    machine.usage("a/b", 1000)
    first, *rest = source.sweep().readings
    assert first.resource.name == "a"
    by_gone = {reading.gone: reading for reading in rest}
    assert by_gone[True].resource.key == old != by_gone[False].resource.key
    assert (values(by_gone[True])["cpu.time"], values(by_gone[False])["cpu.time"]) == (7000, 1000)
    source.close()


def test_a_renamed_group_is_not_billed_again_from_zero(v1: Machine) -> None:
    """v1 lets groups be renamed: the counter goes on under a name that would look newborn."""
    v1.group("a")
    v1.group("a/b")
    v1.group("a/b/c")
    source = v1.source(["a/**"], ["a"])
    source.sweep()
    for tree in v1.trees.values():
        (tree / "a/b").rename(tree / "a/renamed")
    assert names(source.sweep()) == ["a", "a/b†", "a/b/c†"]
    assert names(source.sweep()) == ["a"]
    source.close()


def test_a_whole_subtree_made_at_once_is_found(machine: Machine) -> None:
    """Its inner directories were made before their parent was watched."""
    machine.group("a")
    source = machine.source(["a/**"], ["a"])
    source.sweep()
    for path in ("a/b", "a/b/c", "a/b/c/d"):
        machine.group(path)
    assert names(source.sweep()) == ["a", "a/b", "a/b/c", "a/b/c/d"]
    source.close()


def test_without_inotify_every_sweep_walks(machine: Machine) -> None:
    """The kernel's limits on watches cost promptness, never a group."""
    machine.group("a")
    source = machine.source(["a/*"], ["a"])
    source._watch.close()
    source._watch.blind = True
    source.sweep()
    machine.group("a/b")
    assert names(source.sweep()) == ["a", "a/b"]
    machine.remove("a/b")
    assert names(source.sweep()) == ["a", "a/b†"]
    source.close()


def test_an_anchor_may_come_late_go_and_come_again(machine: Machine) -> None:
    """A slice exists only while systemd has something in it."""
    source = machine.source(["a/*"], ["a"])
    empty = source.sweep()
    assert (empty.readings, empty.listing) == ([], frozenset())
    machine.group("a")
    machine.group("a/b")
    assert names(source.sweep()) == ["a", "a/b"]
    machine.remove("a")
    assert source.read() is True
    assert names(source.sweep()) == ["a†", "a/b†"]
    machine.group("a")
    assert names(source.sweep()) == ["a"]
    source.close()


def test_a_counter_file_that_is_not_there_yet_is_found_by_a_walk(machine: Machine) -> None:
    """A directory without its files is listed, but not read."""
    machine.group("a")
    source = machine.source(["a/*"], ["a"])
    source.sweep()
    for tree in machine.trees.values():
        (tree / "a/b").mkdir()
    sweep = source.sweep()
    assert names(sweep) == ["a"]
    assert len(sweep.listing) == 2
    for tree in machine.trees.values():
        (tree / "a/b/cpuacct.usage").write_text("1\n")
        (tree / "a/b/cpu.stat").write_text("usage_usec 0\n")
    for _ in range(60):
        sweep = source.sweep()
    assert names(sweep) == ["a", "a/b"]
    source.close()


def test_a_counter_that_makes_no_sense_fails_the_sweep_and_loses_nothing(machine: Machine) -> None:
    """The error names the group; what died meanwhile is reported by the next good sweep."""
    machine.group("a")
    machine.group("a/b")
    source = machine.source(["a/*"], ["a"])
    source.sweep()
    machine.remove("a/b")
    machine.write("a", {"cpuacct.usage": "??\n", "cpu.stat": "??\n"})
    with pytest.raises(SourceError, match=r"/a: CPU counter"):
        source.sweep()
    machine.usage("a", 3000)
    assert names(source.sweep()) == ["a", "a/b†"]
    source.close()


def test_a_young_group_is_read_oftener(machine: Machine) -> None:
    """Each 100 ms in its first second, else each second; and then only the young ones are."""
    machine.group("a")
    source = machine.source(["a/*"], ["a"])
    source.sweep()
    assert source.next_read_within(machine.clock()) == NS_PER_S
    machine.group("a/b")
    source.read()
    assert source.next_read_within(machine.clock()) == 100 * NS_PER_MS
    machine.clock.now += 100 * NS_PER_MS
    machine.usage("a", 4000)
    machine.usage("a/b", 3000)
    source.read()
    kept = {group.node.name: group.value for group in source._groups.values()}
    assert kept == {"a": 0, "a/b": 3000}
    machine.clock.pass_seconds(1)
    source.read()
    assert {group.node.name: group.value for group in source._groups.values()} == {"a": 4000, "a/b": 3000}
    assert source.next_read_within(machine.clock()) == NS_PER_S
    source.close()


@settings(max_examples=40, deadline=None)
@given(
    steps=st.lists(
        st.tuples(st.booleans(), st.sampled_from(["a", "a/b", "a/b/c", "a/d", "a/d/e"]), st.booleans()), max_size=25
    )
)
def test_the_tree_is_what_the_file_system_is(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[bool, str, bool]]
) -> None:
    """After any births and deaths, in whatever batches they are noticed: the listing is the tree, each death once."""
    machine = Machine(tmp_path_factory.mktemp("machine"), "v2")
    source = machine.source(["a/**"], ["a"])
    source.sweep()
    seen: dict[str, bool] = {}  # key → gone
    for make, path, sweeps in steps:
        directory = machine.base / path
        if make and directory.parent.exists() and not directory.exists():
            machine.group(path)
        elif not make and directory.exists():
            machine.remove(path)
        if not sweeps:
            source.read()
            continue
        sweep = source.sweep()
        there = {f"cg/{BOOT[:8]}/unified#{d.stat().st_ino}" for d in machine.base.glob("a/**/") if d.is_dir()}
        assert sweep.listing == there
        assert {reading.resource.key for reading in sweep.readings if not reading.gone} == there
        read: set[str] = set()
        for reading in sweep.readings:
            key = reading.resource.key
            assert not seen.get(key, False), "a gone group was read again"
            assert reading.resource.parent is None or reading.resource.parent in read
            read.add(key)
            seen[key] = reading.gone
        assert {key for key, gone in seen.items() if not gone} == there, "a death was not reported"
    source.close()
    machine.wipe()
