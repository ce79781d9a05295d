"""`doctor`: what it looks at, how it judges it, and that it changes nothing."""

import json
import os
import re
import resource
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from agent.cli import doctor
from agent.cli.app import app
from agent.cli.health import Check, groups, keeping, machine, place
from agent.clock import BUILD_TIME, ClockState
from agent.config import CloudEvents, Config, FileSink
from agent.config import load as load_file
from agent.errors import AgentError
from agent.model import NS_PER_S
from agent.sinks import Answer, Entry, Finding, Sink, Terms
from agent.spool.outbox import Submission
from tests.cli.conftest import Stage
from tests.config.written import KNOWN
from tests.conftest import require
from tests.upstream.process import Upstream

CONFIG = """\
agent: {{data_dir: {0}/data, run_dir: {0}/run}}
sources: [{{kind: cgroups, root: {0}/host, include: ["customers.slice/*"]}}]
meters: [{{meter: cpu.time}}, {{meter: memory.working_set}}]
customers: [{{id: acme}}]
sinks:
  - {sink}
spool: {{max_bytes: 200MiB, retention: 1d, evidence_retention: 1d}}
"""
EVENTS = (
    "{{id: events, kind: cloudevents, profile: openmeter-v1, url: '{url}', dedupe_horizon: 0s,"
    " dimensions: {{cpu_time: {{unit: core-hour}}}}{more}}}"
)
NOWHERE = EVENTS.format(url="http://127.0.0.1:9/api/v1/events", more="")
BOOTTIME = 1_000 * NS_PER_S
WALL = BUILD_TIME + 100 * NS_PER_S


def configured(home: Path, sink: str = NOWHERE) -> Path:
    """A configuration whose directories lie in `home`."""
    path = home / "agent.yaml"
    path.write_text(CONFIG.format(home, sink=sink))
    path.chmod(0o600)
    return path


def load(path: Path) -> Config:
    """The configuration in it."""
    return load_file(path, KNOWN, {})


def found(checks: Iterator[Check] | list[Check]) -> dict[str, Check]:
    """By what was looked at."""
    return {check.what: check for check in checks}


def group(home: Path, path: str, *files: str) -> None:
    """A group of a v2 hierarchy, with these files."""
    directory = home / "host/sys/fs/cgroup" / path
    directory.mkdir(parents=True, exist_ok=True)
    for name in files:
        (directory / name).write_text("0\n")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A machine with one metered group."""
    group(tmp_path, "", "cgroup.controllers")
    group(tmp_path, "customers.slice", "cpu.stat")
    group(tmp_path, "customers.slice/acme", "cpu.stat", "memory.current", "memory.stat")
    return tmp_path


class Asked:
    """A sink that says what it is told to, and must never be sent anything."""

    kind = "asked"

    def __init__(self, section: FileSink | CloudEvents, *findings: Finding, error: Exception | None = None) -> None:
        self.id, self.role, self.terms = section.id, str(section.role), Terms(max_batch=1)
        self.findings, self.error, self.closed = list(findings), error, False

    def render(self, entry: Entry) -> bytes:
        raise NotImplementedError

    async def stage(self, submission: Submission) -> None:
        raise NotImplementedError

    async def send(self, submission: Submission) -> Answer:
        raise NotImplementedError

    async def ask(self) -> list[Finding]:
        if self.error is not None:
            raise self.error
        return self.findings

    async def close(self) -> None:
        self.closed = True


def diagnosed(path: Path, *findings: Finding, error: Exception | None = None, date: int | None = None) -> list[Check]:
    """All checks, with a sink that says this."""
    built: list[Asked] = []

    def build(section: FileSink | CloudEvents, dated: Callable[[int], None]) -> Sink:
        if date is not None:
            dated(date)
        built.append(Asked(section, *findings, error=error))
        return built[-1]

    checks = doctor.diagnose(load(path), path, build)
    assert all(sink.closed for sink in built)
    return checks


# -- as a whole ------------------------------------------------------------------------------------------------------


def test_a_machine_that_is_ready_is_sound_and_stays_as_it_was(home: Path) -> None:
    """Nothing is made: neither the data directory, nor a spool, nor a file that stays."""
    path = configured(home)
    before = sorted(home.rglob("*"))
    checks = diagnosed(path, Finding("reachable", True, "200 OK"))
    assert [check for check in checks if check.need == "required" and check.result != "ok"] == []
    assert doctor.sound(checks)
    assert sorted(home.rglob("*")) == before


def test_a_required_check_that_fails_makes_it_unsound() -> None:
    """One that was not seen does too; an optional one does not."""
    good, bad = Check("a", "b", "required", "ok", ""), Check("a", "b", "optional", "fails", "", "mend it")
    assert doctor.sound([good, bad])
    assert not doctor.sound([good, Check("a", "b", "required", "fails", "")])
    assert not doctor.sound([good, Check("a", "b", "required", "unseen", "")])


def test_the_command_tells_every_cure_and_exits_1(home: Path) -> None:
    """Nobody listens at the sink's address: it is said, with what to do."""
    done = CliRunner().invoke(app, ["doctor", "--config", str(configured(home))])
    assert done.exit_code == 1, done.output
    assert re.search(r"^FAIL +sinks\[events\] ", done.output, re.MULTILINE)
    assert "required checks hold." in done.output
    done = CliRunner().invoke(app, ["doctor", "--json", "--config", str(configured(home))])
    told = json.loads(done.output)
    assert (done.exit_code, told["sound"]) == (1, False)
    assert {check["area"] for check in told["checks"]} == {
        *("permissions", "cgroups", "clock", "disk", "spool", "kernel", "sinks[events]")
    }


