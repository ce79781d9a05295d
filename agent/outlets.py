"""Which sinks are run, and by which configuration: the one in force, or the last that the spool has of them.

A sink that the configuration no longer names is owed what there was, and goes on until that is settled. One that now
goes elsewhere first settles what was frozen for where it went before (ACCOUNTING §7).
"""

import os
from collections.abc import Mapping

from msgspec import Struct, structs

from agent import config
from agent.config import CloudEvents, Config, FileSink
from agent.delivery.rendering import Route
from agent.errors import ConfigError
from agent.model import Meter
from agent.spool.outbox import Outbox

MOVED = "it goes elsewhere now, and what was frozen for where it went before is unsettled; `sink ls` shows it"
REMOVED = "it is no longer configured, and is owed records yet; put it back, or give them up: `sink discard`"


class Outlet(Struct, frozen=True):
    """One sink as it is to be run. `freezes`: False where only what is frozen already is to be delivered."""

    section: FileSink | CloudEvents
    route: Route
    freezes: bool = True

    @property
    def close_after(self) -> int | None:
        """Ns without usage, after which what rounding has left goes to the rounding account."""
        return self.section.close_remainders_after if isinstance(self.section, CloudEvents) else None


def outlets(cfg: Config, outbox: Outbox, meters: Mapping[str, Meter]) -> tuple[dict[str, Outlet], dict[str, str]]:
    """By id: every sink to be run, and why one is not run as the configuration says.

    Registers those of `cfg`, retires the others. On the spool's thread.
    """
    alarms: dict[str, str] = {}
    known = outbox.sinks()
    found: dict[str, Outlet] = {}
    for section in cfg.sinks:
        before, written = known.get(section.id), cfg.written_sinks[section.id]
        if before is not None and before.section != written and outbox.has_open(before):
            kept = config.sink_of(before.section, os.environ)
            if kept.destination != section.destination:
                found[section.id] = Outlet(kept, config.route(cfg, kept, meters), freezes=False)
                alarms[section.id] = MOVED
                continue
        outbox.register(section.id, section.kind, section.role, written, since=section.since)
        route = config.route(cfg, section, meters)
        outbox.name_customers(section.id, route.customers)
        found[section.id] = Outlet(section, route)
    for sink in known.keys() - found.keys():
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
                # The names that its customers had, for the configuration can name none at a sink that it does not have.
                route = structs.replace(config.route(cfg, kept, meters), customers=outbox.customers(sink))
                found[sink] = Outlet(kept, route)
        else:
            with outbox.transaction():
                outbox.remove(standing)
    return found, alarms
