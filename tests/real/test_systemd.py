"""The unit of `packaging/` under a real systemd, metering a real neighbour in a real cgroup v2 tree."""

import fcntl
import json
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import require
from tests.real.nspawn import Machine, MachineError, missing, rootfs, site_packages, until

pytestmark = [pytest.mark.real, pytest.mark.timeout(600)]  # the first test may have to make the root directory

ROOT = Path(__file__).parents[2]
UNIT = "metering-agent.service"
CONFIG = "/etc/metering-agent/agent.yaml"
OUT = "/var/lib/metering-agent/out"
NS_PER_MS = 1_000_000

# What the installation of a wheel would put there, with this tree in its place.
PROGRAM = """\
#!/usr/bin/python3 -I
import sys
sys.path[:0] = ["/opt/metering-agent/tree", "/opt/metering-agent/site-packages"]
from agent.__main__ import main
sys.exit(main())
"""

# A window of an hour: nothing closes while a test runs, so whatever is in the sink a stop has put there.
AGENT_YAML = """\
agent: {cluster: test, node: machine, window: 1h, sample_interval: 1s}
sources: [{kind: cgroups, include: ["system.slice/*.service"], anchors: [system.slice]}]
meters: [{meter: cpu.time, dimension: cpu, group_by: [unit]}]
sinks: [{id: files, kind: file, path: /var/lib/metering-agent/out, role: copy}]
customers:
  - {id: acme, match: [{unit: "acme-*.service"}]}
"""

# Burns half a second of CPU time, then again at each SIGUSR1, and nothing in between.
BURNER = """\
import signal, time
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
while True:
    end = time.process_time() + 0.5
    while time.process_time() < end:
        pass
    signal.sigwait({signal.SIGUSR1})
"""
BURN = 500 * NS_PER_MS


class Host:
    """A machine on which the agent is installed, its unit file untouched."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        machine.write("/opt/metering-agent/bin/metering-agent", PROGRAM, 0o755)
        machine.write(f"/etc/systemd/system/{UNIT}", (ROOT / "packaging" / UNIT).read_text())
        machine.write(CONFIG, AGENT_YAML)
        machine.write("/opt/burner.py", BURNER)

    def systemctl(self, *argv: str) -> None:
        """Run it; if it fails, the error holds the agent's own words."""
        try:
            self.machine.run("systemctl", *argv)
        except MachineError as e:
            raise MachineError(f"{e}\n{self.journal()}") from e

    def drop_in(self, *lines: str) -> None:
        """What an administrator would add by `systemctl edit`."""
        self.machine.write(f"/etc/systemd/system/{UNIT}.d/override.conf", "\n".join(["[Service]", *lines, ""]))
        self.systemctl("daemon-reload")

    def show(self, name: str) -> str:
        """A property of the agent's unit."""
        return self.machine.show(UNIT, name)

    def journal(self) -> str:
        """What the agent, and systemd about it, wrote."""
        return self.machine.run("journalctl", "--no-pager", "-u", UNIT)

    def start_burner(self, unit: str) -> None:
        """Start a service that burns half a second of CPU time at once."""
        self.machine.write(
            f"/etc/systemd/system/{unit}", "[Service]\nExecStart=/usr/bin/python3 -I -S /opt/burner.py\n"
        )
        self.systemctl("daemon-reload")
        self.systemctl("start", unit)

    def burn_again(self, unit: str) -> None:
        """Let it burn another half second."""
        self.systemctl("kill", "-s", "USR1", unit)

    def burning(self, unit: str, burn: int) -> None:
        """Wait until the burner is in the midst of its first, second, … burn."""
        begun = (burn - 1) * BURN + BURN // 4
        until(lambda: self.machine.cpu_ns(unit) > begun, 10, f"{unit} is at work")

    def burned(self, unit: str, times: int) -> int:
        """Wait until the burner rests after that many burns; its counter then."""

        def rested() -> int:
            before = self.machine.cpu_ns(unit)
            time.sleep(0.1)
            return before if before >= times * BURN and before == self.machine.cpu_ns(unit) else 0

        return until(rested, 30, f"{unit} has burned {times} times")

    def restarted(self, times: int) -> None:
        """Wait until systemd has brought the agent back that many times in all."""

        def back() -> bool:
            return self.show("NRestarts") == str(times) and self.show("ActiveState") == "active"

        until(back, 30, f"restart {times} of the agent")

    def records(self) -> list[dict[str, Any]]:
        """All lines of the file sink; each id once."""
        files = sorted(self.machine.path(OUT).glob("records-*.ndjson"))
        records = [json.loads(line) for file in files for line in file.read_text().splitlines()]
        assert len({record["id"] for record in records}) == len(records)
        return records

    def billed(self, customer: str) -> int:
        """The customer's total in the file sink, ns of CPU time."""
        return sum(int(r["quantity"]) for r in self.records() if r["kind"] == "usage" and r["customer"] == customer)

    def metric(self, name: str) -> float:
        """One of the agent's own metrics; nan if it does not say."""
        ask = "import urllib.request as r; print(r.urlopen('http://127.0.0.1:9108/metrics').read().decode())"
        for line in self.machine.run("python3", "-c", ask).splitlines():
            if line.startswith(f"{name} "):
                return float(line.split()[1])
        return float("nan")


