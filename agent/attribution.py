"""Usage → customer: whose it is, by labels that root controls, and by which rule (DESIGN §5). Pure.

Rules are effective-dated by versions: a change of a customer's entry ends the old version and starts a new one, so
that a span is always judged by the rules of its own time, and a record can be explained after the rule is gone.
"""

import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import IntEnum
from typing import Literal

from msgspec import Struct, structs

from agent.model import Resource
from agent.pattern import matches
from agent.selector import selects

Selector = Mapping[str, str]  # label → pattern, or a set of labels → selector over them; all must match

PODS_OWN_WORD = "attribution.pod_labels"  # how a rule begins by which a pod's own label names the customer
SETS = {"namespace_labels": "namespace_label.", "node_labels": "node_label."}  # → how each label of the set begins

BEGINNING = 0  # before any usage
FOREVER = 1 << 63  # after any usage, and still a 64-bit integer


class Customer(Struct, frozen=True):
    """One customer as configured. `since` and `until` are billing time; None is open-ended."""

    id: str
    match: tuple[Selector, ...] = ()  # any of
    since: int | None = None
    until: int | None = None
    reattribute: bool = False


class PodLabels(Struct, frozen=True):
    """Labels that whoever may make a pod can write, and how far they are trusted.

    `namespace`: where the namespace's allow-list (the label `allowed_customers`) has the customer that they name.
    """

    keys: tuple[str, ...] = ()
    trust: Literal["never", "namespace", "always"] = "namespace"


class Rules(Struct, frozen=True):
    """Everything that decides owners: customers, labels whose value is a customer's id, and what is the system's."""

    customers: tuple[Customer, ...] = ()
    customer_labels: tuple[str, ...] = ()  # label keys, ranked below every `match` on names
    system: tuple[Selector, ...] = ()
    pod_labels: PodLabels = PodLabels()
    aliases: Mapping[str, str] = {}  # what a billing system calls a customer → our id, for the values of pod labels


class Rank(IntEnum):
    """How far what names a customer can be trusted: the least wins, and order never decides between equals.

    A pod's label that its namespace allows is more particular than the namespace's own owner, and as well founded.
    """

    NAME = 0
    ALLOWED = 1
    NAMESPACE = 2
    NODE = 3
    POD = 4


class Version(Struct, frozen=True, array_like=True):
    """A customer's entry and when it acts: `[acts_from, acts_until)` in billing time."""

    customer: Customer
    acts_from: int
    acts_until: int


class Owner(Struct, frozen=True, array_like=True):
    """The outcome: to whom, by which rule. `customer` is None unless `kind` is usage."""

    kind: Literal["usage", "unattributed", "system"]
    customer: str | None
    rule: str


NOBODY = Owner("unattributed", None, "no rule matched")
WAITING = Owner("unattributed", None, "waiting for the pod's metadata")
NODES_OWN = Owner("system", None, "a slice of the node itself")


def is_waiting(labels: Mapping[str, str]) -> bool:
    """Whether these are the labels of a pod of which nothing but its UID is known yet."""
    return "pod_uid" in labels and "namespace" not in labels


def revise(versions: Sequence[Version] | None, rules: Rules, now: int) -> tuple[Version, ...]:
    """The history after loading `rules` at `now`.

    A customer without `from`, or with a past one, acts from `now`; `reattribute` reaches back to its `from`. Where
    there is no history (None) nothing was decided before, so that everything acts from the beginning.
    """
    configured = {c.id: c for c in rules.customers}
    kept: list[Version] = []
    current: set[str] = set()
    for version in versions or ():
        wanted = configured.get(version.customer.id)
        if version.acts_until <= now and version.acts_until != version.customer.until:
            kept.append(version)
        elif wanted == version.customer:  # an end set at a time that, after a correction of the clock, is yet to come
            kept.append(structs.replace(version, acts_until=max(version.acts_from, _until(wanted))))
            current.add(wanted.id)
        elif version.acts_from < now:
            kept.append(structs.replace(version, acts_until=min(now, version.acts_until)))
    first = BEGINNING if versions is None else now
    for customer in rules.customers:
        if customer.id not in current:
            since = BEGINNING if customer.since is None else customer.since
            acts_from = since if customer.reattribute else max(since, first)
            kept.append(Version(customer, acts_from, max(acts_from, _until(customer))))
    return tuple(kept)


def _until(customer: Customer) -> int:
    return FOREVER if customer.until is None else customer.until


