"""Every error that the agent raises on purpose, each with the exit code of DESIGN §8."""


class AgentError(Exception):
    """Base of them all: one line that names the place and the cure. Exit 1."""

    exit_code = 1


class ConfigError(AgentError):
    """The configuration cannot be used. `problems` holds every one of them, `path:line: key: what. cure`. Exit 2."""

    exit_code = 2

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class CannotStartError(AgentError):
    """A lock, a permission or the spool forbids starting. Exit 3."""

    exit_code = 3


class SpoolUnusableError(CannotStartError):
    """The disk under the spool fails or is read-only: it may work later, so the daemon stays up and tries again."""


class SourceError(AgentError):
    """A source could not be read this time; its watermark stands still and the next sweep tries again."""


class SpoolError(AgentError):
    """The spool refused a transaction: nothing of it was written, and the process must stop or retry (DESIGN §6)."""


class SpoolFullError(SpoolError):
    """No space is left for this transaction. Cursors stop; the counters of living groups hold their usage."""


class SinkError(AgentError):
    """A sink could not be used at all; of the batch nothing is known."""
