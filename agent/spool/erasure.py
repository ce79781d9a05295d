"""What is left of a record that a person had erased: its id, and the digest of what it said (DESIGN §6).

The sequence has no hole, and a day's digest is made of the records' own digests: so completeness can be shown after
the words are gone.
"""

import hashlib

import msgspec
from msgspec import UNSET, Struct, UnsetType

_MARK = b'{"erased":"'  # no record's canonical body begins so


class Erased(Struct, frozen=True):
    """`erased`: SHA-256 in hex of what stood there. `id`: the record's; a payload has none."""

    erased: str
    id: str | UnsetType = UNSET


def is_erased(body: bytes) -> bool:
    """Whether this is what is left of something erased."""
    return body.startswith(_MARK)


def left_of(body: bytes) -> Erased:
    """What an erased body still says."""
    return msgspec.json.decode(body, type=Erased)


def digest(body: bytes) -> bytes:
    """SHA-256 of what a body says, or said before it was erased."""
    return bytes.fromhex(left_of(body).erased) if is_erased(body) else hashlib.sha256(body).digest()


def tombstone(body: bytes, record_id: str | UnsetType = UNSET) -> bytes:
    """What takes the place of a body, or of a payload, which has no id of its own."""
    return msgspec.json.encode(Erased(digest(body).hex(), record_id))
