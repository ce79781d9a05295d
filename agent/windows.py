"""Usage → Window → UsageRecord: shares of open windows, and how they close into records (ACCOUNTING §4). Pure.

Windows are UTC-aligned; a record's start and end are the window clipped to the agent's own segments (epoch start,
shutdown cut, a reload that changes the meter), never to a resource's life. Each resource keeps its own share of each
open window: it is updated in place, and when the window closes it is the record's evidence.

A policy other than `usage` is evaluated on UTC-aligned cells of one sample interval, after splitting, so that the
rhythm of the sweeps does not change the bill.
"""

from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence

from msgspec import Struct

from agent.attribution import WAITING, Attribution, Owner
from agent.model import NS_PER_MS, NS_PER_S, Dimension, Meter, Resource, Usage
from agent.record import UsageRecord
from agent.shares import Cell, Evidence, Share, alike, evaluate, group_of, takes, union
from agent.usage import split

REACH = 3_600 * NS_PER_S  # the longest window: usage before it, after a clock step, is no longer clipped to its segment

OwnerOf = Callable[[Dimension, int], Owner]  # by dimension and era
Piece = tuple[int, int, int, int, int]  # start, end, window start, window end (clipped), era of the rules


class Closed(Struct, frozen=True):
    """A record as it closes, with its evidence."""

    record: UsageRecord
    evidence: tuple[Evidence, ...]


class Segments:
    """The agent's own stretches of metering, per meter: where each begins and how long its windows are."""

    def __init__(self, starts: Mapping[str, list[tuple[int, int]]]) -> None:
        self.starts = {meter: sorted(starts[meter]) for meter in starts}

    def begin(self, meter: str, at: int, window: int) -> None:
        """Cut: windows of `meter` end at `at`, and what follows starts there."""
        starts = self.starts.setdefault(meter, [])
        if (at, window) not in starts:
            old = sorted(s for s in starts if s[0] != at)
            reached = bisect_right(old, (at - REACH, 0)) - 1  # the segment that holds the oldest time still in use
            self.starts[meter] = sorted([*old[max(reached, 0) :], (at, window)])

    def pieces(self, meter: str, start: int, end: int, edges: Sequence[int], era: Callable[[int], int]) -> list[Piece]:
        """`[start, end)` cut at window edges, at segment starts and at `edges`, each with its clipped window."""
        out: list[Piece] = []
        starts = self.starts[meter]
        left = start
        while True:
            i = bisect_right(starts, (left, 1 << 63)) - 1
            begins, window = starts[max(i, 0)]
            low = left - left % window
            high = low + window
            if i >= 0:
                low = max(low, begins)
            if i + 1 < len(starts):
                high = min(high, starts[i + 1][0])
            right = min(end, high)
            cuts = [e for e in edges if left < e < right]
            for cut in [*cuts, right]:
                out.append((left, cut, low, high, era(left)))
                left = cut
            if right >= end:
                return out


