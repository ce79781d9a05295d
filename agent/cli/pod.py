"""`metering-agent explain pod`: what was measured of a pod, in each of its incarnations, and to whom it went.

From the ledger alone: the pod may be gone, and another may have taken its name. What tells them apart is the UID, under
which a pod is also known before its metadata has come.
"""

import re
from collections.abc import Mapping, Sequence

import msgspec
from msgspec import Struct

from agent.attribution import WAITING
from agent.cli.part import Part
from agent.errors import AgentError
from agent.record import UsageRecord
from agent.shares import Evidence
from agent.spool import ledger
from agent.spool.ledger import Entry, Ledger

NEWEST = 10  # records of each incarnation that are told one by one
BESIDE = ("interface", "extended_resource")  # labels of what is read of a pod besides its cgroup
_UID = re.compile(r"(?:pod)?([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|[0-9a-f]{32})")


class Sum(Struct):
    """What one of a pod's readings came to for one bearer by one rule, over `records` from `start` to `end`.

    `beside` names what is read of it besides its cgroup: an interface, an extended resource. `first` and `last` are
    where the counter or level began and ended; None where no reading is kept.
    """

    beside: str
    meter: str
    dimension: str
    policy: str
    bearer: str
    rule: str
    base_unit: str
    start: int
    end: int
    first: int | None = None
    last: int | None = None
    records: int = 0
    quantity: int = 0


class Incarnation(Struct, frozen=True):
    """One pod: a UID that never comes again. `labels` are those by which it was last known.

    `waited`: records that closed while nothing but the UID was known. `moved`: those that gave some of it to whom it
    belongs. `newest` are records with the pod's part, oldest first.
    """

    uid: str
    labels: dict[str, str]
    start: int
    end: int
    sums: tuple[Sum, ...]
    waited: tuple[Entry, ...]
    moved: tuple[Entry, ...]
    newest: tuple[tuple[Entry, Part], ...]


class OfPod(Struct, frozen=True):
    """Everything that the ledger has of a name or a UID, oldest incarnation first."""

    pod: str
    incarnations: tuple[Incarnation, ...]


def pod(db: Ledger, name: str) -> OfPod:
    """The pods of this name (namespace/name), or the one with this UID. Raises AgentError."""
    uid = _UID.fullmatch(name)
    if uid is None and not all(name.partition("/")):
        raise AgentError(f"{name}: not a pod's name. Write NAMESPACE/NAME, or the pod's UID.")
    search = _Search(db, None if uid else name, uid[1] if uid else None)
    for entry, evidence in ledger.mentioning(db, search.words):
        search.take(entry, evidence)
    if not search.found:
        cure = "Zero usage makes no record, and records past `spool.retention` are gone."
        raise AgentError(f"{name}: nothing was recorded of this pod in this spool. {cure}")
    found = sorted((made.incarnation() for made in search.found.values()), key=lambda one: (one.start, one.uid))
    return OfPod(name, tuple(found))


