"""What runs in a cluster under test, as plain objects: pods of the image `tools`, most of them running `burn`."""

from collections.abc import Mapping, Sequence
from typing import Any

from tests.cluster.images import TOOLS

Object = dict[str, Any]
Amounts = Mapping[str, str]  # {"cpu": "100m", "memory": "64Mi"}

PAUSE = ("pause",)  # lives, and uses next to nothing


def steady(share: float) -> tuple[str, ...]:
    """The command that uses `share` of a core for ever, each second anew."""
    return ("sh", "-c", f"while :; do burn {share}; sleep {1 - share}; done")


def namespace(name: str, labels: Mapping[str, str] | None = None, **annotations: str) -> Object:
    """A namespace."""
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": _metadata(name, None, labels, annotations)}


def container(
    name: str,
    command: Sequence[str],
    *,
    requests: Amounts | None = None,
    limits: Amounts | None = None,
    sidecar: bool = False,
    **more: Any,
) -> Object:
    """A container; among the init containers a `sidecar` runs as long as the pod does."""
    resources = {"requests": dict(requests or {}), "limits": dict(limits or {})}
    image = {"image": TOOLS, "imagePullPolicy": "Never"}
    always = {"restartPolicy": "Always"} if sidecar else {}
    return {"name": name, "command": [*command], "resources": resources, **image, **always, **more}


def pod(
    where: str,
    name: str,
    *containers: Object,
    labels: Mapping[str, str] | None = None,
    annotations: Mapping[str, str] | None = None,
    **spec: Any,
) -> Object:
    """A pod in namespace `where`. `spec`: more of it, such as restartPolicy, initContainers, hostNetwork."""
    metadata = _metadata(name, where, labels, annotations)
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": _spec(containers, spec)}


def burner(where: str, name: str, seconds: float, *, sleep: float = 0, **more: Any) -> Object:
    """A pod that uses exactly so much CPU in its one process, sleeps, and is finished."""
    return pod(where, name, container("burn", ("burn", f"{seconds}", f"{sleep}")), restartPolicy="Never", **more)


def crasher(where: str, name: str, seconds: float, *, after: float = 1) -> Object:
    """A pod whose container uses so much CPU, fails `after` that many seconds, and is started again and again."""
    return pod(where, name, container("burn", ("burn", f"{seconds}", f"{after}", "1")), restartPolicy="Always")


def job(where: str, name: str, seconds: float, *, pods: int = 1, at_once: int = 1, **more: Any) -> Object:
    """A Job of so many pods, each of which uses exactly so much CPU."""
    template = _template(burner(where, name, seconds, **more))
    spec = {"completions": pods, "parallelism": at_once, "backoffLimit": 0, "template": template}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": _metadata(name, where), "spec": spec}


def deployment(where: str, name: str, replicas: int, *containers: Object, **more: Any) -> Object:
    """A Deployment. Changing its containers makes a rolling update. `more`: as for `pod`."""
    wanted = {"app": name, **more.pop("labels", {})}
    spec = {
        "replicas": replicas,
        "selector": {"matchLabels": {"app": name}},
        "template": _template(pod(where, name, *containers, labels=wanted, **more)),
    }
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": _metadata(name, where), "spec": spec}


def pauses(where: str, count: int, prefix: str = "pause", **more: Any) -> list[Object]:
    """So many pods that only live."""
    return [pod(where, f"{prefix}-{n}", container("pause", PAUSE), **more) for n in range(count)]


def _template(of: Object) -> Object:
    metadata = {key: of["metadata"][key] for key in ("labels", "annotations") if key in of["metadata"]}
    return {"metadata": metadata, "spec": of["spec"]}


def _spec(containers: Sequence[Object], more: Mapping[str, Any]) -> Object:
    return {"containers": [*containers], "terminationGracePeriodSeconds": 1, **more}


def _metadata(
    name: str,
    where: str | None,
    labels: Mapping[str, str] | None = None,
    annotations: Mapping[str, str] | None = None,
) -> Object:
    found: Object = {"name": name}
    for key, value in (("namespace", where), ("labels", labels), ("annotations", annotations)):
        if value:
            found[key] = value if isinstance(value, str) else dict(value)
    return found
