"""Programs that no lock installs, where they are found, and what helm makes of the chart."""

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from tests.cluster import programs as cluster
from tests.conftest import require
from tests.docs.pages import ROOT
from tests.kept import NotMadeError

CHART = ROOT / "helm/metering-agent"
KUBERNETES = "1.34.0"
RELEASE, NAMESPACE = "metering-agent", "metering"

Object = dict[str, Any]

# Everything that is off by default, on.
ALL_ON: Mapping[str, Any] = {
    "podMonitor": {"enabled": True},
    "prometheusRule": {"enabled": True},
    "dashboard": {"enabled": True},
    "admissionPolicy": {"enabled": True, "groups": ["platform"], "keys": ["paigoCustomerId"]},
}


def found(name: str) -> str | None:
    """Its path: what the environment's NAME says, on the PATH, or as the tests' cluster has it, made the first time."""
    there = os.environ.get(name.upper().replace("-", "_")) or shutil.which(name)
    if there is not None:
        return there
    try:
        return str(cluster.path(name))
    except (NotMadeError, OSError):
        return None


def program(name: str) -> str:
    """As `found`; without it the test skips, and in CI fails."""
    path = found(name)
    require(path is not None, f"{name} is not on the PATH, and cannot be made or fetched here")
    return str(path)


def helm(*arguments: str, values: Mapping[str, Any] | None = None) -> subprocess.CompletedProcess[str]:
    """One command of helm with these values, as a file is written by people."""
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "values.yaml"
        path.write_text(yaml.safe_dump(dict(values or {})))
        command = [program("helm"), *arguments, "--values", str(path)]
        return subprocess.run(command, capture_output=True, text=True, check=False)


def render(values: Mapping[str, Any] | None = None, *, namespace: str = NAMESPACE) -> list[Object]:
    """What would be installed, the pod of `helm test` included."""
    done = helm(
        *("template", RELEASE, str(CHART), "--namespace", namespace, "--kube-version", KUBERNETES), values=values
    )
    assert done.returncode == 0, done.stderr
    return [document for document in yaml.safe_load_all(done.stdout) if document]


def refused(values: Mapping[str, Any]) -> str:
    """What helm says to values that it must refuse."""
    done = helm("template", RELEASE, str(CHART), values=values)
    assert done.returncode != 0, json.dumps(values)
    return done.stderr


def of(objects: list[Object], kind: str, name: str = "") -> Object:
    """The one object of its kind, or of its kind and name."""
    found = [each for each in objects if each["kind"] == kind and (not name or each["metadata"]["name"] == name)]
    assert len(found) == 1, f"{kind} {name}: {len(found)}"
    return found[0]


def pod(objects: list[Object]) -> Object:
    """The spec of the agent's pods."""
    spec: Object = of(objects, "DaemonSet")["spec"]["template"]["spec"]
    return spec


def trials(objects: list[Object]) -> list[Object]:
    """The pods of `helm test`: one checks the file, one asks an agent."""
    return [each for each in objects if each["kind"] == "Pod"]


def written(objects: list[Object]) -> str:
    """agent.yaml as it is mounted."""
    text: str = of(objects, "ConfigMap", RELEASE)["data"]["agent.yaml"]
    return text
