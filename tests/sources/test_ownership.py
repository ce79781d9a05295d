"""Which labels a group has: what root controls, and nothing where a tenant could have chosen the name."""

import os
from pathlib import Path

import pytest

from agent.sources.hierarchy import Layout
from agent.sources.ownership import Ownership
from agent.sources.units import Units
from tests.conftest import require
from tests.sources.machine import Machine, named


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """A v2 machine that systemd runs, with a slice and a service in it."""
    machine = Machine(tmp_path, "v2")
    machine.boot_systemd()
    for path in ("customers.slice", "customers.slice/customers-acme.slice", "customers.slice/web.service"):
        machine.group(path)
    return machine


def labels(machine: Machine, path: str, owner: int | None = None) -> dict[str, str]:
    """What a source would say of this group."""
    layout = Layout(str(machine.root))
    ownership = Ownership(layout, Units(str(machine.root), machine.clock), root_uid=os.getuid())
    assert layout.unified is not None
    return ownership.labels(layout.unified, path, os.getuid() if owner is None else owner)


def test_a_unit_is_known_by_its_name_and_slice(machine: Machine) -> None:
    """For a slice, `slice` is its own name: so one rule takes a slice with all that is in it."""
    assert labels(machine, "customers.slice/web.service") == {
        "cgroup": "customers.slice/web.service",
        "unit": "web.service",
        "slice": "customers.slice",
    }
    assert labels(machine, "customers.slice/customers-acme.slice")["slice"] == "customers-acme.slice"


def test_an_escaped_unit_name_is_unescaped(machine: Machine) -> None:
    """systemd puts an underscore before names that would clash with the kernel's files."""
    machine.group("customers.slice/_cpu.service")
    assert labels(machine, "customers.slice/_cpu.service")["unit"] == "cpu.service"


@pytest.mark.parametrize("path", ["docker", "docker/acme-web.service", "customers.slice/web.service/acme-web.service"])
def test_a_unit_name_counts_only_where_systemd_owns_the_path(machine: Machine, path: str) -> None:
    """Every directory above a unit is a slice; anything else was made by a program."""
    if path.startswith("docker/"):
        machine.group("docker")
    machine.group(path)
    assert labels(machine, path) == {"cgroup": path}


def test_without_systemd_nothing_is_a_unit(tmp_path: Path) -> None:
    """Another init may call its groups whatever it likes."""
    machine = Machine(tmp_path, "v2")
    machine.group("acme.service")
    assert labels(machine, "acme.service") == {"cgroup": "acme.service"}


def test_a_group_in_a_directory_that_others_may_write_has_no_labels(machine: Machine) -> None:
    """The bracketed case: a stranger makes `acme-web.service` where he may, and would bill acme."""
    machine.group("customers.slice/web.service/acme-web.service")
    machine.group("customers.slice/web.service/acme-web.service/inner")
    (machine.base / "customers.slice/web.service").chmod(0o777)
    assert labels(machine, "customers.slice/web.service")["unit"] == "web.service"
    assert labels(machine, "customers.slice/web.service/acme-web.service") == {}
    assert labels(machine, "customers.slice/web.service/acme-web.service/inner") == {}


def test_a_directory_of_uid_65534_names_nothing(machine: Machine) -> None:
    """The same with a real owner, all the way through a sweep: its ancestor's labels stay, its own are empty."""
    require(os.geteuid() == 0, "giving a directory away needs root")
    machine.group("customers.slice/hostile.service")
    machine.group("customers.slice/hostile.service/acme-web.service")
    os.chown(machine.base / "customers.slice/hostile.service", 65534, 65534)
    source = machine.source(["customers.slice/**"], ["customers.slice"])
    sweep = source.sweep()
    assert named(sweep, "customers.slice/hostile.service/acme-web.service").resource.labels == {}
    ancestor = named(sweep, "customers.slice/hostile.service").resource
    assert (ancestor.labels["unit"], ancestor.labels["uid"]) == ("hostile.service", "65534")
    source.close()


def test_a_group_below_a_delegating_unit_has_no_labels(machine: Machine) -> None:
    """Delegate= gives the subtree to the unit, whoever owns the directories by now."""
    machine.write_file("etc/systemd/system/web.service", "[Service]\nDelegate=memory pids\n")
    machine.group("customers.slice/web.service/inner")
    machine.group("customers.slice/web.service/inner/most")
    assert labels(machine, "customers.slice/web.service")["unit"] == "web.service"
    assert labels(machine, "customers.slice/web.service/inner") == {}
    assert labels(machine, "customers.slice/web.service/inner/most") == {}


def test_a_group_below_a_delegated_mark_has_no_labels(machine: Machine) -> None:
    """systemd marks the directory itself, also for units that were made over D-Bus."""
    machine.group("customers.slice/web.service/inner")
    try:
        os.setxattr(machine.base / "customers.slice/web.service", "user.delegate", b"1")
    except OSError as error:
        require(condition=False, reason=f"this file system holds no extended attributes: {error.strerror}")
    assert labels(machine, "customers.slice/web.service/inner") == {}
    os.setxattr(machine.base / "customers.slice/web.service", "user.delegate", b"0")
    assert labels(machine, "customers.slice/web.service/inner") != {}


def test_uid_is_the_owner_or_the_user_of_a_user_slice(machine: Machine) -> None:
    """And root's is no label."""
    machine.group("user.slice")
    machine.group("user.slice/user-1000.slice")
    machine.group("user.slice/user-1000.slice/session-1.scope")
    assert labels(machine, "user.slice/user-1000.slice")["uid"] == "1000"
    assert labels(machine, "user.slice/user-1000.slice/session-1.scope")["uid"] == "1000"
    assert labels(machine, "customers.slice/web.service", owner=1234)["uid"] == "1234"
    assert "uid" not in labels(machine, "customers.slice/web.service")


def test_a_new_label_makes_a_new_resource_with_the_same_key(machine: Machine) -> None:
    """Looked at again after one to two minutes; until then the old object stays."""
    source = machine.source(["customers.slice/*"], ["customers.slice"])
    old = named(source.sweep(), "customers.slice/web.service").resource
    machine.write_file("etc/systemd/system/web.service", "[Unit]\nX-Customer=acme\n")
    assert named(source.sweep(), "customers.slice/web.service").resource is old
    machine.clock.pass_seconds(120)
    new = named(source.sweep(), "customers.slice/web.service").resource
    assert (new.key, new.labels["property.X-Customer"]) == (old.key, "acme")
    source.close()


def test_an_owner_who_comes_right_after_birth_is_seen_in_the_first_sweep(machine: Machine) -> None:
    """A manager makes the directory first and gives it away then."""
    require(os.geteuid() == 0, "giving a directory away needs root")
    source = machine.source(["customers.slice/*"], ["customers.slice"])
    source.sweep()
    machine.group("customers.slice/new.service")
    source.read()
    os.chown(machine.base / "customers.slice/new.service", 1234, 1234)
    assert named(source.sweep(), "customers.slice/new.service").resource.labels["uid"] == "1234"
    source.close()
