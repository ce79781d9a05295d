"""The daemon's socket and systemd's: small, but each is somebody's only way to reach or trust the process."""

import asyncio
import contextlib
import os
import socket
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from agent import control, systemd
from agent.errors import AgentError, CannotStartError, SpoolError


async def four(who: str, arguments: Mapping[str, object]) -> object:
    """An answer."""
    return {"value": 4}


async def echo(who: str, arguments: Mapping[str, object]) -> object:
    """Who asks, and with what."""
    return [who, arguments]


async def refuse(who: str, arguments: Mapping[str, object]) -> object:
    """An answer that fails."""
    raise SpoolError("the disk fails")


ANSWERS: Mapping[str, control.Answer] = {"echo": echo, "four": four, "refuse": refuse}


def asked(directory: Path, question: Callable[[Path], object]) -> object:
    """What a client gets while a daemon serves ANSWERS there."""

    async def serve() -> object:
        server = await control.serve(directory, ANSWERS)
        try:
            return await asyncio.get_running_loop().run_in_executor(None, question, directory)
        finally:
            server.close()

    return asyncio.run(serve())


def raw(line: bytes) -> Callable[[Path], bytes]:
    """A client that sends just this."""

    def talk(directory: Path) -> bytes:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as channel:
            channel.settimeout(20)
            channel.connect(str(directory / control.SOCKET))
            channel.sendall(line)
            return channel.makefile("rb").readline()

    return talk


def test_a_question_is_answered(tmp_path: Path) -> None:
    """One line asks, one answers."""
    assert asked(tmp_path, lambda d: control.ask(d, "four")) == {"value": 4}


def test_a_question_carries_its_arguments(tmp_path: Path) -> None:
    """And the kernel says who asks: what the request says of that is an argument like any other."""
    said = asked(tmp_path, lambda d: control.ask(d, "echo", record="7", who="root"))
    assert said == [f"uid {os.getuid()}", {"record": "7", "who": "root"}]


def test_an_error_is_raised_at_the_client_as_it_was_said(tmp_path: Path) -> None:
    """The person at the CLI reads what the daemon knows."""
    with pytest.raises(AgentError, match="the disk fails"):
        asked(tmp_path, lambda d: control.ask(d, "refuse"))


def test_an_unknown_question_names_the_known_ones(tmp_path: Path) -> None:
    """A CLI of another release."""
    with pytest.raises(AgentError, match="Known: echo, four, refuse"):
        asked(tmp_path, lambda d: control.ask(d, "five"))


@pytest.mark.parametrize(
    "line", [b"no JSON\n", b"[]\n", b"null\n", b'{"do": []}\n', b'"four"\n', b"\xff\xfe\n", b'{"do":null}\n']
)
def test_nonsense_is_answered_and_ends_nothing(tmp_path: Path, line: bytes) -> None:
    """A client can neither crash the daemon nor hang it."""
    assert b"not a request" in asked(tmp_path, raw(line))  # type: ignore[operator]


def test_a_line_without_end_is_cut_off(tmp_path: Path) -> None:
    """64 KiB are enough for any question; the daemon answers or closes, and lives."""

    def twice(directory: Path) -> object:
        with contextlib.suppress(OSError):
            raw(b"x" * (200 << 10))(directory)
        return control.ask(directory, "four")

    assert asked(tmp_path, twice) == {"value": 4}


def test_the_socket_is_ours_alone(tmp_path: Path) -> None:
    """DESIGN §8: 0600, and the umask is put back."""
    mode = asked(tmp_path, lambda d: (d / control.SOCKET).stat().st_mode & 0o777)
    assert mode == 0o600
    before = os.umask(0o022)
    os.umask(before)
    assert before != 0o177


def test_a_socket_that_a_killed_daemon_left_is_replaced(tmp_path: Path) -> None:
    """kill -9 leaves the file."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as dead:
        dead.bind(str(tmp_path / control.SOCKET))
    assert asked(tmp_path, lambda d: control.ask(d, "four")) == {"value": 4}


def test_no_daemon_says_so_with_the_cure(tmp_path: Path) -> None:
    """Exit 3."""
    with pytest.raises(CannotStartError, match=r"no agent answers in .* Start it, or name its --config"):
        control.ask(tmp_path, "four")


def test_a_daemon_that_goes_away_in_the_middle_is_an_error(tmp_path: Path) -> None:
    """No traceback at the CLI."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listening:
        listening.bind(str(tmp_path / control.SOCKET))
        listening.listen()

        def hang_up() -> None:
            channel, _ = listening.accept()
            channel.recv(100)
            channel.close()

        thread = threading.Thread(target=hang_up)
        thread.start()
        with pytest.raises(AgentError, match="no answer"):
            control.ask(tmp_path, "four")
        thread.join()


def test_systemd_is_told_on_its_socket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """sd_notify(3): one datagram, a line each."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        systemd.notify("READY=1", "STATUS=metering")
        assert manager.recv(1000) == b"READY=1\nSTATUS=metering"


def test_an_abstract_socket_works_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """sd_notify(3): `@` stands for the zero byte."""
    name = f"metering-agent-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(f"\0{name}")
        manager.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", f"@{name}")
        systemd.notify("WATCHDOG=1")
        assert manager.recv(1000) == b"WATCHDOG=1"


def test_without_a_manager_it_is_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a laptop."""
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    systemd.notify("READY=1")


def test_a_manager_that_does_not_listen_does_not_end_the_agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Metering matters more than its status line."""
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "nobody"))
    systemd.notify("WATCHDOG=1")


@pytest.mark.parametrize(
    ("set_to", "seconds"), [("30000000", 15.0), ("", None), ("0", None), ("nonsense", None), (None, None)]
)
def test_the_watchdog_is_fed_at_half_its_time(
    monkeypatch: pytest.MonkeyPatch, set_to: str | None, seconds: float | None
) -> None:
    """sd_watchdog_enabled(3): 0 or unset is off."""
    if set_to is None:
        monkeypatch.delenv("WATCHDOG_USEC", raising=False)
    else:
        monkeypatch.setenv("WATCHDOG_USEC", set_to)
    assert systemd.watchdog_seconds() == seconds


def test_a_watchdog_meant_for_another_process_is_not_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    """sd_watchdog_enabled(3): WATCHDOG_PID names whom it watches; a child inherits the environment."""
    monkeypatch.setenv("WATCHDOG_USEC", "30000000")
    monkeypatch.setenv("WATCHDOG_PID", "1")
    assert systemd.watchdog_seconds() is None
