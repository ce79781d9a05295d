"""Every module that has rows, so that they are listed."""

from tests.campaign import crash, upstreams

__all__ = ["crash", "upstreams"]
