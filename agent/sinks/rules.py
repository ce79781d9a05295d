"""What a reply means, by rules that are data: of the whole submission, and of each record that the reply names. Pure.

The first rule that fits decides; where none does, the common table (`meaning`). A rule with `named` reads which records
a reply speaks of. A reply that cannot be read so, or that names a record which was not sent, says nothing for sure:
the submission is then ambiguous, and is sent again unchanged while the back end knows its ids.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Literal

import msgspec
from msgspec import Struct, structs

from agent.sinks import Answer, Outcome
from agent.sinks.meaning import Hide, Meaning, Reply, asked_to_wait, judge

SAID = 200  # characters of what was said of one record

Means = Outcome | Literal["split"]


class Said(Struct, frozen=True):
    """What some of the records are called: those of which `text` is said."""

    text: str
    means: Outcome


class Named(Struct, frozen=True):
    """Where a reply names records. `at`: the keys that lead to a list, or to a mapping by index or id.

    `by`: what tells which: the `index` in the request, or the record's `id`. In a list, `key` leads to it; without one
    a list by index is as long as the request. `otherwise`: what a record comes to of which no `said` is told.
    """

    at: tuple[str, ...]
    by: Literal["index", "id"]
    key: tuple[str, ...] = ()
    said: tuple[Said, ...] = ()
    otherwise: Outcome = "rejected"


class Rule(Struct, frozen=True):
    """One kind of reply: its statuses, a text in its body, and whether it answers `one` record or `many`."""

    statuses: frozenset[int]
    means: Means
    text: str = ""
    records: Literal["one", "many", "any"] = "any"
    definite: bool = False
    blocked: bool = False
    cure: str = ""
    named: Named | None = None


def answer(
    reply: Reply, rules: Sequence[Rule], seqs: Sequence[int], ids: Callable[[], Sequence[object]], hide: Hide
) -> Answer:
    """What a reply to these records means. `ids` are theirs, in the same order."""
    rule = next((rule for rule in rules if _fits(rule, reply, len(seqs))), None)
    if rule is None:
        return judge(reply, {}, hide)
    meaning = Meaning(rule.means, definite=rule.definite, blocked=rule.blocked, cure=rule.cure)
    whole = judge(reply, {reply.status: meaning}, hide)
    if rule.named is None:
        return whole
    try:
        named = dict(_named(rule.named, reply.body, seqs, ids, hide))
    except (ValueError, LookupError, TypeError):
        why = f"{whole.why}; which records it speaks of cannot be read"
        return Answer(outcome="ambiguous", why=why, after=asked_to_wait(reply.headers))
    if not named and rule.means == "retry":  # a refusal, and it does not say of what: its parts may
        return structs.replace(whole, outcome="split", after=None)
    return structs.replace(whole, items=named)


def _fits(rule: Rule, reply: Reply, records: int) -> bool:
    counted = rule.records == "any" or (rule.records == "many") == (records > 1)
    return counted and reply.status in rule.statuses and rule.text.encode() in reply.body


def _named(
    named: Named, body: bytes, seqs: Sequence[int], ids: Callable[[], Sequence[object]], hide: Hide
) -> Iterator[tuple[int, tuple[Outcome, str]]]:
    found = _under(msgspec.json.decode(body), named.at)
    if not found:
        return
    places: Mapping[object, int] = dict(enumerate(seqs)) if named.by == "index" else dict(zip(ids(), seqs, strict=True))
    for which, said in _members(named, found):
        text = hide(said if isinstance(said, str) else msgspec.json.encode(said).decode())
        means = next((rule.means for rule in named.said if rule.text in text), named.otherwise)
        yield places[which], (means, text[:SAID])


def _members(named: Named, found: object) -> Iterator[tuple[object, object]]:
    if isinstance(found, Mapping):
        yield from ((int(key) if named.by == "index" else key, said) for key, said in found.items())
    elif isinstance(found, list):
        yield from ((_under(said, named.key) if named.key else place, said) for place, said in enumerate(found))
    else:
        raise TypeError(found)


def _under(value: object, keys: Sequence[str]) -> object:
    """What stands below these keys; None where a mapping lacks one."""
    for key in keys:
        if not isinstance(value, Mapping):
            raise TypeError(value)
        value = value.get(key)
        if value is None:
            return None
    return value