class Windows:
    """All open windows. Mutable; `shares` and `cells` are by resource key, and persisted with the resource."""

    def __init__(
        self, dimensions: Iterable[Dimension], meters: Mapping[str, Meter], segments: Segments, interval: int
    ) -> None:
        self.dimensions = {d.name: d for d in dimensions}
        self.meters = meters
        self.segments = segments
        self.interval = interval
        self.of_meter: dict[str, list[Dimension]] = {}
        for dimension in self.dimensions.values():
            self.of_meter.setdefault(dimension.meter, []).append(dimension)
        self.shares: dict[str, dict[tuple[object, ...], Share]] = {}
        self.cells: dict[str, dict[tuple[object, ...], Cell]] = {}
        self._latest: dict[tuple[str, str], tuple[Share, Owner, Resource]] = {}  # saves most look-ups
        self._pieces: dict[tuple[str, int, int], list[Piece]] = {}

    def restore(self, key: str, shares: Iterable[Share], cells: Iterable[Cell]) -> None:
        """Take back what was persisted of one resource."""
        for share in shares:
            self.shares.setdefault(key, {})[share.key] = share
        for cell in cells:
            self.cells.setdefault(key, {})[cell.key] = cell

    def forget_pieces(self) -> None:
        """Call when segments or rules changed, and between sweeps."""
        self._pieces.clear()

    def add(self, usage: Usage, attribution: Attribution, owner_of: OwnerOf, flags: tuple[str, ...]) -> None:
        """Split one usage over windows and owners, and add it to every dimension that its meter feeds."""
        start, end = usage.start, usage.end
        if end <= start and not usage.quantity:
            return
        pieces = self._pieces.get((usage.meter, start, end))
        if pieces is None:
            edges = attribution.edges_within(start, end)
            pieces = self.segments.pieces(usage.meter, start, end, edges, attribution.era)
            self._pieces[usage.meter, start, end] = pieces
        for dimension in self.of_meter.get(usage.meter, ()):
            if dimension.policy != "usage":
                self._add_cells(usage, dimension, pieces, owner_of, flags)
            elif len(pieces) == 1:
                self._add_piece(usage, dimension, pieces[0], owner_of, flags, usage.quantity, usage.moved, usage.inner)
            else:
                cuts = [piece[1] for piece in pieces[:-1]]
                quantities, moved, inner = (
                    [part for _, _, part in split(total, start, end, cuts)]
                    for total in (usage.quantity, usage.moved, usage.inner)
                )
                for piece, *parts in zip(pieces, quantities, moved, inner, strict=True):
                    self._add_piece(usage, dimension, piece, owner_of, flags, *parts)

    def _add_piece(
        self,
        usage: Usage,
        dimension: Dimension,
        piece: Piece,
        owner_of: OwnerOf,
        flags: tuple[str, ...],
        quantity: int,
        moved: int,
        inner: int,
    ) -> None:
        start, end, low, high, era = piece
        owner = owner_of(dimension, era)
        if not takes(dimension, usage.resource, owner):
            return
        share = self._share(usage.resource, dimension, low, high, owner)
        if not share.spans:
            share.first = usage.first
        share.observe(start, end)
        share.quantity += quantity
        share.moved += moved
        share.inner += inner
        share.last = usage.last
        if usage.flags or flags:
            share.flags = sorted({*share.flags, *usage.flags, *flags})

    def _share(self, resource: Resource, dimension: Dimension, low: int, high: int, owner: Owner) -> Share:
        latest = self._latest.get((resource.key, dimension.name))
        if latest is not None:
            share, its_owner, its_resource = latest
            if its_owner is owner and its_resource is resource and share.start == low and share.end == high:
                return share
        share = Share(dimension.name, low, high, owner, group_of(resource, dimension, owner))
        share = self.shares.setdefault(resource.key, {}).setdefault(share.key, share)
        self._latest[resource.key, dimension.name] = (share, owner, resource)
        return share

    def _add_cells(
        self,
        usage: Usage,
        dimension: Dimension,
        pieces: list[Piece],
        owner_of: OwnerOf,
        flags: tuple[str, ...],
    ) -> None:
        """Keep usage by policy cell and level until the cell is whole."""
        fine: list[Piece] = []
        for start, end, low, high, era in pieces:
            edge = start - start % self.interval + self.interval
            left = start
            while edge < end:
                fine.append((left, edge, low, high, era))
                left, edge = edge, edge + self.interval
            fine.append((left, end, low, high, era))
        parts = split(usage.quantity, usage.start, usage.end, [piece[1] for piece in fine[:-1]])
        for (start, end, low, high, era), (_, _, quantity) in zip(fine, parts, strict=True):
            owner = owner_of(dimension, era)
            if not takes(dimension, usage.resource, owner):
                continue
            begins = start - start % self.interval
            group = group_of(usage.resource, dimension, owner)
            ends = min(begins + self.interval, high)
            cell = Cell(dimension.name, begins, ends, (low, high), owner, group, usage.levels)
            cell = self.cells.setdefault(usage.resource.key, {}).setdefault(cell.key, cell)
            cell.usage += quantity
            cell.observed += (end - start) // NS_PER_MS
            cell.flags = tuple(sorted({*cell.flags, *usage.flags, *flags}))
            share = self._share(usage.resource, dimension, low, high, owner)  # the evidence of the raw reading
            if not share.spans:
                share.first = usage.first
            share.observe(start, end)
            share.last = usage.last
            share.moved += quantity

    def _fold(self, mark_of: Callable[[str], int]) -> set[str]:
        """Evaluate the policy of every whole cell into its share."""
        touched = set()
        for key, cells in self.cells.items():
            for cell_key, cell in list(cells.items()):
                dimension = self.dimensions[cell.dimension]
                if cell.end > mark_of(dimension.meter):
                    continue
                share = Share(cell.dimension, *cell.window, cell.owner, cell.group)
                share = self.shares.setdefault(key, {}).setdefault(share.key, share)
                share.quantity += evaluate(dimension.policy, cell.usage, cell.observed, dict(cell.levels))
                share.flags = sorted({*share.flags, *cell.flags})
                del cells[cell_key]
                touched.add(key)
        return touched

    def waits(self, meter: str, mark: int) -> bool:
        """Whether a share of `meter` that would close at `mark` is of a pod of which nothing is known yet."""
        names = {d.name for d in self.of_meter.get(meter, ())}
        return any(
            share.owner.rule == WAITING.rule and share.dimension in names and share.end <= mark
            for of in self.shares.values()
            for share in of.values()
        )

    def give(self, resource: Resource, owner_of: OwnerOf, era_of: Callable[[int], int]) -> bool:
        """Give the open usage of a resource that nothing was known of to its owner; whether there was any.

        A share that spans a change of the rules is judged by those of its beginning: it was kept as one.
        """
        shares, cells = self.shares.get(resource.key, {}), self.cells.get(resource.key, {})
        waiting = [share for share in shares.values() if share.owner.rule == WAITING.rule]
        for share in waiting:
            del shares[share.key]
            self._latest.pop((resource.key, share.dimension), None)
            self._own(share, resource, owner_of, era_of(share.spans[0][0] if share.spans else share.start))
            if (known := shares.setdefault(share.key, share)) is not share:
                known.join(share)
            self._latest.pop((resource.key, share.dimension), None)
        for cell in [cell for cell in cells.values() if cell.owner.rule == WAITING.rule]:
            del cells[cell.key]
            self._own(cell, resource, owner_of, era_of(cell.start))
            if (known_cell := cells.setdefault(cell.key, cell)) is not cell:
                known_cell.join(cell)
        return bool(waiting)

    def _own(self, part: Share | Cell, resource: Resource, owner_of: OwnerOf, era: int) -> None:
        for dimension in alike(self.dimensions[part.dimension], self.of_meter):
            owner = owner_of(dimension, era)
            if takes(dimension, resource, owner):
                part.dimension, part.owner = dimension.name, owner
                part.group = group_of(resource, dimension, owner)
                return

    def reach(self, meter: str) -> int:
        """The latest time that an open share of `meter` has observed; 0 if none."""
        names = {d.name for d in self.of_meter.get(meter, ())}
        ends = [s.spans[-1][1] for of in self.shares.values() for s in of.values() if s.dimension in names and s.spans]
        return max(ends, default=0)

    def cut(self, meter: str, at: int) -> None:
        """End the open windows of `meter` at `at`; the segment that follows must have begun there."""
        names = {d.name for d in self.of_meter.get(meter, ())}
        for key, shares in self.shares.items():
            open_here = [s for s in shares.values() if s.dimension in names and s.start < at < s.end]
            for share in open_here:
                del shares[share.key]
                share.end = at
                shares[share.key] = share
                self._latest.pop((key, share.dimension), None)
        for cells in self.cells.values():
            cut_here = [c for c in cells.values() if c.dimension in names and c.window[0] < at < c.window[1]]
            for cell in cut_here:
                del cells[cell.key]
                cell.window, cell.end = (cell.window[0], at), min(cell.end, at)
                cells[cell.key] = cell
        self.forget_pieces()

    def close(
        self,
        mark_of: Callable[[str], int],
        lineage_of: Callable[[str], list[Resource]],
        basis_of: Callable[[str], str],
        source: str,
    ) -> tuple[list[Closed], set[str]]:
        """Close every share that ends at or before its meter's mark: the records, and the resources that changed.

        `lineage_of` gives a resource and what it lies in, inside out.
        """
        touched = self._fold(mark_of)
        grouped: dict[tuple[object, ...], list[Evidence]] = {}
        for key, shares in list(self.shares.items()):
            for share_key, share in list(shares.items()):
                if share.end > mark_of(self.dimensions[share.dimension].meter):
                    continue
                del shares[share_key]
                self._latest.pop((key, share.dimension), None)
                touched.add(key)
                if share.quantity:
                    owner = share.owner
                    record_key = (
                        share.dimension,
                        share.start,
                        share.end,
                        owner.kind,
                        owner.customer,
                        share.group,
                        basis_of(key),
                    )
                    grouped.setdefault(record_key, []).append(Evidence(lineage_of(key)[0], share))
            if not shares:
                del self.shares[key]
        self.cells = {key: cells for key, cells in self.cells.items() if cells}
        return [self._record(evidence, lineage_of, basis_of, source) for evidence in grouped.values()], touched

    def _record(
        self,
        evidence: list[Evidence],
        lineage_of: Callable[[str], list[Resource]],
        basis_of: Callable[[str], str],
        source: str,
    ) -> Closed:
        share = evidence[0].share
        dimension = self.dimensions[share.dimension]
        spans = union([span for e in evidence for span in e.share.spans])
        covered = sum(end - start for start, end in spans)
        flags = {flag for e in evidence for flag in e.share.flags}
        if covered < share.end - share.start:
            flags.add("partial")
        metadata: dict[str, object] = {}
        if share.owner.kind == "unattributed":
            above = [dict(r.labels) for r in lineage_of(evidence[0].resource.key)[1:] if r.labels]
            metadata = {"reason": share.owner.rule, **({"within": above} if above else {})}
        record = UsageRecord(
            kind=share.owner.kind,
            source=source,
            meter=dimension.meter,
            policy=dimension.policy,
            dimension=dimension.name,
            customer=share.owner.customer,
            group=dict(share.group),
            start=share.start,
            end=share.end,
            quantity=sum(e.share.quantity for e in evidence),
            base_unit=self.meters[dimension.meter].unit,
            basis=basis_of(evidence[0].resource.key),
            covered=covered,
            flags=tuple(sorted(flags)),
            metadata=metadata,
        )
        return Closed(record, tuple(evidence))
