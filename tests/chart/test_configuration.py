"""The file that the chart writes is one that the agent reads, and a change of it reaches the agents."""

from typing import Any

import pytest
import yaml

from agent import config
from agent.daemon import RESTART_ONLY
from agent.kinds import KINDS
from tests.chart.programs import ALL_ON, Object, of, pod, refused, render, trials, written

pytestmark = pytest.mark.real

ENVIRON = {"NODE_NAME": "node-a", "POD_IP": "10.1.2.3", "HOST_IP": "192.0.2.7"}
NODE = {
    "sources": [{"kind": "cgroups", "root": "/host", "include": ["system.slice/*.service"]}],
    "meters": [{"meter": "cpu.time", "group_by": ["unit"]}],
    "attribution": {"customer_labels": None},
}
CHECKSUM = "checksum/restart-only"
CHANGES: dict[str, Any] = {
    "agent.data_dir": "/srv/usage",
    "agent.run_dir": "/run/usage",
    "agent.cluster": "prod-eu",
    "agent.node": "${NODE_NAME}.eu",
    "agent.sample_interval": "10s",
    "telemetry.listen": "${POD_IP}:9109",
    "telemetry.customer_labels": True,
    "spool.max_bytes": "2GiB",
    "spool.reserve": "32MiB",
}


def template(objects: list[Object]) -> Object:
    """What, when it changes, rolls the DaemonSet."""
    found: Object = of(objects, "DaemonSet")["spec"]["template"]
    return found


def nested(key: str, value: object) -> dict[str, Any]:
    """`agent.node` → the values that set it."""
    section, _, name = key.partition(".")
    return {"config": {section: {name: value}}}


@pytest.mark.xfail("kubernetes" not in KINDS, reason="the source kubernetes is not here yet", strict=True)
def test_the_defaults_are_a_configuration() -> None:
    """`helm install` without a value meters."""
    loaded = config.parse(written(render()), "agent.yaml", KINDS, ENVIRON, now=0)
    assert [source.kind for source in loaded.sources] == ["kubernetes"]
    assert not loaded.customers


def test_what_values_say_is_what_the_agent_reads() -> None:
    """Dates stay dates, large numbers numbers; the node and the address are the pod's."""
    customers = [{"id": "acme", "from": "2026-01-01", "match": [{"uid": 1000660000}, {"unit": "off"}]}]
    loaded = config.parse(
        written(render({"config": {**NODE, "customers": customers}})), "agent.yaml", KINDS, ENVIRON, now=0
    )
    assert loaded.agent.node == "node-a"
    assert loaded.telemetry.listen == ("10.1.2.3", 9108)
    assert loaded.customers[0].since == 1767225600 * 10**9
    assert [match.uid or match.unit for match in loaded.customers[0].match] == ["1000660000", "off"]
    assert loaded.sources[0].id == "cgroups"


def test_an_address_of_version_6_is_written_in_brackets() -> None:
    """As everywhere."""
    values = {"config": {**NODE, "telemetry": {"listen": "[${POD_IP}]:9108"}}}
    environ = ENVIRON | {"POD_IP": "fd00::7"}
    loaded = config.parse(written(render(values)), "agent.yaml", KINDS, environ, now=0)
    assert loaded.telemetry.listen == ("fd00::7", 9108)


def test_every_variable_that_the_file_names_is_in_the_pods_environment() -> None:
    """In the test's pod too, which checks the same file."""
    objects = render(ALL_ON)
    for container in (pod(objects)["containers"][0], trials(objects)[0]["spec"]["containers"][0]):
        assert {each["name"] for each in container["env"]} == ENVIRON.keys()
        mounts = {each["name"]: each["mountPath"] for each in container["volumeMounts"]}
        assert mounts["config"] == "/etc/metering-agent"
        assert not any("subPath" in each for each in container["volumeMounts"])  # those never change


@pytest.mark.parametrize("key", RESTART_ONLY)
def test_what_is_fixed_while_the_agent_runs_rolls_the_daemonset(key: str) -> None:
    """The agent refuses such a change until it is started anew."""
    before, after = (template(render(values)) for values in (None, nested(key, CHANGES[key])))
    assert before["metadata"]["annotations"][CHECKSUM] != after["metadata"]["annotations"][CHECKSUM]


@pytest.mark.parametrize(
    "change",
    [
        {"customers": [{"id": "acme", "match": [{"namespace": "acme"}]}]},
        {"sinks": [{"id": "files", "kind": "file", "path": "/var/lib/metering-agent/out"}]},
        {"meters": [{"meter": "cpu.time"}]},
        {"agent": {"window": "10m"}},
        {"attribution": {"unattributed": {"hold": "24h"}}},
        {"spool": {"retention": "120d"}},
    ],
)
def test_all_else_is_reloaded_by_the_agents_and_rolls_nothing(change: dict[str, Any]) -> None:
    """A new customer must not restart a thousand agents."""
    before, after = render(), render({"config": change})
    assert template(before) == template(after)
    assert written(before) != written(after)


@pytest.mark.parametrize(
    ("budget", "seconds"), [("20s", 40), ("1ms", 21), ("1500ms", 22), ("2m", 140), ("1h", 3620), ("0s", 20)]
)
def test_the_grace_period_is_longer_than_the_budget_of_the_shutdown(budget: str, seconds: int) -> None:
    """What is killed early keeps its records in the spool, but delivers them late."""
    assert pod(render(nested("agent.shutdown_budget", budget)))["terminationGracePeriodSeconds"] == seconds


@pytest.mark.parametrize("listen", ["off", "127.0.0.1:9108", "${POD_IP}", 9108])
def test_telemetry_must_be_where_the_probes_ask(listen: object) -> None:
    """A pod that nobody can ask would never be ready."""
    assert "listen" in refused(nested("telemetry.listen", listen))


def test_probes_ask_what_they_are_for_and_bear_a_full_disk_for_minutes() -> None:
    """Readiness is the first sweep; liveness is not lost because a sink is down, for /healthz does not ask sinks."""
    container = pod(render())["containers"][0]
    paths = {name: container[f"{name}Probe"]["httpGet"]["path"] for name in ("startup", "liveness", "readiness")}
    assert paths == {"startup": "/healthz", "liveness": "/healthz", "readiness": "/readyz"}
    liveness = container["livenessProbe"]
    assert liveness["periodSeconds"] * liveness["failureThreshold"] == 300


def test_the_checksum_is_of_the_values_and_not_of_their_order() -> None:
    """An upgrade that changes nothing rolls nothing."""
    values = yaml.safe_load("{config: {agent: {sample_interval: 10s, cluster: a}}}")
    turned = yaml.safe_load("{config: {agent: {cluster: a, sample_interval: 10s}}}")
    assert template(render(values)) == template(render(turned))
