"""`simulate`: whose each pod would be, from files alone, by the same functions that the agent judges by."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from agent.cli.app import app

NEW = """\
sources: [{kind: kubernetes}]
meters: [{meter: cpu.time}]
customers:
  - {id: acme, match: [{namespace: acme-*}], ids: {bill: cus_acme}}
  - {id: blue, match: [{namespace_labels: "tenant in (blue, azure)"}]}
  - {id: gone, match: [{namespace: shared}], until: 2020-01-01}
  - {id: pool, match: [{node_labels: pool=pool}]}
attribution:
  pod_labels: {keys: [payer]}
  system: [{namespace: kube-system}]
sinks: [{id: bill, kind: cloudevents, role: copy, url: https://bill.example/x}]
"""

NAMESPACES: dict[str, dict[str, Any]] = {
    "acme-prod": {},
    "b": {"labels": {"tenant": "blue"}},
    "shared": {"annotations": {"billing/allowed-customers": "cus_acme"}},
    "kube-system": {},
}


def namespace(name: str) -> dict[str, Any]:
    """As the API server has it."""
    meta = {"name": name, "uid": f"ns-{name}", "creationTimestamp": "2026-01-01T00:00:00Z", **NAMESPACES[name]}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": meta, "status": {"phase": "Active"}}


def node(name: str, **labels: str) -> dict[str, Any]:
    """As the API server has it."""
    return {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "uid": f"node-{name}", "labels": labels}}


def pod(name: str, on: str | None = "n1", **labels: str) -> dict[str, Any]:
    """As the API server has it, `name` being namespace/name."""
    space, _, short = name.partition("/")
    meta = {"name": short, "namespace": space, "uid": f"uid-{short}", "creationTimestamp": "2026-02-01T00:00:00Z"}
    spec: dict[str, Any] = {"containers": [{"name": "c", "resources": {"requests": {"cpu": "100m"}}}]}
    spec |= {} if on is None else {"nodeName": on, "hostNetwork": False}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {**meta, "labels": labels}, "spec": spec}


OBJECTS = [
    *map(namespace, NAMESPACES),
    node("n1"),
    node("n2", pool="pool"),
    pod("acme-prod/web"),
    pod("b/db", payer="acme"),
    pod("shared/allowed", payer="cus_acme"),
    pod("shared/spoof", payer="blue"),
    pod("shared/pooled", "n2"),
    pod("shared/pending", None),
    pod("kube-system/dns"),
]


class Files:
    """A directory with configurations and objects."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.config = self.write("new.yaml", NEW)

    def write(self, name: str, text: str) -> str:
        """A file; its path."""
        (self.home / name).write_text(text)
        return str(self.home / name)

    def objects(self, *objects: dict[str, Any], name: str = "pods.json") -> str:
        """As kubectl lists them."""
        return self.write(name, json.dumps({"apiVersion": "v1", "kind": "List", "items": objects}))

    def simulate(self, *argv: str, code: int = 0) -> str:
        """The command's output; the test fails if it ends otherwise."""
        done = CliRunner().invoke(app, ["simulate", "--config", self.config, *argv])
        assert done.exit_code == code, done.output
        return done.output

    def fates(self, *argv: str) -> dict[str, str]:
        """Pod → whose."""
        return {fate["pod"]: fate["to"] for fate in json.loads(self.simulate(*argv, "--json"))["pods"]}


@pytest.fixture
def files(tmp_path: Path) -> Files:
    """A sound configuration, to begin with."""
    return Files(tmp_path)


EXPECTED = {
    "acme-prod/web": "acme",
    "b/db": "blue",
    "kube-system/dns": "system",
    "shared/allowed": "acme",
    "shared/pending": "unattributed",
    "shared/pooled": "pool",
    "shared/spoof": "unattributed",
}


def test_each_pod_goes_where_the_agent_would_book_it(files: Files) -> None:
    """By name, namespace, node and what the namespace lets its pods say; what acts no more decides nothing."""
    assert files.fates("--pods", files.objects(*OBJECTS)) == EXPECTED
    said = files.simulate("--pods", files.objects(*OBJECTS))
    assert "b/db             blue          customers[blue].match[0] namespace_labels=tenant in (azure,blue)" in said
    assert "attribution.pod_labels payer=cus_acme, which namespace shared allows" in said
    assert "7 pods: 2 acme, 1 blue, 1 pool, 1 system, 2 unattributed." in said


def test_what_is_refused_is_said_to_be(files: Files) -> None:
    """A pod that names whom its namespace does not allow, whoever is billed in the end."""
    found = json.loads(files.simulate("--pods", files.objects(*OBJECTS), "--json"))
    assert {f["pod"]: f["refused"] for f in found["pods"] if f["refused"]} == {
        "b/db": ["payer=acme"],
        "shared/spoof": ["payer=blue"],
    }
    assert "Refused: shared/spoof claims payer=blue" in files.simulate("--pods", files.objects(*OBJECTS))


def test_yaml_json_and_several_files_say_the_same(files: Files) -> None:
    """A List, documents one after another, a PodList whose members do not say what they are."""
    listed = files.write("list.yaml", yaml.safe_dump({"kind": "List", "items": OBJECTS}))
    apart = files.write("apart.yaml", yaml.safe_dump_all(OBJECTS))
    others = files.objects(*(o for o in OBJECTS if o["kind"] != "Pod"), name="others.json")
    bare = [{k: v for k, v in o.items() if k not in ("kind", "apiVersion")} for o in OBJECTS if o["kind"] == "Pod"]
    pods = files.write("podlist.json", json.dumps({"kind": "PodList", "metadata": {}, "items": bare}))
    assert files.fates("--pods", listed) == EXPECTED
    assert files.fates("--pods", apart) == EXPECTED
    assert files.fates("--pods", others, "--pods", pods) == EXPECTED


def test_labels_in_yaml_stay_what_was_written(files: Files) -> None:
    """`on` and `010` are no booleans and no octals: they name customers."""
    config = NEW.replace("namespace: acme-*", 'namespace_labels: "tenant in (on, 010)"')
    files.config = files.write("new.yaml", config)
    text = "".join(
        f"---\nkind: Namespace\nmetadata: {{name: {n}, uid: {n}, labels: {{tenant: {value}}}}}\n---\nkind: Pod\n"
        f"metadata: {{name: p, namespace: {n}, uid: u{n}}}\nspec: {{containers: [], hostNetwork: true, nodeName: n1}}\n"
        for n, value in (("x", "on"), ("y", "010"), ("z", "'8'"))
    )
    path = files.write("pods.yaml", text + "---\nkind: Node\nmetadata: {name: n1, uid: n1, labels: }\n")
    assert files.fates("--pods", path) == {"x/p": "acme", "y/p": "acme", "z/p": "unattributed"}


def test_a_change_shows_what_it_would_move(files: Files) -> None:
    """Pod, from, to and by which rule; what stays is only counted."""
    old = files.write("old.yaml", NEW.replace("tenant in (blue, azure)", "tenant=green"))
    argv = ("--pods", files.objects(*OBJECTS), "--against", old)
    (moved,) = json.loads(files.simulate(*argv, "--json"))["moved"]
    assert (moved["pod"], moved["before"], moved["after"]) == ("b/db", "unattributed", "blue")
    said = files.simulate(*argv)
    assert "b/db  unattributed  blue  customers[blue].match[0]" in said
    assert "acme-prod/web " not in said
    assert "1 would move." in said
    assert json.loads(files.simulate("--pods", files.objects(*OBJECTS), "--json"))["moved"] is None


def test_half_a_cluster_is_refused(files: Files) -> None:
    """Without its namespace or its node a pod could be anybody's."""
    without = files.objects(*(o for o in OBJECTS if o["metadata"]["name"] not in ("b", "n2")))
    said = files.simulate("--pods", without, code=2)
    assert "namespaces of pods are not in it: b. Write what `kubectl get pods,namespaces,nodes -A -o json`" in said
    assert "nodes of pods are not in it: n2." in said
    files.config = files.write("new.yaml", NEW.replace("{node_labels: pool=pool}", "{namespace: pool}"))
    assert files.fates("--pods", files.objects(*(o for o in OBJECTS if o["kind"] != "Node")))  # nothing asks for nodes


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no pod. Write what"),
        ("{", "neither JSON nor YAML"),
        ("a: [", "neither JSON nor YAML"),
        ("NAME READY\nweb 1/1\n", "no objects of Kubernetes"),
        ('{"items": []}', "no objects of Kubernetes"),
        ('{"kind": "Pod", "metadata": {"name": "web"}}', "Pod web: Object missing required field `uid`"),
        ('{"kind": "List", "items": [{"kind": "Service"}]}', "no pod. Write what"),
        ("\x00", "neither JSON nor YAML"),
    ],
)
def test_a_file_that_is_none_is_named_with_its_cure(files: Files, text: str, said: str) -> None:
    """Exit 2, as for a bad configuration."""
    assert said in files.simulate("--pods", files.write("pods", text), code=2)


def test_a_configuration_with_problems_is_refused_whichever_it_is(files: Files) -> None:
    """Exit 2; and a file that is not there likewise."""
    bad = files.write("bad.yaml", NEW + "nonsense: 1\n")
    assert "nonsense" in files.simulate("--pods", files.objects(*OBJECTS), "--against", bad, code=2)
    assert "cannot be read" in files.simulate("--pods", str(files.home / "none"), code=2)
