"""One collection kept true through everything that a network and an API server do, and at what price."""

import asyncio
import json
from collections.abc import Awaitable, Callable

import pytest

from agent.credentials import Trust
from agent.sources.kubernetes.access import Access, Credential
from agent.sources.kubernetes.metadata import Metadata
from tests.sources.kubernetes import double as d
from tests.sources.kubernetes import warp
from tests.sources.kubernetes.double import NAMESPACES, PODS, ApiServer

HOUR = 3600.0
EXPIRY_EVENT = d.whole(d.event("ERROR", d.status_object(410, "Expired", "too old resource version")))


class Somebody:
    """An identity without files."""

    def __init__(self, server: ApiServer, tls: Trust | None = None) -> None:
        self.server, self.tls = server, tls

    async def credential(self, *, anew: bool = False) -> Credential:
        return Credential(self.server.url, self.tls)


def metadata(server: ApiServer, *, remembered: dict[str, bytes] | None = None, chance: float = 0.5) -> Metadata:
    """One that follows node-a at the double."""
    return Metadata(
        Access(Somebody(server)),
        "node-a",
        pod_label_keys=frozenset({"customer"}),
        allow_annotation="billing/allowed-customers",
        node_labels=False,
        remembered=remembered or {},
        clock=warp.now,
        chance=lambda: chance,
    )


def story(
    tell: Callable[[ApiServer, Metadata], Awaitable[None]], before: Callable[[ApiServer], None] | None = None
) -> None:
    """Tell a story with a server that has namespace team-a, and metadata that follows it."""

    async def told() -> None:
        async with d.api_server() as server:
            server.put(NAMESPACES, d.namespace("team-a", {"tenant": "acme"}))
            if before is not None:
                before(server)
            follower = metadata(server)
            following = asyncio.ensure_future(follower.follow())
            try:
                await tell(server, follower)
                assert not following.done()
            finally:
                following.cancel()
                await asyncio.gather(following, return_exceptions=True)
            await d.until(lambda: not server.served)

    warp.run(told())


async def known(server: ApiServer, follower: Metadata, name: str) -> str:
    """Make a pod, and wait until it is known."""
    made = d.pod(name)
    server.put(PODS, made)
    uid: str = made["metadata"]["uid"]
    await d.until(lambda: follower.of(uid) is not None)
    return uid


def test_an_hour_costs_less_than_two_requests_a_minute() -> None:
    """Two watches of five to nine minutes each, whatever comes and goes meanwhile."""

    async def tell(server: ApiServer, follower: Metadata) -> None:
        await asyncio.sleep(60)
        begun = len(server.requests)
        for i in range(60):
            uid = await known(server, follower, f"p{i}")
            await asyncio.sleep(30)
            server.delete(PODS, uid)
            await asyncio.sleep(30)
        spent = server.requests[begun:]
        assert 2 * 6 <= len(spent) <= 2 * 12 + 2
        assert all(request.watches for request in spent)
        lasts = {int(request.query["timeoutSeconds"]) for request in server.requests if request.watches}
        assert lasts == {420}
        assert follower.stats.failures == follower.stats.relists == 0
        assert follower.stats.requests == len(server.requests)

    story(tell)


def test_what_is_asked_for() -> None:
    """Only this node's pods; of namespaces the metadata alone; the first list from the cache, without a limit."""

    async def tell(server: ApiServer, follower: Metadata) -> None:
        await known(server, follower, "a")
        lists = {request.path: request for request in server.requests if not request.watches}
        watches = {request.path: request for request in server.requests if request.watches}
        assert lists.keys() == watches.keys() == {PODS, NAMESPACES}
        for asked in (lists, watches):
            assert asked[PODS].query["fieldSelector"] == "spec.nodeName=node-a"
            assert "PartialObjectMetadata" in asked[NAMESPACES].headers["accept"]
            assert "limit" not in asked[PODS].query
        assert lists[PODS].query["resourceVersion"] == "0"
        assert watches[PODS].query["allowWatchBookmarks"] == "true"
        assert "authorization" not in watches[PODS].headers

    story(tell)


def test_a_watch_goes_on_where_it_was() -> None:
    """Each begins with the version of the last event or bookmark, so that nothing is listed twice."""

    async def tell(server: ApiServer, follower: Metadata) -> None:
        await known(server, follower, "a")
        server.version += 1000  # elsewhere in the cluster
        await asyncio.sleep(HOUR)
        assert await known(server, follower, "b")
        watched = [int(r.query["resourceVersion"]) for r in server.requests if r.watches and r.path == PODS]
        assert watched == sorted(watched)
        assert watched[-1] >= 1100
        assert follower.stats.relists == 0

    story(tell)


