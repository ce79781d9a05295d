"""What a pod asks for and may use at most, counted as the scheduler and the kubelet count it. Pure.

Containers run together; init containers run one after another before them, each beside the native sidecars that were
started before it: the larger of the two counts. Values at the pod's own level take the place of that, and the overhead
of its runtime class comes on top (Kubernetes documentation: "Sidecar Containers", "Assign Pod-level CPU and memory
resources", "Pod Overhead"; `ResourceConfigForPod` in the kubelet).

A pod that is resized holds what its node admitted, not what its specification wishes for: `allocatedResources`, else
what the status says is in force ("Resize CPU and Memory Resources assigned to Containers").
"""

from collections.abc import Callable, Iterable, Mapping

from msgspec import Struct

from agent.sources.kubernetes.objects import Container, ContainerStatus, Pod, Quantities
from agent.sources.kubernetes.quantity import NANO, nano, up

Amounts = dict[str, int]  # resource → billionths of its unit

_RESIZABLE = ("cpu", "memory")
_MILLI = NANO // 1000
_NS_PER_MS = 1000  # of CPU time, for each thousandth of a core


class Effective(Struct, frozen=True):
    """Levels by meter: `cpu.time` in ns per ms, `memory.working_set` in bytes; extended resources in whole units."""

    requests: Mapping[str, int]
    limits: Mapping[str, int]
    extended: Mapping[str, int]


def effective(pod: Pod) -> Effective:
    """What counts of a pod. Raises ValueError for a quantity that is none; the API server lets no such pod in."""
    spec, status = pod.spec, pod.status
    overhead, wished = _parsed(spec.overhead), spec.resources
    statuses = {s.name: s for s in (*(status.container_statuses or ()), *(status.init_container_statuses or ()))}

    requests, _ = _together(spec.containers, spec.init_containers or (), lambda c: _requests(c, statuses.get(c.name)))
    pod_level = _pod_level(wished.requests if wished else None)
    requests |= pod_level
    _add(requests, overhead)
    admitted = _parsed(status.allocated_resources)  # for the pod as a whole; these include the overhead
    requests |= {name: admitted[name] for name in pod_level if name in admitted}

    limits, everywhere = _together(
        spec.containers, spec.init_containers or (), lambda c: _limits(c, statuses.get(c.name))
    )
    limits = {name: amount for name, amount in limits.items() if name in everywhere}
    limits |= {name: amount for name, amount in _pod_level(wished.limits if wished else None).items() if amount}
    _add(limits, {name: amount for name, amount in overhead.items() if limits.get(name)})

    extended = {name: up(amount, NANO) for name, amount in requests.items() if amount and _is_extended(name)}
    return Effective(_levels(requests), _levels(limits), extended)


def _together(
    containers: Iterable[Container], initial: Iterable[Container], of: Callable[[Container], Amounts]
) -> tuple[Amounts, frozenset[str]]:
    """The most that the pod needs at any time, and the resources that are set (not zero) in each of its phases.

    As the kubelet has it, a phase of initialising is what the sidecars before it and the container itself sum up to.
    """
    phases: list[Amounts] = []
    running: Amounts = {}
    for container in containers:
        amounts = of(container)
        phases.append(amounts)
        _add(running, amounts)
    sidecars: Amounts = {}
    most: Amounts = {}
    for container in initial:
        phase = dict(sidecars)
        _add(phase, of(container))
        if container.restart_policy == "Always":
            _add(running, of(container))
            sidecars = phase
        phases.append(phase)
        most = {name: max(most.get(name, 0), phase.get(name, 0)) for name in most | phase}
    total = {name: max(running.get(name, 0), most.get(name, 0)) for name in running | most}
    return total, frozenset(name for name in total if all(phase.get(name) for phase in phases))


def _requests(container: Container, status: ContainerStatus | None) -> Amounts:
    wish = container.resources.requests if container.resources else None
    if status is None or (status.resources is None and status.allocated_resources is None):
        return _parsed(wish)  # the container has not been made yet
    return _resized(wish, status.allocated_resources or (status.resources.requests if status.resources else None))


def _limits(container: Container, status: ContainerStatus | None) -> Amounts:
    wish = container.resources.limits if container.resources else None
    if status is None or status.resources is None:
        return _parsed(wish)
    return _resized(wish, status.resources.limits)


def _resized(wish: Quantities | None, held: Quantities | None) -> Amounts:
    """What is held of all that a resize may change, and the wish for the rest."""
    fixed = {name: text for name, text in (wish or {}).items() if name not in _RESIZABLE}
    return _parsed(fixed | {name: text for name, text in (held or {}).items() if name in _RESIZABLE})


def _pod_level(quantities: Quantities | None) -> Amounts:
    """Of the pod's own values those that are counted."""
    return {
        name: amount
        for name, amount in _parsed(quantities).items()
        if name in _RESIZABLE or name.startswith("hugepages-")
    }


def _is_extended(name: str) -> bool:
    """Whether a device plugin or an administrator offers it, as `nvidia.com/gpu`; the rest is Kubernetes' own."""
    return "/" in name and "kubernetes.io/" not in name


def _levels(amounts: Amounts) -> dict[str, int]:
    """By meter. CPU counts in whole thousandths of a core and memory in bytes, both rounded up once, of the sum."""
    levels = {
        "cpu.time": up(amounts.get("cpu", 0), _MILLI) * _NS_PER_MS,
        "memory.working_set": up(amounts.get("memory", 0), NANO),
    }
    return {meter: level for meter, level in levels.items() if level}


def _parsed(quantities: Quantities | None) -> Amounts:
    return {name: nano(text) for name, text in (quantities or {}).items()}


def _add(total: Amounts, more: Amounts) -> None:
    for name, amount in more.items():
        total[name] = total.get(name, 0) + amount
