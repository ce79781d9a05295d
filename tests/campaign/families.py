"""Every module that has rows, so that they are listed."""

from tests.campaign import crash, disk, power, upstreams

__all__ = ["crash", "disk", "power", "upstreams"]
