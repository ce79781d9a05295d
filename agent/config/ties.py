"""Customers who provably claim one thing at one time (ACCOUNTING §§2, 5): order never decides between them."""

from collections.abc import Callable, Iterator, Sequence

from msgspec import Struct

from agent.attribution import BEGINNING, FOREVER, SETS, Selector
from agent.config.document import Loc
from agent.config.owners import CustomerEntry
from agent.pattern import is_literal, matches, overlap

_CURE = "Give one of them a narrower pattern or disjoint dates."


class _Claim(Struct, frozen=True):
    """One selector of one customer. `prefix` is its first pattern up to the first wildcard."""

    prefix: str
    order: int
    customer: int
    loc: Loc
    selector: Selector
    since: int
    until: int

    def meets(self, other: "_Claim") -> bool:
        """Whether two customers hold these at one time."""
        return self.customer != other.customer and self.since < other.until and other.since < self.until


def ties(customers: Sequence[CustomerEntry], line: Callable[[Loc], int]) -> Iterator[tuple[Loc, str]]:
    """Each pair of selectors that two customers share: same labels, and some text fits both patterns of each label."""
    by_labels: dict[tuple[str, ...], list[_Claim]] = {}
    for claim in _claims(customers):
        by_labels.setdefault(tuple(sorted(claim.selector)), []).append(claim)
    for labels, claims in by_labels.items():
        for one, other in _candidates(claims):
            first, second = sorted((one, other), key=lambda claim: claim.order)
            text = _tie(first, second, labels, line)
            if text is not None:
                yield (*second.loc, *_key(labels)), text


def _claims(customers: Sequence[CustomerEntry]) -> Iterator[_Claim]:
    order = 0
    for index, customer in enumerate(customers):
        since = BEGINNING if customer.since is None else customer.since
        until = FOREVER if customer.until is None else customer.until
        for number, match in enumerate(customer.match):
            selector = match.selector()
            if selector:
                first = selector[min(selector)]
                prefix = first[: min((first.find(wild) for wild in "*?" if wild in first), default=len(first))]
                order += 1
                yield _Claim(prefix, order, index, ("customers", index, "match", number), selector, since, until)


def _candidates(claims: list[_Claim]) -> Iterator[tuple[_Claim, _Claim]]:
    """Pairs that can meet at all: the literal beginning of one begins the other. Quick for thousands of names."""
    open_: list[_Claim] = []
    for claim in sorted(claims, key=lambda claim: (claim.prefix, claim.order)):
        while open_ and not claim.prefix.startswith(open_[-1].prefix):
            open_.pop()
        yield from ((outer, claim) for outer in open_ if outer.meets(claim))
        open_.append(claim)


def _tie(first: _Claim, second: _Claim, labels: tuple[str, ...], line: Callable[[Loc], int]) -> str | None:
    rival = f"customers[{first.customer}] (line {line((*first.loc, *_key(labels)))})"
    if all(_overlap(label, first.selector[label], second.selector[label]) for label in labels):
        return f"matches what {rival} matches. {_CURE}"
    if labels == ("cgroup",):
        if _holds(first.selector["cgroup"], second.selector["cgroup"]):
            return f"lies inside what {rival} owns, and a match owns everything inside it. {_CURE}"
        if _holds(second.selector["cgroup"], first.selector["cgroup"]):
            return f"owns everything inside it, and so what {rival} matches. {_CURE}"
    return None


def _key(labels: tuple[str, ...]) -> Loc:
    """The key to point at, as written; the whole selector where several labels decide."""
    if len(labels) > 1:
        return ()
    return ("unit_property",) if labels[0].startswith("property.") else labels


def _overlap(label: str, a: str, b: str) -> bool:
    if label in SETS:  # only of equal selectors is it certain that both hold somewhere; they have one spelling
        return a == b
    if is_literal(a):
        return matches(b, a)
    return matches(a, b) if is_literal(b) else overlap(a, b)


def _holds(outer: str, inner: str) -> bool:
    """Whether something that fits `inner` lies below something that fits `outer`."""
    return any(_overlap("cgroup", outer, inner[:end]) for end, character in enumerate(inner) if character == "/")
