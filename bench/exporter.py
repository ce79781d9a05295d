"""OpenTelemetry Collector as a peer of delivery: its OTLP exporter with a queue on disk, to the same receiver.

It is fed while nobody listens, so that all of it lies in its queue; then the receiver starts. Its queue takes and
hands out requests as they came and never splits or joins them; a request with so many data points is a batch.
"""

import socket
import time
from contextlib import ExitStack
from pathlib import Path

import msgspec
from msgspec import Struct

from bench import collector
from bench.process import alive, cpu_ns, started, status
from bench.receiver import receiving

START_SECONDS = 20.0
NOON = 1_800_000_000_000_000_000
WINDOW = 300_000_000_000


class Exported(Struct):
    """What it came to; times in seconds, sizes in bytes."""

    seconds: float
    cpu: float
    resident: int  # before anything is sent
    last: int
    most: int


def configuration(listen: int, send: int, concurrency: int, storage: Path, *, synced: bool) -> str:
    """From one local port to another through a queue on disk."""
    return f"""\
receivers: {{otlp: {{protocols: {{http: {{endpoint: "127.0.0.1:{listen}"}}}}}}}}
exporters:
  otlphttp:
    metrics_endpoint: http://127.0.0.1:{send}/events
    compression: none
    encoding: json
    retry_on_failure: {{initial_interval: 1s, max_interval: 1s, randomization_factor: 0, max_elapsed_time: 0s}}
    sending_queue: {{storage: file_storage, queue_size: 1000000, num_consumers: {concurrency}}}
extensions: {{file_storage: {{directory: {storage}, fsync: {str(synced).lower()}}}}}
service:
  extensions: [file_storage]
  telemetry: {{metrics: {{level: none}}, logs: {{level: error}}}}
  pipelines: {{metrics: {{receivers: [otlp], exporters: [otlphttp]}}}}
"""


def exported(requests: int, batch: int, concurrency: int, data: Path, *, synced: bool, build: bool) -> Exported:
    """Export so many requests of so many data points. `synced`: each change of its queue, which it is not by default.

    Raises NotBuiltError.
    """
    program = collector.built("node", build=build)
    listen, send = _free_port(), _free_port()
    storage = data / "storage"
    storage.mkdir()
    config = data / "otelcol.yaml"
    config.write_text(configuration(listen, send, concurrency, storage, synced=synced))
    with ExitStack() as stack:
        process = started([str(program), "--config", str(config)], data / "otelcol.log", stack)
        _feed(listen, requests, batch)
        cpu, resident = cpu_ns(alive(process)), status("VmRSS", process.pid)
        took = stack.enter_context(receiving(send, requests)).took_all()
        spent = (cpu_ns(alive(process)) - cpu) / 1e9
        last, most = status("VmRSS", process.pid), status("VmHWM", process.pid)
        return Exported(took.last - took.first, spent, resident, last, most)


def _feed(port: int, requests: int, batch: int) -> None:
    """Post so many requests to it, one after the other; each is in its queue when it is answered."""
    body = msgspec.json.encode({"resourceMetrics": [{"scopeMetrics": [{"metrics": [_metric(batch)]}]}]})
    head = (
        f"POST /v1/metrics HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    with _connected(port) as connection:
        for _ in range(requests):
            connection.sendall(head.encode() + body)
            said = connection.recv(65536)
            if not said.startswith(b"HTTP/1.1 200"):
                raise RuntimeError(f"the Collector did not take it: {said[:200]!r}")


def _metric(points: int) -> dict[str, object]:
    """A sum with so many data points, each with what a usage record of one customer says."""
    told = [
        {
            "startTimeUnixNano": NOON,
            "timeUnixNano": NOON + WINDOW,
            "asInt": WINDOW + n,
            "attributes": [
                {"key": "customer", "value": {"stringValue": f"customer-{n % 80}"}},
                {"key": "namespace", "value": {"stringValue": f"customer-{n % 80}-prod"}},
            ],
        }
        for n in range(points)
    ]
    total = {"dataPoints": told, "aggregationTemporality": 1, "isMonotonic": True}
    return {"name": "cpu_core_seconds", "sum": total}


def _connected(port: int) -> socket.socket:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port))
        except ConnectionRefusedError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
