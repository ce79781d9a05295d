"""What one resource adds to one record, as `explain` tells it."""

from msgspec import Struct

from agent.shares import Evidence


class Part(Struct, frozen=True):
    """One resource's part of a record: quantity = moved − inner − in_flight, unless a policy made it of what moved.

    The counter went from `first` to `last`; `moved` of that fell to this window and owner, `inner` of which its
    metered children moved. `in_flight`: read ahead of the children, and booked when they catch up.
    """

    resource: str
    key: str
    labels: dict[str, str]
    first: int
    last: int
    moved: int
    inner: int
    in_flight: int
    quantity: int
    rule: str
    flags: tuple[str, ...]
    spans: tuple[tuple[int, int], ...]

    @classmethod
    def of(cls, evidence: Evidence, policy: str) -> "Part":
        """What the spool kept of it."""
        resource, share = evidence.resource, evidence.share
        return cls(
            resource=resource.name,
            key=resource.key,
            labels=dict(resource.labels),
            first=share.first,
            last=share.last,
            moved=share.moved,
            inner=share.inner,
            in_flight=share.moved - share.inner - share.quantity if policy == "usage" else 0,
            quantity=share.quantity,
            rule=share.owner.rule,
            flags=tuple(share.flags),
            spans=tuple((start, end) for start, end in share.spans),
        )
