"""DESIGN §6, ACCOUNTING §8: a full spool, retention, digests (law L8)."""

import hashlib
from pathlib import Path

import pytest

from agent.errors import SpoolFullError
from agent.record import record_id
from agent.spool import Spool
from agent.spool.outbox import Draft, Outbox, Rendered
from agent.spool.retention import digest_days, expire
from agent.spool.store import OFFERED
from tests.laws.life import Life
from tests.laws.scene import S
from tests.spool.ledger import DAY, MIB, MOMENT, NOON, append, ledger, minutes, opened, record


def fill(spool: Spool) -> int:
    """Append big records until there is no room; how many went in."""
    count = 0
    try:
        while True:
            append(spool, record(count, padding=20_000))
            count += 1
    except SpoolFullError:
        return count


def cap(life: Life) -> None:
    """No page more: the disk is full from here."""
    life.spool.db.pragma("max_page_count", life.spool.db.pragma("page_count"))


def uncap(life: Life) -> None:
    """Somebody made room."""
    life.spool.db.pragma("max_page_count", 1 << 20)


def test_a_full_spool_refuses_a_commit_whole_and_says_what_to_do(tmp_path: Path) -> None:
    """L8: nothing of it is written, nothing before it is lost."""
    spool = opened(tmp_path, max_bytes=MIB)
    count = fill(spool)
    assert count > 10
    assert [seq for seq, *_ in ledger(spool)] == list(range(1, count + 1))
    with pytest.raises(SpoolFullError, match=r"no space left .* Free disk space, or raise spool.max_bytes"):
        append(spool, record(9999, padding=50_000))
    assert len(ledger(spool)) == count
    spool.close()


def test_marks_stand_still_while_full_and_nothing_is_lost_when_space_returns(tmp_path: Path) -> None:
    """DESIGN §6: the counters of living groups hold their usage."""
    life = Life(tmp_path)
    life.start().sweep()
    life.kernel.burn("a.slice/u", 5)
    life.sweep(after=30 * S)
    cap(life)
    fill(life.spool)
    before = life.spool.snapshot()
    for i in range(60):
        life.kernel.make(f"a.slice/new-{i}" + "x" * 200)  # rows that need new pages
    for _ in range(3):
        life.kernel.burn("a.slice/u", 100)
        life.pass_time(15 * S)
        life.sweep_that_fails()
        assert life.spool.snapshot() == before
    uncap(life)
    life.kernel.burn("a.slice/u", 1)
    life.sweep(after=15 * S)
    wanted = 5 + 300 + 1 + sum(r.quantity for r in life.records() if r.metadata.get("padding"))
    assert life.total() == wanted


def test_what_dies_while_full_is_booked_when_space_returns(tmp_path: Path) -> None:
    """DESIGN §6: the last readings of the dead wait with the agent; their customer gets them, not the parent."""
    life = Life(tmp_path)
    life.start().sweep()
    life.kernel.make("a.slice/dead")
    life.source.read()
    life.kernel.burn("a.slice/dead", 40)
    life.source.read()
    life.kernel.remove("a.slice/dead")
    life.veto_commits()
    life.sweep_that_fails()
    life.sweep_that_fails()
    life.veto_commits(False)
    commit = life.sweep(after=S).commit
    assert {name: q for name, q in life_shares(life).items() if q} == {"a.slice/dead": 40}
    assert [(b.booked, b.moved) for b in commit.balances] == [(40, 40)]


def life_shares(life: Life) -> dict[str, int]:
    """Resource → what its open windows hold."""
    return {row.track.resource.name: sum(s.quantity for s in row.shares) for row in life.spool.snapshot().rows}


def test_the_reserve_lets_in_place_work_go_on_when_the_file_is_full(tmp_path: Path) -> None:
    """DESIGN §6: free pages inside the database, for hours of sweeps."""
    life = Life(tmp_path)
    life.start()
    life.spool.close()
    life.spool = spool = opened(tmp_path / "reserved", max_bytes=4 * MIB, reserve=2 * MIB)
    pages = spool.db.pragma("page_count")
    assert pages * 4096 >= MIB
    filler = 0
    while spool.db.pragma("page_count") < spool.db.pragma("max_page_count") - 6:
        append(spool, record(filler, padding=20_000))
        filler += 1
    survived = 0
    for n in range(40):  # each needs pages that only the reserve has
        append(spool, record(10_000 + n, padding=20_000))
        survived += 1
    assert survived == 40
    spool.close()


