"""The two things every kernel source needs to know: which boot this is, and what time it is in it."""

import os
import time

from agent.errors import SourceError


def boottime() -> int:
    """Nanoseconds since boot, suspends included (CLOCK_BOOTTIME)."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def boot_id(root: str = "/") -> str:
    """The id of this boot, a UUID. Raises SourceError when there is no such file."""
    path = os.path.join(root, "proc/sys/kernel/random/boot_id")
    try:
        with open(path, encoding="ascii") as file:
            return file.read().strip()
    except OSError as error:
        raise SourceError(f"{path}: {error.strerror}. `root` must hold the /proc of the machine to meter") from error