def test_a_bad_configuration_is_exit_2(tmp_path: Path) -> None:
    """As of every command."""
    path = tmp_path / "agent.yaml"
    path.write_text("sources: []\n")
    assert CliRunner().invoke(app, ["doctor", "--config", str(path)]).exit_code == 2


# -- sinks -----------------------------------------------------------------------------------------------------------


def test_each_finding_of_a_sink_is_a_check_with_its_cure(home: Path) -> None:
    """Required of a billing sink, optional of a copy."""
    finding = Finding("meter cpu", False, "MAX of $.value", "Replace it.")
    check = found(diagnosed(configured(home), finding))["meter cpu"]
    assert check == Check("sinks[events]", "meter cpu", "required", "fails", "MAX of $.value", "Replace it.")
    copy = configured(home, NOWHERE.replace("kind:", "role: copy, kind:"))
    assert found(diagnosed(copy, finding))["meter cpu"].need == "optional"


def test_a_sink_that_raises_is_a_check_that_fails(home: Path) -> None:
    """One sink's trouble ends no other check."""
    checks = found(diagnosed(configured(home), error=AgentError("its files are gone")))
    assert (checks["reachable"].result, checks["reachable"].found) == ("fails", "its files are gone")


def test_a_sinks_clock_is_held_against_ours(home: Path) -> None:
    """A date an hour away means that one of the two is wrong."""
    checks = found(diagnosed(configured(home), date=int(home.stat().st_mtime) + 3600))
    assert checks["as sinks[events] has it"].result == "fails"


def test_a_directory_of_files_is_not_made_by_asking(home: Path) -> None:
    """The agent makes it at its start."""
    path = configured(home, f"{{id: files, kind: file, path: {home}/out}}")
    checks = [check for check in diagnosed(path) if check.area == "sinks[files]"]
    assert [(check.need, check.result) for check in checks] == [("informative", "ok")]
    assert not (home / "out").exists()


@pytest.mark.parametrize(("aggregation", "code"), [("SUM", 0), ("MAX", 1)])
def test_a_real_receiver_is_asked_whether_it_sums(home: Path, aggregation: str, code: int) -> None:
    """Over HTTP, with the token from its file; it is sent no event."""
    token = home / "token"
    token.write_text("secret-word\n")
    token.chmod(0o600)
    plan = {"meters": {"cpu_time": aggregation}, "token": "secret-word"}
    with Upstream(home / "upstream.db", plan) as upstream:
        url = f"{upstream.url}/api/v1/events"
        path = configured(home, EVENTS.format(url=url, more=f", token_file: {token}"))
        done = CliRunner().invoke(app, ["doctor", "--config", str(path)])
        assert upstream.struck()["none"] == 0
    assert done.exit_code == code, done.output
    assert "secret-word" not in done.output