def test_a_full_spool_can_be_opened_again(tmp_path: Path) -> None:
    """DESIGN §6: it never crash-loops; a reserve that finds no room is tried again later."""
    spool = opened(tmp_path, max_bytes=4 * MIB, reserve=2 * MIB)
    fill(spool)
    spool.close()
    spool = opened(tmp_path, max_bytes=4 * MIB, reserve=2 * MIB)
    spool.maintain(NOON + 2 * DAY, 90 * DAY, 90 * DAY, DAY)
    spool.close()


def test_an_agent_starts_on_a_full_spool(tmp_path: Path) -> None:
    """DESIGN §6: the process stays up; delivering goes on and makes room."""
    life = Life(tmp_path)
    life.start().sweep()
    fill_until = life.spool.db.pragma("page_count") + 60
    life.spool.db.pragma("max_page_count", fill_until)
    fill(life.spool)
    life.max_bytes = fill_until * 4096
    life.kill()
    life.start()
    life.spool.close()


def test_acknowledging_goes_on_when_full(tmp_path: Path) -> None:
    """DESIGN §6: what was sent can always be noted, or it would be sent again."""
    spool = opened(tmp_path, max_bytes=2 * MIB, reserve=MIB)
    outbox = Outbox(spool)
    outbox.register("files", "file", "copy", b"{}", since=0)
    fill(spool)
    send(outbox, "files", 5)
    assert outbox.backlog(outbox.sinks()["files"])[0] == outbox.last() - 5
    spool.close()


def sent_and_old(path: Path, *sinks: str) -> tuple[Spool, Outbox]:
    """Three records of one day, three of the next; registered sinks have got none yet."""
    spool = opened(path)
    outbox = Outbox(spool)
    for sink in sinks:
        outbox.register(sink, "file", "copy", b"{}", since=0)
    append(spool, *minutes(range(3)), now=NOON)
    append(spool, *minutes(range(3, 6)), now=NOON + DAY)
    return spool, outbox


def send(outbox: Outbox, sink: str, count: int) -> None:
    """Deliver the next `count`; on a full disk in the space of the reserve, as a drain does."""

    def line(seq: int, _kind: str, body: bytes) -> Rendered:
        return Draft(seq, record_id(body).bytes, body, kept=False)

    def deliver() -> None:
        with outbox.transaction():
            known = outbox.sinks()[sink]
            for submission in outbox.freeze(known, line, batches=1, max_batch=count, max_bytes=MIB, now=MOMENT):
                outbox.settle(submission, {item.seq: ("delivered", "") for item in submission.items}, NOON)

    try:
        deliver()
    except SpoolFullError:
        outbox.make_room(NOON)
        deliver()


def test_unsent_records_never_expire(tmp_path: Path) -> None:
    """L8: no age limit; the slowest sink decides."""
    spool, outbox = sent_and_old(tmp_path, "fast", "slow")
    send(outbox, "fast", 6)
    for _ in range(3):
        digest_days(spool.db, NOON + 400 * DAY)
        expire(spool.db, NOON + 400 * DAY, DAY, DAY)
    assert len(ledger(spool)) == 6
    send(outbox, "slow", 4)
    expire(spool.db, NOON + 400 * DAY, DAY, DAY)
    assert [seq for seq, *_ in ledger(spool)] == [5, 6]
    assert [seq for (seq,) in spool.db.execute("SELECT seq FROM known ORDER BY seq")] == [5, 6]
    spool.close()


def test_without_any_sink_nothing_expires(tmp_path: Path) -> None:
    """L8: nobody has it."""
    spool, _ = sent_and_old(tmp_path)
    digest_days(spool.db, NOON + 400 * DAY)
    expire(spool.db, NOON + 400 * DAY, DAY, DAY)
    assert len(ledger(spool)) == 6
    spool.close()


def test_what_waits_for_a_person_never_expires(tmp_path: Path) -> None:
    """§9: the held backlog of an old epoch stays, however far the sinks are."""
    spool, outbox = sent_and_old(tmp_path, "files")
    spool.db.execute("INSERT INTO held VALUES(2, 3, 'cloned', 0)")
    send(outbox, "files", 6)
    digest_days(spool.db, NOON + 400 * DAY)
    digest_days(spool.db, NOON + 400 * DAY)
    expire(spool.db, NOON + 400 * DAY, DAY, DAY)
    assert [seq for seq, *_ in ledger(spool)] == [2, 3]
    spool.close()


