"""What pods receive and send: each interface of each pod's sandbox, a resource of its own beside the pod.

A pod's network is read with every sweep, while it is young, and at once when something in its cgroup comes or goes: a
sandbox outlives the last container by more than a second, so what a short pod sent is still there when that has ended.
"""

import os
from collections.abc import Callable, Iterable, Mapping

from agent.errors import SourceError
from agent.model import NS_PER_MS, NS_PER_S, Reading, Resource, Sample
from agent.sources.group import Group
from agent.sources.kubernetes.meters import NETWORK
from agent.sources.kubernetes.processes import Processes
from agent.sources.kubernetes.sandbox import Interface, Sandbox
from agent.sources.tree import Node

SCOPE = "pod network"  # what these resources are listed under: they baseline when the network comes to be metered
SETTLED = NS_PER_S  # until then what looks like the sandbox may be the runtime, which makes it
LOOK_AGAIN = 100 * NS_PER_MS  # and then twice as long each time
LOOK_AT_MOST = 600 * NS_PER_S
LOOK_AT_ALL = 5 * NS_PER_S  # who has been looked for so long is looked for among all processes
REST = 20  # times what a look took: looking takes 5 % of a core at most


class _Pod:
    __slots__ = ("group", "look_at", "pause", "sandbox", "uid")

    def __init__(self, group: Group, uid: str, now: int) -> None:
        self.group, self.uid = group, uid
        self.look_at, self.pause = now, LOOK_AGAIN
        self.sandbox: Sandbox | None = None

    def look_soon(self, now: int) -> None:
        self.look_at, self.pause = now, LOOK_AGAIN


