"""`metering-agent once`: two readings, and what they would bill to whom. Nothing is sent, locked or kept."""

import asyncio
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from msgspec import Struct, structs

from agent.books import Commit
from agent.config import Config
from agent.errors import AgentError
from agent.kinds import build_source, plan_of
from agent.metering import Metering
from agent.model import NS_PER_S
from agent.shares import Evidence
from agent.sources import Followed, Source, Watched
from agent.sources.kernel import boot_id, boottime
from agent.spool import Spool


class Line(Struct, frozen=True):
    """One resource's usage of one dimension between the two readings, for one bearer by one rule."""

    bearer: str
    dimension: str
    resource: str
    quantity: int
    base_unit: str
    rule: str


class Book(Struct, frozen=True):
    """The books of one anchor and meter between the two readings: moved = booked + in_flight (L1)."""

    anchor: str
    meter: str
    moved: int
    booked: int
    in_flight: int


class Once(Struct, frozen=True):
    """What `once` found. `apart`: ns between the readings. `gaps`: what could not be measured."""

    apart: int
    usage: tuple[Line, ...]
    books: tuple[Book, ...]
    gaps: tuple[str, ...]


def once(cfg: Config, seconds: float) -> Once:
    """Read every configured source, wait, read again, and close the books. Raises AgentError."""
    with tempfile.TemporaryDirectory(prefix="metering-agent-once-") as scratch:
        directory = Path(scratch)
        spool = Spool.open(directory, run_dir=directory, fingerprint={}, now=time.time_ns(), reserve=0)
        # A boot that nobody metered would be billed from its beginning; here only what lies between the readings is.
        plan = structs.replace(plan_of(cfg), fresh_boot=0)
        sources: list[Source] = []
        try:
            metering = Metering(spool, plan, directory, boot=boot_id())
            sources.extend(build_source(section, cfg) for section in cfg.sources)
            with _following(sources):
                began = boottime()
                for source in sources:
                    metering.sweep(source)
                commits = _wait(metering, sources, seconds)
                commits += [metering.sweep(source).commit for source in sources]
                apart = boottime() - began
            commits.append(metering.cut())
        except OSError as error:
            raise AgentError(f"{error.filename or 'a source'}: cannot be read: {error.strerror}") from error
        finally:
            for source in sources:
                source.close()
            spool.close()
    return Once(apart, _lines(commits), _books(commits), tuple(_gaps(commits)))


@contextmanager
def _following(sources: Iterable[Source]) -> Iterator[None]:
    """Meanwhile let sources learn what they are told over the network, on a loop of its own as in the daemon."""
    followed = [source for source in sources if isinstance(source, Followed)]
    loop = asyncio.new_event_loop()
    tasks = [loop.create_task(source.follow()) for source in followed]
    thread = threading.Thread(target=lambda: loop.run_until_complete(asyncio.wait(tasks)) if tasks else None)
    thread.start()
    try:
        yield
    finally:
        for task in tasks:
            loop.call_soon_threadsafe(task.cancel)
        thread.join()
        loop.close()


def _wait(metering: Metering, sources: Sequence[Source], seconds: float) -> list[Commit]:
    """Wait as the daemon does: read what lives often enough, and sweep at once when something died."""
    commits: list[Commit] = []
    watched = [source for source in sources if isinstance(source, Watched)]
    deadline = boottime() + int(seconds * NS_PER_S)
    while (now := boottime()) < deadline:
        due = min((source.next_read_within(now) for source in watched), default=deadline - now)
        time.sleep(min(due, deadline - now) / NS_PER_S)
        commits += [metering.sweep(source).commit for source in watched if source.read()]
    return commits


def _lines(commits: Iterable[Commit]) -> tuple[Line, ...]:
    sums: dict[tuple[str, str, str, str, str], int] = {}
    for commit in commits:
        for closed in commit.closed:
            for evidence in closed.evidence:
                key = _key(evidence, closed.record.base_unit)
                sums[key] = sums.get(key, 0) + evidence.share.quantity
    found = [Line(who, dimension, name, q, unit, rule) for (who, dimension, name, unit, rule), q in sums.items() if q]
    return tuple(sorted(found, key=lambda line: (line.bearer, line.dimension, -line.quantity)))


def _key(evidence: Evidence, unit: str) -> tuple[str, str, str, str, str]:
    owner = evidence.share.owner
    return owner.customer or owner.kind, evidence.share.dimension, evidence.resource.name, unit, owner.rule


def _books(commits: Iterable[Commit]) -> tuple[Book, ...]:
    books: dict[tuple[str, str], Book] = {}
    for commit in commits:
        for b in commit.balances:
            was = books.get((b.anchor, b.meter), Book(b.anchor, b.meter, 0, 0, 0))
            books[b.anchor, b.meter] = Book(
                b.anchor, b.meter, was.moved + b.moved, was.booked + b.booked, was.in_flight + b.change
            )
    return tuple(books[key] for key in sorted(books))


def _gaps(commits: Iterable[Commit]) -> Iterable[str]:
    for commit in commits:
        for gap in commit.gaps:
            yield f"{gap.meter} of {', '.join(gap.group.values())}: {gap.reason}"
