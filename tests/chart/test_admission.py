"""A real API server takes the chart, grants what is listed, and lets only the platform say who pays (L11)."""

import itertools
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.chart.apiserver import ApiServer
from tests.chart.programs import ALL_ON, NAMESPACE, RELEASE, Object, render
from tests.chart.test_objects import FOREIGN, VALUES
from tests.chart.test_privileges import READS

pytestmark = [pytest.mark.real, pytest.mark.timeout(180)]

KEYS = ("billing/customer", "paigoCustomerId")  # by the configuration, and by `admissionPolicy.keys`
REPLICASETS = "system:serviceaccount:kube-system:replicaset-controller"
EFFECT_SECONDS = 30  # until a new policy is in force
NAMES = (f"n{number}" for number in itertools.count())


def meta(kind: str, key: str, value: str, **more: str) -> Object:
    """Metadata with one label or annotation; `kind` is which."""
    return {kind: {key: value, "app": "web"}} | more


def workload(kind: str, metadata: Object) -> Object:
    """An object of `kind` whose pods have this metadata."""
    labels = metadata.get("labels", {}) | {"app": "web"}
    containers = [{"name": "web", "image": "web:1"}]
    pods = {
        "metadata": metadata | {"labels": labels},
        "spec": {"containers": containers, "restartPolicy": "Never" if kind in {"Job", "CronJob"} else "Always"},
    }
    selector = {"matchLabels": {"app": "web"}}
    version = {"CronJob": "batch/v1", "Job": "batch/v1", "ReplicationController": "v1"}.get(kind, "apps/v1")
    spec: Object = {"template": pods}
    if kind == "CronJob":
        spec = {"schedule": "0 * * * *", "jobTemplate": {"spec": spec}}
    elif kind == "ReplicationController":
        spec["selector"] = {"app": "web"}
    elif kind != "Job":
        spec["selector"] = selector
    if kind == "StatefulSet":
        spec["serviceName"] = "web"
    return {"apiVersion": version, "kind": kind, "metadata": {"name": next(NAMES)}, "spec": spec}


