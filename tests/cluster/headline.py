"""`python -m tests.cluster.headline SECONDS`: churn of short pods, and who sees how much of what the node used.

Steady pods, and every two seconds one that uses half a second of CPU and ends. Kubepods' own counter is the truth,
and the agent's books must hold all of it, to the nanosecond. In the same run the kubelet's summary is asked every 15 s.
"""

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from tests.cluster import neighbours
from tests.cluster.books import Books, Moved, all_booked, between, equality, printed
from tests.cluster.cluster import standing
from tests.cluster.installed import Installed
from tests.cluster.summary import Polling
from tests.cluster.waiting import until
from tests.cluster.witness import Churn, Counter, Reading, Witness
from tests.faults.report import publish, table

BURN, EVERY = 0.5, 2.0  # s of CPU of each short pod, s between two of them


@dataclass
class Run:
    """What one run came to. `readings`: the agent's first and last of the counter, between what others read."""

    witness: Witness
    polling: Polling
    churn: Churn
    before: Books
    after: Books = field(init=False)
    readings: list[Reading] = field(default_factory=list)

    @property
    def moved(self) -> Moved:
        """Between the first look at the books and the last."""
        return between(self.before, self.after)

    def faults(self) -> list[str]:
        """What is not as it must be, in words; nothing, if all is."""
        found = []
        if self.moved.difference:
            found.append(f"the books miss {self.moved.difference:,} ns of what the counter moved")
        found += [
            f"the agent cannot have read what was there: {reading}" for reading in self.readings if not reading.holds
        ]
        for uid, name in self.churn.made.items():
            booked, used = self.after.pod(uid), self.witness.last.get(uid, 0)
            if not all_booked(used, booked, self.moved.residual):
                found.append(f"{name} used {used:,} ns by its own counter, and {booked:,} are booked")
        return found

    def report(self) -> list[str]:
        """The tables, as text."""
        moved, polled = self.moved, self.polling.moved()
        booked = sum(moved.by.values())
        short = sum(1 for uid in self.churn.made if self.after.pod(uid) == self.witness.last.get(uid))
        shown = len(self.polling.pods() & set(self.churn.made))
        rows = {"this agent": _row(moved.counter, booked + moved.in_flight, f"{short} of {len(self.churn.made)}")}
        for how, seen in self.polling.seen().items():
            rows[f"summary, 15 s: {how}"] = _row(polled, seen, f"{shown} of {len(self.churn.made)}")
        return [
            f"{len(self.churn.made)} pods of {BURN} s of CPU, one each {EVERY:g} s, beside steady ones",
            "",
            printed(equality(moved)),
            "",
            "the agent's first and last reading of the counter, between what others read before and after:",
            *(f"  {reading}" for reading in self.readings),
            "",
            *table(rows, "who"),
        ]


def _row(truth: int, seen: int, short: str) -> dict[str, object]:
    return {
        "kubepods' counter, ns": f"{truth:,}",
        "seen, ns": f"{seen:,}",
        "missing, ns": f"{truth - seen:,}",
        "missing": f"{(truth - seen) / truth:.3%}",
        "short pods": short,
    }


@contextmanager
def watched(installed: Installed, seconds: float, where: str = neighbours.GLOBEX) -> Iterator[Run]:
    """Churn in namespace `where` for so long, whatever else is done inside; at the end all of it is booked."""
    cluster = installed.cluster
    churn = Churn(cluster.api, where, burn=BURN, every=EVERY)
    with Counter(cluster.node.groups) as counter, Witness(cluster.node.groups) as witness:
        before = installed.swept()
        with Polling(cluster) as polling:
            run = Run(witness, polling, churn, before)
            failed: list[BaseException] = []
            thread = threading.Thread(target=_churning, args=(churn, seconds, failed), daemon=True)
            thread.start()
            try:
                yield run
            finally:
                thread.join()
            if failed:
                raise failed[0]
            until(lambda: churn.tidy() == 0, "the churn is finished")
            run.after = installed.booked(*churn.made)
            answers = len(polling.truth)
            until(lambda: len(polling.truth) > answers, "the summary was asked once more", every=0.5)
    run.readings += [counter.reading(books.counter, books.taken) for books in (run.before, run.after)]


def _churning(churn: Churn, seconds: float, failed: list[BaseException]) -> None:
    try:
        churn.run(seconds)
    except BaseException as e:  # noqa: BLE001 - raised again by whoever waits
        failed.append(e)


def main(seconds: float) -> int:
    """0 if the books hold every nanosecond; 1, with what they do not, if not."""
    cluster = standing()
    if cluster.node.pid() is None:
        print("no cluster is up: make cluster", file=sys.stderr)
        return 1
    installed = Installed(cluster)
    installed.install()
    cluster.apply(*neighbours.NAMESPACES, *neighbours.LIVING)
    with watched(installed, seconds) as run:
        print(f"{seconds:g} s of churn", flush=True)
    publish("headline", run.report())
    for fault in run.faults():
        print(fault, file=sys.stderr)
    cluster.remove(*neighbours.LIVING)
    return 1 if run.faults() else 0


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1]) if len(sys.argv) > 1 else 120))
