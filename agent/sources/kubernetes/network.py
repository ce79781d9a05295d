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

    @property
    def found(self) -> bool:
        return self.sandbox is not None and not self.sandbox.lost


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
        self._sought: dict[Node, _Pod] = {}  # those whose sandbox is not known
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
            self._sought.pop(node, None)
            if ended.sandbox is not None:
                self._bury(ended, ended.sandbox)
        for node in living.keys() - self._pods.keys():
            uid = self._uid_of(node)
            if uid is not None:
                self._pods[node] = self._sought[node] = _Pod(living[node], uid, now)
        moved = [pod for group in stirred if (pod := self._pods.get(group.node)) is not None]
        for pod in moved:
            pod.look_at, pod.pause = now, LOOK_AGAIN
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
            if sandbox is None:
                continue
            if not sandbox.told:
                if sandbox.lost or now - sandbox.process.began < SETTLED:
                    continue
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
        self._pods, self._sought = {}, {}

    def _look(self, now: int) -> None:
        """Find the sandboxes that are looked for: one pass over /proc for all of them."""
        if now < self._rest_until:
            return
        wanted = {
            pod.group.node.path: pod
            for pod in self._sought.values()
            if pod.look_at <= now and not self._on_host(pod.uid)
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
            if pod.found:
                del self._sought[pod.group.node]
            else:
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
        sandbox = pod.sandbox
        if sandbox is None or sandbox.lost or self._readable(sandbox):
            return
        sandbox.close()
        pod.look_at, pod.pause = self._clock(), LOOK_AGAIN
        if pod.group.node in self._pods:
            self._sought[pod.group.node] = pod

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
        if interface.of is not pod.group.resource:
            self._name(pod, sandbox, interface)
        assert interface.resource is not None
        values = {NETWORK[0]: interface.receive, NETWORK[1]: interface.transmit}
        identity, taken = interface.identity, interface.taken
        return Reading(interface.resource, tuple([Sample(m, identity, values[m], taken) for m in self._meters]), gone)

    def _name(self, pod: _Pod, sandbox: Sandbox, interface: Interface) -> None:
        """Make an interface's resource, of the labels that its pod has now."""
        of = interface.of = pod.group.resource
        key, name = f"{_key(pod, sandbox)}/{interface.index}", f"{of.name}/{interface.name}"
        labels = {**of.labels, "interface": interface.name}
        interface.resource = Resource(key, name, None, sandbox.anchor, labels)
        process = sandbox.process
        interface.identity = f"{self._boot}/{pod.uid}/{process.pid}.{process.started}/{interface.index}"

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
