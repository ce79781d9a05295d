"""Which cgroups are pods, by the kubelet's names alone, and which pod a process is in."""

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.sources.kubernetes.names import classes, holding, uid_of
from tests.sources.kubernetes.node import uid

CAPTURE = Path(__file__).parent / "captures/cgroup-files-sidecar-pod.txt"
ANCHORS = ("kubepods", "kubepods.slice", "kube/kubepods", "kubelet.slice/kubelet-kubepods.slice")

uids = st.uuids().map(str) | st.text("0123456789abcdef", min_size=32, max_size=32)
steps = st.text("abcdefp-_.0123456789", min_size=1, max_size=12).filter(lambda s: s not in (".", ".."))


def made_by_kubelet(anchor: str, level: str, pod: str) -> str:
    """Where the kubelet of that anchor's driver puts a pod of a class; "" is Guaranteed."""
    if not anchor.endswith(".slice"):
        return "/".join([anchor, *([level] if level else []), f"pod{pod}"])
    stem = anchor.rpartition("/")[2].removesuffix(".slice")
    names = [stem, *([level] if level else []), f"pod{pod.replace('-', '_')}"]
    slices = ["-".join(names[: n + 1]) + ".slice" for n in range(1, len(names))]
    return "/".join([anchor, *slices])


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("kubepods/pod" + uid(1), uid(1)),
        ("kubepods/burstable/pod" + uid(1), uid(1)),
        ("kubepods/besteffort/pod8634a4017a396d7d78eb1852a3a4e7df", "8634a4017a396d7d78eb1852a3a4e7df"),
        (
            "kubepods.slice/kubepods-pod01e2fc0f_738a_492e_9eb8_740fcae5f6d7.slice",
            "01e2fc0f-738a-492e-9eb8-740fcae5f6d7",
        ),
        (
            "kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod8634a4017a396d7d78eb1852a3a4e7df.slice",
            "8634a4017a396d7d78eb1852a3a4e7df",
        ),
        ("kubepods", None),
        ("kubepods/burstable", None),
        ("kubepods/burstable/" + "0d83509391d1c58e" * 4, None),
        ("kubepods/burstable/pod" + uid(1) + "/" + "0d83509391d1c58e" * 4, None),
        ("kubepods/burstable/pod" + uid(1) + "/ctr/pod" + uid(2), None),
        ("kubepods/burstable/pod" + uid(1) + "/pod" + uid(2), None),
        ("kubepods/mine/pod" + uid(1), None),
        ("kubepods.slice/pod" + uid(1), None),
        ("kubepods.slice/kubepods-burstable-pod01e2fc0f.slice", None),
        ("kubepods.slice/kubepods-burstable.slice/cri-containerd-0d83.scope", None),
        ("user.slice/kubepods/burstable/pod" + uid(1), None),
    ],
)
def test_a_pod_is_what_the_kubelet_names_so(path: str, expected: str | None) -> None:
    """At the kubelet's own places only: never a container, nor what is made in a pod."""
    assert uid_of(("kubepods", "kubepods.slice"), path) == expected


def test_the_tree_of_a_real_node() -> None:
    """Golden: pods of every class and a static one; never their containers or the sandbox among them."""
    tree = CAPTURE.read_text().partition("## tree (cpuacct)\n")[2].partition("##")[0]
    paths = [line.removeprefix("/sys/fs/cgroup/cpuacct/") for line in tree.split()]
    found = {path: pod for path in paths if (pod := uid_of(("kubepods",), path)) is not None}
    assert set(found) == {path for path in paths if re.search(r"/pod[^/]*$", path)}
    assert [pod for pod in found.values() if "-" not in pod] == ["8634a4017a396d7d78eb1852a3a4e7df"]
    assert {path.count("/") for path in found} == {1, 2}


@given(st.sampled_from(ANCHORS), st.sampled_from(["", "burstable", "besteffort"]), uids, st.lists(steps, max_size=3))
def test_names_there_and_back(anchor: str, level: str, pod: str, below: list[str]) -> None:
    """For both drivers, below any --cgroup-root, every UID comes back; and nothing below its group is a pod."""
    path = made_by_kubelet(anchor, level, pod)
    assert uid_of(ANCHORS, path) == pod
    assert level == "" or path.rpartition("/")[0] in classes(anchor)
    if below:
        assert uid_of(ANCHORS, "/".join([path, *below])) is None


@given(st.sampled_from(ANCHORS), st.sampled_from(["", "burstable"]), uids, st.lists(steps, max_size=3))
def test_a_process_is_in_the_pod_whose_path_it_shows(anchor: str, level: str, pod: str, below: list[str]) -> None:
    """In full to a reader of the node's own cgroup namespace."""
    path = made_by_kubelet(anchor, level, pod)
    known = {path.rpartition("/")[2]: path}
    assert holding(known, "/".join(["", path, *below])) == path
    assert holding(known, "/".join(["/user.slice", path, *below])) is None, "not made by the kubelet"


@given(st.sampled_from(ANCHORS), st.sampled_from(["", "burstable"]), uids, st.lists(steps, max_size=3), st.data())
def test_a_reader_in_its_own_cgroup_namespace_sees_ends_of_paths(
    anchor: str, level: str, pod: str, below: list[str], data: st.DataObject
) -> None:
    """As cgroup_namespaces(7) has it: so many steps up, and down again to the process."""
    path = made_by_kubelet(anchor, level, pod)
    parts = path.split("/")
    common = data.draw(st.integers(0, len(parts) - 1))
    up = data.draw(st.integers(1, 4))
    shown = "/".join(["", *[".."] * up, *parts[common:], *below])
    assert holding({parts[-1]: path}, shown) == path
    other = "/".join(["", *[".."] * up, "user.slice", *parts[common:], *below])
    assert holding({parts[-1]: path}, other) is None


def test_a_tenant_cannot_name_itself_into_another_pod() -> None:
    """Only the first name that could be a pod's counts: what is below it belongs to that pod."""
    mine, other = f"kubepods/besteffort/pod{uid(1)}", f"kubepods/besteffort/pod{uid(2)}"
    known = {path.rpartition("/")[2]: path for path in (mine, other)}
    assert holding(known, f"/{mine}/ctr/kubepods/besteffort/pod{uid(2)}") == mine
    assert holding(known, f"/../../pod{uid(1)}/ctr/pod{uid(2)}") == mine
    assert holding({f"pod{uid(2)}": other}, f"/../../pod{uid(1)}/ctr/pod{uid(2)}") is None
