"""One node: its directory, its namespaces, and the processes of its components as the machine sees them."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from tests.cluster.boot import STATE
from tests.cluster.components import COMPONENTS
from tests.cluster.hierarchies import Groups
from tests.cluster.waiting import until

ROOT = Path(__file__).parents[2]
FIRST = "boot"  # the name of the process that the others live and die with


class Node:
    """`directory` holds everything: etc (what components read), var (their state), log, and pids of what runs.

    `tag` names its control groups. A node that is `bound` dies with this process; another one stays until it is ended.
    """

    def __init__(self, directory: Path, tag: str, *, bound: bool) -> None:
        self.directory, self.groups, self._bound = directory.resolve(), Groups(tag), bound
        self.etc = self.directory / "etc"
        self._started: dict[str, subprocess.Popen[bytes]] = {}

    def pid(self, name: str = FIRST) -> int | None:
        """The machine's pid of a component that runs. It is told from a later process by when it was started."""
        try:
            pid, start = (self.directory / "pids" / name).read_text().split()
            state, began = _state(int(pid))
        except (OSError, ValueError):
            return None
        return int(pid) if (began, state == "Z") == (start, False) else None

    def boot(self) -> None:
        """Make the namespaces, and wait until they are laid out."""
        for place in (*STATE, "/run", "/sys"):
            if any(needed.is_relative_to(place) for needed in (self.directory, ROOT)):
                raise RuntimeError(
                    f"a node has a {place} of its own: work in a tree, and with data, that lie elsewhere"
                )
        for name in ("pids", "log", "etc"):
            (self.directory / name).mkdir(parents=True, exist_ok=True)
        (self.directory / "ready").unlink(missing_ok=True)
        self.groups.make()
        tie = ["setpriv", "--pdeathsig=KILL"] if self._bound else []
        spaces = ["unshare", "--net", "--mount", "--pid", "--cgroup", "--fork", "--kill-child", "--mount-proc"]
        boot = [sys.executable, "-m", "tests.cluster.boot", str(self.directory)]
        self._start(FIRST, [*tie, *spaces, "--propagation=private", *boot], "")
        until(lambda: (self.directory / "ready").exists() or self._ended(FIRST), "namespaces are laid out")
        if self.pid() is None:
            raise RuntimeError(f"the node's first process ended:\n{self.log(FIRST)}")

    def start(self, name: str) -> None:
        """Start a component that does not run. Whether it is at work yet is another question."""
        if self.pid(name) is None:
            self._start(name, self.inside(*COMPONENTS[name].argv(self.etc)), f"system.slice/{name}.service")

    def end(self, name: str, number: signal.Signals = signal.SIGTERM, seconds: float = 60) -> None:
        """Send a component a signal, wait until it is gone, and kill it if it does not go."""
        pid = self.pid(name)
        if pid is None:
            return
        with suppress(ProcessLookupError):
            os.kill(pid, number)
        try:
            until(lambda: self.pid(name) is None, f"{name} ends", seconds, 0.02)
        except TimeoutError:
            os.kill(pid, signal.SIGKILL)
            until(lambda: self.pid(name) is None, f"{name} is killed", seconds, 0.02)
        if name in self._started:
            self._started.pop(name).wait(seconds)  # nsenter, which waited for it

    def inside(self, *argv: str) -> list[str]:
        """A command that runs `argv` in the node: its processes, mounts, network and control groups. Still uid 0."""
        pid = self.pid()
        if pid is None:
            raise RuntimeError("no cluster is up")
        return ["nsenter", "-t", str(pid), "-m", "-n", "-p", "-C", f"--wdns={ROOT}", "--", *argv]

    def path(self, inside: str) -> Path:
        """The machine's path of a file of the running node."""
        return Path(f"/proc/{self.pid()}/root") / inside.lstrip("/")

    def log(self, name: str, lines: int = 40) -> str:
        """The end of what a component said."""
        file = self.directory / "log" / f"{name}.log"
        return "\n".join(file.read_text(errors="replace").splitlines()[-lines:]) if file.exists() else ""

    def remove(self) -> None:
        """End every process, by ending the first, and remove what a node leaves: its groups and its state."""
        self.end(FIRST, signal.SIGKILL)
        for process in self._started.values():
            process.wait(60)
        self._started.clear()
        self.groups.remove()
        shutil.rmtree(self.directory, ignore_errors=True)

    def _start(self, name: str, argv: Sequence[str], group: str) -> None:
        # The shell enters the control groups before it becomes the program.
        enter = "".join(f"echo $$ >{entrance} && " for entrance in self.groups.entrances(group))
        with (self.directory / "log" / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                ["sh", "-c", enter + 'exec "$@"', "sh", *argv], cwd=ROOT, start_new_session=True,
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
        self._started[name] = process
        pid = until(lambda: _child(process.pid) or (process.poll() is not None and -1), f"{name} starts", every=0.01)
        with suppress(OSError):
            (self.directory / "pids" / name).write_text(f"{pid} {_state(pid)[1]}")

    def _ended(self, name: str) -> bool:
        return name in self._started and self._started[name].poll() is not None


def _child(pid: int) -> int:
    """The process that nsenter or unshare has forked into the new PID namespace; 0 before that."""
    with suppress(OSError):
        for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            return int(child)
    return 0


def _state(pid: int) -> tuple[str, str]:
    """State and start time of a process, as proc(5) has them. Raises OSError if there is none."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return fields[0], fields[19]
