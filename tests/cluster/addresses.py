"""Names and addresses of every node: each has a network of its own, so they are the same for all."""

NODE = "node-a"
NODE_IP = "10.44.0.1"
OUTSIDE_IP = "10.44.0.2"  # a host at the other end of the node's network card
POD_NET = "10.45.0.0/22"
SERVICE_NET = "10.96.0.0/16"
API_SERVICE = "kubernetes.default.svc.cluster.local"
API_SERVICE_IP = "10.96.0.1"  # the first of SERVICE_NET is the API server's
API = f"https://{NODE_IP}:6443"
