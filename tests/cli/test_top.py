"""`top`: rates, today's totals and delivery, from the spool alone and at a cost that its size does not set."""

import json
import os
import pty
import select
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from agent.cli import top
from agent.cli.app import app
from agent.model import NS_PER_S
from agent.record import UsageRecord
from agent.spool import glance
from agent.spool.ledger import opened
from agent.spool.store import Spool
from agent.windows import Closed
from tests.cli.conftest import EPOCH, Ask, Stage

WINDOW = 10 * NS_PER_S
DAY = 86_400 * NS_PER_S
MIDNIGHT = EPOCH - EPOCH % DAY


def used(start: int, quantity: int, customer: str | None = "acme", kind: str = "usage") -> Closed:
    """One window's CPU."""
    return Closed(
        UsageRecord(
            kind=kind,  # type: ignore[arg-type]
            source="c/n/e",
            meter="cpu.time",
            policy="usage",
            dimension="cpu",
            customer=customer,
            group={},
            start=start,
            end=start + WINDOW,
            quantity=quantity,
            base_unit="ns",
            basis="cgroup",
            covered=WINDOW,
        ),
        (),
    )


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    """An empty one."""
    made = Spool.open(tmp_path / "data", run_dir=tmp_path / "run", fingerprint={}, now=EPOCH, reserve=0)
    yield made
    made.close()


def lines(spool: Spool, now: int, tally: top.Tally | None = None) -> dict[str, tuple[int, int]]:
    """Rate and today's total of CPU, by customer."""
    tally = tally or top.Tally()
    with opened(spool.directory) as db:
        tally.look(db, now)
    return {line.customer: (line.rate, line.total) for line in tally.lines()}


def record(spool: Spool, *records: Closed, at: int | None = None) -> None:
    """These closed."""
    spool.commit(None, now=at if at is not None else max(one.record.end for one in records), records=records)


def test_a_rate_is_the_mean_of_the_last_windows(spool: Spool) -> None:
    """Three windows of ten seconds: what a customer used in them, by the time they span; older ones do not count."""
    for window, quantity in enumerate((9_000, 100, 200, 300)):
        record(spool, used(EPOCH + window * WINDOW, quantity))
    record(spool, used(EPOCH + 3 * WINDOW, 60, None, "unattributed"))
    assert lines(spool, EPOCH + 4 * WINDOW) == {"acme": (20, 9_600), "unattributed": (2, 60)}


def test_who_stopped_using_has_no_rate_and_keeps_a_total(spool: Spool) -> None:
    """The newest windows are those of all."""
    record(spool, used(EPOCH, 500, "gone"))
    for window in range(1, 5):
        record(spool, used(EPOCH + window * WINDOW, 100))
    assert lines(spool, EPOCH + 5 * WINDOW) == {"acme": (10, 400), "gone": (0, 500)}


def test_a_gap_and_what_comes_late_are_no_rate(spool: Spool) -> None:
    """A gap has no quantity; usage of an hour ago counts today, and not now."""
    record(spool, used(EPOCH, 100), used(EPOCH - 360 * WINDOW, 7_000, "late"), used(EPOCH, 0, None, "gap"))
    assert lines(spool, EPOCH + WINDOW) == {"acme": (10, 100), "late": (0, 7_000)}


def test_today_begins_at_midnight(spool: Spool) -> None:
    """UTC's; a window that began yesterday is yesterday's, and a tally that has seen midnight begins anew."""
    record(spool, used(MIDNIGHT - WINDOW, 100), used(MIDNIGHT, 30))
    tally = top.Tally()
    assert lines(spool, MIDNIGHT + WINDOW, tally)["acme"][1] == 30
    record(spool, used(MIDNIGHT + WINDOW, 5))
    assert lines(spool, MIDNIGHT + 2 * WINDOW, tally)["acme"][1] == 35
    record(spool, used(MIDNIGHT + DAY, 4))
    assert lines(spool, MIDNIGHT + DAY + WINDOW, tally)["acme"][1] == 4


def test_a_look_reads_only_what_is_new(spool: Spool) -> None:
    """A ledger of thousands costs the first look alone: what was seen may even be damaged since."""
    for window in range(20):
        record(spool, used(EPOCH + window * WINDOW, 100))
    tally = top.Tally()
    lines(spool, EPOCH + 20 * WINDOW, tally)
    spool.db.execute("UPDATE record SET body=x'00'")
    record(spool, used(EPOCH + 20 * WINDOW, 40))
    assert lines(spool, EPOCH + 21 * WINDOW, tally) == {"acme": (8, 2_040)}


def test_a_first_look_ends_at_yesterday(spool: Spool) -> None:
    """Days of older records are not read."""
    record(spool, *(used(MIDNIGHT - DAY - n * WINDOW, 1) for n in range(top.LEAST + 10)), at=MIDNIGHT - DAY)
    spool.db.execute("UPDATE record SET body=x'00' WHERE seq <= 5")
    record(spool, used(MIDNIGHT, 30))
    assert lines(spool, MIDNIGHT + WINDOW) == {"acme": (3, 30)}


