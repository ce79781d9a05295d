"""The left half of the line, run: a source's sweep through the books into the spool, in one transaction.

Everything here belongs to the spool's thread, and blocks. Facts for telemetry are returned, not reported.
"""

import os
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

import msgspec
from msgspec import Struct, structs

from agent import clock as clocks
from agent.attribution import Attribution, Rules, Version, revise
from agent.books import Books, Commit
from agent.clock import BillingClock, ClockState, Moment, Verdict
from agent.errors import SpoolError
from agent.model import NS_PER_S, Dimension, Gap, Meter, Reading, Sweep
from agent.reattribution import awaits_metadata, introduce, reattribute
from agent.shares import alike
from agent.sources import Source
from agent.spool import Spool
from agent.usage import Cursor
from agent.windows import Closed


class Plan(Struct, frozen=True):
    """What to meter, for whom: the configuration as the line reads it. Times in ns."""

    cluster: str
    node: str
    meters: Mapping[str, Meter]  # every meter this release knows, so that an old dimension can still be closed
    feeds: Mapping[str, frozenset[str]]  # meter → ids of the sources that measure it
    dimensions: tuple[Dimension, ...]
    rules: Rules
    window: int
    interval: int
    fresh_boot: int
    hold: int
    accept_after: int
    claims: Mapping[str, tuple[str, ...]] = {}  # by source: what it alone may meter on this kernel; default its id
    lateness: Mapping[str, int] = {}  # by source: how long it is waited for when it lags the others
    metadata_wait: int = 0  # how long a window with usage of unknown pods stays open after its watermark


class Kept(Struct, array_like=True):
    """What of the plan is persisted, so that the windows of an older plan close by their own rules."""

    dimensions: tuple[Dimension, ...]
    window: int


class Swept(Struct, frozen=True):
    """What one sweep came to, for telemetry."""

    source: str
    seconds: float
    stamp: int
    commit: Commit
    verdict: Verdict
    offset: int  # wall clock ahead of billing time, ns
    conflicts: Mapping[str, int]


class Uncommitted(Struct):
    """What a source said in a sweep that could not be committed, and will not say again."""

    gone: list[Reading] = []
    remember: dict[str, bytes | None] = {}
    introduced: dict[str, Mapping[str, str]] = {}

    def complete(self, sweep: Sweep) -> Sweep:
        """A later sweep of the same source, with it."""
        return structs.replace(
            sweep,
            readings=[*sweep.readings, *self.gone],
            remember={**self.remember, **sweep.remember},
            introduced={**self.introduced, **sweep.introduced},
        )


