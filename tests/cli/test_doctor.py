"""`doctor`: what it looks at, how it judges it, and that it changes nothing."""

import json
import os
import re
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from agent.cli import doctor
from agent.cli.app import app
from agent.cli.health import Check, place
from agent.config import SinkSection
from agent.errors import AgentError
from agent.sinks import Answer, Entry, Finding, Sink, Terms
from agent.spool.outbox import Submission
from tests.cli.ready import EVENTS, NOWHERE, configured, found, load, ready
from tests.conftest import require
from tests.upstream.process import Upstream


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A machine with one metered group."""
    return ready(tmp_path)


class Asked:
    """A sink that says what it is told to, and must never be sent anything."""

    kind = "asked"

    def __init__(self, section: SinkSection, *findings: Finding, error: Exception | None = None) -> None:
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

    def build(section: SinkSection, dated: Callable[[int], None]) -> Sink:
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
        diagnosed(path)  # what is loaded where it is needed is loaded while it can be read
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
