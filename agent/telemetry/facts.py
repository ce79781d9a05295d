"""Facts in, metrics out. Callers push integers as things happen; a scrape turns them into text and touches no disk."""

import os
import time
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping
from itertools import accumulate
from pathlib import Path
from typing import get_args

from msgspec import Struct
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric as Family

from agent.clock import Verdict
from agent.model import NS_PER_S, Balance, Kind
from agent.telemetry import metrics as m

BOUNDS = (0.005, 0.02, 0.05, 0.2, 1.0, 5.0)  # seconds; a sweep's budget is 0.05 (DESIGN §12)
HOUR = 3600 * NS_PER_S
MINUTE = 60 * NS_PER_S


class SpoolLevels(Struct, frozen=True):
    """The spool after a commit. `appended`: bytes of records and evidence written since the process started."""

    open_windows: int
    size: int  # bytes on disk
    free: int  # bytes until the cap or the end of the disk, whichever is nearer
    appended: int
    undelivered: int  # records
    oldest: int | None  # end of the oldest undelivered record, billing time; None when all are delivered
    held: int  # unattributed records within their hold


class Telemetry:
    """The agent's own numbers. Called from the loop only, scrapes included, so nothing is locked.

    `boottime` and `billing` tell the two clocks in nanoseconds; ages are taken at the scrape, so they grow even when
    nothing reports any more.
    """

    def __init__(
        self,
        version: str,
        *,
        boottime: Callable[[], int],
        billing: Callable[[], int],
        customer_labels: bool = False,
    ) -> None:
        self._boottime, self._billing, self._customer_labels = boottime, billing, customer_labels
        self._kept: dict[m.Metric, dict[tuple[str, ...], float | None]] = {metric: {} for metric in m.METRICS}
        self._sweeps: dict[str, list[float]] = {}  # by source: a count per bucket, then the sum of seconds
        self._growth = _Growth()
        self._window = self._lateness = 0
        self._verdict = Verdict.STEADY
        self._set(m.BUILD, version, to=1)
        self._start_at_zero(m.RECORDS, (), get_args(Kind))
        self._start_at_zero(m.CLOCK_STEPS, (), m.STEP_VERDICTS)

    # Configuration and clock

    def configured(
        self, generation: int, *, window: int, lateness: int, sources: Collection[str], sinks: Collection[str]
    ) -> None:
        """A configuration was accepted: its known series start at 0, those of what it no longer names end.

        `window` and `lateness` (the largest of any meter) in nanoseconds; `sources` and `sinks` by id.
        """
        self._window, self._lateness = window, lateness
        self._set(m.GENERATION, to=generation)
        self._set(m.RELOADED, to=1)
        self._set(m.RELOAD_TIME, to=self._billing())
        self._keep_only("source", sources)
        self._keep_only("sink", sinks)
        self._sweeps = {source: self._sweeps.get(source) or _no_sweeps() for source in sources}
        for source in sources:
            self._start_at_zero(m.SWEEPS, (source,), m.SWEEP_OUTCOMES)
            self._start_at_zero(m.ANOMALIES, (source,), m.ANOMALY_REASONS)
        for sink in sinks:
            self._start_at_zero(m.SINK_OUTCOMES, (sink,), m.DELIVERY_OUTCOMES)

    def refused(self) -> None:
        """A configuration was read and refused; the last good one goes on."""
        self._set(m.RELOADED, to=0)

    def clock_observed(self, verdict: Verdict, offset: int) -> None:
        """The wall clock was compared with billing time, `offset` nanoseconds ahead. A step counts once per verdict."""
        self._set(m.CLOCK_OFFSET, to=offset)
        if verdict not in (Verdict.STEADY, self._verdict) or verdict is Verdict.ACCEPTED:
            self._add(m.CLOCK_STEPS, verdict.value)
        self._verdict = verdict

    # Measuring

    def swept(self, source: str, *, seconds: float, stamp: int | None) -> None:
        """One sweep ended. `stamp`: the boottime at which it began (`Sweep.stamp`); None when it failed."""
        tally = self._sweeps.setdefault(source, _no_sweeps())
        tally[bisect_left(BOUNDS, seconds)] += 1
        tally[-1] += seconds
        self._add(m.SWEEPS, source, "failure" if stamp is None else "success")
        if stamp is not None:
            self._set(m.SAMPLE_AGE, source, to=stamp)

    def committed(self, source: str, stamp: int) -> None:
        """The source's cursor, so its watermark, was committed at this boottime stamp."""
        self._set(m.WATERMARK_LAG, source, to=stamp)

    def anomaly(self, source: str, reason: str, count: int = 1) -> None:
        """A reading or claim was refused its face value. `reason` is a word of the code, never a name."""
        self._add(m.ANOMALIES, source, reason, by=count)

    def gap(self, source: str, reason: str) -> None:
        """Coverage is missing. `reason` is a word of the code, never a name."""
        self._add(m.GAPS, source, reason)

    def followed(self, source: str, *, requests: int, relists: int, failing: bool, heard: int) -> None:
        """How asking the API server goes: counts since the start, and the boottime at which it was last heard."""
        self._set(m.API_REQUESTS, source, to=requests)
        self._set(m.API_RELISTS, source, to=relists)
        self._set(m.API_FAILING, source, to=failing)
        self._set(m.METADATA_AGE, source, to=heard)

    def balanced(self, balance: Balance, unattributed: int) -> None:
        """One sweep's books of one anchor and meter, and how much of `balance.booked` was unattributed.

        Meters in nanoseconds only, for they are shown in seconds; CPU is the one whose books are exact.
        """
        books = (balance.anchor, balance.meter)
        self._add(m.ANCHOR_MOVED, *books, by=balance.moved)
        self._add(m.BOOKED, *books, by=balance.booked)
        self._add(m.UNATTRIBUTED, *books, by=unattributed)
        self._set(m.IN_FLIGHT, *books, to=balance.in_flight)
        self._add(m.OVERRUN, *books, by=balance.overrun)

    # Keeping and delivering

    def recorded(self, kind: Kind, *, customer: str | None, dimension: str, quantity: int) -> None:
        """One record was made. `quantity` in base units, shown per customer only with `customer_labels`."""
        self._add(m.RECORDS, kind)
        if self._customer_labels and customer is not None and quantity > 0:  # a counter that fell would read as a reset
            self._add(m.CUSTOMER_QUANTITY, customer, dimension, by=quantity)

    def spool(self, levels: SpoolLevels) -> None:
        """The spool stands so after a commit."""
        self._set(m.OPEN_WINDOWS, to=levels.open_windows)
        self._set(m.HELD, to=levels.held)
        self._set(m.SPOOL_BYTES, to=levels.size)
        self._set(m.SPOOL_FREE, to=levels.free)
        self._set(m.UNDELIVERED, to=levels.undelivered)
        self._set(m.OLDEST_UNDELIVERED, to=levels.oldest)
        self._growth.add(self._boottime(), levels.appended)

    def settled(self, sink: str, outcome: str, count: int = 1) -> None:
        """So many records met this outcome at the sink (L9)."""
        self._add(m.SINK_OUTCOMES, sink, outcome, by=count)

    def backlog(self, sink: str, records: int, oldest: int | None) -> None:
        """What the sink has not been sent; `oldest` is the end of the oldest, billing time, None when there is none."""
        self._set(m.SINK_BACKLOG, sink, to=records)
        self._set(m.SINK_OLDEST, sink, to=oldest)

    def stuck(self, sink: str, waiting: Mapping[str, int]) -> None:
        """How many records wait for a person at the sink, by outcome."""
        for outcome in m.STUCK_OUTCOMES:
            self._set(m.SINK_STUCK, sink, outcome, to=waiting.get(outcome, 0))

    def age(self, since: int | None) -> int:
        """How long ago an instant of billing time was, ns; 0 for none."""
        return 0 if since is None else max(0, self._billing() - since)

    # A scrape

    def render(self, accept: str = "") -> tuple[bytes, str]:
        """The exposition and its content type: OpenMetrics where `accept` (that header) asks for it, else text."""
        try:
            encode, content_type = choose_encoder(accept)
        except (TypeError, ValueError):  # a version that is no version
            encode, content_type = choose_encoder("")
        return encode(self), content_type

    def collect(self) -> Iterator[Family]:
        """What the encoders of prometheus_client ask a registry for; nobody else calls it."""
        now = {"boottime": self._boottime(), "billing": self._billing()}
        self._take_stock(now)
        for metric in m.METRICS:
            if metric is m.SWEEP_SECONDS:
                yield _histogram(metric, self._sweeps)
            elif kept := self._kept[metric]:
                family = (CounterMetricFamily if metric.type == "counter" else GaugeMetricFamily)(
                    metric.name, metric.help, labels=metric.labels
                )
                for labels, value in kept.items():
                    family.add_metric(_printable(labels), _shown(metric, value, now))
                yield family

    def _take_stock(self, now: dict[str, int]) -> None:
        """What depends on the moment of the scrape itself."""
        lags = [now["boottime"] - stamp for stamp in self._kept[m.WATERMARK_LAG].values() if stamp is not None]
        oldest = self._kept[m.OLDEST_UNDELIVERED].get(())
        lags += [] if oldest is None else [now["billing"] - oldest]
        self._set(m.NODE_DEATH, to=(self._window + self._lateness + max(lags, default=0)) / NS_PER_S)
        growth, free = self._growth.per_second(at_least=self._window), self._kept[m.SPOOL_FREE].get(())
        if growth is not None and free is not None:
            self._set(m.OUTAGE, to=free / growth if growth else float("inf"))
        self._set(m.CPU, to=time.process_time_ns())
        pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[1]
        self._set(m.RESIDENT, to=int(pages) * os.sysconf("SC_PAGE_SIZE"))

    def _set(self, metric: m.Metric, *labels: str, to: float | None) -> None:
        self._kept[metric][labels] = to

    def _add(self, metric: m.Metric, *labels: str, by: int = 1) -> None:
        kept = self._kept[metric]
        kept[labels] = (kept.get(labels) or 0) + by

    def _start_at_zero(self, metric: m.Metric, labels: tuple[str, ...], words: Collection[str]) -> None:
        for word in words:
            self._add(metric, *labels, word, by=0)

    def _keep_only(self, label: str, ids: Collection[str]) -> None:
        for metric, kept in self._kept.items():
            if metric.labels[:1] == (label,):
                for gone in [labels for labels in kept if labels[0] not in ids]:
                    del kept[gone]


