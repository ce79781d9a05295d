"""An Apache Kafka broker of the test's own, with listeners in the clear and with TLS and a password."""

import signal
import subprocess
import time
from pathlib import Path
from typing import Self

import trustme
from confluent_kafka import Consumer, KafkaException, Message, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key

from tests.own.postgres import free_port
from tests.own.programs import kafka

USER, PASSWORD = "metering", "s3cret-kafka"
CLUSTER = "MkU3OEVBNTcwNTJENDM2Qg"  # 16 bytes in base64; one that began with a dash would be taken for an option
JAVA = (
    "java",
    "-Xmx384m",
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
)
PROPERTIES = """
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
listeners=PLAIN://127.0.0.1:{port},SECURE://127.0.0.1:{secure},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAIN://127.0.0.1:{port},SECURE://127.0.0.1:{secure}
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAIN
listener.security.protocol.map=PLAIN:PLAINTEXT,SECURE:SASL_SSL,CONTROLLER:PLAINTEXT
listener.name.secure.sasl.enabled.mechanisms=PLAIN
listener.name.secure.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required \
 user_{user}="{password}";
listener.name.secure.ssl.keystore.type=PEM
listener.name.secure.ssl.keystore.location={home}/server.pem
log.dirs={home}/logs
auto.create.topics.enable=false
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
group.initial.rebalance.delay.ms=0
log.flush.interval.messages=1
"""


class Kafka:
    """One broker, its own controller, on ports of the loopback. It syncs each batch: its death is that of a machine."""

    def __init__(self, directory: Path) -> None:
        """Format its storage."""
        self._home, self._classes = directory, f"{kafka()}/*"
        self._ports = {"port": free_port(), "secure": free_port(), "controller": free_port()}
        self.servers, self.secure = f"127.0.0.1:{self._ports['port']}", f"127.0.0.1:{self._ports['secure']}"
        authority = trustme.CA()
        issued = authority.issue_cert("127.0.0.1")
        key = load_pem_private_key(issued.private_key_pem.bytes(), None)
        written = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())  # Java reads no other form
        (directory / "server.pem").write_bytes(written + b"".join(pem.bytes() for pem in issued.cert_chain_pems))
        self.ca_file, self.password_file = directory / "ca.pem", directory / "password"
        authority.cert_pem.write_to_path(self.ca_file)
        self.password_file.write_text(PASSWORD)
        self._properties = directory / "server.properties"
        self._properties.write_text(PROPERTIES.format(home=directory, user=USER, password=PASSWORD, **self._ports))
        formatted = self._java("kafka.tools.StorageTool", "format", "-t", CLUSTER, "-c", str(self._properties))
        assert formatted.wait(60) == 0, (directory / "log").read_text()
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.end(signal.SIGTERM)

    def start(self) -> None:
        """Until it answers."""
        self._process = self._java("kafka.Kafka", str(self._properties))
        admin = AdminClient({"bootstrap.servers": self.servers, "log_level": 0})
        until = time.monotonic() + 60
        while time.monotonic() < until:
            try:
                admin.list_topics(timeout=2)
            except KafkaException:
                continue
            return
        raise TimeoutError("Kafka does not answer")

    def end(self, by: signal.Signals = signal.SIGKILL) -> None:
        """End it."""
        assert self._process is not None
        self._process.send_signal(by)
        self._process.wait(30)

    def topic(self, name: str, **settings: str) -> str:
        """A new topic of three partitions."""
        admin = AdminClient({"bootstrap.servers": self.servers})
        admin.create_topics([NewTopic(name, 3, 1, config=settings)])[name].result(20)
        return name

    def messages(self, topic: str) -> list[Message]:
        """All that can be read of a topic."""
        consumer = Consumer({"bootstrap.servers": self.servers, "group.id": "none", "enable.partition.eof": False})
        places = [TopicPartition(topic, number, 0) for number in range(3)]
        ends = [consumer.get_watermark_offsets(place, timeout=20)[1] for place in places]
        consumer.assign(places)
        found: list[Message] = []
        while len(found) < sum(ends):  # nothing here is transactional: each offset is a message
            found += consumer.consume(1000, timeout=0.1)
        consumer.close()
        return found

    def _java(self, *argv: str) -> "subprocess.Popen[bytes]":
        with (self._home / "log").open("ab") as log:
            return subprocess.Popen([*JAVA, "-cp", self._classes, *argv], stdout=log, stderr=log, cwd=self._home)