def test_after_410_it_lists_what_is_not_older_and_what_went_meanwhile_is_gone() -> None:
    """As a reply, or as an event."""

    async def tell(server: ApiServer, follower: Metadata) -> None:
        first, second = await known(server, follower, "a"), await known(server, follower, "b")
        at = server.version
        assert follower.remember([]).keys() == {first, second}
        server.storm = EXPIRY_EVENT
        server.cut()
        await d.until(lambda: follower.stats.failing is not None)
        server.delete(PODS, first)
        server.expire()
        server.storm = None
        await d.until(lambda: follower.remember([]) == {first: None})
        assert follower.of(second) is not None
        relist = next(r for r in server.requests[4:] if r.path == PODS and not r.watches)
        assert int(relist.query["resourceVersion"]) >= at
        assert await known(server, follower, "c")
        assert follower.stats.failing is None

    story(tell)


@pytest.mark.parametrize(
    "storm",
    [
        d.EXPIRED,
        EXPIRY_EVENT,
        d.whole(),
        d.streamed(b'{"type":"ADDED","obj'),
        d.streamed(b"garbage\n"),
        d.streamed(b'{"type":"SOMETHING","object":{}}\n'),
        d.Fault(b"\x00\xff no HTTP at all\r\n\r\n"),
        d.Fault(b""),
        d.status(500, "InternalError", "etcd is ill"),
        d.status(403, "Forbidden", 'pods is forbidden: User "x" cannot watch resource "pods"'),
    ],
    ids=["410", "410 in the stream", "ends at once", "cut", "garbage", "new type", "no HTTP", "hangs up", "500", "403"],
)
def test_a_storm_does_not_make_it_hammer(storm: d.Fault) -> None:
    """Whatever fails for an hour: at most one try a minute and collection after the first ones, and it comes back."""

    async def tell(server: ApiServer, follower: Metadata) -> None:
        uid = await known(server, follower, "a")
        begun = len(server.requests)
        server.storm = storm
        server.expire()
        server.cut()
        await asyncio.sleep(2 * HOUR)
        spent = server.requests[begun:]
        assert 100 < len(spent) <= 2 * 2 * 120 * 4 / 3 + 40
        assert follower.of(uid) is not None, "what is known stays known"
        server.storm = None
        await asyncio.sleep(130)
        assert await known(server, follower, "b")
        assert follower.stats.failing is None

    story(tell)


def test_retry_after_is_obeyed() -> None:
    """Also of the flow control's 429."""

    async def tell(server: ApiServer, follower: Metadata) -> None:
        await known(server, follower, "a")
        server.fault(PODS, d.status(429, "TooManyRequests", "slow down", Retry_After="90"))
        server.fault(PODS, d.status(503, "ServiceUnavailable", "starting", Retry_After="200"))
        server.cut()
        await asyncio.sleep(HOUR / 2)
        asked = [r.at for r in server.requests if r.path == PODS][2:]
        assert asked[1] - asked[0] >= 90
        assert asked[2] - asked[1] >= 200
        assert await known(server, follower, "b")

    story(tell)


def test_a_stream_that_falls_silent_is_taken_up_again() -> None:
    """Three bookmarks that do not come are a connection that is dead, whoever still holds it open."""

    async def tell(server: ApiServer, follower: Metadata) -> None:
        await d.until(lambda: len(server.requests) == 4)
        server.fault(PODS, d.status(500, "InternalError", "x"), d.streamed(then="stay silent"))
        server.fault(NAMESPACES, d.status(500, "InternalError", "x"), d.streamed(b"\n", then="stay silent"))
        server.cut()
        await asyncio.sleep(900)
        assert await known(server, follower, "a")
        assert follower.stats.failing is None
        assert follower.stats.failures == 6

    story(tell)


def test_a_fallen_version_makes_it_list_from_the_store() -> None:
    """Nothing that comes out of order is believed: an older label must not come back."""

    async def tell(server: ApiServer, follower: Metadata) -> None:
        uid = await known(server, follower, "a")
        facts = follower.of(uid)
        old = d.pod("a", uid=uid, resourceVersion="7", labels={"customer": "evil"})
        server.fault(PODS, d.streamed(d.event("MODIFIED", old)))
        await asyncio.sleep(600)
        assert follower.of(uid) is facts
        (through,) = [r for r in server.requests[4:] if r.path == PODS and not r.watches]
        assert "resourceVersion" not in through.query
        assert through.query["limit"] == "100"

    story(tell)