@pytest.mark.parametrize("outcome", [None, "conflict", "rejected", "ambiguous", "unrouted"])
def test_what_is_open_or_stuck_at_any_sink_never_expires(tmp_path: Path, outcome: str | None) -> None:
    """L8: that a sink's position is past it says nothing of what came of it."""
    spool, outbox = sent_and_old(tmp_path, "fast", "slow")
    send(outbox, "fast", 6)
    send(outbox, "slow", 6)
    spool.db.execute("UPDATE item SET outcome=? WHERE sink=2 AND seq=2", (outcome,))
    for _ in range(3):
        digest_days(spool.db, NOON + 400 * DAY)
        expire(spool.db, NOON + 400 * DAY, DAY, DAY)
    assert [seq for seq, *_ in ledger(spool)] == [2]
    assert list(spool.db.execute("SELECT sink, seq FROM item")) == [(1, 2), (2, 2)]
    assert list(spool.db.execute("SELECT seq FROM known")) == [(2,)]
    assert len(list(spool.db.execute("SELECT id FROM submission"))) == 2
    spool.close()


def test_with_a_record_goes_all_that_became_of_it(tmp_path: Path) -> None:
    """§8: items also at sinks that were removed, and a submission, split or not, when the last of it is gone."""
    spool, outbox = sent_and_old(tmp_path, "files", "former")
    send(outbox, "former", 6)
    outbox.remove(outbox.sinks()["former"])
    with outbox.transaction():
        known = outbox.sinks()["files"]

        def line(seq: int, _kind: str, body: bytes) -> Rendered:
            return Draft(seq, record_id(body).bytes, body)

        (whole,) = outbox.freeze(known, line, batches=1, max_batch=6, max_bytes=MIB, now=MOMENT)
        outbox.attempted(whole, NOON, NOON, "split", "413")
        outbox.split(whole, [(1, 2), (3, 4, 5, 6)], None, MOMENT)
        for part in outbox.due(known, NOON, 9, ()):
            outbox.attempted(part, NOON, NOON, "delivered", "")
            outbox.settle(part, {item.seq: ("delivered", "") for item in part.items}, NOON)
    digest_days(spool.db, NOON + 400 * DAY)
    expire(spool.db, NOON + 400 * DAY, DAY, DAY)
    parts = "SELECT first, last FROM submission ORDER BY id"
    assert list(spool.db.execute(parts)) == [(1, 6), (1, 6), (3, 6)]
    digest_days(spool.db, NOON + 400 * DAY)
    expire(spool.db, NOON + 400 * DAY, DAY, DAY)
    for table in ("record", "item", "known", "submission", "attempt"):
        assert list(spool.db.execute(f"SELECT * FROM {table}")) == [], table
    assert spool.meta("expired") == b"6"
    spool.close()


def test_a_sink_that_has_ended_holds_nothing_back(tmp_path: Path) -> None:
    """What came after its end it is not owed."""
    spool, outbox = sent_and_old(tmp_path, "files", "ended")
    send(outbox, "files", 6)
    send(outbox, "ended", 2)
    spool.db.execute("UPDATE sink SET until=2 WHERE id='ended'")
    digest_days(spool.db, NOON + 400 * DAY)
    assert expire(spool.db, NOON + 400 * DAY, DAY, DAY) == 3
    spool.close()


def test_records_within_their_retention_stay(tmp_path: Path) -> None:
    """DESIGN §6: the ledger is kept at least so long, to the nanosecond."""
    spool, outbox = sent_and_old(tmp_path, "files")
    send(outbox, "files", 6)
    digest_days(spool.db, NOON + 2 * DAY)
    assert expire(spool.db, NOON + 9 * DAY, 9 * DAY, 9 * DAY) == 0
    assert expire(spool.db, NOON + 9 * DAY + 1, 9 * DAY, 9 * DAY) == 3
    spool.close()


def test_a_days_digest_is_written_before_its_first_record_may_go(tmp_path: Path) -> None:
    """DESIGN §6: completeness can still be shown."""
    spool, outbox = sent_and_old(tmp_path, "files")
    send(outbox, "files", 6)
    assert expire(spool.db, NOON + 400 * DAY, DAY, DAY) == 0
    bodies = [body for (body,) in spool.db.execute("SELECT body FROM record WHERE seq<=3 ORDER BY seq")]
    digest_days(spool.db, NOON + DAY)
    expire(spool.db, NOON + 400 * DAY, DAY, DAY)
    assert [seq for seq, *_ in ledger(spool)] == [4, 5, 6]
    (row,) = list(spool.db.execute("SELECT * FROM digest"))
    assert row == (
        1,
        3,
        "2027-01-15",
        3,
        hashlib.sha256(b"".join(hashlib.sha256(body).digest() for body in bodies)).digest(),
    )
    spool.close()


