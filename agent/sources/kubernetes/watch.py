"""One collection of the API, kept true: listed once, then watched; listed again only when the thread is lost.

As "Kubernetes API Concepts" in the Kubernetes documentation has it ("Efficient detection of changes"). The first list
may come from the server's cache (`resourceVersion=0`), a later one must not be older than what we know, and where that
fails it is read through to the store. A list that may come from the cache has no `limit`: with one, older servers read
the pods of the whole cluster from the store, for each node.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, aclosing
from typing import Generic, NamedTuple, Protocol, TypeVar
from urllib.parse import urlencode

import msgspec
from msgspec import Struct

from agent.model import NS_PER_S
from agent.sources.kubernetes.access import AccessError, refusal
from agent.sources.kubernetes.framing import ListReader, lines
from agent.sources.kubernetes.objects import Bookmark, Event, ListMeta, Status

LASTS = 300, 540  # seconds that a watch is asked to last
SILENCE = 180.0  # seconds; bookmarks come each minute, but only once something has happened since the watch began
LIST_SILENCE = 60.0
PAGE = 100
STEADY = 60 * NS_PER_S  # a watch that lasted so long had begun well
PAUSE, LONGEST_PAUSE = 1.0, 60.0  # seconds, after the first failure and after many
TRIES_OF_A_LIST = 2  # as if so many had failed: many nodes lose the thread at once
MOST_RETRY_AFTER = 600  # seconds

CACHED, THROUGH = "0", ""  # how fresh a list must be: not at all, wholly; any other resourceVersion: not older

_T = TypeVar("_T")


class Timing(NamedTuple):
    """Boottime in ns, a number in [0, 1), and waiting for seconds."""

    clock: Callable[[], int]
    chance: Callable[[], float]
    sleep: Callable[[float], Awaitable[None]]


class Collection(Struct, frozen=True):
    """What is asked for. `partial`: only the metadata of each object is wanted."""

    path: str
    query: tuple[tuple[str, str], ...] = ()
    partial: bool = False

    def accept(self, kind: str) -> str:
        """The Accept header; a server that cannot give the metadata alone gives the whole."""
        wanted = f"application/json;as={kind};g=meta.k8s.io;v=v1," if self.partial else ""
        return f"{wanted}application/json"


class Server(Protocol):
    """Who is asked (`Access`)."""

    def get(self, target: str, *, accept: str, silence: float) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """The body of a 200 in pieces. Raises AccessError, from the pieces too."""


class DisorderError(Exception):
    """What came is older than what came before it, so that nothing of it can be believed."""


class Watch(Generic[_T]):
    """Follows one collection: `replace` is told all there is, `put` what came or changed, `remove` what went.

    `heard`: boottime of the last word from the server; `failing`: why there is none.
    """

    def __init__(
        self,
        access: Server,
        collection: Collection,
        kind: type[_T],
        replace: Callable[[Sequence[_T]], None],
        put: Callable[[_T], None],
        remove: Callable[[_T], None],
        timing: Timing,
    ) -> None:
        self._access, self._collection = access, collection
        self._replace, self._put, self._remove = replace, put, remove
        self._clock, self._chance, self._sleep = timing
        self._object = msgspec.json.Decoder(kind)
        self._at = ""  # the resourceVersion up to which everything is known
        self._list_from: str | None = CACHED  # None: no list is needed
        self._tries = 0  # since a watch last held
        self._retry_after = 0
        self._odd: str | None = None  # an object that is not understood
        self.heard = timing.clock()
        self.failing: str | None = None
        self.lists = self.failures = 0

    async def follow(self) -> None:
        """For ever. Raises nothing for what a network or an API server can do."""
        while True:
            try:
                if self._list_from is not None:
                    await self._list(self._list_from)
                await self._watch()
            except Exception as error:  # noqa: BLE001 - a fault of our own shows as failing, too: measuring goes on
                self._learn(error)
            await self._sleep(self._pause())

    def _learn(self, error: Exception) -> None:
        """Say what failed, and decide whether, and how fresh, to list anew."""
        self.failures += 1
        self.failing = f"{self._collection.path}: {str(error) or type(error).__name__}"
        if isinstance(error, AccessError) and not error.expired:
            self._retry_after = min(error.retry_after or 0, MOST_RETRY_AFTER)
            if error.ahead:
                self._list_from = THROUGH
            return
        through = self._list_from is not None or isinstance(error, DisorderError)
        self._list_from = THROUGH if through else self._at
        self._tries = max(self._tries, TRIES_OF_A_LIST)

    def _pause(self) -> float:
        """Seconds to wait: never at one time with the other nodes, and longer after each try that did not hold."""
        pause = min(PAUSE * (1 << self._tries), LONGEST_PAUSE) * (1 + self._chance()) / 2
        self._tries = min(self._tries + 1, 16)
        asked, self._retry_after = self._retry_after, 0
        return asked + pause

    def _target(self, *query: tuple[str, str]) -> str:
        return f"{self._collection.path}?{urlencode((*self._collection.query, *query))}"

    # -- listing ---------------------------------------------------------------------------------------------------

    async def _list(self, since: str) -> None:
        self.lists += 1
        self._odd = None
        found: list[_T] = []
        how = ("limit", str(PAGE)) if since == THROUGH else ("resourceVersion", since)
        page: tuple[tuple[str, str], ...] = ()
        while True:
            meta = await self._page(self._target(how, *page), found)
            if not meta.continue_:
                break
            page = (("continue", meta.continue_),)
        self._at, self._list_from = meta.resource_version, None
        self.heard = self._clock()
        self._replace(found)

    async def _page(self, target: str, found: list[_T]) -> ListMeta:
        reader, accept = ListReader(), self._collection.accept("PartialObjectMetadataList")
        async with self._access.get(target, accept=accept, silence=LIST_SILENCE) as pieces:
            async for piece in pieces:
                found += self._understood(reader.feed(piece))
            found += self._understood(reader.feed(b"", last=True))
        return msgspec.convert(reader.rest.get("metadata"), ListMeta)

    def _understood(self, items: Iterable[bytes]) -> Iterator[_T]:
        """One object that is not what the API documents must not hide the others."""
        for item in items:
            try:
                yield self._object.decode(item)
            except msgspec.ValidationError as error:
                self.failures += 1
                self.failing = self._odd = f"{self._collection.path}: an object is not understood: {error}"

    # -- watching --------------------------------------------------------------------------------------------------

    async def _watch(self) -> None:
        least, most = LASTS
        target = self._target(
            ("watch", "1"),
            ("allowWatchBookmarks", "true"),
            ("resourceVersion", self._at),
            ("timeoutSeconds", str(least + int(self._chance() * (most - least)))),
        )
        began = self._clock()
        try:
            accept = self._collection.accept("PartialObjectMetadata")
            async with self._access.get(target, accept=accept, silence=SILENCE) as pieces:
                self.heard, self.failing = self._clock(), self._odd
                async with aclosing(lines(pieces)) as events:
                    async for line in events:
                        self._take(msgspec.json.decode(line, type=Event))
                        self.heard = self._clock()
        except AccessError as error:
            if not error.silent:
                raise  # else it had nothing to say, or is gone without a word: the next request tells
        finally:
            if self._clock() - began >= STEADY:
                self._tries = 0

    def _take(self, event: Event) -> None:
        """One event. Raises AccessError for what the server says went wrong, DisorderError."""
        if event.type == "ERROR":
            raise refusal(msgspec.json.decode(event.object, type=Status))
        self._advance(msgspec.json.decode(event.object, type=Bookmark).metadata.resource_version)
        if event.type != "BOOKMARK":
            for thing in self._understood([bytes(event.object)]):
                (self._remove if event.type == "DELETED" else self._put)(thing)

    def _advance(self, version: str) -> None:
        """Versions of one collection rise, where they are numbers at all."""
        if version.isdecimal() and self._at.isdecimal() and int(version) < int(self._at):
            raise DisorderError(f"resourceVersion {version} came after {self._at}")
        self._at = version
