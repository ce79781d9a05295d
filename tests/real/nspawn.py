"""A Debian 12 with its own systemd and a pure cgroup v2 layout, booted in a container from a cached root directory.

The root is made once by debootstrap and never written to: each boot lays a volatile overlay over it, so every machine
starts fresh. The kernel is the host's, and so are its clocks and its counters; the boot id is the machine's own.
Controllers are where the host has them: on a hybrid host the machine's v2 tree counts CPU time and nothing else.
"""

import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

from tests.kept import call, kept

SUITE = "bookworm"
PACKAGES = ("systemd", "systemd-sysv", "python3", "dbus", "procps", "ca-certificates")  # the last for tests/cluster
HOSTS = "127.0.0.1 localhost\n::1 localhost\n"  # debootstrap leaves this to the installer
GUEST_PYTHON = (3, 11)  # what SUITE ships: binary wheels must be made for it

_CGROUP = "metering-rig-"  # and the pid of the test run
T = TypeVar("T")


class MachineError(RuntimeError):
    """The container did not do what it was told; the text holds what it said."""


def missing() -> str:
    """Why no machine can be booted here, with the cure; empty if one can."""
    if os.geteuid() != 0:
        return "booting a container needs root"
    absent = [tool for tool in ("systemd-nspawn", "debootstrap", "nsenter") if shutil.which(tool) is None]
    return f"{', '.join(absent)} missing: apt-get install systemd-container debootstrap util-linux" if absent else ""


def rootfs() -> Path:
    """The cached root directory; about a minute and a quarter of a gigabyte the first time."""

    def debootstrap(target: Path) -> None:
        call("debootstrap", "--variant=minbase", f"--include={','.join(PACKAGES)}", SUITE, str(target))
        for package in (target / "var/cache/apt/archives").glob("*.deb"):
            package.unlink()
        (target / "etc/hosts").write_text(HOSTS)

    return kept("rootfs", f"{SUITE} {PACKAGES} {HOSTS}", debootstrap)


def site_packages(lock: Path) -> Path:
    """Third-party packages that the guest's Python can load: our own if it has the same version, else from `lock`."""
    if sys.version_info[:2] == GUEST_PYTHON:
        return Path(sysconfig.get_path("purelib"))

    def install(target: Path) -> None:
        version = ".".join(map(str, GUEST_PYTHON))
        options = ("--quiet", "--target", str(target), "--python-version", version, "--only-binary=:all:")
        call(sys.executable, "-m", "pip", "install", *options, "-r", str(lock))

    return kept("site-packages", lock.read_text(), install)


