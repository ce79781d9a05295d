"""Alerts and dashboard ask for what the agent says, in words that Prometheus understands."""

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from agent.telemetry import METRICS
from tests.chart.programs import ALL_ON, CHART, NAMESPACE, RELEASE, of, program, render
from tests.docs.pages import block, page, section

DASHBOARD: dict[str, Any] = json.loads((CHART / "files/dashboard.json").read_text())
PANELS: list[dict[str, Any]] = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
ADDED = {"node", "instance"}  # by the PodMonitor and by Prometheus
# Asked of others than the agent: kube-state-metrics.
FOREIGN = {"kube_daemonset_status_number_unavailable"}


def targets() -> Iterator[tuple[str, str, str]]:
    """(title, expression, legend) of the dashboard."""
    for panel in PANELS:
        for target in panel["targets"]:
            yield panel["title"], target["expr"], target["legendFormat"]


def check_rules(document: object, where: Path) -> str:
    """What promtool says against the rules; empty if nothing."""
    (where / "rules.yaml").write_text(yaml.safe_dump(document))
    command = [program("promtool"), "check", "rules", "--lint=all", "--lint-fatal", str(where / "rules.yaml")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else done.stdout + done.stderr


def test_the_alerts_are_those_of_the_page() -> None:
    """Word for word: the page is what people read."""
    assert (CHART / "files/alerts.yaml").read_text() == block(section(page("docs/metrics.md"), "Alerts"), "yaml")


@pytest.mark.parametrize(("title", "expression", "legend"), list(targets()), ids=lambda value: value[:24])
def test_the_dashboard_asks_for_metrics_and_labels_that_exist(title: str, expression: str, legend: str) -> None:
    """A panel over a metric that nobody has is empty for ever."""
    labels = {metric.name: set(metric.labels) for metric in METRICS}
    labels |= {f"{metric.name}_bucket": {*metric.labels, "le"} for metric in METRICS if metric.type == "histogram"}
    asked = re.findall(r"(?:metering|process)_\w+", expression)
    assert asked, title
    assert set(asked) <= labels.keys(), title
    having = ADDED.union(*(labels[name] for name in asked))
    wanted = set(re.findall(r"(\w+)(?:=~?|!=)\"", expression))
    for grouped in re.findall(r"(?:by|on) \(([\w, ]+)\)", expression):
        wanted |= set(grouped.split(", "))
    assert wanted <= having, title
    kept = {name for names in re.findall(r"by \(([\w, ]+)\)", expression) for name in names.split(", ")}
    assert set(re.findall(r"{{(\w+)}}", legend)) <= kept, title


def test_the_dashboards_panels_lie_side_by_side() -> None:
    """None over another, none beyond the edge; every one has a title, a text and the chosen data source."""
    cells: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        mine = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not mine & cells
        assert max(x for x, _ in mine) < 24
        cells |= mine
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
    for panel in PANELS:
        assert panel["title"]
        assert panel["description"].endswith(".")
        assert panel["datasource"]["uid"] == "${datasource}"


@pytest.mark.real
def test_prometheus_understands_every_expression(tmp_path: Path) -> None:
    """Those of the alerts as the operator would hand them on, those of the panels as rules made for the purpose."""
    rule = of(render(ALL_ON), "PrometheusRule")
    assert check_rules(rule["spec"], tmp_path) == ""
    asked = [expression.replace("$node", ".*") for _, expression, _ in targets()]
    rules = [{"record": f"panel:{number}", "expr": expression} for number, expression in enumerate(asked)]
    assert check_rules({"groups": [{"name": "panels", "rules": rules}]}, tmp_path) == ""


@pytest.mark.real
def test_the_rules_of_the_chart_are_the_pages_and_one_of_a_nodes_own() -> None:
    """A node without an agent is usage that nobody sees."""
    groups = of(render(ALL_ON), "PrometheusRule")["spec"]["groups"]
    assert groups[:1] == yaml.safe_load((CHART / "files/alerts.yaml").read_text())["groups"]
    (added,) = groups[1]["rules"]
    assert set(re.findall(r"\b[a-z]+_[a-z_]+(?={)", added["expr"])) == FOREIGN
    assert f'namespace="{NAMESPACE}",daemonset="{RELEASE}"' in added["expr"]


@pytest.mark.real
def test_prometheus_and_grafana_find_what_is_meant_for_them() -> None:
    """The monitor selects the agent's pods by the port that they name; the sidecar finds its label."""
    objects = render(ALL_ON)
    monitor = of(objects, "PodMonitor")["spec"]
    pods = of(objects, "DaemonSet")["spec"]["template"]
    assert monitor["selector"]["matchLabels"].items() <= pods["metadata"]["labels"].items()
    (endpoint,) = monitor["podMetricsEndpoints"]
    assert endpoint["port"] in {each["name"] for each in pods["spec"]["containers"][0]["ports"]}
    dashboard = of(objects, "ConfigMap", f"{RELEASE}-dashboard")
    assert dashboard["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert json.loads(dashboard["data"]["metering-agent.json"]) == DASHBOARD


@pytest.mark.real
def test_nothing_of_another_project_is_installed_unasked() -> None:
    """A cluster without the operator would refuse the whole chart."""
    assert {each["apiVersion"] for each in render()} <= {
        *("v1", "apps/v1", "networking.k8s.io/v1", "rbac.authorization.k8s.io/v1")
    }
