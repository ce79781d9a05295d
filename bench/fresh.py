"""A measurement in a process of its own, which first loads what the daemon loads: what it costs is nobody else's.

`python -m bench.fresh MODULE FUNCTION` reads the function's argument from stdin as JSON and writes its result.
"""

import importlib
import subprocess
import sys
import typing
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import msgspec
from msgspec import Struct

from bench.process import Syncs


class Timed(Struct):
    """What a measurement came to. `began` and `ended`: the wall clock around what was measured, in seconds."""

    began: float
    ended: float


Work = TypeVar("Work", bound=Struct)
Result = TypeVar("Result", bound=Timed)


def fresh(measure: Callable[[Work], Result], work: Work, *, inherit: Sequence[int] = ()) -> Result:
    """Run `measure(work)` in a process of its own, which keeps the descriptors `inherit`."""
    return _run(measure, work, inherit, [])


def traced(
    measure: Callable[[Work], Result], work: Work, log: Path, *, inherit: Sequence[int] = ()
) -> tuple[Result, int | None]:
    """The same under strace, which slows it: the result, and how often it asked for durability (None: no strace)."""
    syncs = Syncs(log)
    if syncs.missing:
        return _run(measure, work, inherit, []), None
    result = _run(measure, work, inherit, syncs.command())
    return result, syncs.between(result.began, result.ended)


def _run(measure: Callable[[Work], Result], work: Work, inherit: Sequence[int], before: list[str]) -> Result:
    command = [*before, sys.executable, "-m", "bench.fresh", measure.__module__, measure.__name__]
    asked = msgspec.json.encode(work)
    done = subprocess.run(command, input=asked, stdout=subprocess.PIPE, check=True, pass_fds=inherit)
    found: Result = msgspec.json.decode(done.stdout, type=typing.get_type_hints(measure)["return"])
    return found


def _inside(module: str, function: str) -> None:
    sys.modules["rich"] = None  # type: ignore[assignment]  # as `agent/__main__.py` does for the daemon
    importlib.import_module("agent.daemon")
    measure = getattr(importlib.import_module(module), function)
    work = msgspec.json.decode(sys.stdin.buffer.read(), type=typing.get_type_hints(measure)["work"])
    sys.stdout.buffer.write(msgspec.json.encode(measure(work)))


if __name__ == "__main__":
    _inside(*sys.argv[1:])
