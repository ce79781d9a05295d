"""Waiting for what a busy machine will do in the end."""

import http.client
import subprocess
import time
from collections.abc import Callable
from typing import TypeVar

from tests.cluster.api import RefusedError

T = TypeVar("T")
# What a server that is starting, stopping or busy makes of a question.
NOT_YET = (OSError, http.client.HTTPException, RefusedError, subprocess.CalledProcessError)


def until(probe: Callable[[], T], what: str, seconds: float = 300, every: float = 0.1) -> T:
    """The first true answer of `probe`; TimeoutError, with the last error, if none comes in time."""
    deadline, said = time.monotonic() + seconds, ""
    while True:
        try:
            if answer := probe():
                return answer
        except NOT_YET as e:
            said = f": {e}"
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {seconds:g} s in vain: {what}{said}")
        time.sleep(every)
