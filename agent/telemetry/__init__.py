"""What the agent says about itself: `Telemetry` takes plain facts, `listen` shows them to Prometheus and to probes.

`metrics.py` is the table of every metric; docs are checked against it. Floats live here and nowhere left of it: no
number of this package is ever billed.
"""

from agent.telemetry.facts import SpoolLevels, Telemetry
from agent.telemetry.listener import Listener, listen
from agent.telemetry.metrics import METRICS, Metric

__all__ = ["METRICS", "Listener", "Metric", "SpoolLevels", "Telemetry", "listen"]