class Network:
    """The networks of the pods of one machine. `on_host`: whether the pod of this UID is known to use the node's."""

    def __init__(
        self,
        root: str,
        boot: str,
        clock: Callable[[], int],
        wanted: frozenset[str],
        uid_of: Callable[[Node], str | None],
        on_host: Callable[[str], bool],
    ) -> None:
        self._proc, self._boot, self._clock = os.path.join(root, "proc"), boot, clock
        self._meters = [name for name in NETWORK if name in wanted]
        self._uid_of, self._on_host = uid_of, on_host
        self._processes = Processes(self._proc, clock)
        self._host = 0  # inode of PID 1's net/dev; 0: not asked yet
        self._pods: dict[Node, _Pod] = {}
        self._rest_until = 0
        self._gone: list[Reading] = []
        self._began: int | None = None  # boottime of the first sweep

    def follow(self, living: Mapping[Node, Group], stirred: Iterable[Group], young: Iterable[Group]) -> None:
        """Let go of the pods that ended, look for the sandboxes of new ones, read those in which something happened.

        Raises SourceError when PID 1's network cannot be told from a pod's.
        """
        now = self._clock()
        for node in self._pods.keys() - living.keys():
            ended = self._pods.pop(node)
            if ended.sandbox is not None:
                self._bury(ended, ended.sandbox)
        for node in living.keys() - self._pods.keys():
            uid = self._uid_of(node)
            if uid is not None:
                self._pods[node] = _Pod(living[node], uid, now)
        moved = [pod for group in stirred if (pod := self._pods.get(group.node)) is not None]
        for pod in moved:
            pod.look_soon(now)
        for pod in {*moved, *(self._pods[group.node] for group in young if group.node in self._pods)}:
            self._read(pod)
        self._look(now)

    def sweep(self) -> tuple[list[Reading], set[str]]:
        """Every interface, and those that are gone since the last sweep; and the scopes that they are listed under."""
        now, scopes = self._clock(), {SCOPE}
        readings: list[Reading] = []
        for pod in self._pods.values():
            self._read(pod)
            sandbox = pod.sandbox
            if sandbox is None or not (sandbox.told or now - sandbox.process.began >= SETTLED):
                continue
            if not sandbox.told:
                sandbox.told, sandbox.anchor = True, self._scope(pod, sandbox)
            scopes.add(sandbox.anchor)
            self._gone += [self._reading(pod, sandbox, interface, gone=True) for interface in sandbox.ended]
            sandbox.ended = []
            readings += [self._reading(pod, sandbox, interface) for interface in sandbox.interfaces.values()]
        readings += self._gone
        self._began = now if self._began is None else self._began
        self._gone = []
        return readings, scopes

    def close(self) -> None:
        """Let go of every process; safe to call twice."""
        for pod in self._pods.values():
            if pod.sandbox is not None:
                pod.sandbox.close()
        self._pods = {}

    def _look(self, now: int) -> None:
        """Find the sandboxes that are looked for: one pass over /proc for all of them."""
        if now < self._rest_until:
            return
        wanted = {
            pod.group.node.path: pod
            for pod in self._pods.values()
            if pod.look_at <= now and (pod.sandbox is None or pod.sandbox.lost) and not self._on_host(pod.uid)
        }
        if not wanted:
            return
        self._host = self._host or self._inode_of_host()
        everyone = any(pod.sandbox is not None or pod.pause > LOOK_AT_ALL for pod in wanted.values())
        found = self._processes.oldest(wanted, all_of_them=everyone)
        for path, process in found.items():
            try:
                sandbox = Sandbox(self._proc, process)
            except OSError:
                continue  # it ended just now
            self._adopt(wanted[path], sandbox)
        after = self._clock()
        self._rest_until = after + REST * (after - now)
        for pod in wanted.values():
            if pod.sandbox is None or pod.sandbox.lost:
                pod.look_at, pod.pause = now + pod.pause, min(2 * pod.pause, LOOK_AT_MOST)

    def _adopt(self, pod: _Pod, sandbox: Sandbox) -> None:
        """Make this the pod's sandbox, unless it is the node: of a runtime on its way into the pod, or on purpose."""
        if sandbox.inode == self._host or not self._readable(sandbox):
            sandbox.close()
            return
        former = pod.sandbox
        if former is not None and not sandbox.shows(former):
            self._bury(pod, former)
        elif former is not None and former.told:  # its first process ended, others live on: nothing begins at zero
            sandbox.inherit(former)
        pod.sandbox = sandbox

    def _read(self, pod: _Pod) -> None:
        if pod.sandbox is not None and not pod.sandbox.lost and not self._readable(pod.sandbox):
            pod.sandbox.close()
            pod.look_soon(self._clock())

    def _readable(self, sandbox: Sandbox) -> bool:
        try:
            sandbox.read(self._clock())
        except OSError:
            return False  # its process has ended
        return True

    def _bury(self, pod: _Pod, sandbox: Sandbox) -> None:
        """Report the last of a sandbox, unless it was there before us and never told of: then nothing is known."""
        self._read(pod)
        sandbox.close()
        if not sandbox.told:
            sandbox.anchor = self._scope(pod, sandbox)
        if sandbox.told or sandbox.anchor == SCOPE:
            interfaces = (*sandbox.ended, *sandbox.interfaces.values())
            self._gone += [self._reading(pod, sandbox, interface, gone=True) for interface in interfaces]

    def _scope(self, pod: _Pod, sandbox: Sandbox) -> str:
        """A sandbox found late, which ran before this source did, is a scope of its own, so that it baselines."""
        late = self._began is not None and sandbox.process.began <= self._began
        return f"{SCOPE} {_key(pod, sandbox)}" if late else SCOPE

    def _reading(self, pod: _Pod, sandbox: Sandbox, interface: Interface, *, gone: bool = False) -> Reading:
        of = pod.group.resource
        resource = interface.resource
        if resource is None or interface.of is not of:
            labels = {**of.labels, "interface": interface.name}
            key, name = f"{_key(pod, sandbox)}/{interface.index}", f"{of.name}/{interface.name}"
            resource = interface.resource = Resource(key, name, None, sandbox.anchor, labels)
            interface.of = of
        process = sandbox.process
        identity = f"{self._boot}/{pod.uid}/{process.pid}.{process.started}/{interface.index}"
        values = {NETWORK[0]: interface.receive, NETWORK[1]: interface.transmit}
        samples = tuple(Sample(meter, identity, values[meter], interface.taken) for meter in self._meters)
        return Reading(resource, samples, gone)

    def _inode_of_host(self) -> int:
        path = os.path.join(self._proc, "1/net/dev")
        try:
            return os.stat(path).st_ino
        except OSError as error:
            raise SourceError(
                f"{path}: {error.strerror}. `root` must hold the /proc of the node, or set `network: false`"
            ) from error


def _key(pod: _Pod, sandbox: Sandbox) -> str:
    return f"{pod.group.node.key}/{sandbox.process.pid}.{sandbox.process.started}"
