"""Who we are to the API server: a pod's service account, or what a kubeconfig says.

A service account is two files and two variables of the environment. A kubeconfig is read by the `kubernetes` package,
which knows its tokens, certificates and plugins; it is imported for nothing else and nowhere else, for it costs 35 MiB.
"""

import asyncio
import importlib.util
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from agent.address import is_loopback
from agent.credentials import Tls, Token, Trust, UnusableError
from agent.errors import SourceError
from agent.sources.kubernetes.access import Credential

if TYPE_CHECKING:
    from kubernetes.client import Configuration

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
PLUGIN_SECONDS = 60.0  # how long a kubeconfig's plugin may take to make a credential


class ServiceAccount:
    """A pod's own account. The kubelet renews the token on disk, so that the file is read for each request."""

    def __init__(self, environ: Mapping[str, str] = os.environ, directory: Path = SERVICE_ACCOUNT) -> None:
        host, port = environ.get("KUBERNETES_SERVICE_HOST"), environ.get("KUBERNETES_SERVICE_PORT")
        if not host or not port:
            raise SourceError(
                "KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT are not set: this process runs in no pod. "
                "Give sources[].kubeconfig"
            )
        self._url = f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"
        self._token, self._trust = Token(directory / "token"), Trust(Tls(ca_file=directory / "ca.crt"))

    async def credential(self, *, anew: bool = False) -> Credential:  # noqa: ARG002 - it is read anew each time
        """The token as it stands in its file. Raises UnusableError."""
        return Credential(self._url, self._trust, f"Bearer {self._token.again()}")


class Kubeconfig:
    """A user's access, as the `kubernetes` package reads it. Plugins block, so they run on another thread."""

    def __init__(self, path: Path) -> None:
        if importlib.util.find_spec("kubernetes") is None:
            raise SourceError("sources[].kubeconfig needs the package `kubernetes`: install metering-agent[kubernetes]")
        self._path = path
        self._loaded: Configuration | None = None
        self._trusts: dict[Tls, Trust] = {}
        self._reading: asyncio.Future[Credential] | None = None

    async def credential(self, *, anew: bool = False) -> Credential:
        """What the file and its plugin give. Raises UnusableError."""
        if self._reading is None or self._reading.done():
            self._reading = asyncio.ensure_future(asyncio.to_thread(self._read, anew))
        done, _ = await asyncio.wait([self._reading], timeout=PLUGIN_SECONDS)
        if not done:
            raise self._unusable(f"no credential within {PLUGIN_SECONDS:g} s")
        return self._reading.result()

    def _read(self, anew: bool) -> Credential:
        from kubernetes.client import Configuration
        from kubernetes.config import load_kube_config

        try:
            if self._loaded is None or anew:
                loaded = Configuration()
                loaded.proxy = None  # else the environment's; what is there after loading is the file's own
                load_kube_config(str(self._path), client_configuration=loaded, persist_config=False)  # type: ignore[no-untyped-call]
                self._loaded = loaded
            authorization = self._loaded.auth_settings().get("BearerToken", {}).get("value")
        except Exception as error:  # its own, YAML's, the system's, and those of a file that is nothing like it
            raise self._unusable(" ".join(str(error).split()) or type(error).__name__) from error
        return self._checked(self._loaded, authorization)

    def _checked(self, loaded: "Configuration", authorization: str | None) -> Credential:
        named = loaded.ssl_ca_cert, loaded.cert_file, loaded.key_file
        ca, cert, key = (Path(path) if path else None for path in named)
        if not loaded.verify_ssl:
            raise self._unusable("insecure-skip-tls-verify would show us to anybody. Remove it")
        if loaded.proxy is not None:
            raise self._unusable("proxy-url is not supported. Give the server's own address")
        if authorization is None and cert is None and not is_loopback(loaded.host):
            raise self._unusable("gives no credential. If a plugin makes it, its own words are in the log")
        tls = Tls(ca, cert, key)
        trust = self._trusts.setdefault(tls, Trust(tls)) if loaded.host.startswith("https:") else None
        return Credential(loaded.host, trust, authorization, loaded.tls_server_name)

    def _unusable(self, why: object) -> UnusableError:
        return UnusableError(f"kubeconfig: {self._path}: {why}")