# -- permissions -----------------------------------------------------------------------------------------------------


def test_secrets_that_others_can_read_are_told(home: Path) -> None:
    """And one that is absent fails; a certificate is no secret."""
    for name, mode in (("token", 0o644), ("key", 0o600), ("cert", 0o644)):
        (home / name).write_text("x")
        (home / name).chmod(mode)
    more = f", token_file: {home}/token, tls: {{ca_file: {home}/ca, cert_file: {home}/cert, key_file: {home}/key}}"
    path = configured(home, EVENTS.format(url="https://b.example/events", more=more))
    checks = found(place.permissions(load(path), path))
    results = {name: checks[f"sinks[events].{name}"] for name in ("token_file", "tls.ca_file", "tls.cert_file")}
    assert {name: check.result for name, check in results.items()} == {
        "token_file": "fails",
        "tls.ca_file": "fails",
        "tls.cert_file": "ok",
    }
    assert "chmod 0600" in results["token_file"].cure
    assert (results["token_file"].need, results["tls.ca_file"].need) == ("optional", "required")
    assert checks["sinks[events].tls.key_file"].result == "ok"


def test_a_directory_that_others_may_write_fails(home: Path) -> None:
    """Whoever can write the run directory can take an anchor's lock; who reads the data learns what customers use."""
    path = configured(home)
    (home / "data").mkdir(mode=0o755)
    (home / "run").mkdir()
    (home / "run").chmod(0o777)
    checks = found(place.permissions(load(path), path))
    assert checks["agent.run_dir"].result == "fails"
    assert checks["agent.data_dir"].result == "ok"
    assert checks["agent.data_dir private"].result == "fails"
    path.chmod(0o666)
    assert found(place.permissions(load(path), path))["configuration"].result == "fails"


def test_a_file_in_the_place_of_a_directory_fails(home: Path) -> None:
    """The agent could not start."""
    path = configured(home)
    (home / "data").touch()
    assert found(place.permissions(load(path), path))["agent.data_dir"].found.endswith("is no directory")


@pytest.mark.real
def test_another_user_is_told_what_it_could_not_see() -> None:
    """Without root: checks that need it are unseen, none is a traceback, and the whole is not called sound."""
    require(os.geteuid() == 0, "only root can become another user")
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        home.chmod(0o755)
        path = configured(home, EVENTS.format(url="https://b.example/events", more=f", token_file: {home}/data/token"))
        path.chmod(0o644)
        (home / "data").mkdir(mode=0o700)
        (home / "data/token").write_text("x")
        child = os.fork()
        if child == 0:  # nobody may read this interpreter's own files, so that it could not start another
            os.setgroups([])
            os.setresgid(65534, 65534, 65534)
            os.setresuid(65534, 65534, 65534)
            checks = found(diagnosed(path))
            names = ("sinks[events].token_file", "asked", "file", "commit latency", "agent.data_dir")
            seen = [name for name in names if checks[name].result != "unseen"]
            os._exit(0 if seen == ["agent.data_dir"] and not doctor.sound(list(checks.values())) else 1)
        assert os.waitpid(child, 0)[1] == 0


# -- disk ------------------------------------------------------------------------------------------------------------


def test_a_slow_disk_is_told_with_its_latency(home: Path) -> None:
    """Each fdatasync takes 60 ms by this clock."""
    ticks = iter(range(0, 10**12, 60_000_000))
    checks = found(place.disk(load(configured(home)), sync=lambda _: None, clock=lambda: next(ticks)))
    latency = checks["commit latency"]
    assert (latency.result, latency.found) == ("fails", "20 fdatasyncs: 60.00 ms in the middle, 60.00 ms at most")


def test_a_disk_that_refuses_to_sync_fails(home: Path) -> None:
    """EIO: usage could not be kept."""

    def refuse(_: int) -> None:
        raise OSError(5, "Input/output error")

    latency = found(place.disk(load(configured(home)), sync=refuse))["commit latency"]
    assert (latency.need, latency.result) == ("required", "fails")


