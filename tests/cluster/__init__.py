"""A real Kubernetes of one node, without Docker, a registry or a network: what the tests and demos of pods run on.

`programs` builds or fetches what runs; `components` says how each is started; `boot` is the node's first process, in
namespaces of its own; `node` holds a node's directory, processes and control groups; `cluster` brings it up and down
and is what tests talk to; `workloads` makes pods, `images` what they run. Every process lives in one PID namespace and
below one control group of each hierarchy, and sees of the machine's mounts, network and kernel settings only copies:
several nodes can be up on one machine, and killing a node's first process leaves nothing but empty control groups.
"""
