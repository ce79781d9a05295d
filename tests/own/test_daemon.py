"""The real agent on the real kernel, with systems of one's own: killed, they hold what the kernel counted."""

import gzip
import json
import time
from decimal import Decimal
from pathlib import Path

import pytest

from tests.faults.process import Agent, Delivered, configuration
from tests.own.gateway import Gateway
from tests.own.kafka import Kafka
from tests.own.postgres import Postgres
from tests.real.burners import anchor

pytestmark = [pytest.mark.real, pytest.mark.timeout(200)]


def test_every_system_holds_what_the_kernel_counted(
    server: Postgres, gateway: Gateway, broker: Kafka, tmp_path: Path
) -> None:
    """Billed into the database, copied to the others; SIGKILL while it delivers, three times."""
    own: dict[str, dict[str, object]] = {
        "postgres": {"url": server.url, "table": "daemon", "password_file": str(server.password_file)},
        "s3": {
            "url": f"s3://{gateway.bucket.name}/daemon",
            "endpoint": gateway.endpoint,
            "credentials_file": str(gateway.credentials_file),
        },
        "kafka": {"servers": broker.servers, "topic": broker.topic("daemon"), "plaintext": True},
    }
    sinks = [
        {"id": kind, "kind": kind, "role": "billing" if kind == "postgres" else "copy", **keys}
        for kind, keys in own.items()
    ]
    sinks.append({"id": "audit", "kind": "file", "path": str(tmp_path / "audit"), "role": "copy"})
    with anchor() as top:
        customer = top.child("a.slice")
        steady = customer.child("steady")
        config = configuration(tmp_path, top.name, {"a": [customer.name]}, sinks=sinks)
        agent = Agent(config).ready()
        steady.burn_steadily()
        for seconds in (11.0, 3.0, 8.0):
            time.sleep(seconds)
            agent.kill()
            agent = Agent(config).ready()
        steady.end()
        truth = customer.used()
        time.sleep(2)
        assert agent.stop() == 0, agent.said()
    lines = Delivered(tmp_path / "audit").records
    billed = {line["id"] for line in lines if line["kind"] == "usage"}
    rows = server.rows("SELECT id::text, customer, quantity FROM daemon")
    assert sum(quantity for _, customer_, quantity in rows if customer_ == "a") == Decimal(truth)
    assert {name for name, _, _ in rows} == billed
    files = [gzip.decompress(body).splitlines() for body in gateway.files("daemon").values()]
    assert sorted(json.loads(line)["id"] for file in files for line in file) == sorted(line["id"] for line in lines)
    assert {json.loads(message.value() or b"")["id"] for message in broker.messages("daemon")} == {
        line["id"] for line in lines
    }
