"""How a request is made of records, and what the answers to it mean, as somebody writes it."""

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, PlainValidator, StrictBool, WithJsonSchema

from agent.config.scalars import VendorName, shown
from agent.config.section import Section

if TYPE_CHECKING:
    from agent.sinks import rules

Constant = StrictBool | Annotated[int, Field(strict=True)] | str
Outcome = Literal["delivered", "duplicate", "conflict", "rejected", "retry", "ambiguous"]


def _statuses(value: object) -> tuple[int, ...]:
    given = value if isinstance(value, list) and value else [value]
    for status in given:
        if isinstance(status, bool) or not isinstance(status, int) or not 200 <= status <= 599:
            raise ValueError(f"{shown(status)} is no status of an answer. Write one such as 200, or a list of them.")
    return tuple(given)


Statuses = Annotated[
    tuple[int, ...],
    PlainValidator(_statuses),
    WithJsonSchema({"anyOf": [{"type": "integer"}, {"type": "array", "items": {"type": "integer"}}]}),
]


class Batch(Section):
    """What a request is made of."""

    shape: Literal["array", "list", "single", "ndjson"] = "single"
    """`array`: of records, bare. `list`: an object with the records under a key. `single`: one record. `ndjson`: lines,
    one a record. Default single."""
    under: VendorName | None = None
    """Of a list: the key that it stands under. No default."""
    beside: Annotated[dict[str, Constant], Field(min_length=1)] | None = None
    """Of a list: what stands beside it, the same in each request. Default nothing."""


class Words(Section):
    """What is said of one record, and what it means."""

    text: VendorName
    """A text that stands in it. No default."""
    means: Outcome
    """What that means for the record. No default."""


class Named(Section):
    """Where an answer speaks of single records."""

    at: VendorName
    """The keys that lead there, with dots between: to a list, or to a mapping by index or id. No default."""
    by: Literal["index", "id"]
    """What tells which record is meant: its place in the request from 0, or its id. No default."""
    key: VendorName | None = None
    """In a list: the keys that lead to the index or the id. Default: the place in the list is the index."""
    said: tuple[Words, ...] = ()
    """What is said of a record means, by the first text that fits. Default: nothing is looked at."""
    otherwise: Outcome = "rejected"
    """What a record that is named comes to of which none of `said` is told. Default rejected."""

    def plain(self) -> "rules.Named":
        """The same for the sink."""
        from agent.sinks import rules

        said = tuple(rules.Said(words.text, words.means) for words in self.said)
        key = () if self.key is None else tuple(self.key.split("."))
        return rules.Named(tuple(self.at.split(".")), self.by, key, said, self.otherwise)


class Answer(Section):
    """One kind of answer, and what it means."""

    status: Statuses
    """The statuses, one or a list. No default."""
    body: VendorName | None = None
    """A text that stands in the answer. Default: whatever it says."""
    records: Literal["one", "many", "any"] = "any"
    """Whether it answers a request with `one` record or `many`. Default any."""
    means: Literal["delivered", "duplicate", "conflict", "rejected", "split", "retry", "ambiguous"]
    """What it means for the records that it does not name: `delivered`; `duplicate`, was known; `conflict`, is known
    as something else; `rejected`, waits for a person; `split`, the parts are sent; `retry`, later; `ambiguous`. No
    default."""
    definite: StrictBool = False
    """Whether nothing that it does not name was taken. Default false: some may have been, and the same is sent again
    only while their ids are known."""
    blocked: StrictBool = False
    """Whether nothing will be taken until a person acts. Default false."""
    cure: VendorName | None = None
    """What a person should do. Default nothing."""
    named: Named | None = None
    """Where it speaks of single records. Default: it does not."""

    def plain(self) -> "rules.Rule":
        """The same for the sink."""
        from agent.sinks import rules

        return rules.Rule(
            frozenset(self.status),
            self.means,
            text=self.body or "",
            records=self.records,
            definite=self.definite,
            blocked=self.blocked,
            cure=self.cure or "",
            named=None if self.named is None else self.named.plain(),
        )
