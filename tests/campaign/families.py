"""Every module that has rows, so that they are listed."""

from tests.campaign import clocks, crash, damage, disk, identity, power, upstreams

__all__ = ["clocks", "crash", "damage", "disk", "identity", "power", "upstreams"]
