"""Which sinks are run, and by which configuration: the one in force, or the last that the spool has of them.

A sink that the configuration no longer names is owed what there was, and goes on until that is settled. One that now
goes elsewhere first settles what was frozen for where it went before (ACCOUNTING §7).
"""

import hashlib
import os
from collections.abc import Mapping, Sequence

from msgspec import Struct, structs

from agent import config
from agent.config import Config, SinkSection, Told
from agent.delivery.rendering import Route
from agent.errors import ConfigError
from agent.model import NS_PER_S, Meter
from agent.spool.outbox import Outbox, Standing
from agent.spool.remembered import Remembered, goes_to, remembered
from agent.spool.stranding import strand

MOVED = "it goes elsewhere now, and what was frozen for where it went before is unsettled; `sink ls` shows it"
STRANDED = (
    "it goes elsewhere now, and where it went before is not known any more: what may have arrived there is ambiguous"
)
REMOVED = "it is no longer configured, and is owed records yet; put it back, or give them up: `sink discard`"


CHANGE_SECONDS = 5.0


class Outlet(Struct, frozen=True):
    """One sink as it is to be run. `freezes`: False where only what is frozen already is to be delivered.

    `paused`: a person wants nothing sent, so that nothing is under way either.
    """

    section: SinkSection
    route: Route
    freezes: bool = True
    paused: bool = False

    @property
    def max_age(self) -> int | None:
        """Ns after which it takes no usage; None: any age is taken."""
        return self.section.max_age if isinstance(self.section, Told) else None

    @property
    def patience(self) -> float:
        """Seconds for which a change waits for what is under way: without dedupe, what is cut off is a person's."""
        if isinstance(self.section, Told) and self.section.remembers == 0:
            return CHANGE_SECONDS + self.section.allows / NS_PER_S
        return CHANGE_SECONDS

    @property
    def close_after(self) -> int | None:
        """Ns without usage, after which what rounding has left goes to the rounding account."""
        return self.section.close_remainders_after if isinstance(self.section, Told) else None


def outlets(
    cfg: Config, outbox: Outbox, meters: Mapping[str, Meter], now: int
) -> tuple[dict[str, Outlet], dict[str, str]]:
    """By id: every sink to be run, and why one is not run as the configuration says.

    Registers those of `cfg`, retires the others. On the spool's thread, at `now` (billing time, ns).
    """
    alarms: dict[str, str] = {}
    known = outbox.sinks()
    found: dict[str, Outlet] = {}
    there = remembered(outbox.spool.db)
    for section in cfg.sinks:
        before = known.get(section.id)
        if before is not None and outbox.has_open(before) and _moved(before, section, there):
            kept = _former(before, there)
            if kept is not None:
                found[section.id] = Outlet(kept, config.route(cfg, kept, meters), freezes=False, paused=before.paused)
                alarms[section.id] = MOVED
                continue
            alarms[section.id] = STRANDED
            with outbox.transaction():
                strand(outbox, before, now)
        written, place = cfg.written_sinks[section.id], _digest(section.destination)
        standing = outbox.register(section.id, section.kind, section.role, written, since=section.since)
        route = config.route(cfg, section, meters)
        if (there.destinations.get(section.id), there.customers.get(section.id)) != (place, route.customers):
            with outbox.transaction():
                goes_to(outbox.spool.db, section.id, place, route.customers)
        if standing.until is None or outbox.backlog(standing)[0]:  # else a person has ended it, and it is over
            found[section.id] = Outlet(section, route, paused=standing.paused)
    for sink in known.keys() - {section.id for section in cfg.sinks}:
        with outbox.transaction():
            outbox.retire(known[sink])
        standing = outbox.sinks()[sink]
        if outbox.backlog(standing)[0] or outbox.stuck(standing):
            alarms[sink] = REMOVED
            try:
                kept = config.sink_of(standing.section, os.environ)
            except ConfigError as error:
                alarms[sink] = f"{REMOVED}. It is not sent to: {error}"
            else:
                route = config.route(cfg, kept, meters)
                route = structs.replace(route, customers=there.customers.get(sink, route.customers))
                found[sink] = Outlet(kept, route, paused=standing.paused)
        else:
            with outbox.transaction():
                outbox.remove(standing)
    return found, alarms


def _moved(before: Standing, section: SinkSection, there: Remembered) -> bool:
    """Whether a sink goes elsewhere than what was frozen for it."""
    if (place := there.destinations.get(section.id)) is not None:
        return place != _digest(section.destination)
    kept = _read(before)
    return kept is None or kept.destination != section.destination


def _former(before: Standing, there: Remembered) -> SinkSection | None:
    """Its last accepted section, if that still says where it went: an address may have been in the environment."""
    kept = _read(before)
    place = there.destinations.get(before.id)
    return kept if kept is not None and place in (None, _digest(kept.destination)) else None


def _read(before: Standing) -> SinkSection | None:
    try:
        return config.sink_of(before.section, os.environ)
    except ConfigError:
        return None


def _digest(destination: Sequence[str]) -> str:
    return hashlib.sha256("\0".join(destination).encode()).hexdigest()
