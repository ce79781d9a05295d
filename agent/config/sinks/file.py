from collections.abc import Mapping
from typing import Literal

from agent.config.scalars import Directory
from agent.config.sinks.section import SinkSection


class FileSink(SinkSection):
    """Records as lines of JSON, in files that appear whole."""

    kind: Literal["file"]
    """`file`."""
    path: Directory
    """Directory for the files; the agent makes it. No default. `${NAME}` is read from the environment."""

    @property
    def destination(self) -> tuple[str, ...]:
        """What may not change while something that was frozen for it is unsettled: the directory."""
        return self.kind, str(self.path)

    @property
    def place(self) -> tuple[str, str]:
        """The key that says where it goes, and its value: no two sinks may share it."""
        return "path", str(self.path)

    def arguments(self) -> Mapping[str, object]:
        """What its sink is made of, beside id and role, as plain values."""
        return {"path": self.path}
