"""An API server on loopback that lists, watches and misbehaves. It imports nothing from the agent.

What it does when it behaves is "Kubernetes API Concepts" of the Kubernetes documentation (kubernetes.io/docs/reference/
using-api/api-concepts), by section:
- "Resource versions": each change of any object has a higher number; a list bears that of the whole collection.
- "Efficient detection of changes": a watch sends one JSON object a line, {"type": ADDED|MODIFIED|DELETED, "object": …},
  of what happened after its resourceVersion, and ends after `timeoutSeconds`.
- "410 Gone responses": a version that is no longer kept is answered 410 with the reason Expired, as a reply or as an
  event of type ERROR.
- "Watch bookmarks": with `allowWatchBookmarks` an object that has only a resourceVersion comes about once a minute;
  not promised, and a real 1.34 sends none as long as nothing has happened since the watch's own version.
- "Retrieving large results sets in chunks": with `limit` a list has at most so many items and `metadata.continue`.
- "Unavailable resource versions": one that is too high is answered 504, reason Timeout, cause ResourceVersionTooLarge.
- Field selectors ("Field Selectors"): `spec.nodeName` of pods, `metadata.name` of all.
- "Receiving resources as Tables"/PartialObjectMetadata: with that Accept header only metadata is sent.
- Authentication ("Authenticating"): a bearer token that is not known is answered 401.
"""

import asyncio
import itertools
import json
import ssl
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlsplit

BOOKMARK_EVERY = 60.0
PODS, NAMESPACES, NODES = "/api/v1/pods", "/api/v1/namespaces", "/api/v1/nodes"

Object = dict[str, Any]


@dataclass(frozen=True)
class Request:
    """What was asked, and when (loop time)."""

    at: float
    path: str
    query: dict[str, str]
    headers: dict[str, str]

    @property
    def watches(self) -> bool:
        return "watch" in self.query


@dataclass(frozen=True)
class Fault:
    """Bytes in the place of a reply; then hang up, or stay silent."""

    says: bytes
    then: str = "hang up"


def reply(status: int, body: bytes = b"", **headers: str) -> Fault:
    """A whole reply."""
    named = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    return Fault(f"HTTP/1.1 {status} Said\r\nContent-Length: {len(body)}\r\n{named}\r\n".encode() + body)


def status(code: int, reason: str, message: str, cause: str | None = None, **headers: str) -> Fault:
    """A reply with a Status object."""
    return reply(code, json.dumps(status_object(code, reason, message, cause)).encode(), **headers)


def status_object(code: int, reason: str, message: str, cause: str | None = None) -> Object:
    """The Status itself."""
    said: Object = {"kind": "Status", "apiVersion": "v1", "status": "Failure"}
    said |= {"message": message, "reason": reason, "code": code}
    return said if cause is None else said | {"details": {"causes": [{"reason": cause, "message": message}]}}


EXPIRED = status(410, "Expired", "too old resource version")


def streamed(*lines: bytes, then: str = "hang up") -> Fault:
    """The head of a watch, and these lines of it: whole chunks, but no end of the body."""
    chunks = b"".join(f"{len(line):x}\r\n".encode() + line + b"\r\n" for line in lines)
    return Fault(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks, then)


def whole(*lines: bytes) -> Fault:
    """The same with its proper end."""
    begun = streamed(*lines)
    return Fault(begun.says + b"0\r\n\r\n")


def event(kind: str, thing: Object) -> bytes:
    """One line of a watch."""
    return json.dumps({"type": kind, "object": thing}).encode() + b"\n"


