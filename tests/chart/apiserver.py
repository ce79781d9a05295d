"""A real API server over a real etcd on loopback: enough to ask what is admitted and who may do what. No node."""

import json
import secrets
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trustme

from tests.chart.programs import Object, program

READY_SECONDS = 60
CLOSED = ("--insecure-skip-tls-verify", "--request-timeout=20s")


class ApiServer:
    """Asks the server by kubectl, as anybody."""

    def __init__(self, url: str, token: str) -> None:
        self._kubectl = [program("kubectl"), f"--server={url}", f"--token={token}", *CLOSED]

    def ask(
        self, *arguments: str, objects: list[Object] | None = None, user: str = "", groups: tuple[str, ...] = ()
    ) -> subprocess.CompletedProcess[str]:
        """One command, as `user` of `groups` (default: the administrator), with `objects` on its standard input."""
        given = None if objects is None else "\n".join(map(json.dumps, objects))
        who = [f"--as={user}", *(f"--as-group={group}" for group in groups)] if user else []
        command = [*self._kubectl, *arguments, *who]
        return subprocess.run(command, input=given, capture_output=True, text=True, check=False, timeout=60)

    def done(self, *arguments: str, objects: list[Object] | None = None) -> str:
        """One command of the administrator that must succeed; what it printed."""
        done = self.ask(*arguments, objects=objects)
        assert done.returncode == 0, done.stderr
        return done.stdout


@contextmanager
def running(directory: Path) -> Iterator[ApiServer]:
    """Bring both up in `directory`, and take them down."""
    etcd, peer, port = _free_ports(3)
    token = secrets.token_hex(16)
    (directory / "tokens").write_text(f"{token},admin,1,system:masters\n")
    trustme.CA().issue_cert("sa").private_key_pem.write_to_path(directory / "sa.key")
    store = f"http://127.0.0.1:{etcd}"
    commands = (
        [
            *(program("etcd"), "--data-dir", str(directory / "etcd"), "--unsafe-no-fsync", "--log-level=error"),
            *("--listen-client-urls", store, "--advertise-client-urls", store),
            *("--listen-peer-urls", f"http://127.0.0.1:{peer}"),
        ],
        [
            *(program("kube-apiserver"), f"--etcd-servers={store}", f"--secure-port={port}", "--v=0"),
            *("--bind-address=127.0.0.1", "--advertise-address=127.0.0.1", f"--cert-dir={directory / 'pki'}"),
            *("--endpoint-reconciler-type=none", "--service-cluster-ip-range=10.96.0.0/16"),
            *("--authorization-mode=RBAC", f"--token-auth-file={directory / 'tokens'}"),
            *("--service-account-issuer=https://cluster.example", f"--service-account-key-file={directory / 'sa.key'}"),
            f"--service-account-signing-key-file={directory / 'sa.key'}",
            "--disable-admission-plugins=ServiceAccount",  # nobody is here to make the accounts of a namespace
        ],
    )
    processes: list[subprocess.Popen[bytes]] = []
    with (directory / "log").open("wb") as log:
        try:
            processes += [subprocess.Popen(command, cwd=directory, stdout=log, stderr=log) for command in commands]
            server = ApiServer(f"https://127.0.0.1:{port}", token)
            _wait(server, processes, directory / "log")
            yield server
        finally:
            for process in reversed(processes):
                process.kill()
                process.wait()


@pytest.fixture(scope="session")
def apiserver() -> Iterator[ApiServer]:
    """One for all tests of a session; each works in a namespace of its own."""
    with tempfile.TemporaryDirectory(prefix="apiserver-") as scratch, running(Path(scratch)) as server:
        yield server


def _free_ports(number: int) -> list[int]:
    sockets = [socket.socket() for _ in range(number)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def _wait(server: ApiServer, processes: list[subprocess.Popen[bytes]], log: Path) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while server.ask("get", "--raw", "/readyz").returncode:
        dead = [process.args for process in processes if process.poll() is not None]
        assert not dead, log.read_text(errors="replace")[-4000:]
        assert time.monotonic() < deadline, log.read_text(errors="replace")[-4000:]
        time.sleep(0.2)