def test_too_little_room_is_told(home: Path) -> None:
    """A cap beyond the disk is no promise; a reserve beyond it is refused."""
    path = configured(home)
    path.write_text(path.read_text().replace("200MiB", "900000TiB"))
    assert found(place.disk(load(path)))["room up to the cap"].result == "fails"


@pytest.mark.parametrize(
    ("kind", "result"), [("ext4", "ok"), ("xfs", "ok"), ("tmpfs", "fails"), ("nfs4", "fails"), ("overlay", "fails")]
)
def test_a_file_system_that_does_not_last_is_told(home: Path, kind: str, result: str) -> None:
    """By mountinfo: the innermost mount around the directory."""
    mounts = f"1 0 8:1 / / rw - ext4 /dev/vda rw\n2 1 0:5 / {home} rw,nosuid shared:1 - {kind} none rw\n"
    assert found(place.disk(load(configured(home)), mounts=mounts))["file system"].result == result


# -- clock and kernel ------------------------------------------------------------------------------------------------


def clocked(wall: int, kept: ClockState | None, *, synchronised: bool = True) -> dict[str, Check]:
    """What is said of the clock when it shows this."""
    return found(machine.clock(wall, BOOTTIME, synchronised=synchronised, kept=kept, boot="b"))


def test_a_clock_that_shows_what_cannot_be_fails() -> None:
    """1970, on a board without a battery."""
    assert clocked(5 * NS_PER_S, None)["date"].result == "fails"
    assert clocked(WALL, None)["date"].result == "ok"


def test_a_clock_that_nobody_keeps_true_is_told() -> None:
    """Usage is still measured right; a step of it would wait for a person."""
    assert clocked(WALL, None, synchronised=False)["synchronised"].result == "fails"


def test_a_step_that_waits_for_a_person_fails() -> None:
    """Until somebody says who is right, no window closes."""
    kept = ClockState("b", WALL - BOOTTIME)
    assert clocked(WALL, kept)["billing time"].result == "ok"
    stepped = clocked(WALL + 3600 * NS_PER_S, ClockState("b", WALL - BOOTTIME, pending=3600 * NS_PER_S))["billing time"]
    assert stepped.result == "fails"
    assert "+3600 s" in stepped.found
    assert "clock accept" in stepped.cure


def test_the_anchor_of_another_boot_says_nothing() -> None:
    """Billing time begins anew with the next start."""
    assert "billing time" not in clocked(WALL, ClockState("a", 0))


def test_the_limits_of_the_kernel_are_held_against_the_groups(tmp_path: Path) -> None:
    """A node of a thousand groups needs watches and descriptors for them."""
    inotify = tmp_path / "proc/sys/fs/inotify"
    inotify.mkdir(parents=True)
    (inotify / "max_user_watches").write_text("1000\n")
    (inotify / "max_user_instances").write_text("128\n")
    checks = found(machine.kernel(1_000, None, tmp_path, limits=(1024, 1024)))
    results = {what: check.result for what, check in checks.items()}
    assert results == {"inotify watches": "fails", "inotify instances": "ok", "open files": "fails"}


def test_the_limits_of_the_agent_that_runs_count_not_the_shells(tmp_path: Path) -> None:
    """A service has its own."""
    (tmp_path / "proc/77").mkdir(parents=True)
    (tmp_path / "proc/77/limits").write_text("Limit  Soft  Hard  Units\nMax open files            1024  65536  files\n")
    check = found(machine.kernel(10, 77, tmp_path))["open files"]
    assert check.found.startswith("65,536 (the agent's, pid 77)")
    assert found(machine.kernel(10, 78, tmp_path))["open files"].result == "unseen"
    assert f"{resource.getrlimit(resource.RLIMIT_NOFILE)[1]:,}" in found(machine.kernel(1, None))["open files"].found


def test_time_services_are_known_by_their_traces(tmp_path: Path) -> None:
    """For whoever wonders why the clock is not kept."""
    (tmp_path / "run/chrony").mkdir(parents=True)
    assert machine.services(tmp_path).found == "chrony"


# -- cgroups ---------------------------------------------------------------------------------------------------------


