"""What counts of a pod: the same numbers as the scheduler's and the kubelet's."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.sources.kubernetes.effective import Effective, effective
from agent.sources.kubernetes.objects import Pod

MI = 1 << 20


def resources(cpu: str | None = None, memory: str | None = None, **others: str) -> dict[str, str]:
    """Those that are given; `nvidia_gpu` for nvidia.com/gpu."""
    given_ = {"cpu": cpu, "memory": memory} | {name.replace("_", ".com/"): text for name, text in others.items()}
    return {name: text for name, text in given_.items() if text is not None}


def container(
    name: str, requests: dict[str, str] | None = None, limits: dict[str, str] | None = None, *, sidecar: bool = False
) -> dict[str, Any]:
    """A container as the API writes it."""
    made: dict[str, Any] = {"name": name, "resources": {"requests": requests or {}, "limits": limits or {}}}
    return made | ({"restartPolicy": "Always"} if sidecar else {})


def counted(*containers: dict[str, Any], status: dict[str, Any] | None = None, **spec: Any) -> Effective:
    """What counts of a pod with these containers. Through JSON, as it comes."""
    pod = {"metadata": {"name": "a", "uid": "u"}, "spec": {"containers": containers, **spec}, "status": status or {}}
    return effective(msgspec.json.decode(msgspec.json.encode(pod), type=Pod))


def requested(cpu: int, memory: int) -> dict[str, int]:
    """Thousandths of a core, and MiB, as levels."""
    return {meter: level for meter, level in (("cpu.time", cpu * 1000), ("memory.working_set", memory * MI)) if level}


def test_containers_are_summed() -> None:
    """One core is a million ns per ms."""
    assert counted(
        container("a", resources("1", "64Mi")), container("b", resources("250m", "64Mi"))
    ).requests == requested(1250, 128)


def test_a_sum_is_rounded_once() -> None:
    """Three times a third of a thousandth is one, not three; bytes likewise."""
    third = container("a", resources("0.000333333", "0.333333333"))
    assert counted(third, third, third).requests == {"cpu.time": 1000, "memory.working_set": 1}


def test_the_largest_of_the_init_containers_counts_not_their_sum() -> None:
    """They run one after another, before the others."""
    initial = [container("i", resources("500m", "10Mi")), container("j", resources("100m", "300Mi"))]
    assert counted(container("a", resources("200m", "64Mi")), initContainers=initial).requests == requested(500, 300)


def test_a_sidecar_counts_beside_the_containers_and_beside_later_init_containers() -> None:
    """And not beside earlier ones ("Sidecar Containers": resource sharing)."""
    initial = [
        container("before", resources("450m")),
        container("proxy", resources("100m"), sidecar=True),
        container("after", resources("400m")),
    ]
    assert counted(container("a", resources("200m")), initContainers=initial).requests == requested(500, 0)
    assert counted(container("a", resources("600m")), initContainers=initial).requests == requested(700, 0)


def test_the_overhead_comes_on_top() -> None:
    """Of requests always; of a limit where there is one."""
    made = counted(container("a", resources("100m"), resources("200m")), overhead=resources("10m", "5Mi"))
    assert made.requests == requested(110, 5)
    assert made.limits == requested(210, 0)


def test_values_of_the_pod_itself_take_the_place_of_its_containers() -> None:
    """CPU, memory and huge pages only; what they do not name stays."""
    inside = container("a", resources("100m", "64Mi", nvidia_gpu="1"), resources(memory="64Mi", nvidia_gpu="1"))
    whole = {"requests": resources("1", nvidia_gpu="9"), "limits": resources("2")}
    made = counted(inside, container("b"), resources=whole, overhead=resources("10m"))
    assert made.requests == requested(1010, 64)
    assert made.limits == requested(2010, 0), "b has no memory limit, and the pod has none either"
    assert made.extended == {"nvidia.com/gpu": 1}


@pytest.mark.parametrize(
    ("containers", "initial", "limits"),
    [
        ([resources("1", "1Mi"), resources("1", "1Mi")], [], requested(2000, 2)),
        ([resources("1", "1Mi"), resources("1")], [], requested(2000, 0)),
        ([resources("1", "1Mi"), resources("0", "1Mi")], [], requested(0, 2)),
        ([{}], [], {}),
        ([resources("1")], [(resources(), False)], {}),
        ([resources("1")], [(resources("3"), False)], requested(3000, 0)),
        ([resources("1")], [(resources(), True)], {}),
        ([resources("1")], [(resources("500m"), True)], requested(1500, 0)),
    ],
)
def test_a_limit_exists_only_where_everything_has_one(
    containers: list[dict[str, str]], initial: list[tuple[dict[str, str], bool]], limits: dict[str, int]
) -> None:
    """Else the kubelet puts none on the pod's group."""
    first = [container(f"i{n}", None, limit, sidecar=sidecar) for n, (limit, sidecar) in enumerate(initial)]
    made = counted(*(container(f"c{n}", None, limit) for n, limit in enumerate(containers)), initContainers=first)
    assert made.limits == limits