class Attribution:
    """Owners by resource and time, under one history of rules. `conflicts` counts what was refused, by reason."""

    def __init__(self, versions: Sequence[Version], rules: Rules) -> None:
        self.versions = tuple(versions)
        self.rules = rules
        moments = {t for v in versions for t in (v.acts_from, v.acts_until)}
        self.edges = sorted(moments - {BEGINNING, FOREVER})
        self._eras = [self._acting(t) for t in [BEGINNING, *self.edges]]
        self.conflicts: dict[str, int] = {}

    def _acting(self, at: int) -> tuple[tuple[Version, ...], frozenset[str]]:
        acting = tuple(v for v in self.versions if v.acts_from <= at < v.acts_until)
        return acting, frozenset(v.customer.id for v in acting)

    def era(self, at: int) -> int:
        """Which stretch of unchanging rules `at` lies in."""
        return bisect_right(self.edges, at)

    def edges_within(self, start: int, end: int) -> list[int]:
        """Moments strictly inside `(start, end)` where ownership may change."""
        return self.edges[bisect_right(self.edges, start) : bisect_right(self.edges, end - 1)]

    def owner(self, lineage: Iterable[Resource], era: int) -> Owner:
        """The owner of the first of `lineage` (a resource, its parent, and so on up).

        The outermost match owns its whole subtree: an inner group of another customer matches nothing and is counted.
        """
        owner = NOBODY
        for resource in reversed(list(lineage)):
            found = self._match(resource.labels, era)
            if owner.customer is None:
                owner = found if found is not None else owner
            elif found is not None and found.customer not in (None, owner.customer):
                self._count("nested_claim")
        return owner

    def _match(self, labels: Mapping[str, str], era: int) -> Owner | None:
        if not labels:
            return None
        if is_waiting(labels):
            return WAITING
        best: dict[str, str] = {}  # customer → rule, of the most trusted rank that names anybody
        least = None
        for rank, customer, rule in self._claims(labels, era):
            if least is None or rank < least:
                best, least = {}, rank
            if rank == least:
                best.setdefault(customer, rule)
        if len(best) > 1:  # order never decides
            self._count("attribution_conflict")
            return Owner("unattributed", None, "conflict: " + "; ".join(best[c] for c in sorted(best)))
        for customer, rule in best.items():
            return Owner("usage", customer, rule)
        for i, selector in enumerate(self.rules.system):
            if fits(selector, labels):
                return Owner("system", None, f"attribution.system[{i}] {_show(selector)}")
        return NODES_OWN if "system" in labels else None

    def _claims(self, labels: Mapping[str, str], era: int) -> Iterator[tuple[Rank, str, str]]:
        """Everything that names a customer: how far it is trusted, whom it names, and the rule."""
        acting, ids = self._eras[era]
        for version in acting:
            customer = version.customer
            for i, selector in enumerate(customer.match):
                if fits(selector, labels):
                    yield _rank(selector), customer.id, f"customers[{customer.id}].match[{i}] {_show(selector)}"
        for key in self.rules.customer_labels:
            if labels.get(key) in ids:
                rank = Rank.NODE if key.startswith(SETS["node_labels"]) else Rank.NAMESPACE
                yield rank, labels[key], f"attribution.customer_labels {key}={labels[key]}"
        yield from self._pod_claims(labels, ids)

    def refused(self, labels: Mapping[str, str], era: int) -> list[str]:
        """What a pod's own labels claim and are not given, as `key=value`."""
        return [f"{key}={value}" for key, value, rank, _ in self._pod_words(labels, self._eras[era][1]) if rank is None]

    def _pod_claims(self, labels: Mapping[str, str], ids: frozenset[str]) -> Iterator[tuple[Rank, str, str]]:
        """What a pod's own labels claim; what its namespace does not allow is refused and counted (L11)."""
        for key, value, rank, customer in self._pod_words(labels, ids):
            if rank is not None:
                allows = f", which namespace {labels.get('namespace')} allows" if rank is Rank.ALLOWED else ""
                yield rank, customer, f"{PODS_OWN_WORD} {key}={value}{allows}"
            else:
                self._count("attribution_conflict")

    def _pod_words(self, labels: Mapping[str, str], ids: frozenset[str]) -> Iterator[tuple[str, str, Rank | None, str]]:
        """What a pod's own labels say: key, value, how far that is trusted (None: not at all), and whom it names."""
        trusted = self.rules.pod_labels
        for key in trusted.keys:
            value = labels.get(f"pod_label.{key}")
            if value is None or trusted.trust == "never":
                continue
            customer = self.rules.aliases.get(value, value)
            allowed = {self.rules.aliases.get(a, a) for a in re.split(r"[\s,]+", labels.get("allowed_customers", ""))}
            rank = None
            if trusted.trust == "always" and customer in ids:
                rank = Rank.POD
            elif trusted.trust == "namespace" and customer in ids and customer in allowed:
                rank = Rank.ALLOWED
            yield key, value, rank, customer

    def _count(self, reason: str) -> None:
        self.conflicts[reason] = self.conflicts.get(reason, 0) + 1


def fits(selector: Selector, labels: Mapping[str, str]) -> bool:
    """Whether every label that the selector names is there and matches its pattern, and every set its own selector."""
    return all(_fits(key, pattern, labels) for key, pattern in selector.items())


def _fits(key: str, pattern: str, labels: Mapping[str, str]) -> bool:
    if key in SETS:  # where there is no namespace there are no such labels, and a `!` would hold for everything
        return "namespace" in labels and selects(pattern, labels, SETS[key])
    return key in labels and matches(pattern, labels[key])


def _rank(selector: Selector) -> Rank:
    """As far as the least trusted of what it looks at."""
    if "node_labels" in selector:
        return Rank.NODE
    return Rank.NAMESPACE if "namespace_labels" in selector else Rank.NAME


def _show(selector: Selector) -> str:
    return ", ".join(f"{key}={pattern}" for key, pattern in sorted(selector.items()))
