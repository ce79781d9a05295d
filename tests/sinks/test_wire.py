"""Every way in which a network or a back end fails has one honest meaning, and no credential is told to anybody."""

import asyncio
import socket
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any

import pytest

from agent.credentials import Tls
from agent.model import NS_PER_S
from agent.sinks import Answer
from agent.sinks.login import NoReplyError
from agent.sinks.meaning import DELIVERED, Meaning
from agent.sinks.wire import BODY_BYTES, Wire
from tests.sinks import double
from tests.sinks.double import Act, Upstream, reply, upstream

NOON = "Mon, 23 Nov 2026 12:00:00 GMT"
TABLE: Mapping[int, Meaning] = {202: DELIVERED, 204: DELIVERED}
DONE = reply(204)


def wire(url: str, token_file: Path | None = None, **kw: Any) -> Wire:
    """One with a table of a single success."""
    values: dict[str, Any] = {"tls": Tls(), "timeout": 10 * NS_PER_S, "concurrency": 4, "dated": None, **kw}
    return Wire("sinks[x]", url, TABLE, token_file=token_file, **values)


def talk(
    script: list[Act],
    story: Callable[[Wire, Upstream], Coroutine[Any, Any, Any]],
    token_file: Path | None = None,
    **kw: Any,
) -> Any:
    """What a story between a wire and a back end that follows the script comes to."""

    async def run() -> Any:
        async with upstream(*script) as other:
            line = wire(other.url, token_file, **kw)
            try:
                return await story(line, other)
            finally:
                await line.close()

    return asyncio.run(run())


async def once(line: Wire, other: Upstream) -> Answer:
    """One delivery."""
    return await line.deliver(b"[]", "text/plain")


def answered(*script: Act, **kw: Any) -> Answer:
    """What one delivery is answered."""
    answer = talk(list(script), once, **kw)
    assert isinstance(answer, Answer)
    return answer


# -- no reply ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "act",
    [double.LOST, double.RESET, double.GARBAGE, double.HALF_A_HEAD, double.HALF_A_BODY],
    ids=["lost", "reset", "garbage", "half a head", "half a body"],
)
def test_what_breaks_off_after_the_request_left_is_ambiguous(act: Act) -> None:
    """It may have been taken, even under a status that began well."""
    answer = answered(act)
    assert (answer.outcome, answer.left, answer.definite) == ("ambiguous", True, False)
    assert answer.why.startswith("127.0.0.1:")
    assert "\n" not in answer.why


