"""Servers that Debian has no package of: made once by the ordinary clients of their registries, and kept."""

import shutil
from pathlib import Path

from tests.kept import call, kept

GATEWAY = "github.com/versity/versitygw/cmd/versitygw@v1.8.0"
KAFKA = """<project><modelVersion>4.0.0</modelVersion>
<groupId>own</groupId><artifactId>own</artifactId><version>1</version><dependencies>
<dependency><groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>4.1.1</version></dependency>
<dependency><groupId>org.slf4j</groupId><artifactId>slf4j-simple</artifactId><version>1.7.36</version></dependency>
</dependencies></project>
"""


def absent(*names: str) -> str:
    """Which of these is not on the machine, with the cure; empty if all are."""
    return ", ".join(f"{name} is missing: install it" for name in names if shutil.which(name) is None)


def gateway() -> Path:
    """Versity's S3 gateway, built in a minute or two."""

    def build(target: Path) -> None:
        target.mkdir()
        call("nice", "-n", "5", "env", "CGO_ENABLED=0", f"GOBIN={target}", "go", "install", GATEWAY)

    return kept("versitygw", GATEWAY, build) / "versitygw"


def kafka() -> Path:
    """The directory of Apache Kafka's jars."""

    def fetch(target: Path) -> None:
        target.mkdir()
        (target / "pom.xml").write_text(KAFKA)
        copy = ("dependency:copy-dependencies", "-DincludeScope=runtime", f"-DoutputDirectory={target / 'lib'}")
        call("nice", "-n", "5", "mvn", "-q", "-B", *copy, cwd=target)

    return kept("kafka", KAFKA, fetch) / "lib"
