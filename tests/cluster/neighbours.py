"""Whom the agent meters in demonstrations and tests: three customers, each known in another way, and one of nobody."""

from collections.abc import Sequence

from tests.cluster import workloads
from tests.cluster.installed import POD_LABEL
from tests.cluster.workloads import Object, container, steady

ACME, GLOBEX, SHARED, NOBODYS = "acme-prod", "trading", "shared", "sandbox"
ALLOWED = "billing/allowed-customers"

NAMESPACES: Sequence[Object] = (
    workloads.namespace(ACME),
    workloads.namespace(GLOBEX, {"tenant": "globex"}),
    {
        **workloads.namespace(SHARED),
        "metadata": {"name": SHARED, "annotations": {ALLOWED: "initech"}},
    },
    workloads.namespace(NOBODYS),
)

LIVING: Sequence[Object] = (
    workloads.deployment(ACME, "web", 2, container("web", steady(0.05))),
    workloads.pod(GLOBEX, "ledger", container("ledger", steady(0.05))),
    workloads.pod(SHARED, "report", container("report", steady(0.05)), labels={POD_LABEL: "initech"}),
    workloads.pod(NOBODYS, "stray", container("stray", steady(0.02))),
)