class Metering:
    """Books, clock and spool together. Rebuilt from the spool whenever the plan changes or a commit fails."""

    def __init__(
        self,
        spool: Spool,
        plan: Plan,
        run_dir: Path,
        *,
        now: Callable[[], tuple[int, int]] = clocks.now,
        synchronised: Callable[[], bool] = clocks.synchronised,
        boot: str,
    ) -> None:
        """`now` gives (wall, boottime); `boot` is the id of this boot of the kernel."""
        self.spool, self._now, self._synchronised = spool, now, synchronised
        self._metered = Metered(run_dir / "metered", boot, spool.identity.epoch)
        self._uncommitted: dict[str, Uncommitted] = {}
        self._waiting = msgspec.json.decode(spool.meta("waiting") or b"{}", type=dict[str, int])
        self.clock = clock_of(spool, boot, *now(), plan.accept_after)
        self._gap = spool.meta("epoch_gap") or b""
        self._checked = 0  # unattributed records up to this seq were offered to the current rules
        self.adopt(plan)

    books: Books  # made anew by each adopt and rebuild

    # -- plans -----------------------------------------------------------------------------------------------------

    def adopt(self, plan: Plan, *, just_swept: bool = False) -> None:
        """Put `plan` in force: what it changes is cut first, under the old one; then its rules act from now.

        `just_swept`: everything up to the sweep that a reload makes was judged by the old rules, so the new ones act
        from there; no span straddles the few milliseconds between.
        """
        _, boottime = self._now()
        now = self.clock.at(boottime)
        loaded = now
        if just_swept:
            loaded = min((c.at for c in self.books.cursors.values() if 0 <= now - c.at < NS_PER_S), default=now)
        self.clock.accept_after = plan.accept_after
        history = msgspec.json.decode(self.spool.meta("versions") or b"null", type=tuple[Version, ...] | None)
        written = self.spool.meta("plan")
        old = msgspec.json.decode(written, type=Kept) if written else Kept(plan.dimensions, plan.window)
        versions = revise(history, plan.rules, loaded)
        if old != Kept(plan.dimensions, plan.window):
            before = self._books(plan, old.dimensions, old.window, Attribution(history or (), plan.rules))
            meters = _changed(old, plan)
            cut = before.cut(meters, anchor=self.clock.state.anchor, window=plan.window)
            self._waiting = self._still_waiting(cut, {}, now, plan.hold)
            self.spool.commit(cut, now=now, meta={"waiting": msgspec.json.encode(self._waiting)})
        self.plan = plan
        self._attribution = Attribution(versions, plan.rules)
        self.spool.forget_sources({s for sources in plan.feeds.values() for s in sources})
        meta = {
            "versions": msgspec.json.encode(versions),
            "plan": msgspec.json.encode(Kept(plan.dimensions, plan.window)),
        }
        self.spool.commit(None, now=now, meta=meta | self._clock_meta())
        self.rebuild()
        self._checked = 0
        self._reattribute(now)

    def rebuild(self) -> None:
        """Go on from what the spool last committed."""
        self.books = self._books(self.plan, self.plan.dimensions, self.plan.window, self._attribution)

    def _books(self, plan: Plan, dimensions: Sequence[Dimension], window: int, attribution: Attribution) -> Books:
        source = f"{plan.cluster}/{plan.node}/{self.spool.identity.epoch}"
        snapshot = self.spool.snapshot()
        return Books(
            source,
            plan.meters,
            plan.feeds,
            dimensions,
            attribution,
            window=window,
            interval=plan.interval,
            snapshot=snapshot,
            lateness=plan.lateness,
            metadata_wait=plan.metadata_wait,
        )

    # -- the line --------------------------------------------------------------------------------------------------

    def sweep(self, source: Source) -> Swept:
        """Read one source and commit what it came to. Raises SourceError, SpoolFullError, SpoolError.

        After SpoolFullError nothing is lost: marks stand still, and the last readings of what died are kept here.
        """
        began = time.perf_counter()
        wall, boottime = self._now()
        offset = wall - self.clock.at(boottime)
        verdict = self.clock.observe(wall, boottime, synchronised=self._synchronised())
        sweep = source.sweep()
        if uncommitted := self._uncommitted.get(source.id):
            sweep = uncommitted.complete(sweep)
        previous = self.books.cursors.get(source.id)
        if previous is not None and previous.boot and previous.basis != sweep.basis:
            self._cut([meter for meter, sources in self.plan.feeds.items() if source.id in sources])
        fresh = previous is None or previous.boot != sweep.boot
        commit = self.books.sweep(
            sweep,
            anchor=self.clock.state.anchor,
            doubtful=self.clock.doubtful,
            may_close=self.clock.may_close,
            from_zero=fresh and self._from_zero(source.id, sweep.stamp, previous),
        )
        if fresh:
            self._metered.add(source.id, self._claims(source.id))
        now = self.clock.at(self._now()[1])
        waiting = self._still_waiting(commit, sweep.introduced, now, self.plan.hold)
        try:
            meta = self._clock_meta() | {"epoch_gap": b"", "waiting": msgspec.json.encode(waiting)}
            records = [*self._epoch_gap(now), *self._introduced(sweep.introduced, now)]
            self.spool.commit(commit, now=now, meta=meta, records=records, remember=sweep.remember)
        except SpoolError:
            gone = [reading for reading in sweep.readings if reading.gone]
            self._uncommitted[source.id] = Uncommitted(gone, dict(sweep.remember), dict(sweep.introduced))
            self.rebuild()
            raise
        self._uncommitted.pop(source.id, None)
        self._waiting = waiting
        self._gap = b""
        if commit.closed:
            self._reattribute(now)
        conflicts, self._attribution.conflicts = self._attribution.conflicts, {}
        return Swept(source.id, time.perf_counter() - began, sweep.stamp, commit, verdict, offset, conflicts)

    def cut(self) -> Commit:
        """End every open window now (shutdown): what was measured becomes records."""
        return self._cut(None)

    def _cut(self, meters: Sequence[str] | None) -> Commit:
        now = self.clock.at(self._now()[1])
        commit = self.books.cut(meters, anchor=self.clock.state.anchor)
        waiting = self._still_waiting(commit, {}, now, self.plan.hold)
        self.spool.commit(commit, now=now, meta=self._clock_meta() | {"waiting": msgspec.json.encode(waiting)})
        self._waiting = waiting
        return commit

    def moment(self) -> Moment:
        """Now. On any thread."""
        return self.clock.moment(*self._now())

    def accept_clock(self) -> str:
        """A person vouches for the wall clock; returns what that changed."""
        wall, boottime = self._now()
        said = self.clock.accept(wall, boottime)
        self.spool.commit(None, now=self.clock.at(boottime), meta=self._clock_meta())
        self.spool.audit(self.clock.at(boottime), f"uid {os.getuid()}", "clock accept", said)
        return said

    def _clock_meta(self) -> dict[str, bytes]:
        return {"clock": msgspec.json.encode(self.clock.state)}

    def _from_zero(self, source: str, stamp: int, previous: Cursor | None) -> bool:
        """What a first listing means (ACCOUNTING §3): from zero only on a boot in which nobody metered this.

        A source that returns to the configuration baselines: its cursor was kept without a boot.
        """
        if self._metered.by_others(source, self._claims(source)) or (previous is not None and not previous.boot):
            return False
        return previous is not None or stamp < self.plan.fresh_boot

    def _claims(self, source: str) -> tuple[str, ...]:
        return self.plan.claims.get(source, (source,))

    def _epoch_gap(self, now: int) -> list[Closed]:
        """What a new epoch over an old file left unbooked, until its record is committed."""
        if not self._gap:
            return []
        since, reason = msgspec.json.decode(self._gap, type=tuple[int, str])
        group, metadata = {"resource": self.plan.node}, {"because": reason}
        gaps = [Gap(d.meter, group, since, max(since, now), "new_epoch") for d in self.plan.dimensions]
        return [
            Closed(structs.replace(self.books.gap_record(gap, d, ""), metadata=metadata), ())
            for gap, d in zip(gaps, self.plan.dimensions, strict=True)
        ]

    def _still_waiting(self, commit: Commit, introduced: Collection[str], now: int, hold: int) -> dict[str, int]:
        """The pods that nothing is known of and that have records, by UID: when the last of them closed."""
        closed = (c.record.group["pod_uid"] for c in commit.closed if awaits_metadata(c.record))
        known = {uid: at for uid, at in self._waiting.items() if uid not in introduced and now - at < hold}
        return known | dict.fromkeys(closed, now)

    def _introduced(self, labels: Mapping[str, Mapping[str, str]], now: int) -> list[Closed]:
        """Pairs that give what was recorded of pods while nothing was known of them to their owners."""
        found: list[Closed] = []
        after, dimensions = 0, {d.name: d for d in self.plan.dimensions}
        while self._waiting.keys() & labels and (held := self.spool.unattributed(now - self.plan.hold, after)):
            for seq, record_id, net, record in held:
                after = seq
                known = labels.get(record.group.get("pod_uid", ""))
                if known is not None and awaits_metadata(record) and record.dimension in dimensions:
                    told = alike(dimensions[record.dimension], self.books.windows.of_meter)
                    moved = introduce(record, record_id, net, known, self._attribution, told)
                    found += [Closed(r, ()) for r in moved]
        return found

    def _reattribute(self, now: int) -> None:
        """Offer held unattributed usage to the rules in force."""
        if not any(v.customer.reattribute for v in self._attribution.versions):
            return
        dimensions = {d.name: d for d in self.plan.dimensions}
        while held := self.spool.unattributed(now - self.plan.hold, self._checked):
            pairs: list[Closed] = []
            for seq, record_id, net, record in held:
                self._checked = seq
                if record.dimension in dimensions:
                    moved = reattribute(record, record_id, net, self._attribution, dimensions[record.dimension])
                    pairs += [Closed(r, ()) for r in moved]
            if pairs:
                self.spool.commit(None, now=now, records=pairs)