def status(allocated: dict[str, str] | None, requests: dict[str, str], limits: dict[str, str]) -> dict[str, Any]:
    """One container's status while it is resized."""
    in_force = {"requests": requests, "limits": limits}
    return {"name": "a", "resources": in_force, **({"allocatedResources": allocated} if allocated else {})}


def test_a_resize_counts_when_it_is_admitted() -> None:
    """`spec` is the wish; what the node allocated counts, else what is in force; of the rest the wish counts."""
    wish = container("a", resources("4", "1Gi", nvidia_gpu="1"), resources("8", "1Gi", nvidia_gpu="1"))
    held = status(resources("1", "64Mi", nvidia_gpu="1"), resources("999m", "64Mi"), resources("2", "64Mi"))
    for where in ("containerStatuses", "initContainerStatuses"):
        made = counted(wish, status={where: [held]})
        assert made.requests == requested(1000, 64)
        assert made.limits == requested(2000, 64)
        assert made.extended == {"nvidia.com/gpu": 1}
    before_1_33 = counted(wish, status={"containerStatuses": [status(None, resources("999m"), resources())]})
    assert before_1_33.requests == requested(999, 0)
    assert before_1_33.limits == {}, "a limit that is wished for is not there yet"


def test_before_a_container_is_made_the_wish_counts() -> None:
    """Its status says nothing of resources yet."""
    made = counted(container("a", resources("1"), resources("1")), status={"containerStatuses": [{"name": "a"}]})
    assert made.requests == made.limits == requested(1000, 0)


def test_a_pod_resized_as_a_whole_counts_what_is_allocated_with_its_overhead() -> None:
    """KEP-5419: the status has the overhead in it already."""
    held = {"allocatedResources": resources("310m")}
    whole = {"requests": resources("4")}
    assert counted(container("a"), resources=whole, overhead=resources("10m"), status=held).requests == requested(
        310, 0
    )


def test_extended_resources_are_those_that_somebody_else_offers() -> None:
    """Whole units; the containers share none, so they are summed."""
    asks = {"nvidia.com/gpu": "2", "hugepages-2Mi": "4Mi", "ephemeral-storage": "1Gi", "kubernetes.io/batch-cpu": "1"}
    assert counted(container("a", asks), container("b", {"nvidia.com/gpu": "1"})).extended == {"nvidia.com/gpu": 3}
    assert counted(container("a", {"nvidia.com/gpu": "0"})).extended == {}


amounts = st.integers(0, 4000).map(lambda milli: {"cpu": f"{milli}m"})


@given(main=st.lists(amounts, min_size=1, max_size=3), initial=st.lists(st.tuples(amounts, st.booleans()), max_size=4))
def test_a_pod_asks_for_the_most_that_it_needs_at_any_time(
    main: list[dict[str, str]], initial: list[tuple[dict[str, str], bool]]
) -> None:
    """Played through: the init containers in order, each with the sidecars so far, then the containers with all."""
    moments, sidecars = [], 0
    for ask, sidecar in initial:
        milli = int(ask["cpu"][:-1])
        moments.append(sidecars + milli)
        sidecars += milli if sidecar else 0
    moments.append(sidecars + sum(int(ask["cpu"][:-1]) for ask in main))
    first = [container(f"i{n}", ask, sidecar=sidecar) for n, (ask, sidecar) in enumerate(initial)]
    made = counted(*(container(f"c{n}", ask) for n, ask in enumerate(main)), initContainers=first)
    assert made.requests == requested(max(moments), 0)