def test_groups_and_their_files_are_counted(home: Path) -> None:
    """One group, with memory's files; the anchor itself is no customer's."""
    checks, directories = groups.cgroups(load(configured(home)))
    by = found(checks)
    assert directories == 2
    assert by["include customers.slice/*"].found == "1 groups"
    assert by["memory.working_set"].result == "ok"
    assert by["hierarchies of cgroups"].found.startswith("v2 at ")


def test_a_controller_that_is_off_fails_with_how_to_switch_it_on(home: Path) -> None:
    """Else its usage would be billed as nothing, in silence."""
    (home / "host/sys/fs/cgroup/customers.slice/acme/memory.current").unlink()
    check = found(groups.cgroups(load(configured(home)))[0])["memory.working_set"]
    assert (check.need, check.result) == ("required", "fails")
    assert "MemoryAccounting=yes" in check.cure


def test_an_anchor_that_is_not_there_is_told(home: Path) -> None:
    """It may come with its first unit; a typo never does."""
    path = configured(home)
    path.write_text(path.read_text().replace("customers.slice/*", "custmers.slice/*"))
    checks = found(groups.cgroups(load(path))[0])
    assert (checks["anchor custmers.slice"].need, checks["anchor custmers.slice"].result) == ("optional", "fails")
    assert checks["memory.working_set"].result == "unseen"


def test_an_anchor_that_others_may_write_fails(home: Path) -> None:
    """Who can make groups there can take a customer's name (L11)."""
    (home / "host/sys/fs/cgroup/customers.slice").chmod(0o777)
    checks = found(groups.cgroups(load(configured(home)))[0])
    assert checks["anchor customers.slice"].result == "fails"
    assert checks["names"].found.startswith("1 of 1 groups")


def test_no_hierarchy_at_all_fails(tmp_path: Path) -> None:
    """As in a container without the host's /sys."""
    checks = found(groups.cgroups(load(configured(tmp_path)))[0])
    assert checks["hierarchies of cgroups"].result == "fails"


# -- spool -----------------------------------------------------------------------------------------------------------


def test_what_waits_in_the_spool_is_told(stage: Stage) -> None:
    """The agent that runs on it, its records, and a backlog that grew old."""
    cfg = load(configured(stage.home))
    checks, kept, agent = keeping.spool(cfg, stage._now()[0] + 10 * NS_PER_S)
    by = found(checks)
    assert agent == os.getpid()
    assert by["file"].result == "ok"
    assert "3 records" in by["file"].found
    assert by["owed to files"].result == "ok"
    assert kept is not None
    late = found(keeping.spool(cfg, stage._now()[0] + 7200 * NS_PER_S)[0])["owed to files"]
    assert (late.result, "sink ls" in late.cure) == ("fails", True)


def test_nothing_is_locked_by_looking(stage: Stage) -> None:
    """An agent that starts meanwhile must find the lock free; one that runs is not disturbed."""
    cfg = load(configured(stage.home))
    stage.spool.close()
    assert keeping.spool(cfg, stage._now()[0])[2] is None


def test_an_unsound_spool_fails_and_nobody_is_told_to_delete_it(stage: Stage) -> None:
    """The next start salvages."""
    stage.spool.close()
    (stage.home / "data/spool.db").write_bytes(b"nonsense" * 1000)
    check = found(keeping.spool(load(configured(stage.home)), stage._now()[0])[0])["file"]
    assert (check.need, check.result) == ("required", "fails")
    assert "Delete nothing" in check.cure


def test_records_that_wait_for_a_person_are_told(stage: Stage) -> None:
    """Held ones of all sinks, and what one sink cannot settle."""
    db = stage.spool.db
    db.execute("INSERT INTO held VALUES(2, 3, 'restored', 0)")
    db.execute("INSERT INTO item(sink, seq, outcome, at, why) VALUES(1, 1, 'ambiguous', 0, 'no answer')")
    by = found(keeping.spool(load(configured(stage.home)), stage._now()[0])[0])
    assert (by["held"].result, by["held"].found) == ("fails", "2 records")
    assert (by["stuck at files"].result, by["stuck at files"].found) == ("fails", "1 ambiguous")
