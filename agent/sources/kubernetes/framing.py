"""Single objects out of bytes that come in pieces, so that no more than one object is in memory as text.

A watch is one object a line. A list is one object with an array in it, and is cut at the array's elements: a node's
pods may be 500 objects of megabytes, if somebody makes them so.
"""

import codecs
import json
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from json.decoder import JSONDecodeError

OBJECT_BYTES = 16 << 20  # etcd takes 1.5 MiB of an object; written as JSON with every character escaped it is 9
_SPACE = " \t\r\n"


class GarbageError(Exception):
    """What came is not what the API documents: one line."""


async def lines(pieces: AsyncIterator[bytes]) -> AsyncGenerator[bytes]:
    """Whole lines without their end; empty ones are passed over. Raises GarbageError for one without an end."""
    held = bytearray()
    async for piece in pieces:
        held += piece
        if b"\n" not in piece:
            if len(held) > OBJECT_BYTES:
                raise GarbageError(f"a line of more than {OBJECT_BYTES} bytes")
            continue
        *whole, rest = held.split(b"\n")
        held = bytearray(rest)
        for line in whole:
            if line := line.strip():
                yield bytes(line)
    if held.strip():
        raise GarbageError("the last line has no end")


class ListReader:
    """Takes the pieces of a list and gives the text of its items, as they become whole. `rest` is all but the items."""

    def __init__(self) -> None:
        self.rest: dict[str, object] = {}
        self._text = ""
        self._decode = codecs.getincrementaldecoder("utf-8")()
        self._scan = json.JSONDecoder().raw_decode
        self._inside = self._done = False
        self._enough = 0  # characters before which it is no use to look again

    def feed(self, piece: bytes, *, last: bool = False) -> Iterator[bytes]:
        """The items that this piece ends. Raises GarbageError."""
        try:
            self._text += self._decode.decode(piece, last)
            if len(self._text) >= self._enough or last:
                yield from self._items()
        except (UnicodeDecodeError, RecursionError) as error:
            raise GarbageError(f"a list that is not understood: {error}") from error
        if last and not self._done:
            raise GarbageError("a list that ends before its end")
        if len(self._text) > OBJECT_BYTES:
            raise GarbageError(f"an object of more than {OBJECT_BYTES} bytes")

    def _items(self) -> Iterator[bytes]:
        text, at = self._text, 0
        try:
            while not self._done:
                at, item = self._step(text, at)
                if item is not None:
                    yield item
        except (JSONDecodeError, IndexError):  # not whole yet; garbage is found out when nothing more comes
            self._enough = 2 * (len(text) - at)
        self._text = text[at:]

    def _step(self, text: str, at: int) -> tuple[int, bytes | None]:
        """Go past one item, or one member of the list itself. Raises where the text ends too early."""
        at = _past(text, at)
        if self._inside:
            if text[at] == "]":
                self._inside = False
                return at + 1, None
            _, end = self._scan(text, at)
            after = _past(text, end)
            if text[after] not in ",]":
                raise GarbageError(f"{text[after]!r} in a list after an item")
            return (after + 1 if text[after] == "," else after), text[at:end].encode()
        if text[at] == "}":
            self._done = True
            return at + 1, None
        if text[at] not in "{,":
            raise GarbageError(f"{text[at]!r} where a list begins or goes on")
        at = _past(text, at + 1)
        if text[at] == "}":
            return at, None
        key, at = self._scan(text, at)
        at = _past(text, at)
        if text[at] != ":":
            raise GarbageError(f"{text[at]!r} in a list where a colon belongs")
        at = _past(text, at + 1)
        if key == "items" and text[at] == "[":
            self._inside = True
            return at + 1, None
        if text[at] not in '"{[tfn':  # a number may go on in the next piece; a list has none
            raise GarbageError(f"{text[at]!r} in a list where a value belongs")
        self.rest[str(key)], at = self._scan(text, at)
        return at, None


def _past(text: str, at: int) -> int:
    """The first place from `at` on that is no white space. Raises IndexError when there is none."""
    while text[at] in _SPACE:
        at += 1
    return at
