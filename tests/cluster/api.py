"""The API server and the kubelet as a test asks them: JSON over one kept connection that lies in the node's network."""

import ctypes
import http.client
import json
import os
import socket
import ssl
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

CLONE_NEWNET = 0x40000000  # <linux/sched.h>
JSON, MERGE = "application/json", "application/merge-patch+json"
_libc = ctypes.CDLL(None, use_errno=True)


class RefusedError(Exception):
    """An answer of 400 or above. `status`: its code; the text has what the server said."""

    def __init__(self, status: int, said: str) -> None:
        self.status = status
        super().__init__(said)


@contextmanager
def network_of(pid: int) -> Iterator[None]:
    """Inside, sockets that this thread makes belong to the network of process `pid`; they stay there afterwards."""
    here, there = os.open("/proc/thread-self/ns/net", os.O_RDONLY), -1
    try:
        there = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY)
        _enter(there)
        try:
            yield
        finally:
            _enter(here)
    finally:
        os.close(here)
        if there >= 0:
            os.close(there)


def _enter(descriptor: int) -> None:
    if _libc.setns(descriptor, CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")


class Server:
    """One server of the node with address `url`, asked as the administrator, or with `token` as somebody else.

    Each thread has a connection of its own.
    """

    def __init__(self, pid: int, url: str, etc: Path, *, token: str | None = None, timeout: float = 60) -> None:
        self._pid, self._address, self._timeout = pid, urlsplit(url), timeout
        self._headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        self._context = ssl.create_default_context(cafile=etc / "ca.crt")
        if token is None:
            self._context.load_cert_chain(etc / "admin-client.crt", etc / "admin-client.key")
        self._local = threading.local()
        self._open: list[http.client.HTTPConnection] = []

    def close(self) -> None:
        """Close the connections of all threads. Asking again opens a new one."""
        self._local = threading.local()
        while self._open:
            self._open.pop().close()

    def get(self, path: str, **query: str) -> Any:
        """The answer's JSON."""
        return json.loads(self.ask("GET", f"{path}?{urlencode(query)}" if query else path))

    def post(self, path: str, body: Mapping[str, Any]) -> Any:
        """Create an object, or call a subresource."""
        return json.loads(self.ask("POST", path, body))

    def patch(self, path: str, body: Mapping[str, Any]) -> Any:
        """Merge `body` into an object; None removes."""
        return json.loads(self.ask("PATCH", path, body, MERGE))

    def delete(self, path: str, *, grace: int | None = None) -> None:
        """Delete an object; gone already is fine. `grace`: seconds that a pod is given."""
        try:
            self.ask("DELETE", path, {} if grace is None else {"gracePeriodSeconds": grace})
        except RefusedError as e:
            if e.status != http.client.NOT_FOUND:
                raise

    def ask(self, method: str, path: str, body: Mapping[str, Any] | None = None, kind: str = JSON) -> bytes:
        """The answer's bytes. RefusedError for 400 and above, OSError or HTTPException if none comes."""
        data = None if body is None else json.dumps(body).encode()
        fresh = getattr(self._local, "connection", None) is None
        try:
            status, said = self._asked(method, path, data, kind)
        except (OSError, http.client.HTTPException):
            if fresh or method != "GET":
                raise
            status, said = self._asked(method, path, data, kind)  # the server had closed an idle connection
        if status >= http.client.BAD_REQUEST:
            raise RefusedError(status, f"{method} {path}: {status} {said.decode(errors='replace')[:500]}")
        return said

    def _asked(self, method: str, path: str, data: bytes | None, kind: str) -> tuple[int, bytes]:
        connection = getattr(self._local, "connection", None) or self._connected()
        try:
            connection.request(method, path, data, {**self._headers, "Content-Type": kind})
            with connection.getresponse() as answer:
                return answer.status, answer.read()
        except (OSError, http.client.HTTPException):
            self._local.connection = None
            self._open.remove(connection)
            connection.close()
            raise

    def _connected(self) -> http.client.HTTPConnection:
        host, port = self._address.hostname or "", self._address.port or 443
        with network_of(self._pid):
            plain = socket.create_connection((host, port), timeout=self._timeout)
        connection: http.client.HTTPConnection
        try:
            if self._address.scheme == "https":
                connection = http.client.HTTPSConnection(host, port)
                connection.sock = self._context.wrap_socket(plain, server_hostname=host)
            else:
                connection = http.client.HTTPConnection(host, port)
                connection.sock = plain
        except OSError:
            plain.close()
            raise
        self._open.append(connection)
        self._local.connection = connection
        return connection
