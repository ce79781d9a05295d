"""How each program of a node is configured and started. Paths are the node's own: see `boot` for what it sees where."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.addresses import API_SERVICE, NODE, NODE_IP, POD_NET, SERVICE_NET
from tests.cluster.programs import PLUGINS, path

PAUSE = "cluster.local/pause:1"
SOCKET = "/run/containerd/containerd.sock"  # cAdvisor in the kubelet looks for containerd nowhere else
MAX_PODS = 250


@dataclass(frozen=True, slots=True)
class Component:
    """`argv` of the directory that holds its configuration; `probe`: an address that answers 200 once it is at work."""

    argv: Callable[[Path], list[str]]
    probe: str = ""


def _etcd(_: Path) -> list[str]:
    client, peer = "http://127.0.0.1:2379", "http://127.0.0.1:2380"
    return [
        str(path("etcd")), "--data-dir=/var/lib/etcd", "--unsafe-no-fsync",
        f"--listen-client-urls={client}", f"--advertise-client-urls={client}", f"--listen-peer-urls={peer}",
        f"--initial-advertise-peer-urls={peer}", f"--initial-cluster=default={peer}",
    ]  # fmt: skip


def _apiserver(etc: Path) -> list[str]:
    return [
        str(path("kube-apiserver")), f"--advertise-address={NODE_IP}", "--secure-port=6443",
        "--etcd-servers=http://127.0.0.1:2379", f"--service-cluster-ip-range={SERVICE_NET}",
        "--authorization-mode=Node,RBAC", "--allow-privileged=true", "--enable-admission-plugins=NodeRestriction",
        f"--client-ca-file={etc}/ca.crt", f"--tls-cert-file={etc}/apiserver.crt",
        f"--tls-private-key-file={etc}/apiserver.key",
        f"--kubelet-client-certificate={etc}/apiserver-kubelet-client.crt",
        f"--kubelet-client-key={etc}/apiserver-kubelet-client.key", f"--kubelet-certificate-authority={etc}/ca.crt",
        "--kubelet-preferred-address-types=InternalIP",
        f"--service-account-issuer=https://{API_SERVICE}", f"--service-account-key-file={etc}/sa.key",
        f"--service-account-signing-key-file={etc}/sa.key",
        f"--requestheader-client-ca-file={etc}/front-proxy-ca.crt",
        "--requestheader-allowed-names=front-proxy-client", "--requestheader-extra-headers-prefix=X-Remote-Extra-",
        "--requestheader-group-headers=X-Remote-Group", "--requestheader-username-headers=X-Remote-User",
        f"--proxy-client-cert-file={etc}/front-proxy-client.crt",
        f"--proxy-client-key-file={etc}/front-proxy-client.key",
    ]  # fmt: skip


def _as(name: str, etc: Path) -> list[str]:
    config = f"{etc}/{name}.kubeconfig"
    return [
        f"--kubeconfig={config}", f"--authentication-kubeconfig={config}", f"--authorization-kubeconfig={config}",
        f"--tls-cert-file={etc}/apiserver.crt", f"--tls-private-key-file={etc}/apiserver.key", "--leader-elect=false",
    ]  # fmt: skip


def _controller_manager(etc: Path) -> list[str]:
    return [
        str(path("kube-controller-manager")), *_as("kube-controller-manager", etc),
        "--use-service-account-credentials=true", f"--root-ca-file={etc}/ca.crt",
        f"--service-account-private-key-file={etc}/sa.key", f"--cluster-signing-cert-file={etc}/ca.crt",
        f"--cluster-signing-key-file={etc}/ca.key", "--allocate-node-cidrs=false",
    ]  # fmt: skip


def _scheduler(etc: Path) -> list[str]:
    return [str(path("kube-scheduler")), *_as("kube-scheduler", etc)]


def _kubelet(etc: Path) -> list[str]:
    options = (f"--hostname-override={NODE}", f"--node-ip={NODE_IP}", "--v=2")
    return [str(path("kubelet")), f"--config={etc}/kubelet.json", f"--kubeconfig={etc}/kubelet.kubeconfig", *options]


# In the order in which they are started; the names are those of their units, NAME.service in system.slice.
COMPONENTS: Mapping[str, Component] = {
    "etcd": Component(_etcd, "http://127.0.0.1:2379/health"),
    "containerd": Component(lambda etc: [str(path("containerd")), f"--config={etc}/containerd.toml"]),
    "kube-apiserver": Component(_apiserver, f"https://{NODE_IP}:6443/readyz"),
    "kube-controller-manager": Component(_controller_manager, "https://127.0.0.1:10257/healthz"),
    "kube-scheduler": Component(_scheduler, "https://127.0.0.1:10259/healthz"),
    "kubelet": Component(_kubelet, "http://127.0.0.1:10248/healthz"),
    "kube-proxy": Component(
        lambda etc: [str(path("kube-proxy")), f"--config={etc}/kube-proxy.json"], "http://127.0.0.1:10256/livez"
    ),
}


def configure(etc: Path, *, max_pods: int = MAX_PODS) -> None:
    """Write the configuration files of all components into `etc`."""
    (etc / "cni").mkdir(parents=True, exist_ok=True)
    (etc / "manifests").mkdir(exist_ok=True)  # of static pods
    (etc / "resolv.conf").write_text("nameserver 10.96.0.10\n")
    (etc / "containerd.toml").write_text(_containerd(etc))
    for name, document in (
        ("kubelet.json", _kubelet_configuration(etc, max_pods)),
        ("kube-proxy.json", _proxy_configuration(etc)),
        ("cni/10-bridge.conflist", _network()),
    ):
        (etc / name).write_text(json.dumps(document, indent=1))


def _containerd(etc: Path) -> str:
    # Without CAP_SYS_RESOURCE an OOM score cannot be lowered; `restrict_oom_score_adj` takes that as it is.
    return f"""\
