"""However the bytes are cut, the same objects come out; and never more than one of them is held as text."""

import asyncio
import json
from collections.abc import AsyncIterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.sources.kubernetes import framing
from agent.sources.kubernetes.framing import GarbageError, ListReader, lines

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
objects = st.dictionaries(st.text(max_size=5), values, max_size=3)


def pieces_of(raw: bytes, cuts: list[int]) -> list[bytes]:
    """The bytes, cut there."""
    places = [0, *sorted(cut % (len(raw) + 1) for cut in cuts), len(raw)]
    return [raw[a:b] for a, b in pairwise(places)]


def listed(pieces: list[bytes]) -> tuple[list[Any], dict[str, object]]:
    """The items and the rest of a list that comes in these pieces."""
    reader = ListReader()
    found = [item for piece in pieces for item in reader.feed(piece)]
    found += reader.feed(b"", last=True)
    return [json.loads(item) for item in found], reader.rest


def lined(pieces: list[bytes]) -> list[bytes]:
    """The lines of these pieces."""

    async def given_() -> AsyncIterator[bytes]:
        for piece in pieces:
            yield piece

    async def taken() -> list[bytes]:
        return [line async for line in lines(given_())]

    return asyncio.run(taken())


@given(
    items=st.lists(objects, max_size=4),
    meta=objects,
    cuts=st.lists(st.integers(0, 1 << 16), max_size=12),
    first=st.booleans(),
    space=st.sampled_from([None, 1]),
    escaped=st.booleans(),
)
def test_a_list_is_the_same_however_it_is_cut(
    items: list[Any], meta: dict[str, Any], cuts: list[int], first: bool, space: int | None, escaped: bool
) -> None:
    """Members in any order, with white space or without, in the middle of a character too."""
    rest = {"kind": "PodList", "metadata": meta}
    whole = {"items": items, **rest} if first else {**rest, "items": items}
    raw = json.dumps(whole, indent=space, ensure_ascii=escaped).encode(errors="surrogatepass")
    if b"\xed" in raw and not escaped:  # half a character, which JSON can only write escaped
        raw = json.dumps(whole, indent=space).encode()
    assert listed(pieces_of(raw, cuts)) == (items, rest)


@given(items=st.lists(objects, min_size=1, max_size=3), cut=st.integers(0, 1 << 16))
def test_a_list_that_ends_too_early_is_noticed(items: list[Any], cut: int) -> None:
    """What was whole until then may have come out already; the list as a whole does not count."""
    raw = json.dumps({"metadata": {}, "items": items}).encode()
    with pytest.raises(GarbageError):
        listed([raw[: cut % len(raw)]])


@pytest.mark.parametrize(
    "raw", [b"garbage", b"[]", b'{"items":[{}{}]}', b'{"items" []}', b'{"a":7}', b"\xff", b"{" * 9]
)
def test_what_is_no_list_is_refused(raw: bytes) -> None:
    """By what is found in the place of what belongs there, or by its missing end."""
    with pytest.raises(GarbageError):
        listed([raw])


def test_an_empty_list_may_be_null() -> None:
    """Go writes a list without elements so, where nobody told it otherwise."""
    assert listed([b'{"items":null,"metadata":{}}']) == ([], {"items": None, "metadata": {}})


@given(items=st.lists(objects, max_size=6), cuts=st.lists(st.integers(0, 1 << 16), max_size=12))
def test_lines_are_the_same_however_they_are_cut(items: list[Any], cuts: list[int]) -> None:
    """Empty ones are passed over."""
    raw = b"".join(json.dumps(item).encode() + b"\n\r\n" for item in items)
    assert [json.loads(line) for line in lined(pieces_of(raw, cuts))] == items


def test_a_line_without_an_end_is_noticed() -> None:
    """The connection was cut in the middle."""
    with pytest.raises(GarbageError, match="no end"):
        lined([b"{}\n{"])


def test_what_never_ends_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a line, nor an item of a list."""
    monkeypatch.setattr(framing, "OBJECT_BYTES", 1000)
    with pytest.raises(GarbageError, match="more than 1000 bytes"):
        lined([b"x" * 100] * 50)
    reader = ListReader()
    assert not list(reader.feed(b'{"items":[{"a":"'))
    with pytest.raises(GarbageError, match="more than 1000 bytes"):
        [list(reader.feed(b"x" * 100)) for _ in range(50)]


def test_a_captured_list() -> None:
    """Real bytes, indented."""
    raw = (Path(__file__).parent / "captures/pods.json").read_bytes()
    items, _ = listed([raw[at : at + 1000] for at in range(0, len(raw), 1000)])
    assert items == json.loads(raw)["items"]
