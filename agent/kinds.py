"""What this release has: the kinds of sources and sinks, and how they and the line are made of the configuration."""

import time
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import TYPE_CHECKING

from agent.config import Cgroups, Config, Host, Kubernetes, SinkSection, SourceSection
from agent.config.sinks import Remote
from agent.config.sources import measures
from agent.errors import ConfigError
from agent.metering import Plan
from agent.model import Meter
from agent.sinks import Sink
from agent.sources import Source, cgroups, host
from agent.sources.kernel import boot_id
from agent.sources.kubernetes import meters as pods

if TYPE_CHECKING:
    from agent.sources.kubernetes.access import Access
    from agent.sources.kubernetes.kubelet import Kubelet
    from agent.sources.kubernetes.metadata import Metadata

KINDS: Mapping[str, tuple[Meter, ...]] = {"host": host.METERS, "cgroups": cgroups.METERS, "kubernetes": pods.METERS}
METERS = {meter.name: meter for meters in KINDS.values() for meter in meters}

SINKS: Mapping[str, tuple[str, str]] = {
    "file": ("agent.sinks.file", "FileSink"),
    "cloudevents": ("agent.sinks.cloudevents", "CloudEventsSink"),
    "paigo": ("agent.sinks.paigo", "PaigoSink"),
    "http": ("agent.sinks.http", "HttpSink"),
    "lago": ("agent.sinks.lago", "LagoSink"),
    "stripe": ("agent.sinks.stripe", "StripeSink"),
    "kafka": ("agent.sinks.kafka", "KafkaSink"),
    "postgres": ("agent.sinks.postgres", "PostgresSink"),
    "s3": ("agent.sinks.s3", "S3Sink"),
    "webhook": ("agent.sinks.webhook", "WebhookSink"),
}
EXTRAS: Mapping[str, str] = {"confluent_kafka": "kafka", "obstore": "s3", "psycopg": "postgres", "pyarrow": "parquet"}
"""What is installed only where its kind is wanted: the library → what to ask pip for."""

Remembered = Callable[[str], Mapping[str, bytes]]
"""What a source, by its id, had the spool remember."""


def build_source(section: SourceSection, cfg: Config, remembered: Remembered = lambda _: {}) -> Source:
    """A new source is one file, one section, and one line here."""
    wanted = frozenset(entry.meter for entry in cfg.meters)
    aspects = frozenset(a for a in ("limit", "request") if any(a in entry.policy for entry in cfg.meters))
    if isinstance(section, Cgroups):
        root, include, anchors = str(section.root), section.include, section.closed()
        return cgroups.CgroupSource(section.id, root, include, anchors, wanted=wanted, aspects=aspects)
    if isinstance(section, Kubernetes):
        build = _told_pods if section.basis == "summary" else _pods
        return build(section, cfg, remembered(section.id), wanted, aspects)
    return host.HostSource(section.id, str(section.root), wanted=wanted)


def _pods(
    section: Kubernetes, cfg: Config, remembered: Mapping[str, bytes], wanted: frozenset[str], aspects: frozenset[str]
) -> Source:
    from agent.sources.kubernetes.pods import PodSource

    return PodSource(
        section.id,
        str(section.root),
        metadata_of(section, cfg, remembered),
        anchors=section.anchors,
        system=section.system,
        network=section.network,
        wanted=wanted,
        aspects=aspects,
    )


def _told_pods(
    section: Kubernetes, cfg: Config, remembered: Mapping[str, bytes], wanted: frozenset[str], aspects: frozenset[str]
) -> Source:
    from agent.sources.kubernetes.summary import SummarySource, is_own

    return SummarySource(
        section.id,
        kubelet_of(section),
        metadata_of(section, cfg, {key: value for key, value in remembered.items() if not is_own(key)}),
        boot=boot_id(str(section.root)),
        wall=time.time_ns,
        wanted=wanted if section.network else wanted - frozenset(pods.NETWORK),
        aspects=aspects,
        remembered=remembered,
        interval=cfg.agent.sample_interval,
    )


def kubelet_of(section: Kubernetes) -> "Kubelet":
    """The node's kubelet. Raises ValueError where it cannot be asked safely."""
    from agent.sources.kubernetes.identity import SERVICE_ACCOUNT
    from agent.sources.kubernetes.kubelet import Kubelet

    asked = section.kubelet
    return Kubelet(
        asked.url,
        token_file=asked.token_file or SERVICE_ACCOUNT / "token",
        ca_file=asked.ca_file or (None if asked.pin else SERVICE_ACCOUNT / "ca.crt"),
        pin=asked.pin,
    )


def access_of(section: Kubernetes) -> "Access":
    """The API server, as whom we are to it. Raises SourceError where it cannot be known whom to ask."""
    from agent.sources.kubernetes.access import Access
    from agent.sources.kubernetes.identity import Kubeconfig, ServiceAccount

    return Access(ServiceAccount() if section.kubeconfig is None else Kubeconfig(section.kubeconfig))


def metadata_of(section: Kubernetes, cfg: Config, remembered: Mapping[str, bytes]) -> "Metadata":
    """Who is asked what a node's pods are. Raises SourceError as `access_of` does."""
    from agent.sources.kubernetes.metadata import Metadata

    return Metadata(
        access_of(section),
        cfg.agent.node,
        pod_label_keys=cfg.pod_label_keys(),
        allow_annotation=cfg.attribution.pod_labels.allow_annotation,
        node_labels=cfg.reads_node_labels(),
        remembered=remembered,
    )


def build_sink(section: SinkSection, dated: Callable[[int], None] | None = None) -> Sink:
    """A new sink is one file, one section, and one line here. A heavy library loads where its kind is configured.

    `dated` hears the date that each answer bears, in seconds of the epoch. Raises ConfigError where a library that it
    needs is not installed.
    """
    module, name = SINKS[section.kind]
    hears = {"dated": dated} if isinstance(section, Remote) else {}
    try:
        made: Sink = getattr(import_module(module), name)(section.id, section.role, **section.arguments(), **hears)
    except ModuleNotFoundError as error:
        if error.name is None or error.name not in EXTRAS:
            raise
        cure = f'Run `pip install "metering-agent[{EXTRAS[error.name]}]"`.'
        raise ConfigError([f"sinks[{section.id}]: {error.name} is not installed. {cure}"]) from error
    return made


def plan_of(cfg: Config) -> Plan:
    """The configuration as the line reads it."""
    told = any(isinstance(source, Kubernetes) and source.basis == "summary" for source in cfg.sources)
    feeds: dict[str, frozenset[str]] = {}
    for source in cfg.sources:
        for meter in (m for m in KINDS[source.kind] if measures(source, m.name)):
            feeds[meter.name] = feeds.get(meter.name, frozenset()) | {source.id}
    return Plan(
        cluster=cfg.agent.cluster,
        node=cfg.agent.node,
        meters=METERS | {meter.name: meter for meter in pods.SUMMARY if told},
        feeds=feeds,
        dimensions=cfg.dimensions(),
        rules=cfg.rules(),
        window=cfg.agent.window,
        interval=cfg.agent.sample_interval,
        fresh_boot=cfg.agent.fresh_boot,
        hold=cfg.hold(),
        accept_after=cfg.agent.clock.accept_after,
        claims={s.id: (s.id,) if isinstance(s, Host) else s.closed() for s in cfg.sources},
        lateness={s.id: s.max_lateness for s in cfg.sources if isinstance(s, Kubernetes)},
        metadata_wait=max((s.metadata_wait for s in cfg.sources if isinstance(s, Kubernetes)), default=0),
    )
