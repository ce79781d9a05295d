"""The hostile billing system follows its own rules: each is its vendor's, and none is read from the agent."""

import json
import re
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import trustme

from tests.upstream.plan import AMONG, DOES, Plan
from tests.upstream.process import ROOT, Upstream, certificates, command
from tests.upstream.rules import BATCH, JSON, SINGLE, V1, V3, Event
from tests.upstream.sender import BROKEN, ask, billed, post, usage
from tests.upstream.store import Store, read


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Upstream]:
    """One process for all tests that only send."""
    with Upstream(tmp_path_factory.mktemp("upstream") / "store") as upstream:
        yield upstream


@pytest.fixture
def upstream(shared: Upstream) -> Iterator[Upstream]:
    """That process, well-behaved before and after."""
    yield shared
    shared.set_plan(**{name: value for name, value in vars(Plan()).items() if name not in ("fault", "among")})


# -- rules -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "kind", "status"),
    [
        (V1, SINGLE, 204),
        (V1, JSON, 204),
        (V1, f"{JSON}; charset=utf-8", 400),
        (V1, "text/plain", 400),
        (V3, f"{JSON}; charset=utf-8", 202),
        (V3, SINGLE, 202),
        ("/hook", SINGLE, 202),
        ("/hook", f"{SINGLE}; charset=utf-8", 202),
        ("/hook", JSON, 415),
    ],
)
def test_each_profile_has_its_content_types_and_its_status(
    upstream: Upstream, path: str, kind: str, status: int
) -> None:
    """OpenMeter v1 compares the header as text; v3 and a webhook parse it."""
    said = post(upstream, usage(f"{path}{kind}", "types"), path, kind)
    assert said.status == status
    assert (said.headers.get("Content-Type") == "application/problem+json") == (status >= 400)


def test_a_batch_is_an_array_and_a_webhook_must_have_asked_for_it(upstream: Upstream) -> None:
    """CloudEvents HTTP binding §3.3; one event in a batch's clothes is refused."""
    batch = [usage(n, "batch", "0.1") for n in range(10)]
    assert post(upstream, batch, "/hook").status == 202
    upstream.set_plan(batched=False)
    assert post(upstream, batch, "/hook").status == 415
    assert post(upstream, batch).status == 204
    assert post(upstream, usage(11, "batch"), kind=BATCH).status == 400
    assert post(upstream, [], V1).status == 204
    assert billed(upstream, "batch") == 1


@pytest.mark.parametrize(
    "wrong",
    [
        {"id": ""},
        {"source": None},
        {"specversion": "0.3"},
        {"type": 5},
        {"subject": ""},
        {"data": "1"},
        {"data": {"value": "much"}},
        {"data": {"value": "NaN"}},
        {"data": {"value": True}},
        {"data": {}},
    ],
)
def test_an_event_that_breaks_a_rule_is_refused_and_those_before_it_are_taken(
    upstream: Upstream, wrong: dict[str, Any]
) -> None:
    """OpenMeter queues one by one: a 400 for a batch is no promise that nothing of it was taken."""
    subject = f"broken {wrong}"
    batch = [usage("a", subject), usage("b", subject) | wrong, usage("c", subject)]
    said = post(upstream, batch)
    assert (said.status, json.loads(said.body)["status"]) == (400, 400)
    assert billed(upstream, subject) == 1


@pytest.mark.parametrize("body", [b"", b"{", b"[[]]", b"\xff", b"5"])
def test_what_is_no_event_at_all_is_refused(upstream: Upstream, body: bytes) -> None:
    """It answers, and lives."""
    assert post(upstream, body, kind=JSON).status == 400


def test_a_repeat_is_dropped_without_a_word_while_its_id_is_known(upstream: Upstream) -> None:
    """OpenMeter's deduplication: by source and id, within a window counted from the first; arrivals are counted all."""
    before = upstream.totals().arrivals
    for source in ("s1", "s1", "s2"):
        assert post(upstream, usage("same", "repeats", source=source)).status == 204
    assert billed(upstream, "repeats") == 2
    assert upstream.totals().arrivals - before == 3
    upstream.set_plan(window=3600, ahead=3500)
    post(upstream, usage("same", "repeats", source="s1"))
    assert billed(upstream, "repeats") == 2
    upstream.set_plan(ahead=3700)
    post(upstream, usage("same", "repeats", source="s1"))
    assert billed(upstream, "repeats") == 3
    assert ("s1", "same") in upstream.totals().doubled


