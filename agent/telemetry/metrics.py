"""Every metric of the agent, as data. No label carries a customer or a resource unless `customer_labels` is on.

Labels otherwise hold words of the configuration (ids of sources and sinks, dimensions, anchors) and of the code.
"""

from typing import Final, Literal

from msgspec import Struct


class Metric(Struct, frozen=True, eq=False):
    """One metric. `kept` says what the number we keep is, and so how a scrape shows it.

    `number`: as it is. `ns`: nanoseconds, shown as seconds. `boottime`, `billing`: an instant of that clock in
    nanoseconds, shown as its age in seconds at the scrape; no instant at all is an age of 0.
    """

    name: str
    type: Literal["counter", "gauge", "histogram"]
    help: str
    labels: tuple[str, ...] = ()
    kept: Literal["number", "ns", "boottime", "billing"] = "number"


SWEEP_SECONDS: Final = Metric(
    "metering_sweep_duration_seconds", "histogram", "How long one sweep of the source took.", ("source",)
)
SWEEPS: Final = Metric(
    "metering_sweeps_total", "counter", "Sweeps by outcome: success or failure.", ("source", "outcome")
)
SAMPLE_AGE: Final = Metric(
    "metering_last_sample_age_seconds", "gauge", "Time since the last good sweep began.", ("source",), "boottime"
)
WATERMARK_LAG: Final = Metric(
    "metering_watermark_lag_seconds", "gauge", "How far the committed watermark is behind.", ("source",), "boottime"
)
ANOMALIES: Final = Metric(
    "metering_anomalies_total", "counter", "Readings or claims not taken at face value.", ("source", "reason")
)
GAPS: Final = Metric("metering_gaps_total", "counter", "Spans for which coverage is missing.", ("source", "reason"))

API_REQUESTS: Final = Metric(
    "metering_kubernetes_api_requests_total", "counter", "Requests to the API server of the cluster.", ("source",)
)
API_RELISTS: Final = Metric(
    "metering_kubernetes_api_relists_total",
    "counter",
    "Collections listed anew because the thread of their changes was lost.",
    ("source",),
)
API_FAILING: Final = Metric(
    "metering_kubernetes_api_failing",
    "gauge",
    "1 while pods, namespaces or the node cannot be followed; what is known of them goes on.",
    ("source",),
)
METADATA_AGE: Final = Metric(
    "metering_kubernetes_metadata_age_seconds",
    "gauge",
    "Time since the API server was last heard, of the collection that it is longest for.",
    ("source",),
    "boottime",
)

ANCHOR_MOVED: Final = Metric(
    "metering_books_anchor_seconds_total",
    "counter",
    "What the anchor's own counter moved; equals booked plus the change of in flight.",
    ("anchor", "meter"),
    "ns",
)
BOOKED: Final = Metric(
    "metering_books_booked_seconds_total",
    "counter",
    "What was booked under the anchor, unattributed included.",
    ("anchor", "meter"),
    "ns",
)
UNATTRIBUTED: Final = Metric(
    "metering_books_unattributed_seconds_total",
    "counter",
    "The part of booked that no customer owned when it was booked.",
    ("anchor", "meter"),
    "ns",
)
IN_FLIGHT: Final = Metric(
    "metering_books_in_flight_seconds",
    "gauge",
    "What reading skew leaves between the anchor and its children; signed.",
    ("anchor", "meter"),
    "ns",
)
OVERRUN: Final = Metric(
    "metering_books_overrun_seconds_total",
    "counter",
    "How far in flight was beyond what reading skew explains. Any increase is a bug or a second writer.",
    ("anchor", "meter"),
    "ns",
)

OPEN_WINDOWS: Final = Metric("metering_open_windows", "gauge", "Windows that gather usage and are not records yet.")
RECORDS: Final = Metric("metering_records_total", "counter", "Records made, by kind.", ("kind",))
CUSTOMER_QUANTITY: Final = Metric(
    "metering_recorded_quantity_total",
    "counter",
    "Quantity recorded for the customer in base units; negative deltas are left out. Only with customer_labels.",
    ("customer", "dimension"),
)
HELD: Final = Metric(
    "metering_unattributed_held_records", "gauge", "Unattributed records that may still find their customer."
)
SPOOL_BYTES: Final = Metric("metering_spool_bytes", "gauge", "Size of the spool on disk.")
SPOOL_FREE: Final = Metric("metering_spool_free_bytes", "gauge", "What the spool may still grow by, cap and disk both.")
UNDELIVERED: Final = Metric("metering_spool_undelivered_records", "gauge", "Records that some sink still has to take.")
OLDEST_UNDELIVERED: Final = Metric(
    "metering_spool_oldest_undelivered_age_seconds", "gauge", "Age of the oldest undelivered record.", (), "billing"
)
OUTAGE: Final = Metric(
    "metering_spool_absorbable_outage_seconds",
    "gauge",
    "How long an outage of every sink still fits, at the last hour's rate of growth; absent until a rate is known.",
)
NODE_DEATH: Final = Metric(
    "metering_node_death_loss_seconds",
    "gauge",
    "Most usage that losing this node and its disk now would take: window, lateness and lag.",
)

SINK_OUTCOMES: Final = Metric(
    "metering_sink_outcomes_total", "counter", "What became of each record that was sent.", ("sink", "outcome")
)
SINK_STUCK: Final = Metric(
    "metering_sink_stuck_records", "gauge", "Records that wait for a person at the sink.", ("sink", "outcome")
)
SINK_BACKLOG: Final = Metric("metering_sink_backlog_records", "gauge", "Records not yet sent to the sink.", ("sink",))
SINK_OLDEST: Final = Metric(
    "metering_sink_oldest_unsent_age_seconds", "gauge", "Age of the sink's oldest unsent record.", ("sink",), "billing"
)

CLOCK_STEPS: Final = Metric(
    "metering_clock_steps_total", "counter", "Steps of the wall clock, by what was made of them.", ("verdict",)
)
CLOCK_OFFSET: Final = Metric(
    "metering_clock_offset_seconds", "gauge", "Wall clock minus billing time when last compared.", (), "ns"
)
GENERATION: Final = Metric("metering_config_generation", "gauge", "Configurations accepted since the agent started.")
RELOADED: Final = Metric(
    "metering_config_last_reload_successful", "gauge", "1 if the last configuration read was accepted, 0 if refused."
)
RELOAD_TIME: Final = Metric(
    "metering_config_last_reload_success_timestamp_seconds",
    "gauge",
    "Billing time at which a configuration was last accepted.",
    (),
    "ns",
)
BUILD: Final = Metric("metering_build_info", "gauge", "1, labelled with the version that runs.", ("version",))
RESIDENT: Final = Metric("process_resident_memory_bytes", "gauge", "Resident memory of the agent.")
CPU: Final = Metric("process_cpu_seconds_total", "counter", "User and system CPU time the agent has spent.", (), "ns")

METRICS: Final = tuple(value for value in list(globals().values()) if isinstance(value, Metric))
"""The table, in the order in which a scrape shows it."""

# The words of labels that are known beforehand: their series start at 0, so that the first one counts as an increase.
SWEEP_OUTCOMES: Final = ("success", "failure")
ANOMALY_REASONS: Final = ("attribution_conflict", "dip", "inferred_reset", "nested_claim")
DELIVERY_OUTCOMES: Final = ("delivered", "duplicate", "conflict", "rejected", "retry", "ambiguous")
STUCK_OUTCOMES: Final = ("conflict", "rejected", "ambiguous", "unrouted")
STEP_VERDICTS: Final = ("accepted", "unconfirmed")
