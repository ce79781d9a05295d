"""Who is who: two authorities, and a certificate or a kubeconfig for each component. Made anew for each node."""

import json
from base64 import b64encode
from collections.abc import Mapping
from pathlib import Path

import trustme

from tests.cluster.addresses import API, API_SERVICE, API_SERVICE_IP, NODE, NODE_IP

CLIENTS: Mapping[str, tuple[str, str | None]] = {  # file → user, group
    "admin": ("admin", "system:masters"),
    "kube-controller-manager": ("system:kube-controller-manager", None),
    "kube-scheduler": ("system:kube-scheduler", None),
    "kube-proxy": ("system:kube-proxy", None),
    "kubelet": (f"system:node:{NODE}", "system:nodes"),
}
NAMES = ("kubernetes", "kubernetes.default", "kubernetes.default.svc", API_SERVICE)


def write(directory: Path) -> None:
    """Fill `directory`.

    With ca.crt; NAME.crt and NAME.key of servers; sa.key for tokens; of each client NAME.kubeconfig, and what is in
    it as NAME-client.crt and NAME-client.key.
    """
    directory.mkdir(parents=True, exist_ok=True)
    ca, front = trustme.CA(organization_name="cluster"), trustme.CA(organization_name="front-proxy")
    ca.cert_pem.write_to_path(directory / "ca.crt")
    ca.private_key_pem.write_to_path(directory / "ca.key")
    front.cert_pem.write_to_path(directory / "front-proxy-ca.crt")
    servers = {
        "apiserver": ca.issue_cert(
            *NAMES, "localhost", API_SERVICE_IP, "127.0.0.1", NODE_IP, common_name="kube-apiserver"
        ),
        "kubelet": ca.issue_cert(NODE, "localhost", NODE_IP, "127.0.0.1", common_name=f"system:node:{NODE}"),
        "apiserver-kubelet-client": ca.issue_cert(
            NODE, common_name="kube-apiserver-kubelet-client", organization_name="system:masters"
        ),
        "front-proxy-client": front.issue_cert(NODE, common_name="front-proxy-client"),
        "sa": ca.issue_cert(NODE, common_name="service-accounts"),
    }
    for name, cert in servers.items():
        cert.cert_chain_pems[0].write_to_path(directory / f"{name}.crt")
        cert.private_key_pem.write_to_path(directory / f"{name}.key")
    for name, (user, group) in CLIENTS.items():
        # A client has no use for a host name, but without one trustme makes an extension that Go refuses.
        cert = ca.issue_cert(NODE, common_name=user, organization_name=group)
        config = _kubeconfig(ca.cert_pem.bytes(), cert.cert_chain_pems[0].bytes(), cert.private_key_pem.bytes())
        (directory / f"{name}.kubeconfig").write_text(config)
        (directory / f"{name}.kubeconfig").chmod(0o600)
        cert.cert_chain_pems[0].write_to_path(directory / f"{name}-client.crt")
        cert.private_key_pem.write_to_path(directory / f"{name}-client.key")


def _kubeconfig(ca: bytes, certificate: bytes, key: bytes) -> str:
    def text(data: bytes) -> str:
        return b64encode(data).decode()

    user = {"client-certificate-data": text(certificate), "client-key-data": text(key)}
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "node",
        "clusters": [{"name": "node", "cluster": {"server": API, "certificate-authority-data": text(ca)}}],
        "users": [{"name": "node", "user": user}],
        "contexts": [{"name": "node", "context": {"cluster": "node", "user": "node"}}],
    }
    return json.dumps(document)
