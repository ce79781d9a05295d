"""One trial at a time, in a process and a mount namespace of its own: `ROW SEED` a line in, the result a line out."""

import gc
import random
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path

import msgspec

from tests.campaign import families
from tests.campaign.row import ROWS, Scene, Trial, Verdict


def attempt(name: str, seed: int) -> Trial:
    """Make a trial of a row. What breaks it is told as a loss, for nothing else is known of it."""
    began = time.monotonic()
    struck: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as where:
        scene = Scene(Path(where), random.Random(f"{name} {seed}"), seed, struck)
        try:
            verdict = ROWS[name].trial(scene)
        except BaseException as error:  # noqa: BLE001 - the next trial comes all the same
            told = traceback.format_exception(error)
            verdict = Verdict(0, 1, 0, {}, ("the trial broke", *"".join(told).splitlines()))
    return Trial(name, seed, verdict, dict(struck), round(time.monotonic() - began, 2))


def main() -> None:
    """Until the end of the input."""
    assert families
    gc.freeze()  # what was imported stays shared with every fork
    for line in sys.stdin:
        name, seed = line.split()
        sys.stdout.buffer.write(msgspec.json.encode(attempt(name, int(seed))) + b"\n")
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