def a_pod(metadata: Object) -> Object:
    """A pod of one container."""
    spec = {"containers": [{"name": "web", "image": "web:1"}]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": next(NAMES)} | metadata, "spec": spec}


def a_namespace(metadata: Object) -> Object:
    """A namespace."""
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": next(NAMES)} | metadata}


@pytest.fixture(scope="module")
def guarded(apiserver: ApiServer) -> Iterator[ApiServer]:
    """The API server with the policies in force, and tenants that may do everything else."""
    policies = [each for each in render(ALL_ON) if each["kind"].startswith("ValidatingAdmissionPolicy")]
    assert len(policies) == 6
    apiserver.done("create", "namespace", "shop")
    everything = {"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}
    role = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": "tenants"}}
    apiserver.done("create", "--filename=-", objects=[role | {"rules": [everything]}])
    apiserver.done("create", "clusterrolebinding", "tenants", "--clusterrole=tenants", "--group=tenants")
    apiserver.done("create", "clusterrolebinding", "platform", "--clusterrole=tenants", "--group=platform")
    apiserver.done("create", "clusterrolebinding", "controller", "--clusterrole=tenants", f"--user={REPLICASETS}")
    apiserver.done("apply", "--filename=-", objects=policies)
    deadline = time.monotonic() + EFFECT_SECONDS
    probes = (
        a_pod(meta("labels", KEYS[0], "x")),
        *(workload(kind, meta("labels", KEYS[0], "x")) for kind in ("Job", "CronJob")),
    )
    while not all(refuses(apiserver, each) for each in probes):
        assert time.monotonic() < deadline, "the policies never came into force"
        time.sleep(0.5)
    yield apiserver
    apiserver.done("delete", "--filename=-", objects=policies)


def try_to(server: ApiServer, each: Object, *verb: str, who: str = "tenants", user: str = "eve") -> str:
    """What the server says against it; empty if nothing. `who` is the group."""
    space = () if each["kind"] == "Namespace" else ("--namespace=shop",)
    command = verb or ("create", "--dry-run=server")
    done = server.ask(*command, "--filename=-", *space, objects=[each], user=user, groups=(who,))
    return "" if done.returncode == 0 else done.stderr


def refuses(server: ApiServer, each: Object, *verb: str) -> bool:
    """Whether the policy, and nothing else, keeps a tenant from it."""
    said = try_to(server, each, *verb)
    assert not said or "only the platform may set, change or remove" in said, said
    return bool(said)


@pytest.mark.parametrize("values", VALUES.values(), ids=VALUES)
def test_a_real_api_server_takes_every_object(apiserver: ApiServer, values: dict[str, Any]) -> None:
    """By a dry run at the server, with unknown and doubled fields refused."""
    apiserver.ask("create", "namespace", NAMESPACE)
    objects = [each for each in render(values) if each["apiVersion"] not in FOREIGN]
    options = ("--dry-run=server", "--validate=strict")
    said = apiserver.done("create", *options, "--filename=-", objects=objects)
    assert len(said.splitlines()) == len(objects)


def test_the_account_may_do_what_is_listed_and_nothing_else(apiserver: ApiServer) -> None:
    """As the server's own authorizer sees it, less what every account may (discovery, and asking what it may)."""
    apiserver.ask("create", "namespace", NAMESPACE)
    roles = [each for each in render() if each["kind"] in {"ClusterRole", "ClusterRoleBinding", "ServiceAccount"}]
    apiserver.done("apply", "--filename=-", objects=roles)
    account, bare = (f"system:serviceaccount:{NAMESPACE}:{name}" for name in (RELEASE, "nobody"))
    groups = ("system:serviceaccounts", f"system:serviceaccounts:{NAMESPACE}", "system:authenticated")

    def listed(user: str) -> set[str]:
        done = apiserver.ask("auth", "can-i", "--list", f"--namespace={NAMESPACE}", user=user, groups=groups)
        assert done.returncode == 0, done.stderr
        return {" ".join(line.split()) for line in done.stdout.splitlines()[1:]}

    added = listed(account) - listed(bare)
    assert {line.partition(" ")[0] for line in added} == {resource for _, resource, _ in READS}
    assert all(line.endswith("[list watch]") for line in added)
    for act in ("get secrets", "list secrets", "get nodes/proxy", "create pods", "get pods/log", "patch namespaces"):
        asked = apiserver.ask("auth", "can-i", *act.split(), "--all-namespaces", user=account, groups=groups)
        assert asked.stdout.strip() == "no", act
    apiserver.done("delete", "--filename=-", objects=roles)


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("kind", ["labels", "annotations"])
def test_a_tenant_cannot_say_who_pays_and_the_platform_can(guarded: ApiServer, kind: str, key: str) -> None:
    """On a pod, on a namespace, and in every template that a controller makes pods from."""
    kinds = ("Deployment", "ReplicaSet", "StatefulSet", "DaemonSet", "Job", "CronJob", "ReplicationController")
    metadata = meta(kind, key, "globex")
    made = (a_pod(metadata), a_namespace(metadata), *(workload(each, metadata) for each in kinds))
    for each in made:
        assert key in try_to(guarded, each), each["kind"]
        assert try_to(guarded, each, who="platform") == "", each["kind"]


def test_what_names_no_customer_is_nobodys_business(guarded: ApiServer) -> None:
    """Other labels, or none at all, in templates too."""
    for metadata in ({}, meta("labels", "team", "a"), meta("annotations", "billing/customers", "a")):
        for each in (
            a_pod(metadata),
            a_namespace(metadata),
            workload("Deployment", metadata),
            workload("CronJob", metadata),
        ):
            assert try_to(guarded, each) == "", each


@pytest.mark.parametrize("make", [a_pod, a_namespace, lambda metadata: workload("Deployment", metadata)])
def test_what_the_platform_has_set_stays_until_the_platform_changes_it(guarded: ApiServer, make: Any) -> None:
    """A tenant goes on working with the object, but can neither change nor remove, nor move it to the annotations."""
    each = make(meta("labels", KEYS[0], "acme"))
    template = each["spec"]["template"] if each["kind"] == "Deployment" else each
    assert try_to(guarded, each, "create", who="platform") == ""
    each["metadata"] = each["metadata"] | {"annotations": {"note": "mine"}}
    assert not refuses(guarded, each, "replace")
    for labels in ({KEYS[0]: "globex"}, {}, {KEYS[0]: ""}, {KEYS[0]: "acme", KEYS[1]: "globex"}):
        template["metadata"]["labels"] = labels | {"app": "web"}
        assert refuses(guarded, each, "replace"), labels
    template["metadata"]["labels"] = {KEYS[0]: "globex", "app": "web"}
    assert try_to(guarded, each, "replace", who="platform") == ""


def test_subresources_are_no_way_round(guarded: ApiServer) -> None:
    """A status or a binding can carry labels and annotations as well."""
    each = a_pod({})
    assert not refuses(guarded, each, "create")
    name, patch = each["metadata"]["name"], '{"metadata":{"labels":{"billing/customer":"globex"}}}'
    for options in ((), ("--subresource=status",)):
        done = guarded.ask(
            *("patch", "pod", name, "--namespace=shop", f"--patch={patch}", *options), user="eve", groups=("tenants",)
        )
        assert "only the platform may" in done.stderr, options
    binding = {
        "apiVersion": "v1",
        "kind": "Binding",
        "metadata": {"name": name, "annotations": {"billing/customer": "globex"}},
        "target": {"kind": "Node", "name": "node-a"},
    }
    raw = ("create", "--raw", f"/api/v1/namespaces/shop/pods/{name}/binding")
    assert refuses(guarded, binding, *raw)
    assert refuses(guarded, binding, "create", "--raw", "/api/v1/namespaces/shop/bindings")
    status = ("patch", "namespace", "shop", "--subresource=status", f"--patch={patch}")
    assert "only the platform may" in guarded.ask(*status, user="eve", groups=("tenants",)).stderr


def test_controllers_make_what_was_admitted_as_a_template(guarded: ApiServer) -> None:
    """The pods of a platform's Deployment are made in the controller's name, not the platform's."""
    each = a_pod(meta("labels", KEYS[0], "acme"))
    assert try_to(guarded, each, user=REPLICASETS, who="system:serviceaccounts") == ""
    other = "system:serviceaccount:shop:operator"
    assert "only the platform may" in try_to(guarded, each, user=other, who="tenants")


def test_the_server_finds_the_expressions_well_typed(guarded: ApiServer) -> None:
    """Its own checker, against the schemas of what is guarded."""
    warnings = "jsonpath={.items[*].status.typeChecking.expressionWarnings}"
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        assert guarded.done("get", "validatingadmissionpolicies", f"--output={warnings}") == ""
        observed = guarded.done("get", "validatingadmissionpolicies", "--output=jsonpath={.items[*].status}")
        if observed:
            return
        time.sleep(0.5)