def test_a_store_that_was_put_back_is_believed_once_it_is_read_through() -> None:
    """Its versions are lower than ours: "too large", until the list asks for the truth."""

    async def tell(server: ApiServer, follower: Metadata) -> None:
        await known(server, follower, "a")
        server.version = 50
        server.history.clear()
        server.cut()
        server.objects[PODS].clear()
        await asyncio.sleep(HOUR)
        assert await known(server, follower, "b")
        assert follower.stats.failing is None

    story(tell)


def test_many_pods_come_in_pages_and_in_pieces() -> None:
    """250 pods through pages of 100, in chunks of 7 bytes."""

    def before(server: ApiServer) -> None:
        server.piece = 700
        for i in range(250):
            server.put(PODS, d.pod(f"p{i}"))
        server.put(PODS, d.pod("elsewhere", node="node-b"))
        server.fault(PODS, d.status(410, "Expired", "the cache is not filled"))

    async def tell(server: ApiServer, follower: Metadata) -> None:
        await d.until(lambda: len(follower.introduced()) > 0 or bool(follower.remember([])))
        assert len([r for r in server.requests if r.path == PODS and "limit" in r.query]) == 3
        uids = [uid for uid, pod in server.objects[PODS].items() if pod["spec"]["nodeName"] == "node-a"]
        assert len(uids) == 250
        assert all(follower.of(uid) is not None for uid in uids)
        assert all(follower.of(uid) is None for uid in server.objects[PODS].keys() - set(uids))

    story(tell, before)


def test_empty_lines_and_an_object_of_eight_megabytes() -> None:
    """The largest that a server keeps, in the list and in the watch."""
    large = d.pod("large")
    large["metadata"]["annotations"] = {"a": "<\u2713\x01" * 1_000_000}

    def before(server: ApiServer) -> None:
        server.put(PODS, large)

    async def tell(server: ApiServer, follower: Metadata) -> None:
        await d.until(lambda: follower.of(large["metadata"]["uid"]) is not None)
        changed = json.loads(json.dumps(large)) | {"spec": large["spec"] | {"hostNetwork": True}}
        server.version += 1
        changed["metadata"]["resourceVersion"] = str(server.version)
        server.fault(PODS, d.whole(b"\n", b"\r\n", d.event("MODIFIED", changed), b"\n"))
        server.cut()
        await asyncio.sleep(600)
        facts = follower.of(large["metadata"]["uid"])
        assert facts is not None
        assert facts.host_network

    story(tell, before)


def test_an_object_that_is_not_understood_hides_no_other() -> None:
    """Counted and named, in the list and in the watch."""
    odd = d.pod("odd")
    odd["spec"]["containers"] = "none"

    def before(server: ApiServer) -> None:
        server.put(PODS, odd)

    async def tell(server: ApiServer, follower: Metadata) -> None:
        await known(server, follower, "good")
        assert follower.of(odd["metadata"]["uid"]) is None
        assert follower.stats.failures == 1
        assert "is not understood" in str(follower.stats.failing)
        server.put(PODS, odd)
        await known(server, follower, "also good")
        assert follower.stats.failures == 2

    story(tell, before)


def test_nodes_that_lost_the_thread_together_do_not_come_back_together() -> None:
    """The pause before a new list is of seconds, and each node's own."""

    async def pause(chance: float) -> float:
        async with d.api_server() as server:
            follower = metadata(server, chance=chance)
            following = asyncio.ensure_future(follower.follow())
            await d.until(lambda: len(server.requests) == 4)
            server.fault(PODS, d.EXPIRED)
            await d.until(lambda: len([r for r in server.requests if r.path == PODS]) >= 4)
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)
            asked = [r.at for r in server.requests if r.path == PODS]
            return asked[3] - asked[2]

    assert [round(warp.run(pause(chance))) for chance in (0.0, 0.5, 0.999)] == [2, 3, 4]


def test_the_age_is_that_of_what_was_heard_of_longest_ago() -> None:
    """Pods that are followed are of no use with namespaces that are not."""

    async def tell(server: ApiServer, follower: Metadata) -> None:
        await asyncio.sleep(100)
        assert warp.now() - follower.stats.last_heard <= 61e9
        for _ in range(1000):
            server.fault(NAMESPACES, d.status(500, "InternalError", "x"))
        await asyncio.sleep(HOUR)
        assert warp.now() - follower.stats.last_heard >= (HOUR - 600) * 1e9
        assert str(follower.stats.failing).startswith("/api/v1/namespaces: 500 x")

    story(tell)
