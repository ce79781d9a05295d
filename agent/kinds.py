"""What this release has: the kinds of sources and sinks, and how they and the line are made of the configuration."""

from collections.abc import Callable, Mapping
from pathlib import Path

from agent.config import Cgroups, CloudEvents, Config, FileSink, Host
from agent.metering import Plan
from agent.model import Meter
from agent.sinks import Sink, file
from agent.sources import Source, cgroups, host

KINDS: Mapping[str, tuple[Meter, ...]] = {"host": host.METERS, "cgroups": cgroups.METERS}
METERS = {meter.name: meter for meters in KINDS.values() for meter in meters}


def build_source(section: Host | Cgroups, cfg: Config) -> Source:
    """A new source is one file, one section, and one line here."""
    wanted = frozenset(entry.meter for entry in cfg.meters)
    if isinstance(section, Cgroups):
        aspects = frozenset(a for a in ("limit", "request") if any(a in entry.policy for entry in cfg.meters))
        root, include, anchors = str(section.root), section.include, section.closed()
        return cgroups.CgroupSource(section.id, root, include, anchors, wanted=wanted, aspects=aspects)
    return host.HostSource(section.id, str(section.root), wanted=wanted)


def build_sink(section: FileSink | CloudEvents, dated: Callable[[int], None] | None = None) -> Sink:
    """A new sink is one file, one section, and one line here. A heavy library loads where its kind is configured.

    `dated` hears the date that each answer bears, in seconds of the epoch.
    """
    if isinstance(section, CloudEvents):
        from agent.sinks.cloudevents import CloudEventsSink

        return CloudEventsSink(
            section.id,
            section.role,
            url=section.url,
            profile=section.profile,
            token_file=section.token_file,
            ca_file=section.tls.ca_file,
            cert_file=section.tls.cert_file,
            key_file=section.tls.key_file,
            timeout=section.timeout,
            max_batch=section.max_batch,
            max_bytes=section.max_bytes,
            concurrency=section.concurrency,
            rate=section.rate,
            max_age=section.max_age,
            dedupe_horizon=section.dedupe_horizon,
            negative=section.negative or section.role == "copy",
            unvouched=section.unvouched,
            dated=dated,
        )
    return file.FileSink(section.id, section.role, Path(section.path))


def plan_of(cfg: Config) -> Plan:
    """The configuration as the line reads it."""
    feeds: dict[str, frozenset[str]] = {}
    for source in cfg.sources:
        for meter in KINDS[source.kind]:
            feeds[meter.name] = feeds.get(meter.name, frozenset()) | {source.id}
    return Plan(
        cluster=cfg.agent.cluster,
        node=cfg.agent.node,
        meters=METERS,
        feeds=feeds,
        dimensions=cfg.dimensions(),
        rules=cfg.rules(),
        window=cfg.agent.window,
        interval=cfg.agent.sample_interval,
        fresh_boot=cfg.agent.fresh_boot,
        hold=cfg.hold(),
        accept_after=cfg.agent.clock.accept_after,
        claims={s.id: s.closed() if isinstance(s, Cgroups) else (s.id,) for s in cfg.sources},
    )
