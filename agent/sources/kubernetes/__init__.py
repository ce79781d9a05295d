"""Pods of one node: what they use, from their cgroups or their kubelet, and whose they are, from the API server."""