def test_without_deduplication_every_repeat_is_billed(upstream: Upstream) -> None:
    """OpenMeter as it is installed: off by default."""
    upstream.set_plan(dedupe=False)
    for _ in range(3):
        post(upstream, [usage("again", "no dedupe", "0.5")])
    assert billed(upstream, "no dedupe") == Decimal("1.5")


def test_an_id_that_comes_back_with_another_body_is_told(upstream: Upstream) -> None:
    """L3 can be seen from this side: same id, same bytes."""
    post(upstream, usage("x", "changes", "1"))
    post(upstream, usage("x", "changes", "2"))
    post(upstream, usage("y", "changes", "1"))
    changed = upstream.totals().changed
    assert ("changes", "x") in changed
    assert ("changes", "y") not in changed


def test_sums_are_exact_decimals(upstream: Upstream) -> None:
    """0.1 three times is 0.3, numbers in JSON included; 30 digits and one millionth do not drown each other."""
    post(upstream, [usage(f"t{n}", "exact", "0.1") for n in range(3)])
    assert billed(upstream, "exact") == Decimal("0.3")
    post(upstream, b"[%b]" % json.dumps(usage("u", "exact", "@")).replace('"@"', "0.7").encode(), kind=BATCH)
    assert billed(upstream, "exact") == 1
    post(upstream, [usage("v", "exact", "9" * 30), usage("w", "exact", "0.000001")])
    assert billed(upstream, "exact") == Decimal("1000000000000000000000000000000.000001")


def test_poison_by_id_or_customer_is_refused_wherever_it_stands(upstream: Upstream) -> None:
    """A customer that was removed there; the others' usage of the same batch is taken up to it."""
    before = upstream.totals().fates["refused"]
    upstream.set_plan(poison=["bad id", "gone"])
    batch = [usage(1, "fine"), usage(2, "gone"), usage(3, "fine")]
    assert [post(upstream, said).status for said in (batch, batch[2], usage("bad id", "fine"))] == [400, 204, 400]
    assert [billed(upstream, "fine"), billed(upstream, "gone")] == [2, 0]
    assert upstream.totals().fates["refused"] == before + 2


def test_a_batch_that_is_too_large_is_refused_whole(upstream: Upstream) -> None:
    """413, and nothing of it was taken."""
    upstream.set_plan(max_events=2)
    batch = [usage(f"m{n}", "large") for n in range(3)]
    assert [post(upstream, said).status for said in (batch, batch[:2])] == [413, 204]
    assert billed(upstream, "large") == 2


def test_only_the_right_token_may_send_and_it_may_change(upstream: Upstream) -> None:
    """401 until the sender has read the new one."""
    upstream.set_plan(token="new")  # the value is no secret
    said = [post(upstream, usage("k", "token"), Authorization=f"Bearer {token}").status for token in ("old", "new")]
    assert said == [401, 204]
    assert billed(upstream, "token") == 1


def test_a_webhook_allows_its_sender(upstream: Upstream) -> None:
    """CloudEvents web hooks §4.2."""
    allowed = ask(upstream, "OPTIONS", "/hook")
    assert (allowed.status, allowed.headers["WebHook-Allowed-Origin"]) == (200, "us.example")
    assert ask(upstream, "PUT", V1).status == 405


def test_openmeter_lists_its_meters(upstream: Upstream) -> None:
    """By which a sender may see whether what it sends is summed; v3 in pages."""
    upstream.set_plan(meters={"cpu": "SUM"})
    v1, v3 = (json.loads(ask(upstream, "GET", path).body) for path in ("/api/v1/meters", "/v3/openmeter/meters?a=b"))
    assert v1 == [{"slug": "cpu", "eventType": "cpu", "aggregation": "SUM", "valueProperty": "$.value"}]
    assert v3["data"] == [{"key": "cpu", "event_type": "cpu", "aggregation": "sum", "value_property": "$.value"}]
    assert v3["meta"]["page"]["total"] == 1