@pytest.fixture(scope="session")
def root() -> Path:
    """The machine's root directory, made on first use."""
    require(not missing(), missing())
    return rootfs()


@pytest.fixture
def host(root: Path) -> Iterator[Host]:
    """A fresh machine for each test: a boot takes half a second."""
    binds = {
        "/opt/metering-agent/tree/agent": ROOT / "agent",
        "/opt/metering-agent/site-packages": site_packages(ROOT / "requirements.lock"),
    }
    with Machine(root, binds) as machine:
        yield Host(machine)


def test_systemd_finds_nothing_to_complain_about_in_the_unit(host: Host) -> None:
    """Every key is known and spelt as systemd wants it."""
    assert host.machine.run("systemd-analyze", "verify", UNIT) == ""


def test_it_is_active_only_when_it_meters_and_says_so(host: Host) -> None:
    """`systemctl start` returns when READY=1 came: not before the anchor's lock is had, and however long that takes."""
    host.systemctl("start", UNIT)
    assert host.show("ActiveState") == "active"
    assert host.show("StatusText") != ""
    host.systemctl("stop", UNIT)

    host.drop_in("TimeoutStartSec=2")  # the agent must ask for more while it waits
    with ExitStack() as locks:
        kept = [file for file in host.machine.path("/run/metering-agent").iterdir() if file.is_file()]
        assert kept  # RuntimeDirectoryPreserve: locks are worth nothing if a stop takes them away
        for file in kept:
            fcntl.flock(locks.enter_context(file.open()), fcntl.LOCK_EX)
        host.systemctl("start", "--no-block", UNIT)
        until(lambda: host.show("ActiveState") == "activating", 5, "the start begins")
        time.sleep(4)
        assert host.show("ActiveState") == "activating", host.journal()
    until(lambda: host.show("ActiveState") == "active", 10, "the agent has the lock")
    assert host.show("NRestarts") == "0"


def test_a_neighbour_unit_is_metered_to_the_microsecond(host: Host) -> None:
    """What acme is billed is what the kernel counted for acme's unit: as born after the first listing, from zero."""
    host.systemctl("start", UNIT)
    host.start_burner("acme-burner.service")
    host.burned("acme-burner.service", 1)
    host.burn_again("acme-burner.service")
    host.burned("acme-burner.service", 2)
    host.systemctl("stop", UNIT)
    assert host.billed("acme") == host.machine.cpu_ns("acme-burner.service")
    assert {r["group"]["unit"] for r in host.records() if r["customer"] == "acme"} == {"acme-burner.service"}


def test_a_stop_flushes_the_open_window(host: Host) -> None:
    """SIGTERM cuts the hour that is open, and its records reach the sink before the process ends."""
    host.systemctl("start", UNIT)
    host.start_burner("acme-burner.service")
    host.burned("acme-burner.service", 1)
    assert host.records() == []
    host.systemctl("stop", UNIT)
    assert (host.show("Result"), host.show("ExecMainStatus")) == ("success", "0")
    acme = [r for r in host.records() if r["customer"] == "acme"]
    assert acme
    assert not acme[-1]["end"].endswith(":00:00.000000000Z")  # cut, not closed by the clock
    assert host.billed("acme") == host.machine.cpu_ns("acme-burner.service")


def test_a_restart_goes_on_where_it_stopped(host: Host) -> None:
    """State outlives the process: one epoch, and usage of the time between is neither lost nor doubled."""
    host.systemctl("start", UNIT)
    host.start_burner("acme-burner.service")
    host.burning("acme-burner.service", 1)
    host.systemctl("restart", UNIT)
    host.burned("acme-burner.service", 1)
    host.systemctl("stop", UNIT)
    between = host.billed("acme")
    host.burn_again("acme-burner.service")  # while nobody looks
    host.burned("acme-burner.service", 2)
    host.systemctl("start", UNIT)
    host.systemctl("stop", UNIT)
    assert between < host.billed("acme") == host.machine.cpu_ns("acme-burner.service")
    assert len({r["source"] for r in host.records()}) == 1


def test_a_killed_agent_comes_back_and_loses_nothing(host: Host) -> None:
    """SIGKILL in the middle of a burn, three times: systemd starts it again and the total is the kernel's."""
    host.drop_in("RestartSec=100ms")
    host.systemctl("start", UNIT)
    host.start_burner("acme-burner.service")
    for death in range(1, 4):
        host.burning("acme-burner.service", death)
        host.systemctl("kill", "-s", "KILL", UNIT)
        host.restarted(death)
        host.burned("acme-burner.service", death)
        host.burn_again("acme-burner.service")
    host.burned("acme-burner.service", 4)
    host.systemctl("stop", UNIT)
    assert host.billed("acme") == host.machine.cpu_ns("acme-burner.service")
    assert len({r["source"] for r in host.records()}) == 1