def test_no_query_walks_the_ledger(stage: Stage) -> None:
    """By SQLite's own plan: each one seeks, or goes along a small table or an index of what is open."""
    with opened(stage.home / "data") as db:
        asked: list[str] = []
        db.trace_v2(1, lambda event: asked.append(event["sql"]))
        glance.outflows(db), glance.held(db), glance.last(db), list(glance.newest(db, 0, 10))
        db.trace_v2(0, None)
        plans = [
            (sql, str(row[3]))
            for sql in asked
            if sql.startswith("SELECT")
            for row in db.execute(f"EXPLAIN QUERY PLAN {sql}", (0,) * sql.count("?"))
        ]
    cheap = (  # small tables; the newest attempts, so many and no more; and what is open, waits or is stuck
        *("SCAN sink", "SCAN held", "SCAN a", "SEARCH record", "SEARCH s USING", "USE TEMP B-TREE"),
        *("SEARCH item USING INDEX item_waiting", "SEARCH item USING INDEX item_stuck"),
        "SEARCH i USING PRIMARY KEY (sink=? AND seq>? AND seq<?)",
    )
    assert plans
    assert [(sql, plan) for sql, plan in plans if not plan.startswith(cheap)] == []


def test_delivery_is_told_for_each_sink(stage: Stage, ask: Ask) -> None:
    """What it is owed and for how long, what waits for a person, and what it answered."""
    (before,) = json.loads(ask("top", "--json"))["sinks"]
    assert (before["owed"], before["oldest"], before["answers"]) == (3, "2027-01-15T08:00:10.000000000Z", {})
    stage.deliver()
    stage.spool.db.execute("UPDATE item SET outcome='rejected' WHERE seq=2")
    (after,) = json.loads(ask("top", "--json"))["sinks"]
    assert (after["owed"], after["stuck"], after["answers"]) == (0, {"rejected": 1}, {"delivered": 1})
    assert after["why"].startswith("delivered: records-")
    stage.spool.db.execute("UPDATE sink SET paused=1")
    assert json.loads(ask("top", "--json"))["sinks"][0]["state"] == "paused"


def test_what_is_owed_is_what_the_outbox_says(stage: Stage) -> None:
    """The writer's own count, wherever the sink stands."""
    for seconds in (0, 10, 20):
        stage.run(seconds)
        if seconds == 10:
            stage.deliver()
        with opened(stage.home / "data") as db:
            (out,) = glance.outflows(db)
        assert (out.owed, out.oldest) == stage.outbox.backlog(stage.outbox.sinks()["files"])


def test_one_frame_is_printed_and_that_is_all(stage: Stage, ask: Ask) -> None:
    """For people, aligned; whoever runs the agent is named."""
    text = ask("top", "--once")
    assert f"agent {os.getpid()} runs; last sweep: cgroups not in this boot" in text
    assert "files  billing  delivering     3" in text
    assert ask("top").splitlines()[2:3] == text.splitlines()[2:3]  # without a terminal it is the same


def test_an_empty_spool_is_no_error(spool: Spool, ask: Ask) -> None:
    """Before the first window has closed."""
    text = ask("top", "--once")
    assert "no window closed yet" in text
    assert "No sink." in text
    assert "Nothing was recorded today." in text


def test_no_spool_is_an_error_with_its_cure(tmp_path: Path) -> None:
    """Exit 3, as of every command that looks into it."""
    done = CliRunner().invoke(app, ["top", "--once", "--data-dir", str(tmp_path)])
    assert (done.exit_code, "--data-dir" in done.output) == (3, True)


@pytest.mark.parametrize("leave", [b"q", b"\x03"])
def test_leaving_gives_the_terminal_back(stage: Stage, leave: bytes) -> None:
    """By q or Ctrl-C: exit 0, no traceback, the screen and the cursor as they were."""
    argv = [sys.executable, "-m", "agent", "top", "--data-dir", str(stage.home / "data")]
    pid, terminal = pty.fork()
    if pid == 0:
        os.environ["TERM"] = "xterm"
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # a shell's background jobs have it ignored, and so would we
        os.chdir(Path(__file__).parents[2])
        os.execv(sys.executable, argv)
    shown, deadline, told = b"", time.monotonic() + 30, False
    status = None
    try:
        while status is None and time.monotonic() < deadline:
            if select.select([terminal], [], [], 0.1)[0]:
                try:
                    shown += os.read(terminal, 65536)
                except OSError:  # it has closed its end
                    break
            if b"q: leave" in shown and not told:
                os.write(terminal, leave)
                told = True
        status = os.waitpid(pid, 0)[1]
    finally:
        os.close(terminal)
        if status is None:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
    assert status == 0, shown
    assert b"Traceback" not in shown
    assert b"acme" in shown
    assert shown.rindex(b"\x1b[?1049l") > shown.rindex(b"\x1b[?1049h")  # the other screen, and back
    assert shown.rindex(b"\x1b[?25h") > shown.rindex(b"\x1b[?25l")  # the cursor
