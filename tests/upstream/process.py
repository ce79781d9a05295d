"""The hostile billing system as a process beside a test: started, told what to do, read, stopped."""

import datetime as dt
import http.client
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

import trustme

from tests.upstream.store import Totals, read

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Certificates:
    """PEM files: of the authority, of the server, and of a client that it would take."""

    ca: Path
    cert: Path
    key: Path
    client: Path


class Upstream:
    """One billing system. Its store stays when it is stopped, and it goes on there when it is started again."""

    def __init__(
        self, store: Path, plan: dict[str, Any] | None = None, *, tls: Certificates | None = None, mutual: bool = False
    ) -> None:
        """Start it on a free port. `plan`: see `plan.py`. `mutual`: it asks for a client's certificate."""
        self.store, self._plan, self._tls, self._mutual = store, dict(plan or {}), tls, mutual
        self.url = self.control = ""
        self.start()

    def start(self) -> None:
        """Start it, or again at the port that it had."""
        port = urlsplit(self.url).port or 0
        options = ["--store", str(self.store), "--plan", json.dumps(self._plan), "--port", str(port)]
        if self._tls is not None:
            options += ["--cert", str(self._tls.cert), "--key", str(self._tls.key)]
        if self._tls is not None and self._mutual:
            options += ["--client-ca", str(self._tls.ca)]
        self.process = subprocess.Popen(command(*options), cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, "it did not start"
        told = json.loads(line)
        self.url, self.control = told["url"], told["control"]

    def stop(self) -> None:
        """Kill it, as it may be at any instant; safe to call twice."""
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()

    def set_plan(self, **plan: Any) -> None:
        """From now on with these values; the others stay. A script and a seed begin anew."""
        self._plan.update(plan)
        self._control("PUT", "/plan", plan)

    def set_certificate(self, tls: Certificates) -> None:
        """New connections see another certificate."""
        self._tls = tls
        self._control("PUT", "/certificate", {"cert": str(tls.cert), "key": str(tls.key)})

    def struck(self) -> Counter[str]:
        """How often each fault struck, and `none`, since it was started."""
        return Counter(self._control("GET", "/struck"))

    def totals(self) -> Totals:
        """What it holds, also when it is stopped."""
        return read(self.store)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    def _control(self, method: str, path: str, body: object = None) -> Any:
        address = urlsplit(self.control)
        connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=10)
        try:
            connection.request(method, path, json.dumps(body))
            response = connection.getresponse()
            answer = json.loads(response.read())
        finally:
            connection.close()
        if response.status != 200:
            raise ValueError(answer["detail"])
        return answer


def command(*options: str) -> Sequence[str]:
    """How the server is run; it dies with us, if a test forgets it."""
    return ["setpriv", "--pdeathsig=KILL", sys.executable, "-m", "tests.upstream.server", *options]


def certificates(directory: Path, authority: trustme.CA, *, expired: bool = False) -> Certificates:
    """Certificates for 127.0.0.1 in files, the server's past its time if `expired`."""
    directory.mkdir(parents=True, exist_ok=True)
    past = dt.datetime(2001, 1, 1, tzinfo=dt.UTC) if expired else None
    server, client = authority.issue_cert("127.0.0.1", not_after=past), authority.issue_cert("agent.example")
    made = Certificates(*(directory / name for name in ("ca.pem", "cert.pem", "key.pem", "client.pem")))
    authority.cert_pem.write_to_path(made.ca)
    server.private_key_pem.write_to_path(made.key)
    made.cert.write_bytes(b"".join(blob.bytes() for blob in server.cert_chain_pems))
    client.private_key_and_cert_chain_pem.write_to_path(made.client)
    return made
