"""The metering agent: one straight line, cut once by the disk.

     poll       Source ── Sample ──▶ usage ── Usage ─┐                               ┆ disk ┆
                                                     ├─▶ attribution ─▶ windows ─▶ UsageRecord ─▶ Spool ─▶ Submission ─▶ Sink ─▶ billing
     push/pull  Source ── UsageEvent ────────────────┘                               ┆      ┆

Left of the disk, `books.py` runs the three pure stages for one sweep, and the spool commits what came of it in one
transaction: marks, open windows, records. Right of it, `delivery/` drains each sink's outbox at the sink's own pace.
The two sides share nothing but the spool. `daemon.py` is the only place where all the parts meet.
"""  # noqa: E501 - the line is drawn once, whole

__version__ = "0.2.0"