def test_a_hung_agent_is_restarted_by_the_watchdog(host: Host) -> None:
    """Alive it keeps the watchdog quiet; stopped it is killed within the time-out, started again, and exact."""
    host.drop_in("WatchdogSec=2", "RestartSec=100ms")
    host.systemctl("start", UNIT)
    host.start_burner("acme-burner.service")
    host.burned("acme-burner.service", 1)
    time.sleep(3)
    assert host.show("NRestarts") == "0"
    hung = host.show("MainPID")
    host.machine.run("kill", "-STOP", hung)
    host.burn_again("acme-burner.service")
    host.restarted(1)
    assert "Watchdog timeout (limit 2s)!" in host.journal()
    assert host.show("MainPID") != hung
    host.burned("acme-burner.service", 2)
    host.systemctl("stop", UNIT)
    assert host.billed("acme") == host.machine.cpu_ns("acme-burner.service")


def test_a_reload_changes_the_configuration_and_not_the_process(host: Host) -> None:
    """SIGHUP: a new customer acts, the old one loses nothing, and a broken file changes nothing at all."""
    host.systemctl("start", UNIT)
    pid = host.show("MainPID")
    host.start_burner("acme-burner.service")
    host.burned("acme-burner.service", 1)

    before = host.metric("metering_config_generation")
    host.machine.write(CONFIG, AGENT_YAML + '  - {id: beta, match: [{unit: "beta-*.service"}]}\n')
    host.systemctl("reload", UNIT)
    until(lambda: host.metric("metering_config_generation") == before + 1, 10, "the new file is in force")
    host.start_burner("beta-burner.service")
    host.burned("beta-burner.service", 1)

    host.machine.write(CONFIG, AGENT_YAML + "nonsense: true\n")
    host.systemctl("reload", UNIT)
    until(lambda: host.metric("metering_config_last_reload_successful") == 0, 10, "the broken file is refused")
    host.burn_again("beta-burner.service")
    host.burned("beta-burner.service", 2)

    assert host.show("MainPID") == pid
    host.systemctl("stop", UNIT)
    assert host.billed("acme") == host.machine.cpu_ns("acme-burner.service")
    assert host.billed("beta") == host.machine.cpu_ns("beta-burner.service")


def test_a_bad_configuration_is_not_tried_again(host: Host) -> None:
    """Exit 2 before anything starts; systemd leaves it at that, and the journal names the key."""
    host.machine.write(CONFIG, AGENT_YAML + "nonsense: true\n")
    with pytest.raises(MachineError, match="nonsense"):
        host.systemctl("start", UNIT)
    assert (host.show("ActiveState"), host.show("ExecMainStatus")) == ("failed", "2")
    time.sleep(3)  # longer than RestartSec
    assert (host.show("ActiveState"), host.show("NRestarts")) == ("failed", "0")


def test_it_runs_as_root_without_any_of_its_powers(host: Host) -> None:
    """uid 0, no capability in any set, nothing writable but its own, and no socket that would do root's work for it."""
    host.systemctl("start", UNIT)
    pid = host.show("MainPID")
    status = dict(line.split(":", 1) for line in host.machine.run("cat", f"/proc/{pid}/status").splitlines())
    assert status["Uid"].split() == ["0", "0", "0", "0"]
    assert {key: int(value, 16) for key, value in status.items() if key.startswith("Cap")} == dict.fromkeys(
        ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"), 0
    )
    assert (status["NoNewPrivs"].strip(), status["Seccomp"].strip()) == ("1", "2")
    for read_only in ("/etc", "/usr", "/var/lib", "/run", "/sys/fs/cgroup", "/opt/metering-agent"):
        said = host.machine.run("touch", f"/proc/{pid}/root{read_only}/new", check=False)
        assert "Read-only file system" in said, read_only
    for socket in ("/run/dbus/system_bus_socket", "/run/systemd/private"):
        assert host.machine.run("test", "-S", socket) == ""
        seen = host.machine.run("stat", "-c", "%a", f"/proc/{pid}/root{socket}", check=False).strip()
        assert seen == "0" or "No such file" in seen, f"{socket}: {seen}"
    modes = host.machine.run("stat", "-c", "%a %U", "/var/lib/metering-agent", "/run/metering-agent").splitlines()
    assert modes == ["700 root", "700 root"]


def test_a_credential_reaches_it_and_nobody_else(host: Host) -> None:
    """LoadCredential: a file only root could read is read by the agent in its sandbox, here its configuration."""
    host.machine.write("/etc/metering-agent/secrets/agent.yaml", AGENT_YAML, 0o400)
    host.machine.path(CONFIG).unlink()
    host.drop_in(
        "LoadCredential=agent.yaml:/etc/metering-agent/secrets/agent.yaml",
        "ExecStart=",
        "ExecStart=/opt/metering-agent/bin/metering-agent run --config %d/agent.yaml",
    )
    host.systemctl("start", UNIT)
    inside = str(Path("/proc", host.show("MainPID"), "root", "run/credentials", UNIT, "agent.yaml"))
    assert host.machine.run("stat", "-c", "%a %u", inside).strip() == "400 0"
    assert host.machine.run("cat", inside) == AGENT_YAML
