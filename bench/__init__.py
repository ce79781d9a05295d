"""What the agent costs: one table for each question, with machine, durability and budget beside the figures.

`sweep`   a node of 250 and of 500 cgroups with 8 meters: CPU, latency, memory, fsyncs
`spool`   records appended and drained each second; a backlog of a million opened and drained
`memory`  an agent that meters a host only, beside OpenTelemetry Collector's hostmetrics in the same run

Every measurement runs in a process of its own that has loaded what the daemon loads (`bench/fresh.py`).
"""