class _Search:
    """What is looked for, by name and by the UIDs that turn out to bear it, and what was found so far.

    Records come newest first: that a UID bears the name is known before its records from before its metadata come.
    """

    def __init__(self, db: Ledger, name: str | None, uid: str | None) -> None:
        self._db, self._name, self._uids = db, name, {uid} if uid else set[str]()
        self.words = {_word(text) for text in (name, uid) if text is not None}
        if name is not None:
            self.words.add(b'"pod":' + _word(name.partition("/")[2]))
        self.found: dict[str, _Making] = {}

    def take(self, entry: Entry, evidence: tuple[Evidence, ...]) -> None:
        """See whether a record is of the pod, and to what extent."""
        r = entry.record
        if "reattributed_from" in r.metadata:  # counted when the other half of the pair comes
            self._introduced(r)
        elif "reattributed_to" in r.metadata:
            if (uid := self._uid(r.group)) is not None:
                self._moved(uid, entry)
        elif evidence:
            for part in evidence:
                if (uid := self._uid(part.resource.labels)) is not None:
                    self._making(uid).measured(entry, Part.of(part, r.policy))
        elif r.kind == "unattributed" and (uid := self._uid(r.group)) is not None:  # its readings are not kept
            self._making(uid).told(entry, r.group, str(r.metadata.get("reason", "")))

    def _uid(self, labels: Mapping[str, str]) -> str | None:
        """Whose labels these are, if it is one that is looked for."""
        uid = labels.get("pod_uid")
        named = self._name is not None and f"{labels.get('namespace')}/{labels.get('pod')}" == self._name
        if uid is not None and named and uid not in self._uids:
            self._uids.add(uid)
            self.words.add(_word(uid))
        return uid if uid in self._uids else None

    def _introduced(self, given: UsageRecord) -> None:
        """A pod of which nothing was measured after its metadata had come is known by name from here alone."""
        namespace, _, rest = str(given.metadata.get("resource", "")).partition("/")
        if self._name == f"{namespace}/{rest.partition('/')[0]}":
            first = ledger.named(self._db, str(given.metadata["reattributed_from"]))
            self._uid({**first.record.group, "namespace": namespace, "pod": rest.partition("/")[0]})

    def _moved(self, uid: str, taken: Entry) -> None:
        """A pair, of which this is the half that takes: the other follows it in the ledger."""
        first, making = ledger.deltas(self._db, taken)[0], self._making(uid)
        parts = [Part.of(part, first.record.policy) for part in ledger.evidence(self._db, first.seq) or ()]
        making.told(taken, taken.record.group, str(first.record.metadata.get("reason", "")), parts)
        given = ledger.entry(self._db, taken.seq + 1)
        if given is not None and given.record.metadata.get("reattributed_from") == first.id:
            making.told(given, taken.record.group, str(given.record.metadata["rule"]), parts)
            making.moved.append(given)

    def _making(self, uid: str) -> "_Making":
        return self.found.setdefault(uid, _Making(uid))


class _Making:
    """An incarnation as it is put together, from the newest record to the oldest."""

    def __init__(self, uid: str) -> None:
        self._uid, self._labels = uid, {"pod_uid": uid}
        self._sums: dict[tuple[str, str, str, str], Sum] = {}
        self._waited: list[Entry] = []
        self.moved: list[Entry] = []
        self._newest: list[tuple[Entry, Part]] = []

    def measured(self, entry: Entry, part: Part) -> None:
        """The pod's part of a record."""
        if len(self._labels) == 1:
            self._labels = {key: value for key, value in part.labels.items() if key not in BESIDE}
        if len(self._newest) < NEWEST:
            self._newest.append((entry, part))
        self._add(entry, part.labels, part.rule, part.quantity, [part])

    def told(self, entry: Entry, labels: Mapping[str, str], rule: str, parts: Sequence[Part] = ()) -> None:
        """A record that is the pod's alone, with what was measured when its usage was recorded first."""
        self._add(entry, labels, rule, entry.record.quantity, parts)

    def _add(self, entry: Entry, labels: Mapping[str, str], rule: str, quantity: int, parts: Sequence[Part]) -> None:
        r, bearer = entry.record, entry.record.customer or entry.record.kind
        if rule == WAITING.rule and "reattributed_to" not in r.metadata:
            self._waited.append(entry)
        beside = next((labels[label] for label in BESIDE if label in labels), "")
        made = Sum(beside, r.meter, r.dimension, r.policy, bearer, rule, r.base_unit, r.start, r.end)
        made = self._sums.setdefault((beside, r.dimension, bearer, rule), made)
        for part in parts:
            made.first = part.first if made.first is None or r.start <= made.start else made.first
            made.last = part.last if made.last is None or r.end > made.end else made.last
        made.records += 1
        made.quantity += quantity
        made.start, made.end = min(made.start, r.start), max(made.end, r.end)

    def incarnation(self) -> Incarnation:
        """As it was found."""
        sums = sorted(self._sums.values(), key=lambda s: (s.beside, s.dimension, s.start, s.bearer, s.rule))
        return Incarnation(
            uid=self._uid,
            labels=self._labels,
            start=min(s.start for s in sums),
            end=max(s.end for s in sums),
            sums=tuple(sums),
            waited=tuple(self._waited[::-1]),
            moved=tuple(self.moved[::-1]),
            newest=tuple(self._newest[::-1]),
        )


def _word(text: str) -> bytes:
    return msgspec.json.encode(text)
