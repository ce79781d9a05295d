"""`metering-agent`, and `python -m agent`.

`run` goes straight to the daemon, so that what the command line is made of never enters its memory.
"""

import os
import sys
from pathlib import Path

from agent.cli import DEFAULT_CONFIG


def main() -> int:
    """The console script; the exit code of DESIGN §8."""
    match sys.argv[1:]:
        case ["run"]:
            return _daemon(DEFAULT_CONFIG)
        case ["run", "--config", path]:
            return _daemon(Path(path))
    from agent.cli.app import app

    app()
    return 0


def _daemon(path: Path) -> int:
    sys.modules["rich"] = None  # type: ignore[assignment]  # structlog would load it to colour what is never coloured
    from agent import daemon

    return daemon.main(path, os.environ)


if __name__ == "__main__":
    sys.exit(main())