class _Growth:
    """How fast the spool is written, over the last hour: one mark a minute, and the newest."""

    def __init__(self) -> None:
        self._marks: deque[tuple[int, int]] = deque()  # (boottime, bytes appended)
        self._newest = (0, 0)

    def add(self, stamp: int, appended: int) -> None:
        self._newest = (stamp, appended)
        if not self._marks or stamp - self._marks[-1][0] >= MINUTE:
            self._marks.append(self._newest)
        while len(self._marks) > 1 and stamp - self._marks[1][0] >= HOUR:
            self._marks.popleft()

    def per_second(self, *, at_least: int) -> float | None:
        """Bytes per second; None before `at_least` nanoseconds (a window: records come at its end) were seen."""
        if not self._marks:
            return None
        (start, before), (end, after) = self._marks[0], self._newest
        return (after - before) * NS_PER_S / (end - start) if end - start >= max(at_least, 1) else None


def _no_sweeps() -> list[float]:
    return [0.0] * (len(BOUNDS) + 2)


def _histogram(metric: m.Metric, tallies: dict[str, list[float]]) -> Family:
    family = HistogramMetricFamily(metric.name, metric.help, labels=metric.labels)
    for source, tally in tallies.items():
        upper = [*(str(bound) for bound in BOUNDS), "+Inf"]
        buckets = list(zip(upper, accumulate(tally[:-1]), strict=True))
        family.add_metric(_printable((source,)), buckets, tally[-1])
    return family


def _printable(labels: tuple[str, ...]) -> list[str]:
    """Labels as UTF-8 can carry them: one odd name must not cost the whole scrape."""
    return [label.encode(errors="backslashreplace").decode() for label in labels]


def _shown(metric: m.Metric, value: float | None, now: dict[str, int]) -> float:
    if metric.kept == "number":
        return value or 0
    if metric.kept == "ns":
        return (value or 0) / NS_PER_S
    return 0 if value is None else max(0, now[metric.kept] - value) / NS_PER_S
