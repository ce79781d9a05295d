"""Where records go, as typed values: one module for each kind of sink. The text under each key is its description."""

from typing import Annotated

from pydantic import Field

from agent.config.sinks.cloudevents import CloudEvents
from agent.config.sinks.file import FileSink
from agent.config.sinks.postgres import Postgres
from agent.config.sinks.section import DimensionAtSink, Remote, SinkSection, Tls, Told

__all__ = [
    "AnySink",
    "CloudEvents",
    "DimensionAtSink",
    "FileSink",
    "Postgres",
    "Remote",
    "SinkEntry",
    "SinkSection",
    "Tls",
    "Told",
]

AnySink = FileSink | CloudEvents | Postgres
SinkEntry = Annotated[AnySink, Field(discriminator="kind")]