def test_an_answer_that_does_not_come_in_time_is_ambiguous() -> None:
    """The deadline is for the whole answer, and says how long it was."""
    answer = answered(double.SILENT, timeout=NS_PER_S // 20)
    assert (answer.outcome, answer.left, answer.why) == (
        "ambiguous",
        True,
        "127.0.0.1: no whole answer within 0.05 s",
    )


def test_a_body_that_trickles_past_the_deadline_is_ambiguous() -> None:
    """A status is not yet an answer."""
    trickle = Act(b"HTTP/1.1 202 Accepted\r\nContent-Length: 9\r\n\r\nabc", "stay silent")
    assert answered(trickle, timeout=NS_PER_S // 20).outcome == "ambiguous"


def test_where_nobody_listens_nothing_left() -> None:
    """A refused connection is a plain retry that taints nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    answer = asyncio.run(once(wire(f"http://127.0.0.1:{port}/"), Upstream([])))
    assert (answer.outcome, answer.left, answer.definite) == ("retry", False, False)
    assert answer.why == f"127.0.0.1:{port}: no connection: Connection refused"


def test_a_name_without_an_address_names_the_url(monkeypatch: pytest.MonkeyPatch) -> None:
    """A resolver's failure is a retry that left nothing, and says where to look."""

    def nowhere(*args: object, **kw: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", nowhere)
    answer = asyncio.run(once(wire("http://nowhere.invalid/"), Upstream([])))
    assert (answer.outcome, answer.left) == ("retry", False)
    assert answer.why == (
        "nowhere.invalid: no address for this name: Name or service not known. Mend sinks[x].url or DNS."
    )


def test_a_connection_that_was_hung_up_while_idle_is_not_used_again() -> None:
    """A server that closes between two requests makes no second one ambiguous."""

    async def story(line: Wire, other: Upstream) -> list[str]:
        first = await line.deliver(b"1", "text/plain")
        await other.until(lambda: not other.open)
        return [first.outcome, (await line.deliver(b"2", "text/plain")).outcome]

    assert talk([Act(DONE.says, "hang up"), DONE], story) == ["delivered", "delivered"]


# -- replies -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "outcome", "definite", "blocked"),
    [
        (202, "delivered", False, False),
        (200, "ambiguous", False, False),  # not what this back end says of usage: perhaps a portal, perhaps a proxy
        (301, "retry", True, True),
        (307, "retry", True, True),
        (400, "split", False, False),
        (401, "retry", True, True),
        (403, "retry", True, True),
        (404, "retry", True, True),
        (405, "retry", True, True),
        (408, "ambiguous", False, False),
        (409, "ambiguous", False, False),
        (410, "retry", True, True),
        (413, "split", True, False),
        (415, "retry", True, True),
        (418, "ambiguous", False, False),
        (422, "split", False, False),
        (425, "ambiguous", False, False),
        (429, "retry", True, False),
        (500, "ambiguous", False, False),
        (502, "ambiguous", False, False),
        (503, "ambiguous", False, False),
        (504, "ambiguous", False, False),
    ],
)
def test_a_status_means_what_the_tables_say(status: int, outcome: str, definite: bool, blocked: bool) -> None:
    """The sink's own table first, then the common one; what neither lists is unsure."""
    answer = answered(reply(status, b"as it is"))
    assert (answer.outcome, answer.definite, answer.blocked) == (outcome, definite, blocked)
    assert answer.why.startswith(f"{status} ")
    assert "as it is" in answer.why


def test_a_redirect_is_not_followed() -> None:
    """Where it leads is told, and that the address must be corrected."""

    async def story(line: Wire, other: Upstream) -> tuple[str, int]:
        return (await line.deliver(b"", "text/plain")).why, len(other.requests)

    why, requests = talk([reply(308, Location="https://elsewhere.example/events")], story)
    assert why == (
        "308 Permanent Redirect: https://elsewhere.example/events. "
        "The url redirects, which is not followed. Correct it; everything is kept."
    )
    assert requests == 1


def test_an_answer_is_told_in_one_short_line() -> None:
    """A page of markup and control characters becomes its first two hundred that can be printed."""
    why = answered(reply(500, b"<html>\r\n\x1b[31m\xffno\x00\t" + b"x" * 900)).why
    assert why == f"500 Internal Server Error: <html> [31m\ufffdno {'x' * 185}"


def test_of_an_endless_body_only_the_beginning_is_read() -> None:
    """The status counts, and the connection is not kept."""

    async def story(line: Wire, other: Upstream) -> tuple[int, str, int]:
        got = await line.exchange("GET", line.url)
        await line.deliver(b"", "text/plain")
        return len(got.body), str(got.status), other.connections

    assert talk([reply(200, b"x" * (BODY_BYTES * 20)), DONE], story) == (BODY_BYTES, "200", 2)


@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_reaches_the_answer(status: int) -> None:
    """Of a refusal and of a failure alike."""
    assert answered(reply(status, Retry_After="3")).after == 3 * NS_PER_S


def test_the_servers_date_is_told_as_it_comes() -> None:
    """For the billing clock: in seconds of the epoch, of refusals too, and none of what is no date."""
    heard: list[int] = []

    async def story(line: Wire, other: Upstream) -> None:
        for _ in range(3):
            await line.deliver(b"", "text/plain")

    talk([reply(204, Date=NOON), reply(500, Date="yesterday"), reply(500, Date=NOON)], story, dated=heard.append)
    assert heard == [1795435200, 1795435200]


# -- connections -------------------------------------------------------------------------------------------------------


def test_one_connection_serves_attempts_that_follow_each_other() -> None:
    """And as many as are under way at once are kept, up to the concurrency."""

    async def story(line: Wire, other: Upstream) -> list[int]:
        seen = []
        for many in (1, 1, 3, 3, 6, 4):
            await asyncio.gather(*(line.deliver(b"", "text/plain") for _ in range(many)))
            seen.append(other.connections)
        return seen

    assert talk([DONE], story) == [1, 1, 3, 3, 6, 6]


def test_a_cancelled_attempt_takes_its_connection_with_it() -> None:
    """Its answer must never be read as that of the next attempt."""

    async def story(line: Wire, other: Upstream) -> tuple[bool, str, int]:
        attempt = asyncio.create_task(line.deliver(b"1", "text/plain"))
        await other.until(lambda: bool(other.requests))
        attempt.cancel()
        await asyncio.wait([attempt])
        answer = await line.deliver(b"2", "text/plain")
        return attempt.cancelled(), answer.outcome, other.connections

    assert talk([double.SILENT, DONE], story) == (True, "delivered", 2)


def test_no_proxy_of_the_environment_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """Usage goes where the configuration says."""
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert answered(DONE).outcome == "delivered"


def test_a_closed_wire_keeps_nothing() -> None:
    """What was under way is let go when it is done."""

    async def story(line: Wire, other: Upstream) -> int:
        await line.deliver(b"", "text/plain")
        await line.close()
        await line.deliver(b"", "text/plain")
        await other.until(lambda: not other.open)
        return other.connections

    assert talk([DONE], story) == 2


# -- credentials -------------------------------------------------------------------------------------------------------


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    """A file with the token that is current."""
    path = tmp_path / "token"
    path.write_text("first-secret\n")
    return path


def rotate(path: Path) -> None:
    """Another token is current now."""
    path.write_text("second-secret")


def test_a_rotated_token_is_read_again_when_the_old_one_is_refused(token_file: Path) -> None:
    """Once, at once, and the new one is kept."""

    async def story(line: Wire, other: Upstream) -> list[str]:
        outcomes = [(await line.deliver(b"1", "text/plain")).outcome]
        rotate(token_file)
        outcomes += [(await line.deliver(body, "text/plain")).outcome for body in (b"2", b"3")]
        return [*outcomes, *(request.headers["authorization"] for request in other.requests)]

    assert talk([DONE, reply(401), DONE], story, token_file) == [
        *["delivered"] * 3,
        "Bearer first-secret",
        "Bearer first-secret",
        "Bearer second-secret",
        "Bearer second-secret",
    ]


def test_a_refused_token_that_has_not_changed_is_sent_once(token_file: Path) -> None:
    """Everything is kept, and a person is told."""

    async def story(line: Wire, other: Upstream) -> tuple[Answer, int]:
        return await line.deliver(b"", "text/plain"), len(other.requests)

    answer, requests = talk([reply(401)], story, token_file)
    assert (answer.outcome, answer.definite, answer.blocked, requests) == ("retry", True, True, 1)
    assert answer.why == (
        "401 Unauthorized. It does not take our credentials. Mend token_file or tls.cert_file; everything is kept."
    )


def test_no_answer_repeats_a_token(token_file: Path) -> None:
    """Not even where the server does, and not across the end of what is told."""

    async def story(line: Wire, other: Upstream) -> list[str]:
        why = (await line.deliver(b"", "text/plain")).why
        rotate(token_file)
        return [why, (await line.deliver(b"", "text/plain")).why, repr(line), repr(vars(line))]

    bad = reply(401, b"y" * 195 + b" first-secret")
    said = talk(
        [bad, reply(401, b"first-secret is old"), reply(403, b"first-secret, second-secret?")], story, token_file
    )
    assert said[1].startswith("403 Forbidden: [token], [token]?")
    assert not [text for text in said if "secret" in text or "secr" in text]


@pytest.mark.parametrize(
    ("write", "wrong"),
    [
        (lambda path: path.unlink(), "No such file or directory"),
        (lambda path: path.write_text(" \n"), "empty"),
        (lambda path: path.write_text("two words"), "not one word of ASCII"),
        (lambda path: path.write_text("s\u00e9same"), "not one word of ASCII"),
        (lambda path: path.write_text("split\nheader"), "not one word of ASCII"),
    ],
    ids=["missing", "empty", "two words", "beyond ASCII", "two lines"],
)
def test_without_a_usable_token_nothing_is_sent(token_file: Path, write: Callable[[Path], object], wrong: str) -> None:
    """The file is named, its content is not."""
    write(token_file)

    async def story(line: Wire, other: Upstream) -> tuple[Answer, int]:
        return await line.deliver(b"", "text/plain"), other.connections

    answer, connections = talk([DONE], story, token_file)
    assert (answer.outcome, answer.left, answer.blocked, connections) == ("retry", False, True, 0)
    assert answer.why == f"sinks[x].token_file: {token_file}: {wrong}. Mend the file; nothing is sent without it."


@pytest.mark.parametrize(
    ("url", "kw", "problem"),
    [
        ("http://billing.example/", {"token_file": Path("t")}, "url: the token would cross the network in the clear."),
        ("HTTPS://me:pass@billing.example/", {}, "url: holds a password."),
        ("ftp://billing.example/", {}, "url: no address of the web."),
        ("https:///path", {}, "url: no address of the web."),
        ("https://billing.example:port/", {}, "url: Invalid port: 'port'."),
        ("http://billing.example/", {"tls": Tls(ca_file=Path("ca.pem"))}, "tls: of no use with http."),
    ],
)
def test_an_address_that_cannot_be_used_is_refused_at_once(url: str, kw: dict[str, Any], problem: str) -> None:
    """With the key, what is wrong and the cure, and without the password."""
    with pytest.raises(ValueError, match=r"^sinks\[x\]\.") as caught:
        wire(url, **kw)
    assert str(caught.value).startswith(f"sinks[x].{problem}")
    assert "pass@" not in str(caught.value)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]"])
def test_a_token_may_go_over_loopback_in_the_clear(host: str, token_file: Path) -> None:
    """It never leaves the machine."""
    wire(f"http://{host}/", token_file)


def test_who_asks_hears_why_there_was_no_reply() -> None:
    """`exchange` raises what `deliver` answers."""

    async def story(line: Wire, other: Upstream) -> None:
        with pytest.raises(NoReplyError, match="broken off"):
            await line.exchange("GET", line.url)

    talk([double.LOST], story)
