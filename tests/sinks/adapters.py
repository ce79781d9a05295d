"""Each kind of sink as the common schedule drives it: a line in `ADAPTERS`."""

import json
import os
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from unittest import mock

from agent.delivery.rendering import Route
from agent.kinds import build_sink
from agent.model import NS_PER_S
from agent.sinks import Sink
from agent.sinks.cloudevents import CloudEventsSink
from agent.sinks.file import FileSink
from agent.sinks.paigo import PaigoSink
from tests.sinks.built import section_of
from tests.sinks.double import Request
from tests.sinks.doubles import Double, Said, Totals, UnreachedError, tunnelled
from tests.sinks.events_double import DAY, Events
from tests.sinks.paigo_double import SECRET, Paigo
from tests.sinks.property import CUSTOMERS, DIMENSIONS, Adapter
from tests.sinks.vendors import VENDORS, Back

DELAY = 600.0  # seconds, the longest for which this Paigo shows nothing


class Shelf:
    """The directory that files appear in; nothing befalls it but the agent's deaths."""

    def __init__(self, path: Path) -> None:
        self.faults, self.path = deque[str](), path

    def totals(self) -> Totals:
        """Of every line that is visible."""
        sums: Totals = {}
        for file in self.path.glob("records-*.ndjson"):
            for line in map(json.loads, file.read_text().splitlines()):
                key = line["customer"], line["dimension"]
                sums[key] = sums.get(key, Decimal(0)) + Decimal(line["quantity"])
        return sums


@contextmanager
def _files(double: Double, _path: Path) -> Iterator[Sink]:
    assert isinstance(double, Shelf)
    with mock.patch.object(os, "fsync"):  # only processes die here; power is another test's matter
        yield FileSink("x", "billing", double.path)


@contextmanager
def _events(double: Double, _path: Path) -> Iterator[Sink]:
    assert isinstance(double, Events)
    horizon = int(double.horizon * NS_PER_S)
    with tunnelled(double):
        yield CloudEventsSink("x", "billing", "http://localhost/e", max_batch=3, concurrency=2, dedupe_horizon=horizon)


def _paigo(
    shows_after: float,
) -> Callable[[Sequence[str], Callable[[], float], Path], Double]:
    def double(faults: Sequence[str], now: Callable[[], float], _path: Path) -> Double:
        writes = [fault for fault in faults if not fault.startswith("unread")]
        reads = [fault.removeprefix("unread ") for fault in faults if fault.startswith("unread")]
        sums = dict.fromkeys(DIMENSIONS.values(), "sum")
        return Paigo(
            writes, now=now, customers=CUSTOMERS.values(), dimensions=sums, shows_after=shows_after, unread=reads
        )

    return double


@contextmanager
def paigo_sink(double: Double, path: Path) -> Iterator[Sink]:
    """A sink of that double."""
    assert isinstance(double, Paigo)
    for name, text in (("id", "me"), ("secret", SECRET)):
        (path / name).write_text(text)
    with tunnelled(double):
        yield PaigoSink(
            "x",
            "billing",
            "http://localhost",
            token_url="http://localhost/oauth/token",
            audience="a",
            client_id_file=path / "id",
            client_secret_file=path / "secret",
            concurrency=4,
            visibility_delay=int(DELAY * NS_PER_S),
        )


class Vendored:
    """A vendor's double, as the schedule drives it."""

    def __init__(self, name: str, faults: Sequence[str], now: Callable[[], float]) -> None:
        horizons = {"orb": 12 * 3600.0, "stripe-v1": DAY, "stripe-v2": DAY, "metronome": 34 * DAY, "amberflo": DAY}
        self.back = Back(name, VENDORS[name], deque(faults), now, horizons.get(name))
        self.faults = self.back.faults

    async def answer(self, request: Request) -> Said | None:
        """One request."""
        if self.faults and self.faults[0] == "unreached":
            self.faults.popleft()
            raise UnreachedError
        said = self.back.answer(request)
        return None if said is None else Said(said[0], said[1].encode())

    def totals(self) -> Totals:
        """By customer and dimension."""
        return self.back.totals()


@contextmanager
def _vendored(double: Double, path: Path) -> Iterator[Sink]:
    assert isinstance(double, Vendored)
    with tunnelled(double):
        yield build_sink(section_of(double.back.name, f"http://127.0.0.1:9{double.back.vendor.target}", path))


def _vendor(name: str) -> Adapter:
    return Adapter(
        (*_PLAIN, "stopped midway", "forgets"), lambda faults, now, _: Vendored(name, faults, now), _vendored
    )


_PLAIN = ("", "", "lost before", "lost after", "unreached", "503", "503 after", "429")
_PAIGO = (*_PLAIN, "400", "expire", "unread lost before", "unread 503", "unread expire", "unread unreached")

ADAPTERS: Mapping[str, Adapter] = {
    "file": Adapter((), lambda _f, _n, path: Shelf(path / "out"), _files, route=Route()),
    "cloudevents": Adapter((*_PLAIN, "forgets"), lambda faults, now, _p: Events(faults, now=now), _events),
    **{name: _vendor(name) for name in VENDORS},
    "paigo": Adapter(_PAIGO, _paigo(DELAY), paigo_sink, settles=True),
    "paigo-at-once": Adapter(_PAIGO, _paigo(0.0), paigo_sink, settles=True),
}
"""By what `make prop-sinks SINK=` calls it."""