def test_an_unfinished_day_has_no_digest(tmp_path: Path) -> None:
    """More of it may come."""
    spool, _ = sent_and_old(tmp_path)
    digest_days(spool.db, NOON + DAY - NOON % DAY - 1)
    assert list(spool.db.execute("SELECT * FROM digest")) == []
    spool.close()


def test_digests_go_on_after_the_clock_went_back(tmp_path: Path) -> None:
    """§4 with DESIGN §6: a day that comes twice must not stop retention for ever, nor leave records undigested."""
    spool = opened(tmp_path)
    for days in (0, 3):  # three days ahead for a while, and digested so
        append(spool, record(days), now=NOON + days * DAY)
    for _ in range(2):
        digest_days(spool.db, NOON + 4 * DAY)
    for days in (1, 2, 3):  # put right: the third day comes again
        append(spool, record(10 + days), now=NOON + days * DAY)
    for _ in range(20):
        digest_days(spool.db, NOON + 9 * DAY)
    spans = list(spool.db.execute("SELECT first, last, records FROM digest ORDER BY first"))
    assert max(last for _, last, _ in spans) == 5
    assert sum(count for *_, count in spans) == 5
    spool.close()


def test_maintenance_is_once_a_minute(tmp_path: Path) -> None:
    """It shares the sweeps' thread; called each second it works each minute, and then it does."""
    spool, outbox = sent_and_old(tmp_path, "files")
    send(outbox, "files", 6)
    spool.maintain(NOON + 400 * DAY, DAY, DAY, DAY)
    left = [len(ledger(spool))]
    for seconds in (1, 59, 60):
        spool.maintain(NOON + 400 * DAY + seconds * S, DAY, DAY, DAY)
        left.append(len(ledger(spool)))
    assert left == [3, 3, 3, 0]
    spool.close()


def test_evidence_has_its_own_retention(tmp_path: Path) -> None:
    """ACCOUNTING §8: L12 holds within it; the record stays."""
    spool, _ = sent_and_old(tmp_path)
    for seq in range(1, 7):
        spool.db.execute("INSERT INTO evidence VALUES(?, x'00')", (seq,))
    expire(spool.db, NOON + 3 * DAY, 90 * DAY, 2 * DAY + 1)
    assert [seq for (seq,) in spool.db.execute("SELECT seq FROM evidence")] == [4, 5, 6]
    assert len(ledger(spool)) == 6
    spool.close()


def test_late_usage_of_an_expired_record_never_gets_its_id_again(tmp_path: Path) -> None:
    """§6, L3: `next_n` is kept as long as the ledger's row or its digest; else one id has two bodies."""
    spool, outbox = sent_and_old(tmp_path, "files")
    send(outbox, "files", 6)
    used = {bytes(body).split(b'"id":"')[1][:36] for (body,) in spool.db.execute("SELECT body FROM record")}
    digest_days(spool.db, NOON + 400 * DAY)
    digest_days(spool.db, NOON + 400 * DAY)
    expire(spool.db, NOON + 400 * DAY, DAY, DAY)
    assert ledger(spool) == []
    append(spool, record(0, quantity=7), now=NOON + 400 * DAY)
    again = {bytes(body).split(b'"id":"')[1][:36] for (body,) in spool.db.execute("SELECT body FROM record")}
    assert not used & again
    spool.close()


def test_held_usage_is_offered_in_pages_until_all_was(tmp_path: Path) -> None:
    """DESIGN §12, flat: three days of usage that nobody owns need not fit into memory."""
    spool = opened(tmp_path)
    append(spool, *(record(number, kind="unattributed") for number in range(OFFERED + 7)), record(9999))
    offered: list[int] = []
    while page := spool.unattributed(0, offered[-1] if offered else 0):
        assert len(page) <= OFFERED
        offered += [seq for seq, *_ in page]
    assert offered == list(range(1, OFFERED + 8))
    assert spool.unattributed(NOON + 1, 0) == []
    spool.close()