class Machine:
    """One boot. Use as a context: inside it systemd runs, after it nothing of the container is left.

    `binds` maps a path in the machine to the host's path that is shown there, read-only. The machine has a network
    of its own with nothing but loopback, so its ports never meet the host's.
    """

    def __init__(self, root: Path, binds: Mapping[str, Path]) -> None:
        self._options = [
            "--quiet", "--boot", f"--directory={root}", f"--machine=metering-{os.getpid()}",
            "--read-only", "--volatile=overlay",  # read-only: several machines may boot from one root
            "--register=no", "--keep-unit", "--private-network", "--console=pipe",
            # As on a host: there asking the kernel whether the clock is synchronised needs no privilege.
            "--system-call-filter=adjtimex clock_adjtime",
            *(f"--bind-ro={there}:{here}" for here, there in binds.items()),
        ]  # fmt: skip
        self._end = ExitStack()
        self._nspawn: subprocess.Popen[bytes] | None = None
        self.leader = 0  # the host's pid of the machine's systemd

    def __enter__(self) -> Self:
        with ExitStack() as end:
            # A cgroup of its own in each hierarchy that systemd uses: two machines started from one cgroup would
            # share their tree, and here everything below it is known to be the machine's.
            cgroups = [mount / f"{_CGROUP}{os.getpid()}" for mount in _systemd_hierarchies()]
            for cgroup in cgroups:
                _remove_stale(cgroup.parent)
                cgroup.mkdir()
                end.callback(_remove_tree, cgroup)
            self._console = end.enter_context(tempfile.TemporaryFile())
            self._nspawn = self._start(cgroups)
            end.callback(self._power_off, self._nspawn)
            self.leader = until(self._find_leader, 30, "nspawn starts systemd")
            until(lambda: self._state() in ("running", "degraded"), 60, "systemd is up")
            self._end = end.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end.close()

    def run(self, *argv: str, check: bool = True, timeout: float = 150) -> str:
        """What the command, run in the machine, wrote to both outputs; MachineError if it fails and `check` is set."""
        inside = ["nsenter", "-t", str(self.leader), "-m", "-u", "-i", "-n", "-p", "-C", *argv]
        done = subprocess.run(
            inside, check=False, text=True, timeout=timeout, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"},
        )  # fmt: skip
        if check and done.returncode != 0:
            raise MachineError(f"{' '.join(argv)} (exit {done.returncode}):\n{done.stdout}")
        return done.stdout

    def path(self, inside: str) -> Path:
        """The host's path of a file in the machine."""
        return Path(f"/proc/{self.leader}/root") / inside.lstrip("/")

    def write(self, inside: str, text: str, mode: int = 0o644) -> None:
        """Make a file in the machine, and the directories above it."""
        file = self.path(inside)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        file.chmod(mode)

    def show(self, unit: str, name: str) -> str:
        """One property of a unit, as `systemctl show` prints it."""
        return self.run("systemctl", "show", "--value", "-p", name, unit).strip()

    def cpu_ns(self, unit: str) -> int:
        """The kernel's own count of the CPU time of a unit in system.slice."""
        text = self.path(f"/sys/fs/cgroup/system.slice/{unit}/cpu.stat").read_text()
        return 1000 * int(dict(line.split() for line in text.splitlines())["usage_usec"])

    def _start(self, cgroups: list[Path]) -> subprocess.Popen[bytes]:
        # The shell enters the cgroups before it becomes nspawn. The death signal: a killed test run leaves no machine.
        enter = "".join(f"echo $$ > {cgroup}/cgroup.procs && " for cgroup in cgroups)
        command = ["sh", "-c", enter + 'exec setpriv --pdeathsig TERM systemd-nspawn "$@"', "sh", *self._options]
        # Without the variable nspawn copies the host's layout, and on a hybrid host (v1 and v2 side by side) every
        # unit of the machine stays in its root cgroup.
        environment = os.environ | {"SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"}
        return subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=self._console, stderr=subprocess.STDOUT
        )

    def _find_leader(self) -> int:
        assert self._nspawn is not None
        if self._nspawn.poll() is not None:
            self._console.seek(0)
            raise MachineError(f"systemd-nspawn ended:\n{self._console.read().decode(errors='replace')}")
        with suppress(OSError):
            for pid in Path(f"/proc/{self._nspawn.pid}/task/{self._nspawn.pid}/children").read_text().split():
                # The child is nspawn's own stub at first; once it is systemd, its namespaces are complete.
                if Path(f"/proc/{pid}/comm").read_text() == "systemd\n":
                    return int(pid)
        return 0

    def _state(self) -> str:
        return self.run("systemctl", "is-system-running", check=False).strip()

    def _power_off(self, nspawn: subprocess.Popen[bytes]) -> None:
        nspawn.terminate()  # nspawn then asks systemd inside to power off
        try:
            nspawn.wait(timeout=60)
        except subprocess.TimeoutExpired:
            nspawn.kill()
            nspawn.wait()


def until(probe: Callable[[], T], seconds: float, what: str) -> T:
    """The first true answer of `probe`, which is asked again and again; MachineError if none comes in time."""
    deadline = time.monotonic() + seconds
    while not (answer := probe()):
        if time.monotonic() > deadline:
            raise MachineError(f"waited {seconds} s in vain: {what}")
        time.sleep(0.02)
    return answer


def _systemd_hierarchies() -> list[Path]:
    """Where cgroup v2 is mounted, and on a hybrid host systemd's own named v1 hierarchy too."""
    mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    return [
        Path(where)
        for _, where, kind, options, *_ in mounts
        if kind == "cgroup2" or (kind == "cgroup" and "name=systemd" in options.split(","))
    ]


def _remove_stale(hierarchy: Path) -> None:
    """Remove what test runs left that were killed: their machines are gone, their empty cgroups are not."""
    for cgroup in hierarchy.glob(f"{_CGROUP}*"):
        if not Path("/proc", cgroup.name.removeprefix(_CGROUP)).exists():
            _remove_tree(cgroup)


def _remove_tree(cgroup: Path) -> None:
    """Remove a cgroup and what is below it; the kernel lets go of the last process a moment after its death."""

    def gone() -> bool:
        for folder, _, _ in os.walk(cgroup, topdown=False):
            with suppress(OSError):
                Path(folder).rmdir()
        return not cgroup.exists()

    until(gone, 10, f"{cgroup} is empty")