version = 2
root = "/var/lib/containerd"
state = "/run/containerd"
[grpc]
  address = "{SOCKET}"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE}"
  netns_mounts_under_state_dir = true
  disable_apparmor = true
  restrict_oom_score_adj = true
  stream_server_address = "127.0.0.1"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    default_runtime_name = "runc"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{PLUGINS}"
    conf_dir = "{etc}/cni"
"""


def _kubelet_configuration(etc: Path, max_pods: int) -> object:
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True, "cacheTTL": "10s"},
            "x509": {"clientCAFile": f"{etc}/ca.crt"},
        },
        "authorization": {
            "mode": "Webhook",
            "webhook": {"cacheAuthorizedTTL": "10s", "cacheUnauthorizedTTL": "5s"},
        },
        "tlsCertFile": f"{etc}/kubelet.crt",
        "tlsPrivateKeyFile": f"{etc}/kubelet.key",
        "rotateCertificates": False,
        "cgroupDriver": "cgroupfs",
        "cgroupsPerQOS": True,
        "failCgroupV1": False,
        "failSwapOn": False,
        "enforceNodeAllocatable": ["pods"],
        "systemReserved": {"cpu": "100m", "memory": "512Mi"},
        "clusterDomain": "cluster.local",
        "clusterDNS": ["10.96.0.10"],
        "resolvConf": f"{etc}/resolv.conf",
        "containerRuntimeEndpoint": f"unix://{SOCKET}",
        "staticPodPath": f"{etc}/manifests",
        "maxPods": max_pods,
        "kubeAPIQPS": 100,
        "kubeAPIBurst": 200,
        "runtimeRequestTimeout": "5m",  # the machine may be busy with something else
        # The disk is the machine's, not ours: it may be nearly full without this node's doing.
        "evictionHard": {"memory.available": "100Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
    }


def _proxy_configuration(etc: Path) -> object:
    return {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "iptables",
        "clusterCIDR": POD_NET,
        "hostnameOverride": NODE,
        "clientConnection": {"kubeconfig": f"{etc}/kube-proxy.kubeconfig"},
        # The size of the connection table is the machine's own affair.
        "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
    }


def _network() -> object:
    addresses = {"type": "host-local", "ranges": [[{"subnet": POD_NET}]], "routes": [{"dst": "0.0.0.0/0"}]}
    bridge = {"type": "bridge", "bridge": "cni0", "isGateway": True, "ipMasq": False, "hairpinMode": True}
    ports = {"type": "portmap", "capabilities": {"portMappings": True}}
    return {"cniVersion": "0.4.0", "name": "cluster", "plugins": [{**bridge, "ipam": addresses}, ports]}
