"""sd_notify(3): telling a service manager that we are ready, alive, or stopping. Silent where there is none."""

import contextlib
import os
import socket


def notify(*lines: str) -> None:
    """Send state lines such as `READY=1` to $NOTIFY_SOCKET, if it is set."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    # A manager that does not listen is no reason to stop metering.
    with (
        contextlib.suppress(OSError),
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel,
    ):
        channel.connect("\0" + address[1:] if address.startswith("@") else address)
        channel.send("\n".join(lines).encode())


def watchdog_seconds() -> float | None:
    """How often to send `WATCHDOG=1`: half the time-out that the manager set for us, or None."""
    microseconds = os.environ.get("WATCHDOG_USEC", "")
    ours = os.environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
    return int(microseconds) / 2_000_000 if ours and microseconds.isdigit() and int(microseconds) else None
