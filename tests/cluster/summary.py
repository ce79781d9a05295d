"""What those see who ask the kubelet for its summary every 15 s, as most collectors do: the other side."""

import threading
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Self

from tests.cluster.cluster import Cluster
from tests.cluster.waiting import NOT_YET

EVERY = 15.0  # s
Counters = Mapping[tuple[str, ...], int]


class Polling:
    """While it is open: the CPU counters of each summary, by pod and by container, in ns.

    `truth`: kubepods' own counter just before each answer.
    """

    def __init__(self, cluster: Cluster) -> None:
        self.truth: list[int] = []
        self._pods: list[Counters] = []
        self._containers: list[Counters] = []
        self._cluster, self._kubelet = cluster, cluster.server(cluster.kubelet_url)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._poll, daemon=True)

    def __enter__(self) -> Self:
        self._ask()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()
        self._kubelet.close()

    def moved(self) -> int:
        """What kubepods' counter moved between the first answer and the last."""
        return self.truth[-1] - self.truth[0]

    def seen(self) -> dict[str, int]:
        """What can be known of that from the answers, by how they are read."""
        return {
            "pod level, first value in full": _sum(self._pods, in_full=True),
            "pod level, differences only": _sum(self._pods, in_full=False),
            "container level, first value in full": _sum(self._containers, in_full=True),
            "container level, differences only": _sum(self._containers, in_full=False),
        }

    def pods(self) -> set[str]:
        """The pods of which any answer showed any CPU, by uid."""
        return {uid for answer in self._pods for (uid, *_), used in answer.items() if used}

    def _poll(self) -> None:
        due = time.monotonic()
        while not self._over.wait(max(0.0, (due := due + EVERY) - time.monotonic())):
            try:
                self._ask()
            except NOT_YET:  # a collector would not have had this one either
                continue

    def _ask(self) -> None:
        truth = self._cluster.node.groups.cpu_ns("kubepods")
        summary = self._kubelet.get("/stats/summary", only_cpu_and_memory="true")
        pods: dict[tuple[str, ...], int] = {}
        containers: dict[tuple[str, ...], int] = {}
        for pod in summary["pods"]:
            uid = pod["podRef"]["uid"]
            pods[uid,] = pod.get("cpu", {}).get("usageCoreNanoSeconds", 0)
            for one in pod.get("containers", ()):
                containers[uid, one["name"], one["startTime"]] = one.get("cpu", {}).get("usageCoreNanoSeconds", 0)
        self.truth.append(truth)
        self._pods.append(pods)
        self._containers.append(containers)


def _sum(answers: list[Counters], *, in_full: bool) -> int:
    """All rises; what is seen for the first time counts from zero or not at all. What fell and came back is not new."""
    most, total = dict(answers[0]), 0
    for answer in answers[1:]:
        for key, used in answer.items():
            before = most.get(key, 0 if in_full else used)
            total += max(0, used - before)
            most[key] = max(before, used)
    return total
