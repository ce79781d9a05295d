"""Every request of the sink against Paigo's own OpenAPI, which Prism serves and holds each request against.

The file is not ours to carry: it is read from beside the repository, and without it there is nothing to hold against.
"""

import asyncio
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from shutil import which

import httpx
import pytest

from tests.docs.pages import ROOT
from tests.sinks.doubles import served
from tests.sinks.paigo_double import Paigo
from tests.sinks.property import CUSTOMERS
from tests.sinks.test_cloudevents import submission
from tests.sinks.test_paigo import ACME, CPU, frozen, made

pytestmark = [pytest.mark.spec, pytest.mark.timeout(120)]

OPENAPI = ROOT.parent / "shared/reference/paigo-openapi-v1.10.yml"


@pytest.fixture(scope="module")
def prism(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of Prism, which answers as the file says that it would."""
    if not OPENAPI.exists():
        pytest.skip(f"Paigo's OpenAPI file is not beside this repository: {OPENAPI.name}")
    program = which("prism")
    if program is None:
        pytest.skip("prism is not on the PATH: npm install -g @stoplight/prism-cli")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = tmp_path_factory.mktemp("prism") / "log"
    with log.open("wb") as out:
        command = [program, "mock", "-h", "127.0.0.1", "-p", f"{port}", str(OPENAPI)]
        process = subprocess.Popen(command, stdout=out, stderr=out)
    try:
        deadline = time.monotonic() + 60
        while b"listening" not in log.read_bytes():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


def test_what_is_sent_and_asked_is_valid(prism: str, tmp_path: Path) -> None:
    """A record, a look and the list of dimensions; one that lacks a field is refused, so that Prism does look."""

    async def story() -> None:
        double = Paigo(now=time.time, customers=CUSTOMERS.values(), dimensions={CPU: "sum"})
        async with served(double) as url:
            sink = made(tmp_path, prism, token_url=f"{url}/oauth/token", unvouched=(CPU,))
            try:
                assert (await sink.send(frozen(sink))).outcome == "delivered"
                assert (await sink.send(submission(b'{"customerId": "x"}'))).definite
                look = await sink.look(frozen(sink))
                assert "not a customer's usage" in look.why  # taken; the file's own example is no list
                reached, dimension = await sink.ask()
                assert reached.ok, reached.why
                assert not dimension.ok  # it makes its dimensions up
            finally:
                await sink.close()

    asyncio.run(story())
    assert httpx.get(f"{prism}/customers/{ACME}/usage").status_code == 401  # it asks who we are