@dataclass
class ApiServer:
    """`faults[path]` are met by the next requests for that path, one each; `storm` by every watch, while it is set."""

    port: int = 0
    tls: bool = False
    version: int = 100
    kept_from: int = 0  # versions up to this one have expired
    tokens: set[str] | None = None  # None: anybody
    piece: int = 1 << 16  # bytes of a chunk
    requests: list[Request] = field(default_factory=list)
    faults: dict[str, deque[Fault]] = field(default_factory=dict)
    storm: Fault | None = None
    objects: dict[str, dict[str, Object]] = field(default_factory=lambda: {PODS: {}, NAMESPACES: {}, NODES: {}})
    history: list[tuple[int, str, str, Object]] = field(default_factory=list)
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    served: set[asyncio.Task[None]] = field(default_factory=set)

    @property
    def url(self) -> str:
        return f"http{'s' if self.tls else ''}://127.0.0.1:{self.port}"

    # -- what people do --------------------------------------------------------------------------------------------

    def put(self, path: str, thing: Object) -> None:
        known = thing["metadata"]["uid"] in self.objects[path]
        self._happen(path, "MODIFIED" if known else "ADDED", thing)
        self.objects[path][thing["metadata"]["uid"]] = thing

    def delete(self, path: str, uid: str) -> None:
        self._happen(path, "DELETED", self.objects[path].pop(uid))

    def _happen(self, path: str, kind: str, thing: Object) -> None:
        self.version += 1
        thing["metadata"]["resourceVersion"] = str(self.version)
        self.history.append((self.version, path, kind, json.loads(json.dumps(thing))))
        self.changed.set()
        self.changed = asyncio.Event()

    def expire(self) -> None:
        """Forget what happened until now: who comes back with an older version must list."""
        self.version += 1
        self.kept_from = self.version

    def cut(self) -> None:
        """Break off everything that is under way."""
        for task in tuple(self.served):
            task.cancel()

    def fault(self, path: str, *faults: Fault) -> None:
        self.faults.setdefault(path, deque()).extend(faults)

    # -- what the server does --------------------------------------------------------------------------------------

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if (request := await _request(reader)) is not None:
                self.requests.append(request)
                await self._answer(request, reader, writer)
        except (ConnectionError, ssl.SSLError, asyncio.IncompleteReadError):
            pass
        except asyncio.CancelledError:
            writer.transport.abort()
        finally:
            writer.close()

    async def _answer(self, request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        waiting = self.faults.get(request.path)
        met = waiting.popleft() if waiting else self.storm if request.watches else None
        token = request.headers.get("authorization", "").removeprefix("Bearer ")
        if met is None and self.tokens is not None and token not in self.tokens:
            met = status(401, "Unauthorized", "Unauthorized")
        since = int(request.query.get("resourceVersion") or 0)
        if met is None and request.watches and since < self.kept_from:
            met = EXPIRED
        if met is None and since > self.version:
            met = status(504, "Timeout", "Too large resource version", "ResourceVersionTooLarge")
        if met is not None:
            writer.write(met.says)
            await writer.drain()
            if met.then == "stay silent":
                await reader.read()  # until the other side has had enough
        elif request.watches:
            await self._watch(request, since, writer)
        else:
            await self._list(request, writer)

    async def _list(self, request: Request, writer: asyncio.StreamWriter) -> None:
        found = [thing for thing in self.objects[request.path].values() if _selected(request, thing)]
        limit, first = int(request.query.get("limit", 0)), int(request.query.get("continue", 0))
        page = found[first : first + limit] if limit else found
        meta = {"resourceVersion": str(self.version)}
        if limit and first + limit < len(found):
            meta["continue"] = str(first + limit)
        shown = [_shown(request, thing) for thing in page]
        body = json.dumps({"kind": "List", "apiVersion": "v1", "metadata": meta, "items": shown}).encode()
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for at in range(0, len(body), self.piece):
            await _chunk(writer, body[at : at + self.piece])
        await _chunk(writer, b"")

    async def _watch(self, request: Request, since: int, writer: asyncio.StreamWriter) -> None:
        loop, began = asyncio.get_running_loop(), since
        end = loop.time() + int(request.query["timeoutSeconds"])
        bookmark = loop.time() + BOOKMARK_EVERY
        sent = {uid for uid, thing in self.objects[request.path].items() if _selected(request, thing)}
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        await writer.drain()
        while loop.time() < end:
            changed = self.changed
            for version, path, kind, thing in list(self.history):
                if path == request.path and version > since and _selected(request, thing):
                    await _chunk(writer, event(kind, _shown(request, thing)))
                    sent.add(thing["metadata"]["uid"])
            since = max([since, *(version for version, path, _, _ in self.history if path == request.path)])
            try:
                async with asyncio.timeout_at(min(end, bookmark)):
                    await changed.wait()
            except TimeoutError:
                if since > began and loop.time() >= bookmark:
                    meta = {"resourceVersion": str(since), "creationTimestamp": None}
                    await _chunk(writer, event("BOOKMARK", {"kind": "Pod", "metadata": meta}))
                bookmark = max(bookmark, loop.time() + (BOOKMARK_EVERY if loop.time() >= bookmark else 0))
        await _chunk(writer, b"")


def _selected(request: Request, thing: Object) -> bool:
    name, _, value = request.query.get("fieldSelector", "").partition("=")
    match name:
        case "spec.nodeName":
            return bool(thing["spec"].get("nodeName") == value)
        case "metadata.name":
            return bool(thing["metadata"]["name"] == value)
    return True


def _shown(request: Request, thing: Object) -> Object:
    partial = "PartialObjectMetadata" in request.headers.get("accept", "")
    return {"metadata": thing["metadata"]} if partial else thing


async def _chunk(writer: asyncio.StreamWriter, data: bytes) -> None:
    writer.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
    await writer.drain()


async def _request(reader: asyncio.StreamReader) -> Request | None:
    head = await reader.readuntil(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines if line)}
    url = urlsplit(first.split(" ")[1])
    query = {name: values[-1] for name, values in parse_qs(url.query, keep_blank_values=True).items()}
    return Request(asyncio.get_running_loop().time(), url.path, query, headers)