# -- faults ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("commit", [True, False])
@pytest.mark.parametrize("do", ["lose", "garbage"])
def test_no_readable_answer_comes_whether_it_was_billed_or_not(upstream: Upstream, do: str, *, commit: bool) -> None:
    """The sender cannot know: that is the point."""
    subject = f"{do} {commit}"
    upstream.set_plan(script=[{"do": do, "commit": commit}])
    with pytest.raises(BROKEN):
        post(upstream, [usage(subject, subject)])
    assert billed(upstream, subject) == commit


def test_half_an_answer_says_nothing(upstream: Upstream) -> None:
    """The connection ends before the headers do, and the events are billed."""
    upstream.set_plan(script=["partial"])
    body = json.dumps(usage("p", "partial")).encode()
    head = f"POST {V1} HTTP/1.1\r\nContent-Type: {SINGLE}\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    address = urlsplit(upstream.url)
    with socket.create_connection((address.hostname or "", address.port or 0), timeout=10) as connection:
        connection.sendall(head + body)
        answer = connection.makefile("rb").read()
    assert answer.startswith(b"HTTP/1.1 204")
    assert b"\r\n\r\n" not in answer
    assert billed(upstream, "partial") == 1


@pytest.mark.parametrize("commit", [True, False])
@pytest.mark.parametrize("code", [429, 500, 502, 503, 504])
def test_a_status_is_answered_before_or_after_it_was_billed(upstream: Upstream, code: int, *, commit: bool) -> None:
    """A 5xx says nothing of what was kept; Retry-After stands where it was asked for."""
    subject = f"{code} {commit}"
    upstream.set_plan(script=[{"do": "status", "code": code, "commit": commit, "after": 7}])
    said = post(upstream, [usage(subject, subject)])
    assert (said.status, said.headers["Retry-After"]) == (code, "7")
    assert billed(upstream, subject) == commit


@pytest.mark.parametrize("do", ["slow", "drip", "hangup"])
def test_a_slow_answer_is_a_good_one(upstream: Upstream, do: str) -> None:
    """And so is one after which the connection ends unannounced."""
    upstream.set_plan(script=[{"do": do, "seconds": 0.001}])
    assert post(upstream, [usage(do, do)]).status == 204
    assert billed(upstream, do) == 1


def test_half_a_batch_may_be_taken(upstream: Upstream) -> None:
    """OpenMeter stops at the first failure; what was queued stays queued."""
    upstream.set_plan(script=["half"])
    assert post(upstream, [usage(f"h{n}", "half") for n in range(5)]).status == 500
    assert billed(upstream, "half") == 2


def test_it_hangs_up_in_the_middle_of_a_body(upstream: Upstream) -> None:
    """Nothing of it was read to its end, and nothing is kept."""
    upstream.set_plan(script=["cut"])
    with pytest.raises(BROKEN):
        post(upstream, [usage(f"c{n}", "cut", padding="x" * 1000) for n in range(1000)])
    assert billed(upstream, "cut") == 0


def test_it_claims_a_duplicate_and_redirects(upstream: Upstream) -> None:
    """Neither takes anything."""
    upstream.set_plan(script=["duplicate", {"do": "redirect", "to": "http://other.example/"}])
    assert post(upstream, usage("d", "claims")).status == 409
    said = post(upstream, usage("d", "claims"))
    assert (said.status, said.headers["Location"]) == (307, "http://other.example/")
    assert billed(upstream, "claims") == 0


def test_it_refuses_connections_for_a_while_and_takes_them_again_at_the_same_port(upstream: Upstream) -> None:
    """A service that is restarted."""
    upstream.set_plan(script=[{"do": "refuse", "seconds": 0.2}])
    with pytest.raises(BROKEN):
        post(upstream, usage("r", "refuses"))
    refused = 0
    while True:
        try:
            assert post(upstream, usage("r", "refuses")).status == 204
            break
        except ConnectionRefusedError:
            refused += 1
    assert refused
    assert billed(upstream, "refuses") == 1


def test_every_nth_answer_is_lost(upstream: Upstream) -> None:
    """What a reviewer runs: all are billed, a third never hears of it."""
    upstream.set_plan(every=3)
    lost = 0
    for n in range(9):
        try:
            post(upstream, usage(f"n{n}", "nth"))
        except BROKEN:
            lost += 1
    assert [lost, billed(upstream, "nth")] == [3, 9]


