"""An S3 server of the test's own, Versity's, over a directory: what it holds can be read as files."""

import http.client
import signal
import subprocess
import time
from pathlib import Path
from typing import Self

from tests.own.postgres import free_port
from tests.own.programs import gateway

KEY, SECRET = "metering", "s3cret-gateway"


class Gateway:
    """One server on a port of the loopback, with one bucket."""

    def __init__(self, directory: Path, bucket: str = "lake") -> None:
        self._program, self._home, self.bucket = gateway(), directory, directory / "data" / bucket
        self.bucket.mkdir(parents=True)
        (directory / "iam").mkdir()
        self.credentials_file = directory / "credentials"
        self.credentials_file.write_text(f"[default]\naws_access_key_id = {KEY}\naws_secret_access_key = {SECRET}\n")
        self.port = free_port()
        self.endpoint = f"http://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.end(signal.SIGTERM)

    def start(self) -> None:
        """Until it answers."""
        options = ("--access", KEY, "--secret", SECRET, "--port", f"127.0.0.1:{self.port}")
        iam, data = str(self._home / "iam"), str(self._home / "data")
        with (self._home / "log").open("ab") as log:
            command = [str(self._program), *options, "--iam-dir", iam, "posix", data]
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        for _ in range(400):
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
            try:
                connection.request("GET", "/")
                connection.getresponse().read()
            except OSError:
                time.sleep(0.02)
            else:
                return
            finally:
                connection.close()
        raise TimeoutError("the gateway does not answer")

    def end(self, by: signal.Signals = signal.SIGKILL) -> None:
        """End it."""
        assert self._process is not None
        self._process.send_signal(by)
        self._process.wait(20)

    def files(self, prefix: str) -> dict[str, bytes]:
        """What lies in the bucket below a prefix, by name, as the disk has it."""
        below = self.bucket / prefix
        return {str(path.relative_to(below)): path.read_bytes() for path in below.rglob("*") if path.is_file()}
