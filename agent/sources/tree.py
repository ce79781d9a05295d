"""Every directory under the anchors, metered or not, kept true by inotify and by walks.

A watch is placed on a directory before its children are listed, so that no child is missed between the two; and an
event is only a hint to look: what counts is the inode that is there now. A group may have come, gone and come again
under one name before its first event is read.
"""

import os
import stat
from collections.abc import Callable, Iterable

from agent.sources.hierarchy import Hierarchy, Layout, printable
from agent.sources.watch import Change, Watch


class Node:
    """One incarnation of a directory. `key` never recurs; `renamed`: its inode lived under another path before."""

    __slots__ = (
        "children",
        "hierarchy",
        "inode",
        "key",
        "lost",
        "name",
        "parent",
        "path",
        "population",
        "renamed",
        "wd",
    )

    def __init__(self, parent: "Node | None", path: str, hierarchy: Hierarchy, inode: int, prefix: str) -> None:
        self.parent, self.path, self.hierarchy, self.inode = parent, path, hierarchy, inode
        self.name = printable(path)
        self.key = f"{prefix}/{hierarchy.name}#{inode}"  # a rename changes the name, not the counter
        self.children: dict[str, Node] = {}
        self.renamed = self.lost = False
        self.wd: int | None = None  # the watch on the directory
        self.population: int | None = None  # the watch on its cgroup.events

    @property
    def directory(self) -> str:
        """Where it is in the file system."""
        return self.hierarchy.directory(self.path)


class Tree:
    """The directories under `anchors`. What changed waits in `entered`, `lost` and `stirred` until it is taken.

    Where it does not `descend`, what is in a directory is no part of the tree: the directory is watched, never listed.
    """

    def __init__(
        self,
        prefix: str,
        layout: Layout,
        anchors: Iterable[str],
        watch: Watch,
        descends: Callable[[Node], bool],
    ) -> None:
        self._prefix, self._layout, self._watch, self._descends = prefix, layout, watch, descends
        self._tops: dict[str, Node | None] = dict.fromkeys(anchors)
        self._watched: dict[int, Node] = {}
        self._lost_inodes: set[tuple[str, int]] = set()
        self._order: list[Node] | None = None
        self._listing: frozenset[str] = frozenset()
        self.entered: list[Node] = []  # parents before children
        self.lost: list[Node] = []
        self.stirred: list[Node] = []  # something in it came or went; v2: it became empty, or inhabited again

    def follow(self) -> None:
        """Catch up with the events that wait, and see whether the anchors are still there, or there again."""
        missed = False
        for hint in self._watch.pending():
            missed |= hint.change is Change.MISSED
            node = self._watched.get(hint.wd)
            if node is None:
                continue
            if hint.change is Change.CHILD and self._descends(node):
                self._look(node, hint.name)
            elif hint.change in (Change.CHILD, Change.CONTENT):
                self.stirred.append(node)
            elif hint.change is Change.ENDED:
                del self._watched[hint.wd]
                self.recheck(node)
        if missed:
            self.walk()
        else:
            self._check_anchors()

    def walk(self) -> None:
        """Compare every directory with what is known, and renew the watches that are missing."""
        self._watch.retry()
        self._check_anchors()
        stack = [top for top in self._tops.values() if top is not None]
        while stack:
            node = stack.pop()
            if node.wd is None:
                self._watch_directory(node)
            if not self._descends(node):
                continue
            for name in {*node.children, *_subdirectories(node.directory)}:
                self._look(node, name)
            stack.extend(node.children.values())
        self._lost_inodes.clear()

    def recheck(self, node: Node) -> None:
        """Something is odd about this directory: see whether it is still there."""
        if node.parent is None:
            self._check_anchors()
        elif not node.lost:
            self._look(node.parent, os.path.basename(node.path))

    def watch_population(self, node: Node) -> None:
        """Have `stirred` tell when the group empties, where a v2 tree knows of it."""
        unified = self._layout.unified
        if unified is None or node.population is not None:
            return
        node.population = self._watch.file(f"{unified.directory(node.path)}/cgroup.events")
        if node.population is not None:
            self._watched[node.population] = node

    def order(self) -> list[Node]:
        """All directories, parents before children. The same list until something comes or goes."""
        if self._order is None:
            self._order = []
            stack = [top for top in self._tops.values() if top is not None]
            while stack:
                node = stack.pop()
                self._order.append(node)
                stack.extend(node.children.values())
            self._listing = frozenset(node.key for node in self._order)
        return self._order

    def listing(self) -> frozenset[str]:
        """The keys of all directories. The same object until something comes or goes."""
        self.order()
        return self._listing

    def _check_anchors(self) -> None:
        """Nobody watches the directories that hold the anchors: look whether each is still the one it was."""
        for anchor, top in self._tops.items():
            if top is not None:
                if _inode(top.directory) == top.inode:
                    continue
                self._tops[anchor] = None
                self._lose(top)
            hierarchy = self._layout.cpu(anchor)
            if hierarchy is not None:
                self._enter(None, anchor, hierarchy)

    def _look(self, parent: Node, name: str) -> None:
        """Make one child what it is in the file system now."""
        path = _below(parent.path, name)
        known = parent.children.get(name)
        inode = _inode(parent.hierarchy.directory(path))
        if known is not None and known.inode != inode:
            del parent.children[name]
            self._lose(known)
            known = None
        if known is None and inode is not None:
            self._enter(parent, path, parent.hierarchy)

    def _enter(self, parent: Node | None, path: str, hierarchy: Hierarchy) -> None:
        """Take in a directory and all that is below it."""
        stack = [(parent, path)]
        while stack:  # not by recursion: a tenant may nest two thousand deep
            above, path = stack.pop()
            directory = hierarchy.directory(path)
            wd = self._watch.directory(directory)
            inode = _inode(directory)
            if inode is None:
                continue
            node = Node(above, path, hierarchy, inode, self._prefix)
            node.renamed = (hierarchy.name, inode) in self._lost_inodes
            node.wd = wd
            if wd is not None:
                self._watched[wd] = node
            if above is None:
                self._tops[path] = node
            else:
                above.children[os.path.basename(path)] = node
            self.entered.append(node)
            self._order = None
            if self._descends(node):
                stack.extend((node, _below(path, name)) for name in _subdirectories(directory))

    def _lose(self, node: Node) -> None:
        stack = [node]
        while stack:
            node = stack.pop()
            node.lost = True
            self.lost.append(node)
            self._lost_inodes.add((node.hierarchy.name, node.inode))
            for wd in (node.wd, node.population):
                if wd is not None and self._watched.get(wd) is node:
                    del self._watched[wd]
                    self._watch.drop(wd)
            stack.extend(node.children.values())
        self._order = None

    def _watch_directory(self, node: Node) -> None:
        node.wd = self._watch.directory(node.directory)
        if node.wd is not None:
            self._watched[node.wd] = node


def _below(path: str, name: str) -> str:
    return f"{path}/{name}" if path else name


def _inode(directory: str) -> int | None:
    """The inode of a directory; None when there is none (or its path is longer than the kernel takes)."""
    try:
        found = os.stat(directory, follow_symlinks=False)
    except OSError:
        return None
    return found.st_ino if stat.S_ISDIR(found.st_mode) else None


def _subdirectories(directory: str) -> list[str]:
    try:
        if os.stat(directory).st_nlink == 2:  # only itself and its parent's entry: no need to read its files' names
            return []
        with os.scandir(directory) as entries:
            return [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
    except OSError:
        return []
