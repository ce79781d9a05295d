"""What `metering-agent doctor` looks at, one module for each part. Nothing here changes what it looks at.

Each check says what was found and, where that does not do, the cure. What this user may not see is `unseen`, and counts
as not holding: a check that saw nothing vouches for nothing.
"""

import os
import stat
from pathlib import Path
from typing import Literal

from msgspec import Struct

Need = Literal["required", "optional", "informative"]
Result = Literal["ok", "fails", "unseen"]


class Check(Struct, frozen=True):
    """One thing that was looked at. `required`: without it usage is lost, delayed without end, or billed wrong."""

    area: str
    what: str
    need: Need
    result: Result
    found: str
    cure: str = ""


def judged(area: str, what: str, need: Need, holds: bool | None, found: str, cure: str = "") -> Check:
    """A check that holds, does not, or (None) could not be made. The cure is kept only where it is needed."""
    result: Result = "unseen" if holds is None else "ok" if holds else "fails"
    return Check(area, what, need, result, found, "" if holds else cure)


def existing(path: Path) -> Path:
    """The path, or the nearest directory around it that there is. Raises OSError where we may not look."""
    while True:
        try:
            path.stat()
        except FileNotFoundError:
            path = path.parent
        else:
            return path


def described(status: os.stat_result) -> str:
    """`mode 0700, uid 0`."""
    return f"mode {stat.S_IMODE(status.st_mode):04o}, uid {status.st_uid}"
