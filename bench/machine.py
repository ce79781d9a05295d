"""What ran the bench: figures mean nothing without it."""

import os
import platform
from pathlib import Path


def described(data: Path) -> str:
    """CPU, cores, kernel, Python, load, and the file system on which `data` lies."""
    load = os.getloadavg()[0]
    return (
        f"machine: {_cpu()}, {os.cpu_count()} cores, Linux {platform.release()}, Python {platform.python_version()}; "
        f"data on {_file_system(data)}; load {load:.1f} at the start"
    )


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() in ("model name", "Model"):  # x86 and most others; arm boards
            return value.strip()
    return platform.machine()


def _file_system(path: Path) -> str:
    """Kind and device of the mount that holds `path`: the longest of those above it."""
    mounts = [line.split()[:3] for line in Path("/proc/self/mounts").read_text().splitlines()]
    above = [mount for mount in mounts if path.is_relative_to(mount[1])]
    device, _, kind = max(above, key=lambda mount: len(mount[1]))
    return f"{kind} ({device})"
