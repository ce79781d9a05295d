"""OpenTelemetry Collector with hostmetrics and nothing else, built by its own builder at pinned versions, and cached.

The newest versions are not served by every module proxy. Leave these alone until both sides are measured anew:
a peer that changes under a comparison is none.
"""

import fcntl
import hashlib
import os
import shutil
import subprocess
from pathlib import Path

VERSION, PROVIDERS = "v0.145.0", "v1.51.0"
BUILDER = f"go.opentelemetry.io/collector/cmd/builder@{VERSION}"
MINUTES = 20  # a build takes two, most of it the compiler's
RECIPE = f"""\
dist: {{name: otelcol, description: hostmetrics only, version: {VERSION[1:]}, output_path: ./build}}
receivers:
  - gomod: github.com/open-telemetry/opentelemetry-collector-contrib/receiver/hostmetricsreceiver {VERSION}
processors:
  - gomod: go.opentelemetry.io/collector/processor/batchprocessor {VERSION}
exporters:
  - gomod: github.com/open-telemetry/opentelemetry-collector-contrib/exporter/fileexporter {VERSION}
providers:
  - gomod: go.opentelemetry.io/collector/confmap/provider/fileprovider {PROVIDERS}
  - gomod: go.opentelemetry.io/collector/confmap/provider/envprovider {PROVIDERS}
"""


class NotBuiltError(Exception):
    """There is no Collector to compare with; the text says why."""


def built(*, build: bool) -> Path:
    """The program, from the cache or, if `build` is set, made now. Raises NotBuiltError."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "metering-agent"
    program = cache / f"otelcol-{hashlib.sha256(RECIPE.encode()).hexdigest()[:12]}" / "otelcol"
    if program.exists():
        return program
    if not build:
        raise NotBuiltError(f"{program} was not built, and is not by this run")
    if shutil.which("go") is None:
        raise NotBuiltError("building it needs go")
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "otelcol.lock").open("w") as lock:  # two benches build once
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not program.exists():
            print(f"building OpenTelemetry Collector {VERSION}: about two minutes, once", flush=True)
            _build(program)
    return program


def _build(program: Path) -> None:
    partial = program.parent.with_suffix(".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    (partial / "recipe.yaml").write_text(RECIPE)
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
