"""What the kernel counted for each pod, read by nobody of the agent's: the truth that records are held against."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.cluster.api import Server
from tests.cluster.hierarchies import Groups
from tests.cluster.workloads import burner

EVERY = 0.1  # s; a pod's group outlives its last process by 1.4 s at least, so none is missed


def pods(groups: Groups) -> dict[str, Path]:
    """The groups of the pods that are there, by uid; a static pod's is its hash."""
    kubepods = groups.cpu / "kubepods"
    found = {}
    for quality in (kubepods, kubepods / "burstable", kubepods / "besteffort"):
        for directory in quality.glob("pod*"):
            found[directory.name.removeprefix("pod")] = directory
    return found


class Witness:
    """While it is open: the last reading of each pod's CPU counter in ns, by uid, and of kubepods."""

    def __init__(self, groups: Groups) -> None:
        self.last: dict[str, int] = {}
        self.first: dict[str, int] = {}
        self._groups = groups
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> Self:
        self._read()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()

    def kubepods(self) -> int:
        """The counter of all pods, the dead ones too."""
        return self._groups.cpu_ns("kubepods")

    def _look(self) -> None:
        while not self._over.wait(EVERY):
            self._read()

    def _read(self) -> None:
        for uid, directory in pods(self._groups).items():
            try:
                used = int((directory / "cpuacct.usage").read_text())
            except OSError:  # it went away; its last reading stands
                continue
            self.first.setdefault(uid, used)
            self.last[uid] = used


@dataclass(frozen=True, slots=True)
class Reading:
    """What somebody read, and what others read shortly before and shortly after; ns."""

    before: int
    value: int
    after: int

    @property
    def holds(self) -> bool:
        """Whether it can be what was there."""
        return self.before <= self.value <= self.after

    def __str__(self) -> str:
        return f"{self.before:,} ≤ {self.value:,} ≤ {self.after:,} ns"


class Counter:
    """While it is open: what kubepods' counter was, and when, read beside the agent each hundredth of a second."""

    SLACK = 250_000_000  # ns between the agent's look at its clock and its reading, on a machine that is busy

    def __init__(self, groups: Groups) -> None:
        self._groups = groups
        self._seen: list[tuple[int, int, int]] = []  # boottime before, ns of CPU, boottime after
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        time.sleep(2 * self.SLACK / 1e9)  # for a look after what was read last
        self._over.set()
        self._thread.join()

    def reading(self, value: int, taken: int) -> "Reading":
        """What somebody read while this was open, between looks of ours; once it is closed."""
        before = [read for _, read, ended in self._seen if ended <= taken - self.SLACK]
        after = [read for began, read, _ in self._seen if began >= taken + self.SLACK]
        return Reading((before or [0])[-1], value, after[0])

    def _look(self) -> None:
        while not self._over.wait(0.01):
            before = _boottime()
            value = self._groups.cpu_ns("kubepods")
            self._seen.append((before, value, _boottime()))


def _boottime() -> int:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


class Churn:
    """Pods that each use exactly `burn` seconds of CPU and then sleep, made one after another, `every` seconds.

    `made`: uid → name. What is finished is deleted, so that any number can come.
    """

    def __init__(
        self, api: Server, where: str, *, burn: float, every: float, sleep: float = 0, prefix: str = "churn"
    ) -> None:
        self.made: dict[str, str] = {}
        self._api, self._where, self._burn, self._every, self._sleep = api, where, burn, every, sleep
        self._prefix = prefix

    def run(self, seconds: float, *, meanwhile: Callable[[], None] = lambda: None) -> None:
        """Make pods for so long. `meanwhile` is called after each."""
        path = f"/api/v1/namespaces/{self._where}/pods"
        began = time.monotonic()
        while (since := time.monotonic() - began) < seconds:
            name = f"{self._prefix}-{len(self.made)}"
            labels = {"app": self._prefix}
            pod = self._api.post(path, burner(self._where, name, self._burn, sleep=self._sleep, labels=labels))
            self.made[pod["metadata"]["uid"]] = name
            self.tidy()
            meanwhile()
            time.sleep(max(0.0, self._every * len(self.made) - since))

    def tidy(self) -> int:
        """Delete what is finished; how many are not."""
        path = f"/api/v1/namespaces/{self._where}/pods"
        left = 0
        for pod in self._api.get(path, labelSelector=f"app={self._prefix}")["items"]:
            if pod["status"]["phase"] in ("Succeeded", "Failed"):
                self._api.delete(f"{path}/{pod['metadata']['name']}", grace=0)
            else:
                left += 1
        return left
