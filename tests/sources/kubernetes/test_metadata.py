"""What the spool's thread reads, and has kept for it."""

from agent.sources.kubernetes.metadata import Metadata
from tests.sources.kubernetes import double as d
from tests.sources.kubernetes import warp
from tests.sources.kubernetes.double import NAMESPACES, PODS, ApiServer
from tests.sources.kubernetes.test_watch import known, metadata, story


def test_what_is_remembered_is_enough_without_an_api_server() -> None:
    """The same facts, with nobody introduced twice; what cannot be read is left to the API."""
    kept: dict[str, bytes] = {}

    async def first(server: ApiServer, follower: Metadata) -> None:
        uid = await known(server, follower, "a")
        kept.update({uid: row for uid, row in follower.remember([uid]).items() if row is not None})
        assert kept.keys() == {uid}
        assert follower.remember([uid]) == {}, "once"
        before = follower.of(uid)
        server.put(NAMESPACES, d.namespace("elsewhere"))
        alone = metadata(server, remembered={**kept, "other release": b"{}"})
        assert alone.of(uid) == before
        assert alone.introduced() == {}
        assert alone.remember([]) == {}, "what the API has nobody knows yet"
        assert alone.version() == 0

    story(first)


def test_a_pod_is_forgotten_when_neither_the_api_nor_a_group_has_it() -> None:
    """Not before, and then for good."""

    async def tell(server: ApiServer, follower: Metadata) -> None:
        uid = await known(server, follower, "a")
        assert follower.introduced().keys() == {uid}
        assert follower.introduced() == {}
        assert follower.remember([]).keys() == {uid}, "its group is yet to be made"
        server.delete(PODS, uid)
        await d.until(lambda: uid not in follower._join.view.present)
        assert follower.remember([uid]) == {}
        assert follower.of(uid) is not None
        assert follower.remember([]) == {uid: None}
        assert follower.remember([]) == {}
        await known(server, follower, "b")
        assert follower.of(uid) is None

    story(tell)


def test_a_change_is_kept_again() -> None:
    """Of the pods that it concerns."""

    async def tell(server: ApiServer, follower: Metadata) -> None:
        uid = await known(server, follower, "a")
        follower.remember([uid])
        version, (space,) = follower.version(), server.objects[NAMESPACES].values()
        server.put(NAMESPACES, space | {"metadata": space["metadata"] | {"labels": {"tenant": "globex"}}})
        await d.until(lambda: follower.version() != version)
        changes = follower.remember([uid])
        assert b"globex" in (changes[uid] or b"")

    story(tell)


def test_what_was_remembered_and_is_gone_is_deleted_after_the_first_list() -> None:
    """Also a row that cannot be read."""

    async def tell(server: ApiServer, follower: Metadata) -> None:
        uid = await known(server, follower, "a")
        kept = {uid: row for uid, row in follower.remember([]).items() if row is not None}
        server.delete(PODS, uid)
        second = metadata(server, remembered={**kept, "unreadable": b"["})
        second._join.pods([])
        assert second.remember([]) == {uid: None, "unreadable": None}

    story(tell)


def test_the_stats_count_what_was_asked() -> None:
    """And closing twice is safe."""

    async def tell(server: ApiServer, follower: Metadata) -> None:
        await known(server, follower, "a")
        stats = follower.stats
        assert (stats.requests, stats.relists, stats.failures, stats.failing) == (4, 0, 0, None)
        assert stats.bytes > 500
        assert warp.now() - stats.last_heard <= 2_000_000_000
        await follower.close()
        await follower.close()

    story(tell)
