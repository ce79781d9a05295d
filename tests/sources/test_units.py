"""Unit files as systemd.unit(5) reads them: search order, drop-ins, templates, and when they are read again."""

import os
from pathlib import Path

import pytest

from agent.sources.units import Units, unit_of
from tests.sources.machine import Clock


class Disk:
    """Unit files below a root, and who reads them."""

    def __init__(self, root: Path) -> None:
        self.root, self.clock, self.written = root, Clock(), 0
        self.units = Units(str(root), self.clock)

    def write(self, path: str, text: str) -> None:
        """Write a file; every write is a second later than the one before, in the directory too."""
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        self.written += 1
        for touched in (file, file.parent, file.parent.parent):
            os.utime(touched, (self.written, self.written))

    def properties(self, unit: str) -> dict[str, str]:
        """The unit's properties, once the last answer is too old."""
        self.clock.pass_seconds(60)
        return dict(self.units.read(unit).properties)


@pytest.fixture
def disk(tmp_path: Path) -> Disk:
    """No unit files yet."""
    return Disk(tmp_path)


def test_x_keys_and_x_sections_are_properties(disk: Disk) -> None:
    """Nothing else is; comments and continued lines as systemd takes them."""
    disk.write(
        "etc/systemd/system/web.service",
        "[Unit]\nX-Customer = acme\nDescription=X-No=no\n; X-Comment=no\n[Service]\nX-Note=one \\\n# between\n two\n"
        "[X-Billing]\nPlan=gold\nX-Tier=2\n",
    )
    assert disk.properties("web.service") == {
        "X-Customer": "acme",
        "X-Note": "one  two",
        "X-Billing.Plan": "gold",
        "X-Tier": "2",
    }


def test_the_first_fragment_of_the_search_path_counts(disk: Disk) -> None:
    """What the administrator wrote hides what the package brought."""
    disk.write("usr/lib/systemd/system/web.service", "[Unit]\nX-Customer=vendor\nX-Other=1\n")
    assert disk.properties("web.service")["X-Customer"] == "vendor"
    disk.write("etc/systemd/system/web.service", "[Unit]\nX-Customer=admin\n")
    assert disk.properties("web.service") == {"X-Customer": "admin"}
    disk.write("run/systemd/transient/web.service", "[Unit]\nX-Customer=transient\n")
    assert disk.properties("web.service") == {"X-Customer": "transient"}


def test_drop_ins_apply_by_file_name_and_the_last_assignment_wins(disk: Disk) -> None:
    """The same name in an earlier directory hides the later one; an empty value takes a property back."""
    disk.write("etc/systemd/system/a-b.service", "[Unit]\nX-One=fragment\nX-Gone=1\n")
    disk.write("etc/systemd/system/a-b.service.d/20-last.conf", "[Unit]\nX-One=last\nX-Gone=\n")
    disk.write("run/systemd/system/a-b.service.d/10-first.conf", "[Unit]\nX-One=first\nX-Two=2\n")
    disk.write("usr/lib/systemd/system/a-b.service.d/20-last.conf", "[Unit]\nX-One=hidden\n")
    disk.write("etc/systemd/system/a-.service.d/30-prefix.conf", "[Unit]\nX-Prefix=1\n")
    disk.write("etc/systemd/system/service.d/05-all.conf", "[Unit]\nX-All=1\nX-One=all\n")
    disk.write("etc/systemd/system/a-b.service.d/readme.txt", "[Unit]\nX-No=1\n")
    assert disk.properties("a-b.service") == {"X-One": "last", "X-Two": "2", "X-Prefix": "1", "X-All": "1"}


def test_an_instance_reads_its_template_unless_it_has_a_file_of_its_own(disk: Disk) -> None:
    """Drop-ins come from both."""
    disk.write("etc/systemd/system/app@.service", "[Unit]\nX-Customer=template\n")
    disk.write("etc/systemd/system/app@.service.d/1.conf", "[Unit]\nX-Template=1\n")
    disk.write("etc/systemd/system/app@x.service.d/2.conf", "[Unit]\nX-Instance=1\n")
    assert disk.properties("app@x.service") == {"X-Customer": "template", "X-Template": "1", "X-Instance": "1"}
    disk.write("usr/lib/systemd/system/app@x.service", "[Unit]\nX-Customer=instance\n")
    assert disk.properties("app@x.service")["X-Customer"] == "instance"


def test_an_alias_is_followed_inside_the_root(disk: Disk) -> None:
    """An absolute symlink of a mounted host points into that host, not into our own container."""
    disk.write("lib/systemd/system/real.service", "[Unit]\nX-Customer=acme\n")
    disk.write("etc/systemd/system/other.service", "")
    (disk.root / "etc/systemd/system/alias.service").symlink_to("/lib/systemd/system/real.service")
    (disk.root / "etc/systemd/system/near.service").symlink_to("../../../lib/systemd/system/real.service")
    (disk.root / "etc/systemd/system/masked.service").symlink_to("/dev/null")
    (disk.root / "etc/systemd/system/loop.service").symlink_to("loop.service")
    assert disk.properties("alias.service") == disk.properties("near.service") == {"X-Customer": "acme"}
    assert disk.properties("masked.service") == disk.properties("loop.service") == {}


@pytest.mark.parametrize(
    ("value", "delegates"),
    [("yes", True), ("true", True), ("cpu memory", True), ("", True), ("no", False), ("off", False), ("0", False)],
)
def test_delegation_is_a_boolean_or_a_list_of_controllers(disk: Disk, value: str, *, delegates: bool) -> None:
    """An empty list delegates too."""
    disk.write("etc/systemd/system/web.service", f"[Service]\nDelegate={value}\n")
    assert disk.units.read("web.service").delegates is delegates


def test_files_are_looked_at_once_a_minute_and_read_again_when_they_change(disk: Disk) -> None:
    """A sweep every 15 s must not read four hundred files."""
    disk.write("etc/systemd/system/web.service", "[Unit]\nX-Customer=acme\n")
    first = disk.units.read("web.service")
    disk.write("etc/systemd/system/web.service", "[Unit]\nX-Customer=globex\n")
    disk.clock.pass_seconds(59)
    assert disk.units.read("web.service") is first
    disk.clock.pass_seconds(1)
    second = disk.units.read("web.service")
    assert second.properties == {"X-Customer": "globex"}
    disk.clock.pass_seconds(60)
    assert disk.units.read("web.service") is second


def test_units_that_nobody_asks_about_are_forgotten(disk: Disk) -> None:
    """Transient units have ever new names."""
    disk.units.read("run-u1.service")
    disk.clock.pass_seconds(601)
    disk.units.read("run-u2.service")
    disk.units.forget_old()
    assert list(disk.units._known) == ["run-u2.service"]


@pytest.mark.parametrize(
    ("path", "unit"),
    [
        ("system.slice/web.service", "web.service"),
        ("system.slice", "system.slice"),
        ("init.scope", "init.scope"),
        ("a.slice/b.slice/c.scope", "c.scope"),
        ("system.slice/web.service/worker.service", None),
        ("docker/x.service", None),
        ("system.slice/plain", None),
        ("system.slice/.service", None),
    ],
)
def test_a_unit_stands_below_slices_only(path: str, unit: str | None) -> None:
    """Where anything else is above, systemd did not make it."""
    assert unit_of(path) == unit