def clock_of(spool: Spool, boot: str, wall: int, boottime: int, accept_after: int) -> BillingClock:
    """The clock that goes on from what the spool last committed."""
    swept = max((c.at for c in spool.snapshot().cursors.values()), default=0)
    kept = spool.meta("clock")
    state = msgspec.json.decode(kept, type=ClockState) if kept else None
    return BillingClock.start(boot, wall, boottime, max(swept, spool.frozen()), state, accept_after)


class Metered:
    """What was metered on this boot, by whom: lines in a file of the run directory, which a boot empties.

    A line is written before a source's first commit of a boot. Found again under another epoch or source, it says that
    somebody billed these counters already; under our own, without a cursor of this boot, that our commit never came.
    """

    def __init__(self, path: Path, boot: str, epoch: str) -> None:
        self._path, self._boot, self._epoch = path, boot, epoch

    def by_others(self, source: str, claims: Sequence[str]) -> bool:
        """Whether another epoch or source metered any of `claims` on this boot."""
        try:
            lines = self._path.read_text().splitlines()
        except FileNotFoundError:
            return False
        entries = [line.split("\t") for line in lines]
        return any(
            len(e) == 4 and e[0] == self._boot and (e[1], e[2]) != (self._epoch, source) and e[3] in claims
            for e in entries
        )

    def add(self, source: str, claims: Sequence[str]) -> None:
        """Note that `source` meters `claims` now. Appended whole, so that agents can share the file."""
        lines = "".join(f"{self._boot}\t{self._epoch}\t{source}\t{claim}\n" for claim in claims)
        fd = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.write(fd, lines.encode())
        finally:
            os.close(fd)


def _changed(old: Kept, plan: Plan) -> set[str]:
    """Meters whose windows cannot go on: their dimensions differ, or the length of all windows does."""
    if old.window != plan.window:
        return {d.meter for d in (*old.dimensions, *plan.dimensions)}
    return {d.meter for d in set(old.dimensions) ^ set(plan.dimensions)}
