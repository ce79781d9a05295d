"""Files of Kubernetes objects as `kubectl get -o json` or `-o yaml` writes them, for `simulate`. Only read here.

YAML's scalars stay the text that was written: whoever gives them a type knows which one it is.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import msgspec
import yaml

from agent.errors import ConfigError

MAX_BYTES = 512 << 20  # 5,000 pods are about 50 MiB

_SAFE: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Text(_SAFE):  # type: ignore[misc]  # with libyaml or without
    """Reads every scalar as text, but for what is empty or null."""

    yaml_implicit_resolvers: ClassVar = {
        first: [(tag, pattern) for tag, pattern in known if tag == "tag:yaml.org,2002:null"]
        for first, known in _SAFE.yaml_implicit_resolvers.items()
    }


def manifests(path: Path) -> Iterator[dict[str, Any]]:
    """Every object of a file, each with its kind: the members of a List, and those of several YAML documents.

    Raises ConfigError.
    """
    for document in _documents(path, _read(path)):
        yield from _members(path, document)


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ConfigError([f"{path}: cannot be read: {error.strerror}. Name a readable file."]) from None
    if len(data) > MAX_BYTES:
        raise ConfigError([f"{path}: larger than {MAX_BYTES >> 20} MiB. Give several files."])
    return data


def _documents(path: Path, data: bytes) -> list[Any]:
    try:
        if data.lstrip()[:1] in (b"{", b"["):
            return [msgspec.json.decode(data)]
        return [document for document in yaml.load_all(data, Loader=_Text) if document]
    except (msgspec.DecodeError, yaml.YAMLError, UnicodeDecodeError) as error:
        said = " ".join(str(error).split())
        raise ConfigError([f"{path}: neither JSON nor YAML: {said}. Is it whole?"]) from None


def _members(path: Path, thing: Any, kind: str = "") -> Iterator[dict[str, Any]]:
    if isinstance(thing, list):
        for member in thing:
            yield from _members(path, member, kind)
        return
    kind = str(thing.get("kind", kind)) if isinstance(thing, dict) else ""
    if not kind:
        raise ConfigError([f"{path}: no objects of Kubernetes. Write what `kubectl get -o json` or `-o yaml` says."])
    if kind.endswith("List"):  # members of a PodList do not say what they are
        yield from _members(path, thing.get("items") or [], kind.removesuffix("List"))
    else:
        yield {**thing, "kind": kind}
