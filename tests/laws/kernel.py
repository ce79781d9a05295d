"""A kernel in a few lines: groups whose counters are charged to all above them, and a source that reads them."""

from collections.abc import Callable, Mapping

from agent.model import Meter, Reading, Resource, Sample, Sweep
from tests.laws.scene import CORES, CPU


class Node:
    """One incarnation of a directory. `value` is what the kernel shows; `own` what was burnt in this very group."""

    def __init__(self, path: str, inode: int, labels: Mapping[str, str]) -> None:
        self.path, self.inode, self.labels = path, inode, dict(labels)
        self.value = self.own = 0

    @property
    def key(self) -> str:
        """Never recurs within a boot."""
        return f"{self.path}#{self.inode}"


class Kernel:
    """One boot at a time. A group's parent is its path's; the first part of a path is its anchor."""

    def __init__(self, boottime: int = 0) -> None:
        self.boots, self.boottime, self.inodes = 1, boottime, 0
        self.nodes: dict[str, Node] = {}

    @property
    def boot(self) -> str:
        """The id of this boot."""
        return f"boot-{self.boots}"

    def make(self, path: str, **labels: str) -> Node:
        """A new directory, its counter at zero."""
        self.inodes += 1
        self.nodes[path] = Node(path, self.inodes, labels)
        return self.nodes[path]

    def remove(self, path: str) -> Node:
        """An empty group goes; what it used stays in the counters above it."""
        assert not any(other.startswith(f"{path}/") for other in self.nodes)
        return self.nodes.pop(path)

    def burn(self, path: str, ns: int) -> None:
        """Charge a group and all above it."""
        self.nodes[path].own += ns
        for node in self.above(path):
            node.value += ns

    def above(self, path: str) -> list[Node]:
        """The group and all that hold it, outermost first."""
        parts = path.split("/")
        return [self.nodes["/".join(parts[: i + 1])] for i in range(len(parts))]

    def reboot(self, boottime: int = 0) -> None:
        """Every counter is gone; the same groups are made again."""
        self.boots, self.boottime = self.boots + 1, boottime
        for old in sorted(self.nodes.values(), key=lambda n: n.path):
            self.make(old.path, **old.labels)


def _nothing() -> None:
    pass


class KernelSource:
    """Reads a `Kernel` as the real source reads cgroups: parents first, keeping last values of what dies.

    `between` runs before each single read, so that a test can let the world go on during a sweep.
    """

    def __init__(self, kernel: Kernel, id: str = "cgroups") -> None:  # noqa: A002
        self.kernel, self.id = kernel, id
        self.meters: tuple[Meter, ...] = (CPU,)
        self.hidden: set[str] = set()  # paths that configuration does not include
        self.between: Callable[[], None] = _nothing
        self.trouble: Exception | None = None
        self.basis = "cgroup"
        self.remember: dict[str, bytes | None] = {}  # said once, by the next sweep
        self.introduced: dict[str, Mapping[str, str]] = {}  # likewise
        self._kept: dict[str, tuple[int, Reading]] = {}  # by key: how deep, and the last reading

    def read(self) -> None:
        """Keep the values of what lives."""
        for path in sorted(self.kernel.nodes, key=lambda p: (p.count("/"), p)):
            self.between()
            node = self.kernel.nodes.get(path)
            if node is not None and path not in self.hidden:
                taken = self.kernel.boottime
                sample = Sample("cpu.time", node.key, node.value, taken)
                self._kept[node.key] = (path.count("/"), Reading(self._resource(node), (sample,)))
        for key in [key for key, (_, kept) in self._kept.items() if kept.resource.name in self.hidden]:
            del self._kept[key]

    def sweep(self) -> Sweep:
        """Everything now."""
        if self.trouble is not None:
            raise self.trouble
        stamp = self.kernel.boottime
        self.read()
        living = {node.key for node in self.kernel.nodes.values()}
        in_order = [kept for _, kept in sorted(self._kept.values(), key=lambda k: (k[0], k[1].resource.key))]
        readings = [kept for kept in in_order if kept.resource.key in living]
        readings += [
            Reading(kept.resource, kept.samples, gone=True) for kept in in_order if kept.resource.key not in living
        ]
        self._kept = {key: kept for key, kept in self._kept.items() if key in living}
        remember, introduced, self.remember, self.introduced = self.remember, self.introduced, {}, {}
        return Sweep(
            source=self.id,
            boot=self.kernel.boot,
            stamp=stamp,
            readings=readings,
            listing=frozenset(living),
            cores=CORES,
            basis=self.basis,
            remember=remember,
            introduced=introduced,
        )

    def close(self) -> None:
        """Nothing is held."""

    def _resource(self, node: Node) -> Resource:
        above = [n for n in self.kernel.above(node.path)[:-1] if n.path not in self.hidden]
        anchor = node.path.split("/", maxsplit=1)[0]
        return Resource(node.key, node.path, above[-1].key if above else None, anchor, dict(node.labels))
