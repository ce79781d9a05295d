"""DESIGN §6–7, ACCOUNTING §§6–7: what each sink is owed, and how it leaves without being repeated (laws L2, L7)."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from agent.delivery.drain import drain_one
from agent.errors import SinkError
from agent.record import with_seq
from agent.sinks.file import FileSink
from agent.spool import Spool
from agent.spool.outbox import BILLED, Outbox, Submission
from tests.spool.ledger import NOON, S, append, ledger, minutes, opened, record


class Killed(Exception):  # noqa: N818 - a fate, not an error
    """The process is gone."""


def die() -> int:
    """A clock that is never read twice."""
    raise Killed


def now() -> int:
    """Some time."""
    return NOON


class Ports(FileSink):
    """A file sink whose disk fails while `trouble` is set."""

    trouble: Exception | None = None

    def deliver(self, submission: Submission) -> None:
        if self.trouble is not None:
            raise self.trouble
        super().deliver(submission)


def opened_with(path: Path, *roles: str) -> tuple[Spool, Outbox, list[Ports]]:
    """A spool with one file sink per role, swept up as at a start."""
    spool = opened(path)
    outbox = Outbox(spool)
    sinks = [Ports(f"sink-{i}", role, path / f"out-{i}", spool.identity.epoch) for i, role in enumerate(roles)]
    for sink in sinks:
        outbox.register(sink.id, sink.kind, sink.role, since=0)
        sink.sweep_up(outbox.prepared(sink.id))
    return spool, outbox, sinks


def drain(sink: Ports, outbox: Outbox) -> int:
    """All it is owed."""
    total = 0
    while (count := drain_one(sink, outbox, now)) is not None:
        total += count
    return total


def lines(path: Path, number: int = 0) -> list[bytes]:
    """What a shipper would find."""
    return [
        line for file in sorted((path / f"out-{number}").glob("*.ndjson")) for line in file.read_bytes().splitlines()
    ]


def test_a_billing_sink_gets_no_unattributed_gap_system_or_idle_record(tmp_path: Path) -> None:
    """L7: usage, manual and correction; a copy gets everything."""
    spool, outbox, (billing, copy) = opened_with(tmp_path, "billing", "copy")
    kinds = ["usage", "unattributed", "system", "idle", "gap", "manual", "correction"]
    append(spool, *(record(i, kind) for i, kind in enumerate(kinds)))  # type: ignore[arg-type]
    assert (drain(billing, outbox), drain(copy, outbox)) == (3, 7)
    assert {json.loads(line)["kind"] for line in lines(tmp_path, 0)} == set(BILLED)
    assert [json.loads(line)["kind"] for line in lines(tmp_path, 1)] == kinds
    assert outbox.backlog("sink-0")[0] == 0
    spool.close()


def test_a_line_is_the_stored_body_with_its_sequence_number(tmp_path: Path) -> None:
    """L3: same id, same bytes, at every sink."""
    spool, outbox, sinks = opened_with(tmp_path, "copy", "billing")
    append(spool, *minutes(range(3)))
    for sink in sinks:
        drain(sink, outbox)
    wanted = [with_seq(body, seq) for seq, body in spool.db.execute("SELECT seq, body FROM record ORDER BY seq")]
    assert lines(tmp_path, 0) == lines(tmp_path, 1) == wanted
    spool.close()


def test_a_new_sink_starts_at_records_closed_after_it_was_added(tmp_path: Path) -> None:
    """DESIGN §7: unless `from` says otherwise."""
    spool, outbox, _ = opened_with(tmp_path)
    append(spool, *minutes(range(2)), now=NOON)
    append(spool, *minutes(range(2, 4)), now=NOON + S)
    outbox.register("late", "file", "copy", since=None)
    outbox.register("from", "file", "copy", since=NOON + S)
    outbox.register("all", "file", "copy", since=0)
    append(spool, record(5), now=NOON + 2 * S)
    assert [outbox.backlog(sink)[0] for sink in ("late", "from", "all")] == [1, 3, 5]
    spool.close()


def test_registering_again_keeps_the_position(tmp_path: Path) -> None:
    """A restart is no new sink; only the role may have changed."""
    spool, outbox, (sink,) = opened_with(tmp_path, "copy")
    append(spool, *minutes(range(2)))
    drain(sink, outbox)
    outbox.register(sink.id, "file", "billing", since=0)
    assert outbox.backlog(sink.id) == (0, None)
    spool.close()


def test_a_removed_sink_is_forgotten_and_holds_nothing_back(tmp_path: Path) -> None:
    """DESIGN §7: removing one that is owed nothing; if it returns it is new."""
    spool, outbox, (sink,) = opened_with(tmp_path, "copy")
    append(spool, record(0))
    drain(sink, outbox)
    outbox.remove(sink.id)
    assert outbox.sinks() == {}
    append(spool, record(1))
    outbox.register(sink.id, sink.kind, sink.role, since=None)
    assert outbox.backlog(sink.id)[0] == 0
    spool.close()


def test_late_usage_is_the_next_n_of_its_key(tmp_path: Path) -> None:
    """L7: deltas 0, 1, 2 with ids of their own, also after a restart."""
    spool = opened(tmp_path)
    append(spool, record(0, quantity=5), record(0, quantity=6))
    spool.close()
    spool = opened(tmp_path)
    append(spool, record(1), record(0, quantity=7))
    assert [(n, q) for _, n, _, q in ledger(spool)] == [(0, 5), (1, 6), (0, 1), (2, 7)]
    ids = [json.loads(body)["id"] for (body,) in spool.db.execute("SELECT body FROM record")]
    assert len(set(ids)) == 4
    spool.close()


def test_a_batch_is_limited_and_the_next_goes_on(tmp_path: Path) -> None:
    """DESIGN §7: `max_batch`; files are named by first and last sequence."""
    spool, outbox, (sink,) = opened_with(tmp_path, "copy")
    sink.max_batch = 2
    append(spool, *minutes(range(5)))
    drain(sink, outbox)
    spans = [file.name.split("-")[2:] for file in sorted((tmp_path / "out-0").iterdir())]
    assert [(int(a), int(b.removesuffix(".ndjson"))) for a, b in spans] == [(1, 2), (3, 4), (5, 5)]
    spool.close()


def test_names_of_two_epochs_never_meet(tmp_path: Path) -> None:
    """ACCOUNTING §7: sequence numbers recur in another file; file names must not."""
    first, second = (FileSink("x", "copy", tmp_path, epoch) for epoch in ("a" * 32, "b" * 32))
    assert first.freeze(1, 2, [b"x"])[0] != second.freeze(1, 2, [b"x"])[0]


def crash_before_prepare(sink: Ports, outbox: Outbox) -> None:
    """The temporary file is there, the spool knows nothing of it."""
    with pytest.raises(Killed):
        drain_one(sink, outbox, die)


def crash_before_rename(sink: Ports, outbox: Outbox) -> None:
    """Prepared, invisible."""
    sink.trouble = Killed()
    with pytest.raises(Killed):
        drain_one(sink, outbox, now)


def crash_before_acknowledge(sink: Ports, outbox: Outbox) -> None:
    """Visible, and the spool does not know."""
    clock = iter([NOON])
    with pytest.raises(StopIteration):
        drain_one(sink, outbox, lambda: next(clock))


CRASHES = [crash_before_prepare, crash_before_rename, crash_before_acknowledge]


@pytest.mark.parametrize("shipper", [False, True])
@pytest.mark.parametrize("crash", CRASHES)
def test_a_crash_repeats_no_line_and_loses_none(
    tmp_path: Path, crash: Callable[[Ports, Outbox], None], *, shipper: bool
) -> None:
    """ACCOUNTING §7: temp present = rename it; absent = done; also if a shipper took the file already."""
    spool, outbox, (sink,) = opened_with(tmp_path, "copy")
    append(spool, *minutes(range(3)))
    crash(sink, outbox)
    spool.close()
    taken: list[bytes] = []
    if shipper:
        taken = lines(tmp_path)
        for file in (tmp_path / "out-0").glob("*.ndjson"):
            file.unlink()
    spool, outbox, (sink,) = opened_with(tmp_path, "copy")
    append(spool, *minutes(range(3, 5)))
    drain(sink, outbox)
    found = taken + lines(tmp_path)
    assert [json.loads(line)["seq"] for line in found] == [1, 2, 3, 4, 5]
    assert list((tmp_path / "out-0").glob(".*")) == []
    assert outbox.prepared(sink.id) == []
    spool.close()


@pytest.mark.parametrize("crash", CRASHES)
def test_a_crash_delivers_only_its_own_kinds_afterwards(tmp_path: Path, crash: Callable[[Ports, Outbox], None]) -> None:
    """L7: what was finished after a restart is no different from what went at once."""
    spool, outbox, (sink,) = opened_with(tmp_path, "billing")
    append(spool, record(0), record(1, "unattributed"), record(2))
    crash(sink, outbox)
    spool.close()
    spool, outbox, (sink,) = opened_with(tmp_path, "billing")
    drain(sink, outbox)
    assert [json.loads(line)["seq"] for line in lines(tmp_path)] == [1, 3]
    assert [seq for (seq,) in spool.db.execute("SELECT seq FROM delivered ORDER BY seq")] == [1, 3]
    spool.close()


def test_a_rename_that_failed_is_tried_again_as_it_was(tmp_path: Path) -> None:
    """L3: a frozen submission does not grow, or its lines would be in two files after a restart."""
    spool, outbox, (sink,) = opened_with(tmp_path, "copy")
    append(spool, *minutes(range(3)))
    sink.trouble = SinkError("read-only")
    with pytest.raises(SinkError):
        drain_one(sink, outbox, now)
    append(spool, *minutes(range(3, 5)))
    sink.trouble = None
    drain(sink, outbox)
    spool.close()
    spool, outbox, (sink,) = opened_with(tmp_path, "copy")
    drain(sink, outbox)
    assert [json.loads(line)["seq"] for line in lines(tmp_path)] == [1, 2, 3, 4, 5]
    spool.close()


def test_a_directory_that_cannot_be_written_is_a_sink_error_naming_it(tmp_path: Path) -> None:
    """L9: nothing is known to have left; the message has place and cure."""
    spool, outbox, (sink,) = opened_with(tmp_path, "copy")
    append(spool, record())
    (tmp_path / "out-0").rmdir()
    with pytest.raises(SinkError, match=r"sinks\[sink-0\]: .*out-0: No such file or directory. Free space"):
        drain_one(sink, outbox, now)
    (tmp_path / "out-0").mkdir()
    assert drain(sink, outbox) == 1
    spool.close()


def test_the_digest_of_a_submission_is_that_of_its_bytes(tmp_path: Path) -> None:
    """L12: what was sent can be shown."""
    spool, outbox, (sink,) = opened_with(tmp_path, "copy")
    append(spool, *minutes(range(3)))
    drain(sink, outbox)
    ((name, digest),) = list(spool.db.execute("SELECT name, digest FROM submission"))
    assert hashlib.sha256((tmp_path / "out-0" / name).read_bytes()).digest() == digest
    spool.close()


def damage(spool: Spool, seq: int, body: bytes = b'{"kind":"usage","quantity":"999"}') -> None:
    """Bits rot on the disk."""
    spool.db.execute("UPDATE record SET body=? WHERE seq=?", (body, seq))


@pytest.mark.parametrize("body", [b'{"id":"x"}', b"\xff\x00 no JSON", b""])
def test_a_record_whose_bytes_fail_their_crc_is_quarantined_and_blocks_nothing(tmp_path: Path, body: bytes) -> None:
    """L9: one poison record never blocks its batch; it is kept, once, with the reason."""
    spool, outbox, sinks = opened_with(tmp_path, "copy", "copy")
    append(spool, *minutes(range(3)))
    damage(spool, 2, body)
    for sink in sinks:
        drain(sink, outbox)
    assert [json.loads(line)["seq"] for line in lines(tmp_path)] == [1, 3]
    kept = list(spool.db.execute("SELECT reason, body FROM quarantine"))
    assert kept == [("record 2: CRC does not match its bytes", body)]
    spool.close()


@pytest.mark.parametrize("crash", [crash_before_rename, crash_before_acknowledge])
def test_a_quarantined_record_does_not_stop_what_was_prepared_around_it(
    tmp_path: Path, crash: Callable[[Ports, Outbox], None]
) -> None:
    """L9: after a restart too; what was not sent is not noted as delivered."""
    spool, outbox, (sink,) = opened_with(tmp_path, "copy")
    append(spool, *minutes(range(3)))
    damage(spool, 2)
    crash(sink, outbox)
    spool.close()
    spool, outbox, (sink,) = opened_with(tmp_path, "copy")
    drain(sink, outbox)
    assert [json.loads(line)["seq"] for line in lines(tmp_path)] == [1, 3]
    assert [seq for (seq,) in spool.db.execute("SELECT seq FROM delivered ORDER BY seq")] == [1, 3]
    spool.close()


def test_what_waits_for_a_person_is_not_sent(tmp_path: Path) -> None:
    """DESIGN §6: the old backlog of a cloned spool is held."""
    spool, outbox, (sink,) = opened_with(tmp_path, "copy")
    append(spool, *minutes(range(4)))
    spool.db.execute("INSERT INTO held VALUES(2, 3, 'cloned', 0)")
    drain(sink, outbox)
    assert [json.loads(line)["seq"] for line in lines(tmp_path)] == [1, 4]
    spool.close()


def test_a_held_backlog_is_not_noted_as_delivered_after_a_crash(tmp_path: Path) -> None:
    """L12: what a person must still decide on has not been sent."""
    spool, outbox, (sink,) = opened_with(tmp_path, "copy")
    append(spool, *minutes(range(4)))
    spool.db.execute("INSERT INTO held VALUES(2, 3, 'cloned', 0)")
    crash_before_acknowledge(sink, outbox)
    spool.close()
    spool, outbox, (sink,) = opened_with(tmp_path, "copy")
    drain(sink, outbox)
    assert [seq for (seq,) in spool.db.execute("SELECT seq FROM delivered ORDER BY seq")] == [1, 4]
    spool.close()


def test_the_same_submission_twice_is_harmless(tmp_path: Path) -> None:
    """L9: delivering what was delivered says so again, and changes nothing."""
    sink = FileSink("x", "copy", tmp_path, "e" * 32)
    name, digest = sink.freeze(1, 1, [b"line"])
    submission = Submission(1, "x", 1, 1, name, digest)
    sink.deliver(submission)
    (tmp_path / name).unlink()  # a shipper
    sink.deliver(submission)
    assert list(tmp_path.iterdir()) == []
