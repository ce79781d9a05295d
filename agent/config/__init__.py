"""The configuration: read once, checked whole, then passed down as plain values.

`document` reads YAML, `sections` gives it types, `check` and `ties` look across sections, `problems` words what is
wrong. A user sees every problem at once, each with file, line, key and cure, before anything starts.
"""

import json
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from agent import clock
from agent.config import document
from agent.config.check import KnownMeters, check, retention_bytes
from agent.config.document import Document
from agent.config.problems import problems_of
from agent.config.routes import route, unrouted
from agent.config.sections import Config, json_schema
from agent.config.sinks import AnySink, CloudEvents, FileSink, SinkEntry, SinkSection, Told
from agent.config.sources import Cgroups, Host, Kubernetes, SourceSection
from agent.errors import ConfigError

__all__ = [
    "Cgroups",
    "CloudEvents",
    "Config",
    "FileSink",
    "Host",
    "Kubernetes",
    "SinkSection",
    "SourceSection",
    "Told",
    "json_schema",
    "load",
    "parse",
    "retention_bytes",
    "route",
    "sink_of",
    "stamp",
]


def load(path: Path, known_meters: KnownMeters, environ: Mapping[str, str], now: int | None = None) -> Config:
    """The configuration in a file. `now` is the time of loading, ns since the epoch; None reads the clock.

    Raises ConfigError with every problem, each as `file:line: key: what. Cure.`
    """
    config = parse(document.read(path), str(path), known_meters, environ, now)
    return config.noting((*_file_notices(path), *config.notices))


def parse(
    text: str, name: str, known_meters: KnownMeters, environ: Mapping[str, str], now: int | None = None
) -> Config:
    """The configuration in `text`; `name` stands for the file in messages. Otherwise as `load`."""
    written = document.parse(text, name)
    values = document.mapping(written, "a mapping of the sections sources, meters, customers and so on")
    context = {"environ": environ}
    problems = list(written.problems)
    try:
        config = Config.model_validate(values, context=context)
        broken: frozenset[str] = frozenset()
    except ValidationError as error:
        problems += problems_of(error, written, Config)
        broken = frozenset(str(found["loc"][0]) for found in error.errors(include_url=False))
        # Sections do not depend on each other, so those that are left are sound and can be checked.
        config = Config.model_validate({k: v for k, v in values.items() if k not in broken}, context=context)
    problems += [written.problem(loc, text) for loc, text in check(config, written.line, known_meters, broken)]
    if problems:
        document.refuse(name, problems)
    sinks = {section["id"]: json.dumps(section).encode() for section in values.get("sinks") or ()}
    return config.noting(tuple(_notices(config, written, clock.now()[0] if now is None else now)), sinks)


def sink_of(section: bytes, environ: Mapping[str, str]) -> SinkSection:
    """A sink's section as the spool has kept it (`Config.written_sinks`). Raises ConfigError if it no longer reads."""
    try:
        return _sink.validate_json(section, context={"environ": environ})
    except ValidationError as error:
        problems = [f"a sink's last accepted configuration: {problem['msg']}" for problem in error.errors()]
        raise ConfigError(problems) from error


_sink: TypeAdapter[AnySink] = TypeAdapter(SinkEntry)


def stamp(path: Path | None) -> tuple[int, int]:
    """What changes when the file does; the same for ever where there is none."""
    try:
        status = path.stat() if path is not None else None
    except OSError:
        return (0, 0)
    return (status.st_mtime_ns, status.st_ino) if status is not None else (0, 0)


def _notices(config: Config, written: Document, now: int) -> list[str]:
    notices = []
    for index, customer in enumerate(config.customers):
        if customer.since is not None and customer.since < now and not customer.reattribute:
            day = datetime.fromtimestamp(customer.since // 10**9, UTC).date()
            text = f"{day} is past: {customer.id} acts from load time. Say `reattribute: true` to reach back."
            notices.append(written.problem(("customers", index, "from"), text).shown(written.name))
    undated = [c.id for c in config.customers if c.match and c.since is None and not c.reattribute]
    if undated:
        more = f" and {len(undated) - 3} more" if len(undated) > 3 else ""
        text = f"without `from`, a customer acts from load time: {', '.join(undated[:3])}{more}."
        notices.append(written.problem(("customers",), text).shown(written.name))
    if missed := sorted(unrouted(config)):
        text = f"no billing sink takes {', '.join(missed)}: such records are kept as unrouted."
        notices.append(written.problem(("sinks",), text).shown(written.name))
    if not config.sinks:
        text = "no sink: records stay in the spool. Add `- {id: files, kind: file, path: ...}`."
        notices.append(written.problem(("sinks",), text).shown(written.name))
    return notices


def _file_notices(path: Path) -> list[str]:
    """Who besides root and ourselves could change what is billed."""
    try:
        status = path.stat()
    except OSError:  # moved since it was read
        return []
    notices = []
    if status.st_mode & 0o022:
        notices.append(f"{path}: writable by others, who could change who is billed. Run `chmod go-w {path}`.")
    if status.st_uid not in (0, os.geteuid()):
        notices.append(f"{path}: owned by user {status.st_uid}, who could change who is billed. Give it to root.")
    return notices
