"""The cluster that tests and demos talk to."""

import json
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tests.cluster import components, images, pki
from tests.cluster.addresses import API, NODE, NODE_IP
from tests.cluster.api import Server
from tests.cluster.components import COMPONENTS
from tests.cluster.hierarchies import Groups, abandoned
from tests.cluster.node import ROOT, Node
from tests.cluster.programs import clients, path, servers
from tests.cluster.waiting import until

DIRECTORY = ROOT / ".run/cluster"  # of the one that `make cluster` leaves up
Object = Mapping[str, Any]
KUBE_PROXY = {  # what a cluster's installer grants
    "apiVersion": "rbac.authorization.k8s.io/v1",
    "kind": "ClusterRoleBinding",
    "metadata": {"name": "node-proxier"},
    "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "system:node-proxier"},
    "subjects": [{"kind": "User", "name": "system:kube-proxy"}],
}


class Cluster:
    """One node with everything on it. `node` is how the machine sees it; `api` is the API server, as administrator.

    What pods keep in the node's /var/lib and /var/log is below node.directory, what they keep elsewhere at node.path.
    """

    def __init__(self, directory: Path, tag: str, *, bound: bool) -> None:
        """See Node for the arguments. Nothing is started; a cluster that is up in `directory` is taken as it is."""
        self.node = Node(directory, tag, bound=bound)
        if self.node.pid():
            self.api = self.server(API)

    def up(self, *, max_pods: int = components.MAX_PODS, say: Callable[[str], None] = print) -> None:
        """Bring everything up and wait until a pod can be admitted; what is up already stays."""
        last = time.monotonic()

        def step(what: str) -> None:
            nonlocal last
            now = time.monotonic()
            say(f"{now - last:7.1f} s  {what}")
            last = now

        servers(), clients()
        archives = images.workload()
        step("programs and images, from the cache unless new")
        if not self.node.pid():
            for tag in abandoned():
                Groups(tag).remove()
            shutil.rmtree(self.node.directory, ignore_errors=True)
            pki.write(self.node.etc)
            components.configure(self.node.etc, max_pods=max_pods)
            self.node.boot()
            self.api = self.server(API)
            step("certificates, configuration, namespaces")
        for name in ("etcd", "containerd"):
            self.node.start(name)
        self.wait_for("etcd")
        self.node.start("kube-apiserver")
        self.wait_for("containerd")
        for archive in archives:
            self.load(archive)
        self.wait_for("kube-apiserver")
        step("etcd, containerd with images, API server")
        self.apply(KUBE_PROXY)
        for name in COMPONENTS:
            self.node.start(name)
        for name in COMPONENTS:
            self.wait_for(name)
        step("controllers, scheduler, kubelet, proxy; node Ready")
        until(lambda: self.api.get("/api/v1/namespaces/default/serviceaccounts/default"), "pods can be admitted")
        step("the default service account: pods can be admitted")

    def down(self) -> None:
        """End it and remove what it left."""
        if self.node.pid():
            self.api.close()
        self.node.remove()

    def server(self, url: str, *, token: str | None = None) -> Server:
        """Another server of the node, such as the kubelet, or the same ones as whom `token` says."""
        pid = self.node.pid()
        assert pid is not None, "no cluster is up"
        return Server(pid, url, self.node.etc, token=token)

    @property
    def kubelet_url(self) -> str:
        """Where the kubelet answers those who may ask."""
        return f"https://{NODE_IP}:10250"

    # ------------------------------------------------------------------------------------------------- components

    def start(self, name: str) -> None:
        """Start a component and wait until it is at work."""
        self.node.start(name)
        self.wait_for(name)

    def stop(self, name: str) -> None:
        """SIGTERM; the component is gone afterwards."""
        self.node.end(name)

    def kill(self, name: str) -> None:
        """SIGKILL; the component is gone afterwards."""
        self.node.end(name, signal.SIGKILL)

    def wait_for(self, name: str) -> None:
        """Until a component answers; the kubelet also says that the node is Ready. Fails at once if it has ended."""
        probe = COMPONENTS[name].probe

        def at_work() -> bool:
            if self.node.pid(name) is None:
                raise RuntimeError(f"{name} ended:\n{self.node.log(name)}")
            if name == "containerd":
                return bool(self.run(str(path("ctr")), "version"))
            server.ask("GET", urlsplit(probe).path)
            return name != "kubelet" or self.ready()

        with closing(self.server(probe)) as server:
            until(at_work, f"{name} is at work")

    def ready(self) -> bool:
        """Whether the node says that pods can run on it."""
        conditions = self.api.get(f"/api/v1/nodes/{NODE}")["status"]["conditions"]
        return any(condition["type"] == "Ready" and condition["status"] == "True" for condition in conditions)

    def cpu_ns(self, name: str) -> int:
        """CPU time of a component in ns, by the kernel; containerd's has its shims in it."""
        return self.node.groups.cpu_ns(f"system.slice/{name}.service")

    # ------------------------------------------------------------------------------------------------- programs

    def run(self, *argv: str, stdin: str | None = None, timeout: float = 600) -> str:
        """What a command, run in the node, wrote to its output; CalledProcessError with what it said if it fails."""
        return _output(self.node.inside(*argv), stdin, timeout)

    def client(self, program: str, *argv: str) -> list[str]:
        """The command line of kubectl, helm or helm3 as the administrator.

        What they keep of a server's answers lies with the node: in a home they would take one cluster for another.
        """
        own = self.node.directory / "clients"
        homes = (f"{name}={own}" for name in ("KUBECACHEDIR", "HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME"))
        config = f"KUBECONFIG={self.node.etc}/admin.kubeconfig"
        return self.node.inside("env", config, *homes, str(path(program)), *argv)

    def kubectl(self, *argv: str, stdin: str | None = None, timeout: float = 600) -> str:
        """What kubectl says."""
        return _output(self.client("kubectl", *argv), stdin, timeout)

    def helm(self, *argv: str, program: str = "helm", timeout: float = 600) -> str:
        """What helm says: version 4, or 3 as `helm3`."""
        return _output(self.client(program, *argv), None, timeout)

    def apply(self, *objects: Object) -> None:
        """Make or change objects, as `kubectl apply` does."""
        self.kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", stdin=_listed(objects))

    def remove(self, *objects: Object) -> None:
        """Delete objects, and wait until they are gone."""
        self.kubectl("delete", "--ignore-not-found", "--wait", "-f", "-", stdin=_listed(objects))

    # ------------------------------------------------------------------------------------------------- pods

    def pod(self, where: str, name: str) -> Any:
        """A pod as the API server has it. RefusedError (404) if there is none."""
        return self.api.get(f"/api/v1/namespaces/{where}/pods/{name}")

    def in_phase(self, where: str, name: str, *phases: str) -> Any:
        """The pod, once it is in one of these phases."""

        def pod() -> Any:
            found = self.pod(where, name)
            return found if found["status"].get("phase") in phases else None

        return until(pod, f"{where}/{name} is {' or '.join(phases)}")

    def resize(self, where: str, name: str, **resources: Mapping[str, str]) -> None:
        """Give the first container of a running pod other `requests` or `limits`, in place."""
        container = self.pod(where, name)["spec"]["containers"][0]["name"]
        change = {"spec": {"containers": [{"name": container, "resources": resources}]}}
        self.kubectl("patch", "pod", "-n", where, name, "--subresource=resize", f"--patch={json.dumps(change)}")

    def place(self, pod: Object) -> None:
        """Make a static pod, or change it: the kubelet runs it by itself, the API server has a mirror of it."""
        manifest = self.node.etc / "manifests" / f"{pod['metadata']['name']}.json"
        fresh = manifest.with_name(f".{manifest.name}")  # the kubelet passes over names that begin so
        fresh.write_text(json.dumps(pod))
        fresh.rename(manifest)

    def displace(self, pod: Object) -> None:
        """End a static pod."""
        (self.node.etc / "manifests" / f"{pod['metadata']['name']}.json").unlink()

    def load(self, archive: Path) -> None:
        """Make an image known to the node; the archive is a docker-archive."""
        self.run(str(path("ctr")), "-n", "k8s.io", "images", "import", str(archive))


def standing() -> Cluster:
    """The one that stays up until it is told to go.

    Several trees may have one up; the name of its control groups is all that they could share.
    """
    return Cluster(DIRECTORY, f"at-{sha256(str(DIRECTORY).encode()).hexdigest()[:8]}", bound=False)


def _listed(objects: Iterable[Object]) -> str:
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": [*objects]})


def _output(command: list[str], stdin: str | None, timeout: float) -> str:
    done = subprocess.run(command, input=stdin or "", text=True, capture_output=True, timeout=timeout, check=False)
    if done.returncode != 0:
        said = f"{done.stdout[-2000:]}{done.stderr[-4000:]}"
        raise CommandError(done.returncode, command, said)
    return done.stdout


class CommandError(subprocess.CalledProcessError):
    """A command failed; its text holds what it said."""

    def __str__(self) -> str:
        return f"{' '.join(map(str, self.cmd))} (exit {self.returncode}):\n{self.output}"
