"""Where records go, as typed values: one module for each kind of sink. The text under each key is its description."""

from typing import Annotated

from pydantic import Field

from agent.config.sinks.cloudevents import CloudEvents
from agent.config.sinks.file import FileSink
from agent.config.sinks.http import Http
from agent.config.sinks.lago import Lago
from agent.config.sinks.paigo import Paigo
from agent.config.sinks.section import DimensionAtSink, Remote, SinkSection, Tls, Told
from agent.config.sinks.stripe import Stripe

__all__ = [
    "AnySink",
    "CloudEvents",
    "DimensionAtSink",
    "FileSink",
    "Http",
    "Lago",
    "Paigo",
    "Remote",
    "SinkEntry",
    "SinkSection",
    "Stripe",
    "Tls",
    "Told",
]

AnySink = FileSink | CloudEvents | Http | Lago | Paigo | Stripe
SinkEntry = Annotated[AnySink, Field(discriminator="kind")]
