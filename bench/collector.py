"""OpenTelemetry Collector, built by its own builder at pinned versions, and cached. Two builds, for both are fair.

`lean` has hostmetrics and nothing else. `node` also links what a Collector on a node has for the rest of its work
(kubelet statistics, OTLP, a queue on disk), which then is idle here. More than half of what either keeps resident is
its program. The newest versions are not served by every module proxy. Leave these alone until both sides are measured
anew: a peer that changes under a comparison is none.
"""

import fcntl
import hashlib
import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

VERSION, PROVIDERS = "v0.145.0", "v1.51.0"
BUILDER = f"go.opentelemetry.io/collector/cmd/builder@{VERSION}"
MINUTES = 20  # a build takes two, most of it the compiler's
CORE, CONTRIB = "go.opentelemetry.io/collector", "github.com/open-telemetry/opentelemetry-collector-contrib"
LEAN = {
    "receivers": [f"{CONTRIB}/receiver/hostmetricsreceiver {VERSION}"],
    "processors": [f"{CORE}/processor/batchprocessor {VERSION}"],
    "exporters": [f"{CONTRIB}/exporter/fileexporter {VERSION}"],
    "providers": [f"{CORE}/confmap/provider/{name}provider {PROVIDERS}" for name in ("file", "env")],
}
NODE = {
    **LEAN,
    "receivers": [
        *LEAN["receivers"],
        f"{CONTRIB}/receiver/kubeletstatsreceiver {VERSION}",
        f"{CORE}/receiver/otlpreceiver {VERSION}",
    ],
    "exporters": [*LEAN["exporters"], f"{CORE}/exporter/otlphttpexporter {VERSION}"],
    "extensions": [f"{CONTRIB}/extension/storage/filestorage {VERSION}"],
}
BUILDS = {"lean": LEAN, "node": NODE}


class NotBuiltError(Exception):
    """There is no Collector to compare with; the text says why."""


def built(name: str, *, build: bool) -> Path:
    """The program of one of BUILDS, from the cache or, if `build` is set, made now. Raises NotBuiltError."""
    recipe = _recipe(BUILDS[name])
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "metering-agent"
    program = cache / f"otelcol-{hashlib.sha256(recipe.encode()).hexdigest()[:12]}" / "otelcol"
    if program.exists():
        return program
    if not build:
        raise NotBuiltError("it is not in the cache, and a tiny run builds nothing")
    if shutil.which("go") is None:
        raise NotBuiltError("building it needs go")
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "otelcol.lock").open("w") as lock:  # two benches build once
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not program.exists():
            print(f"building OpenTelemetry Collector {VERSION} ({name}): minutes, once", flush=True)
            _build(program, recipe)
    return program


def _recipe(modules: Mapping[str, Sequence[str]]) -> str:
    lines = [f"dist: {{name: otelcol, description: {VERSION}, version: {VERSION[1:]}, output_path: ./build}}"]
    for kind, names in modules.items():
        lines += [f"{kind}:", *(f"  - gomod: {name}" for name in names)]
    return "\n".join(lines) + "\n"


def _build(program: Path, recipe: str) -> None:
    partial = program.parent.with_suffix(".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    (partial / "recipe.yaml").write_text(recipe)
    command = ["nice", "-n", "19", "timeout", f"{MINUTES}m", "go", "run", BUILDER, "--config", "recipe.yaml"]
    with (partial / "log").open("w+") as log:
        env = os.environ | {"CGO_ENABLED": "0"}
        done = subprocess.run(command, cwd=partial, env=env, stdout=log, stderr=subprocess.STDOUT, check=False)
        log.seek(0)
        said = log.read().strip().splitlines()
    if done.returncode != 0:
        raise NotBuiltError(f"the build failed: {said[-1] if said else 'without a word'} ({partial}/log has the rest)")
    program.parent.mkdir(exist_ok=True)
    (partial / "build/otelcol").rename(program)
    shutil.rmtree(partial)


def configuration(interval: int, out: Path) -> str:
    """What our host source measures, each `interval` seconds, batched and written to a file; no metrics of its own."""
    return f"""\
receivers:
  hostmetrics:
    collection_interval: {interval}s
    scrapers: {{cpu: {{}}, memory: {{}}, network: {{}}, disk: {{}}, filesystem: {{}}, system: {{}}}}
processors: {{batch: {{}}}}
exporters: {{file: {{path: {out}}}}}
service:
  telemetry: {{metrics: {{level: none}}, logs: {{level: warn}}}}
  pipelines: {{metrics: {{receivers: [hostmetrics], processors: [batch], exporters: [file]}}}}
"""


def kubelet_configuration(interval: int, url: str, etc: Path, out: Path) -> str:
    """What the kubelet at `url` says of pods and containers, each `interval` seconds, as `configuration` has it.

    `etc` holds ca.crt, and admin-client.crt with its key, which the kubelet takes for an administrator's.
    """
    return f"""\
receivers:
  kubeletstats:
    collection_interval: {interval}s
    endpoint: {url}
    auth_type: tls
    ca_file: {etc}/ca.crt
    cert_file: {etc}/admin-client.crt
    key_file: {etc}/admin-client.key
    metric_groups: [pod, container]
processors: {{batch: {{}}}}
exporters: {{file: {{path: {out}}}}}
service:
  telemetry: {{metrics: {{level: none}}, logs: {{level: warn}}}}
  pipelines: {{metrics: {{receivers: [kubeletstats], processors: [batch], exporters: [file]}}}}
"""
