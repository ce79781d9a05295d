"""`python -m tests.cluster.demo`: the agent, installed by its chart on the cluster that is up, and what it shows.

Three customers and nobody: records by customer, why one pod is whose it is, a Job of 0.3 s beside its own counter, and
what its account may do, and the equality of the books.
"""

import sys
import time
from collections.abc import Iterable
from typing import Any

from tests.cluster import neighbours, workloads
from tests.cluster.books import DIMENSION, between, equality, printed
from tests.cluster.cluster import Cluster, standing
from tests.cluster.installed import ACCOUNT, NAMESPACE, Installed
from tests.cluster.waiting import until
from tests.cluster.witness import Counter, Witness
from tests.faults.report import table

SECONDS = 20
JOB = "moment"


def main() -> int:
    """0 if every equality that is printed holds."""
    cluster = standing()
    if cluster.node.pid() is None:
        print("no cluster is up: make cluster", file=sys.stderr)
        return 1
    installed = Installed(cluster)
    _say("helm upgrade --install metering-agent helm/metering-agent")
    began = time.monotonic()
    installed.install()
    print(f"ready, and has swept, after {time.monotonic() - began:.1f} s, its image's making included")
    print(cluster.kubectl("get", "pods", "-n", NAMESPACE, "-o", "wide"))
    cluster.apply(*neighbours.NAMESPACES)
    with Counter(cluster.node.groups) as counter, Witness(cluster.node.groups) as witness:
        before = installed.swept()
        cluster.apply(*neighbours.LIVING)
        job = _job(cluster)
        time.sleep(SECONDS)
        after = installed.closed(installed.booked(job))
    readings = [counter.reading(books.counter, books.taken) for books in (before, after)]
    _say("records by customer, from the files that the sink wrote on the node")
    print("\n".join(_by_customer(r for r in installed.delivered() if r["dimension"] == DIMENSION)))
    _say("metering-agent top --pods --once")
    print(installed.cli("top", "--pods", "--once"))
    _say(f"metering-agent explain pod {neighbours.SHARED}/report")
    print(installed.cli("explain", "pod", f"{neighbours.SHARED}/report"))
    _say("a Job of 0.3 s: its records, and its own control group as another reader saw it last")
    recorded, used = sum(int(r["quantity"]) for r in installed.delivered() if _of(r, job)), witness.last[job]
    print(printed([("its records", recorded), ("its group's own counter", used), ("difference", used - recorded)]))
    _say(f"kubectl auth can-i --list --as={ACCOUNT}")
    print(cluster.kubectl("auth", "can-i", "--list", f"--as={ACCOUNT}"))
    _say("the books of this node")
    moved = between(before, after)
    print(printed(equality(moved)))
    print("\nits first and last reading of that counter, between what another reader saw before and after:")
    print("\n".join(f"  {reading}" for reading in readings))
    cluster.remove(*neighbours.LIVING, workloads.job(neighbours.GLOBEX, JOB, 0.3))
    return 1 if moved.difference or recorded != used or not all(r.holds for r in readings) else 0


def _job(cluster: Cluster) -> str:
    """Run the Job; the uid of its pod."""
    cluster.apply(workloads.job(neighbours.GLOBEX, JOB, 0.3))
    path, selector = f"/api/v1/namespaces/{neighbours.GLOBEX}/pods", f"job-name={JOB}"

    def done() -> Any:
        found = cluster.api.get(path, labelSelector=selector)["items"]
        return found[0] if found and found[0]["status"]["phase"] == "Succeeded" else None

    return str(until(done, "the Job is complete")["metadata"]["uid"])


def _of(record: Any, uid: str) -> bool:
    return bool(record["dimension"] == DIMENSION and record["group"].get("pod_uid") == uid)


def _by_customer(records: Iterable[Any]) -> list[str]:
    of: dict[str, list[Any]] = {}
    for record in records:
        of.setdefault(record["customer"] or f"({record['kind']})", []).append(record)
    rows: dict[str, dict[str, object]] = {
        customer: {
            "pods": len({record["group"].get("pod_uid") for record in found}),
            "records": len(found),
            "CPU, ns": f"{sum(int(record['quantity']) for record in found):,}",
        }
        for customer, found in sorted(of.items())
    }
    return table(rows, "customer")


def _say(what: str) -> None:
    print(f"\n== {what}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