@asynccontextmanager
async def api_server(tls: ssl.SSLContext | None = None) -> AsyncIterator[ApiServer]:
    """One on a free port, empty but for what the story puts in."""
    double = ApiServer(tls=tls is not None)

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        double.served.add(task)
        try:
            await double.serve(reader, writer)
        finally:
            double.served.discard(task)

    server = await asyncio.start_server(accept, "127.0.0.1", 0, ssl=tls)
    double.port = server.sockets[0].getsockname()[1]
    try:
        yield double
    finally:
        server.close()
        double.cut()
        await asyncio.gather(*double.served, return_exceptions=True)


# -- objects -------------------------------------------------------------------------------------------------------

_uids = itertools.count(1)
EPOCH = "2026-11-23T01:00:00Z"


def uid() -> str:
    """One that no other object has."""
    return f"00000000-0000-4000-8000-{next(_uids):012x}"


def namespace(name: str, labels: dict[str, str] | None = None, created: str = EPOCH, **annotations: str) -> Object:
    """A namespace. An annotation is written `billing__allowed_customers`."""
    annotated = {key.replace("__", "/").replace("_", "-"): value for key, value in annotations.items()}
    meta = {"name": name, "uid": uid(), "creationTimestamp": created, "labels": labels or {}}
    return {"kind": "Namespace", "metadata": meta | {"annotations": annotated}, "spec": {}, "status": {}}


def pod(name: str, space: str = "team-a", *, node: str = "node-a", created: str = EPOCH, **meta: Any) -> Object:
    """A pod with one container. `meta` adds to its metadata."""
    meta = {"name": name, "namespace": space, "uid": uid(), "creationTimestamp": created} | meta
    spec = {"nodeName": node, "containers": [{"name": "main", "image": "i", "resources": {}}]}
    return {"kind": "Pod", "apiVersion": "v1", "metadata": meta, "spec": spec, "status": {"phase": "Running"}}


def node(name: str, labels: dict[str, str]) -> Object:
    """A node."""
    return {"kind": "Node", "metadata": {"name": name, "uid": uid(), "labels": labels}, "spec": {}, "status": {}}


async def until(so: Callable[[], bool]) -> None:
    """Wait, in the loop's own time."""
    while not so():  # noqa: ASYNC110 - of what is under test nothing tells when
        await asyncio.sleep(1)
