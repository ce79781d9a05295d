"""`python -m bench [NAME…]`: the tables of the named benches, or of all."""

import argparse
import signal
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from types import FrameType

from bench import delivery, machine, memory, own, pods, spool, sweep
from bench.scale import TINY, Scale

BENCHES: Mapping[str, Callable[[Scale, Path], None]] = {
    "sweep": sweep.run,
    "spool": spool.run,
    "delivery": delivery.run,
    "own": own.run,
    "memory": memory.run,
    "pods": pods.run,
}


def main() -> int:
    """Run what was asked for; 2 for a name that is no bench."""
    parser = argparse.ArgumentParser(prog="python -m bench", description="What the agent costs.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"{', '.join(BENCHES)}; none: all of them")
    parser.add_argument("--tiny", action="store_true", help="only to see that it runs: the figures mean nothing")
    parser.add_argument("--seconds", type=int, help="how long `memory` watches (40), and a phase of `pods` (120)")
    parser.add_argument("--data", type=Path, default=Path(".run"), help="where spools are made: its disk is measured")
    asked = parser.parse_args()
    unknown = [name for name in asked.names if name not in BENCHES]
    if unknown:
        parser.error(f"no bench is called {unknown[0]}: there are {', '.join(BENCHES)}")
    scale = TINY if asked.tiny else Scale()
    if asked.seconds is not None:
        scale = scale.watching(asked.seconds)
    signal.signal(signal.SIGTERM, _leave)
    asked.data.mkdir(mode=0o700, parents=True, exist_ok=True)
    for name in asked.names or BENCHES:
        with tempfile.TemporaryDirectory(prefix="bench-", dir=asked.data) as directory:
            data = Path(directory).resolve()
            print(f"== {name}{' (tiny: the figures mean nothing)' if asked.tiny else ''}")
            print(machine.described(data), flush=True)
            BENCHES[name](scale, data)
            print()
    return 0


def _leave(_number: int, _frame: FrameType | None) -> None:
    """Leave by an exception, so that processes and cgroups are cleaned up."""
    sys.exit(1)


if __name__ == "__main__":
    sys.exit(main())
