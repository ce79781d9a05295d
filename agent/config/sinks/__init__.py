"""Where records go, as typed values: one module for each kind of sink. The text under each key is its description."""

from typing import Annotated

from pydantic import Field

from agent.config.sinks.cloudevents import CloudEvents
from agent.config.sinks.file import FileSink
from agent.config.sinks.http import Http
from agent.config.sinks.kafka import Kafka
from agent.config.sinks.lago import Lago
from agent.config.sinks.paigo import Paigo
from agent.config.sinks.postgres import Postgres
from agent.config.sinks.s3 import S3
from agent.config.sinks.section import DimensionAtSink, Remote, SinkSection, Tls, Told
from agent.config.sinks.stripe import Stripe
from agent.config.sinks.webhook import Webhook

__all__ = [
    "S3",
    "AnySink",
    "CloudEvents",
    "DimensionAtSink",
    "FileSink",
    "Http",
    "Kafka",
    "Lago",
    "Paigo",
    "Postgres",
    "Remote",
    "SinkEntry",
    "SinkSection",
    "Stripe",
    "Tls",
    "Told",
    "Webhook",
]

AnySink = FileSink | CloudEvents | Http | Kafka | Lago | Paigo | Postgres | S3 | Stripe | Webhook
SinkEntry = Annotated[AnySink, Field(discriminator="kind")]
