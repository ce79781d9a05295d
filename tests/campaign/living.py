"""The agent's daemon in a fork: all of its code, without the seconds that its imports take, and strace on it if wanted.

What is changed in the fork: windows of a second, short pauses between tries, a source that plays counters, a WAL that
is checkpointed often. And each thread says, in memory, what it is about to do.
"""

import asyncio
import contextlib
import ctypes
import os
import re
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import agent.sinks.cloudevents  # noqa: F401 - so that no life loads it
from agent import config, daemon, drains
from agent.config import Config
from agent.errors import AgentError
from agent.kinds import KINDS, Remembered
from agent.reporting import log_to
from agent.sources import kernel
from agent.spool import schema
from tests.campaign import observed
from tests.campaign.script import BOOTTIME, Scripted, Shared

CHECKPOINT_PAGES = 48
PR_SET_PDEATHSIG, CLONE_NEWTIME = 1, 0x80
_libc = ctypes.CDLL(None, use_errno=True)


class Life:
    """One run of the daemon, as our child. It waits until `begin`."""

    def __init__(
        self,
        path: Path,
        shared: Shared,
        boot: str,
        *,
        strace: str = "",
        environ: Mapping[str, str] | None = None,
        ahead: int = 0,
    ) -> None:
        """`strace`: what it injects, as `CALL:WHAT`. `ahead`: seconds by which its clocks of this boot are later."""
        self.log, self.trace = path.with_suffix(".log"), path.with_suffix(".strace")
        self.code: int | None = None
        gate, opener = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            try:
                os.close(opener)
                _become(path, self.log, dict(environ or {}), ahead)
                os.read(gate, 1)
                _live(path, shared, boot)
            except BaseException:  # noqa: BLE001 - nothing may leave a fork but by os._exit
                traceback.print_exc()
            finally:
                os._exit(70)
        os.close(gate)
        self._tracer: subprocess.Popen[bytes] | None = None
        if strace:
            self.attach(strace)
        os.close(opener)

    def attach(self, inject: str, *, loop: bool = False) -> None:
        """From now on strace injects `CALL:WHAT` into it; its counts are of each thread, and begin here.

        `loop`: into the thread of its loop alone.
        """
        call = inject.partition(":")[0]
        argv = ["strace", "-qq", "-y", "-o", str(self.trace), "-e", f"trace={call}", "-e", f"inject={inject}"]
        argv += [] if loop else ["-f"]
        tracer = subprocess.Popen([*argv, "-p", str(self.pid)], stderr=subprocess.DEVNULL)
        status = Path(f"/proc/{self.pid}/status")
        while "TracerPid:\t0\n" in status.read_text():
            if tracer.poll() is not None:
                if tracer.returncode == 0:  # it struck at once
                    break
                raise RuntimeError(f"strace ended with {tracer.returncode}: {' '.join(argv)}")
            time.sleep(0.001)
        self._tracer = tracer

    def alive(self) -> bool:
        """Whether it has not ended yet."""
        return self.wait(0) is None

    def wait(self, seconds: float) -> int | None:
        """Its exit code, negative for a signal; None: it lives on."""
        deadline = time.monotonic() + seconds
        while self.code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.code = os.waitstatus_to_exitcode(status)
                if self._tracer is not None:
                    self._tracer.wait()
            elif time.monotonic() >= deadline:
                break
            else:
                time.sleep(0.002)
        return self.code

    def signal(self, number: int) -> None:
        """Send it a signal, if it lives."""
        if self.alive():
            os.kill(self.pid, number)

    def kill(self) -> int:
        """SIGKILL."""
        self.signal(signal.SIGKILL)
        code = self.wait(10)
        assert code is not None
        return code

    def stop(self, seconds: float = 30) -> int:
        """SIGTERM, and wait for its end; one that hangs is killed, and that is an error."""
        self.signal(signal.SIGTERM)
        code = self.wait(seconds)
        if code is None:
            self.kill()
            raise AssertionError(f"it did not stop within {seconds} s")
        return code

    def died_at(self) -> tuple[str, str]:
        """The call at which strace had it die, and the name of the file that was meant; empty where there is none."""
        struck = [line for line in self.trace.read_text().splitlines() if re.match(r"(\d+ +)?\w+\(", line)]
        found = re.match(r"(?:\d+ +)?(\w+)\((?:\d+<([^>]*)>|.*)", struck[-1]) if struck else None
        return ("", "") if found is None else (found[1], Path(found[2] or "").name)


def _become(path: Path, log: Path, environ: dict[str, str], ahead: int) -> None:
    """A process of its own: it dies with us, writes to its log, and sees the clocks that it is to see."""
    if ahead:
        _enter_time(ahead)
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    out = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.dup2(out, 1)
    os.dup2(out, 2)
    os.environ.update(environ)
    os.environ.pop("NOTIFY_SOCKET", None)


def _enter_time(ahead: int) -> None:
    """A time namespace whose clocks of this boot are `ahead` seconds later; only a child is in it."""
    if _libc.unshare(CLONE_NEWTIME):
        raise OSError(ctypes.get_errno(), "unshare(CLONE_NEWTIME)")
    Path("/proc/self/timens_offsets").write_text(f"monotonic {ahead} 0\nboottime {ahead} 0\n")
    child = os.fork()
    if child:
        signal.signal(signal.SIGTERM, lambda *_: os.kill(child, signal.SIGTERM))
        os._exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) % 256)


def _live(path: Path, shared: Shared, boot: str) -> None:
    sources: list[Scripted] = []

    def build(section: Any, _: Config, _remembered: Remembered) -> Scripted:
        sources.append(Scripted(section.id, shared, boot))
        return sources[-1]

    def load() -> Config:
        read = config.load(path, KINDS, os.environ)
        short = read.agent.model_copy(update={"window": 10**9, "fresh_boot": 1 << 60})
        return read.model_copy(update={"agent": short})

    def since_boot(which: int) -> int:
        return BOOTTIME(which) - (shared.booted if which == time.CLOCK_BOOTTIME else 0)

    time.clock_gettime_ns = since_boot
    daemon.RETRY_SECONDS = 0.3
    setattr(kernel, "boot_id", lambda root="/": boot)  # noqa: B010 - a function in the place of another
    setattr(drains, "random", _Hasty())  # noqa: B010 - as above, of a module
    schema._SETTINGS["wal_autocheckpoint"] = CHECKPOINT_PAGES
    observed.begin(shared, lambda: sources[-1].read_at if sources else 0, CHECKPOINT_PAGES)
    log_to(sys.stderr)
    code = 70
    try:
        code = asyncio.run(daemon.Daemon(load, path, build=build, lock_anchors=False).run())
    except AgentError as error:
        sys.stderr.write(f"{error}\n")
        code = error.exit_code
    finally:
        with contextlib.suppress(OSError):
            sys.stderr.flush()
        os._exit(code)


class _Hasty:
    """What would be seconds between two tries is a hundredth of it."""

    @staticmethod
    def random() -> float:
        import random  # the one that is replaced

        return random.random() / 100