def test_a_seed_gives_the_same_faults_again(upstream: Upstream) -> None:
    """Any run can be had again by its seed; all its faults leave totals that a right sender makes equal."""
    runs = []
    for _ in range(2):
        upstream.set_plan(seed=7, among=["lose", {"do": "status", "code": 503}])
        said = []
        for n in range(20):
            try:
                said.append(post(upstream, usage(f"seed{n}", "seed")).status)
            except BROKEN:
                said.append(0)
        runs.append(said)
    assert runs[0] == runs[1]
    assert {0, 204, 503} == set(runs[0])
    assert {fault.do for fault in AMONG} == set(DOES) - {"duplicate", "redirect"}


@pytest.mark.parametrize(
    ("plan", "said"),
    [
        ({"lose": 3}, "plan: lose: no such key"),
        ({"script": ["explode"]}, "fault 'explode': not one of lose, status"),
        ({"script": [{"do": "slow", "second": 1}]}, "fault slow: second: no such key"),
    ],
)
def test_a_plan_with_a_slip_is_refused_and_the_old_one_stays(
    upstream: Upstream, plan: dict[str, Any], said: str
) -> None:
    """A fault that never strikes would prove nothing."""
    with pytest.raises(ValueError, match=re.escape(said)):
        upstream.set_plan(**plan)


# -- what it keeps -----------------------------------------------------------------------------------------------------


def test_it_is_killed_and_knows_what_it_answered_for(tmp_path: Path) -> None:
    """Durable before it answers: kill -9, the same port, the same ids known."""
    with Upstream(tmp_path / "store") as upstream:
        for _ in range(2):
            assert post(upstream, [usage(n, "acme", "0.5") for n in range(4)]).status == 204
            upstream.stop()
            assert billed(upstream, "acme") == 2
            upstream.start()
        assert upstream.totals().fates == {"kept": 4, "repeat": 4}


def test_a_line_that_was_never_finished_is_cut_off(tmp_path: Path) -> None:
    """It was not answered for; what follows it must not be glued to it."""
    path = tmp_path / "store"
    events = [Event("s", f"{n}", "cpu", "acme", Decimal(1), "") for n in range(2)]
    with closing(Store(path)) as store:
        store.keep(events[:1], 0, 60)
    with path.open("ab") as file:
        file.write(b'{"source": "s", "id": "torn')
    assert read(path).sums == {("acme", "cpu"): 1}
    with closing(Store(path)) as store:
        store.keep(events, 1, 60)
    assert read(path).fates == {"kept": 2, "repeat": 1}


def test_its_certificate_may_expire_and_be_renewed(tmp_path: Path) -> None:
    """TLS by files; and it may want to see the sender's."""
    authority = trustme.CA()
    good, expired = (certificates(tmp_path / f"{past}", authority, expired=past) for past in (False, True))
    context = ssl.create_default_context(cafile=good.ca)
    with Upstream(tmp_path / "store", tls=expired, mutual=True) as upstream:
        with pytest.raises(ssl.SSLCertVerificationError, match="expired"):
            post(upstream, usage(1, "tls"), context=context)
        upstream.set_certificate(good)
        with pytest.raises((ssl.SSLError, ConnectionError)):
            post(upstream, usage(1, "tls"), context=context)
        context.load_cert_chain(good.client)
        assert post(upstream, usage(1, "tls"), context=context).status == 204
        assert billed(upstream, "tls") == 1


def test_its_totals_are_read_by_hand(tmp_path: Path) -> None:
    """The table that a reviewer lays beside the ledger's."""
    with closing(Store(tmp_path / "store")) as store:
        store.keep([Event("s", "1", "cpu", "acme", Decimal("0.5"), "")] * 2, 0, 60)
    run = subprocess.run(command("--totals", str(tmp_path / "store")), cwd=ROOT, capture_output=True, check=True)
    assert run.stdout.decode().split("\n") == [
        "subject  type  total",
        "acme     cpu     0.5",
        "",
        "2 events arrived: 1 kept, 1 repeat",
        "1 ids billed, 0 more than once, 0 came changed",
        "",
    ]


def test_it_imports_nothing_of_the_agent() -> None:
    """A billing system that shared our code would share our mistakes."""
    seen = "import sys, tests.upstream.server; print([m for m in sys.modules if m.split('.')[0] == 'agent'])"
    run = subprocess.run([sys.executable, "-c", seen], cwd=ROOT, capture_output=True, check=True)
    assert run.stdout.strip() == b"[]"
