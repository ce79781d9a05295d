"""The command line. `app.py` has every command with its options; the other modules do what they ask.

Tables for people, `--json` for programs. Errors are one line on standard error; exit codes are those of DESIGN §8.
"""

from pathlib import Path

DEFAULT_CONFIG = Path("/etc/metering-agent/agent.yaml")
