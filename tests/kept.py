"""Directories that take minutes to make: made once, and kept outside the tree under the digest of their recipe."""

import fcntl
import hashlib
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path


class NotMadeError(RuntimeError):
    """A command that makes something failed; the text holds what it said."""


def kept(name: str, recipe: str, make: Callable[[Path], None]) -> Path:
    """The directory that `make` fills: from the cache, or made now. It appears whole or not at all."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "metering-agent"
    cache.mkdir(parents=True, exist_ok=True)
    done = cache / f"{name}-{hashlib.sha256(recipe.encode()).hexdigest()[:12]}"
    with (cache / f"{name}.lock").open("w") as lock:  # two test runs make it once
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists():
            partial = done.with_name(done.name + ".partial")
            shutil.rmtree(partial, ignore_errors=True)
            make(partial)
            partial.rename(done)
    return done


def call(*argv: str, cwd: Path | None = None) -> str:
    """Run a command to its end; what it wrote to both outputs. NotMadeError if it fails."""
    done = subprocess.run(
        argv,
        check=False,
        text=True,
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    if done.returncode != 0:
        raise NotMadeError(f"{' '.join(argv)} (exit {done.returncode}):\n{done.stdout[-4000:]}")
    return done.stdout
