"""Known bugs, each as one replacement of text in the agent, and the test that must catch it."""

from typing import NamedTuple


class Mutant(NamedTuple):
    """A bug: its name, the law it breaks, the test file to ask first, and the text it puts in the place of another."""

    name: str
    law: str
    near: str
    file: str
    old: str
    new: str
