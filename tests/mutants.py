"""`make mutants`: put a named bug into a copy of the agent, and see which test of the laws catches it.

Each bug is one replacement of text that must still be there; a bug that no test catches fails the run. `python -m
tests.mutants [NAME…]` runs some of them.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
FAST = ("tests/delivery", "tests/laws", "tests/spool", "tests/sources")
SECONDS = 240


class Mutant(NamedTuple):
    """A bug: its name, the law it breaks, the test file to ask first, and the text it puts in the place of another."""

    name: str
    law: str
    near: str
    file: str
    old: str
    new: str


MUTANTS = (
    Mutant(
        "acknowledge on timeout",
        "L10",
        "tests/delivery/test_judgement.py",
        "agent/delivery/judgement.py",
        '            case "delivered" | "conflict":\n',
        '            case "delivered" | "conflict" | "ambiguous":\n',
    ),
    Mutant(
        "duplicate always delivered",
        "L9",
        "tests/delivery/test_judgement.py",
        "agent/delivery/judgement.py",
        '("conflict" if submission.tainted is None else "duplicate")',
        '("duplicate")',
    ),
    Mutant(
        "horizon from the last attempt",
        "L10",
        "tests/delivery/test_judgement.py",
        "agent/delivery/judgement.py",
        "tainted = began if unsure and submission.tainted is None else submission.tainted",
        "tainted = began if unsure else submission.tainted",
    ),
    Mutant(
        "horizon without its margin",
        "L10",
        "tests/delivery/test_judgement.py",
        "agent/delivery/judgement.py",
        "terms.dedupe_horizon * 9 // 10",
        "terms.dedupe_horizon",
    ),
    Mutant(
        "taint is not kept",
        "L10",
        "tests/delivery/test_judgement.py",
        "agent/delivery/judgement.py",
        "tainted = began if unsure and submission.tainted is None else submission.tainted",
        "tainted = None",
    ),
    Mutant(
        "split where the batch is what is recognised",
        "§7",
        "tests/delivery/test_judgement.py",
        "agent/delivery/judgement.py",
        "if terms.splits and (refused or",
        "if (refused or",
    ),
    Mutant(
        "sent before it is noted as leaving",
        "L10",
        "tests/delivery/test_drain.py",
        "agent/delivery/drain.py",
        "            outbox.leaving([s for s in taken if s.attempts or not terms.staged], now)\n",
        "            pass\n",
    ),
    Mutant(
        "a retry is rendered anew",
        "L3",
        "tests/spool/test_submissions.py",
        "agent/spool/outbox.py",
        "[(sink.number, d.seq, number, d.payload if d.kept else None, d.rounding) for d in drafts]",
        "[(sink.number, d.seq, number, None, d.rounding) for d in drafts]",
    ),
    Mutant(
        "what rounding leaves is dropped",
        "§7",
        "tests/delivery/test_rendering.py",
        "agent/delivery/rendering.py",
        "        self._outbox.leave(self._standing, customer, record.dimension, after.value, after.grain, self._now)\n",
        "",
    ),
    Mutant(
        "what was carried is not added",
        "§7",
        "tests/delivery/test_quantity.py",
        "agent/delivery/quantity.py",
        "quantity * grain + carried.value * (grain // carried.grain)",
        "quantity * grain",
    ),
    Mutant(
        "unrouted is passed over",
        "§7",
        "tests/delivery/test_rendering.py",
        "agent/delivery/rendering.py",
        "        elif record.dimension in self._route.orphans:\n",
        "        elif not record.dimension:\n",
    ),
    Mutant(
        "negative quantities go to who takes none",
        "L7",
        "tests/delivery/test_rendering.py",
        "agent/delivery/rendering.py",
        "if record.quantity < 0 and not terms.negative:",
        "if False:",
    ),
    Mutant(
        "a billing sink gets every kind",
        "L7",
        "tests/delivery/test_rendering.py",
        "agent/delivery/rendering.py",
        'self._standing.role == "billing" and kind not in BILLED',
        "False",
    ),
    Mutant(
        "Retry-After is not obeyed",
        "§7",
        "tests/delivery/test_pace.py",
        "agent/delivery/pace.py",
        "        return max(after or 0, self.backoff(attempts))",
        "        return self.backoff(attempts)",
    ),
    Mutant(
        "the circuit never closes",
        "§7",
        "tests/delivery/test_pace.py",
        "agent/delivery/pace.py",
        'beside it stands."""\n        self._failures = 0\n',
        'beside it stands."""\n',
    ),
    Mutant(
        "a temporary file is visible at once",
        "L3",
        "tests/delivery/test_drain.py",
        "agent/sinks/file.py",
        'self._path / f".records-{submission.name}.ndjson.tmp"',
        'self._path / f"records-{submission.name}.ndjson"',
    ),
    Mutant(
        "a redirect is an answer like others",
        "§7",
        "tests/sinks/test_meaning.py",
        "agent/sinks/meaning.py",
        "REDIRECTED if reply.redirects else UNSURE",
        "DELIVERED if reply.redirects else UNSURE",
    ),
    Mutant(
        "what a salvage cannot know counts as delivered",
        "§6",
        "tests/spool/test_flips.py",
        "agent/spool/salvage.py",
        "SELECT ?, seq, 'ambiguous', ?, ?",
        "SELECT ?, seq, 'delivered', ?, ?",
    ),
    Mutant(
        "a requeued record keeps its rounding",
        "§7",
        "tests/spool/test_acts_laws.py",
        "agent/spool/epoch.py",
        "now_left = Fraction(int(kept[0]), int(kept[1])) + back",
        "now_left = Fraction(int(kept[0]), int(kept[1]))",
    ),
    Mutant(
        "what a person had held is sent",
        "§9",
        "tests/spool/test_outbox.py",
        "agent/spool/outbox.py",
        'AND seq <= ? AND NOT EXISTS"\n            " (SELECT 1 FROM held WHERE r.seq BETWEEN first AND last)',
        'AND seq <= ? AND NOT EXISTS"\n            " (SELECT 1 FROM held WHERE first < 0)',
    ),
    Mutant(
        "a later refusal clears the taint",
        "L10",
        "tests/delivery/test_judgement.py",
        "agent/delivery/judgement.py",
        "tainted = began if unsure and submission.tainted is None else submission.tainted",
        "tainted = None if refused else began if unsure and submission.tainted is None else submission.tainted",
    ),
    Mutant(
        "a definite refusal taints",
        "L10",
        "tests/delivery/test_judgement.py",
        "agent/delivery/judgement.py",
        "unsure |= not refused and (",
        "unsure |= (",
    ),
    Mutant(
        "split though the sink knows no ids",
        "L10",
        "tests/delivery/test_judgement.py",
        "agent/delivery/judgement.py",
        "    if open_ and forgotten(tainted, terms, now):",
        '    if open_ and answer.outcome != "split" and forgotten(tainted, terms, now):',
    ),
    Mutant(
        "sent again beyond the horizon",
        "L10",
        "tests/delivery/test_drain.py",
        "agent/delivery/drain.py",
        "if submission.attempts and forgotten(",
        "if False and forgotten(",
    ),
    Mutant(
        "a file is shown before it is noted as leaving",
        "L3",
        "tests/delivery/test_dying.py",
        "agent/delivery/drain.py",
        "                await self._on_thread(self._note_leaving, submission, began)\n",
        "",
    ),
    Mutant(
        "a remainder outlives the rollback of its submission",
        "§7",
        "tests/delivery/test_rendering.py",
        "agent/delivery/rendering.py",
        "after.value, after.grain, self._now)\n",
        'after.value, after.grain, self._now)\n        self._outbox.spool.db.execute("COMMIT; BEGIN")\n',
    ),
    Mutant(
        "a record whose CRC is wrong ends its batch",
        "L9",
        "tests/spool/test_outbox.py",
        "agent/spool/outbox.py",
        "                self._quarantine(sink, seq, body, now)\n                continue\n",
        "                self._quarantine(sink, seq, body, now)\n                break\n",
    ),
    Mutant(
        "what was attempted stays owed in a new epoch",
        "L10",
        "tests/spool/test_flips.py",
        "agent/spool/epoch.py",
        "settled IS NULL AND tainted NOT NULL",
        "settled IS NULL AND tainted < 0",
    ),
    Mutant(
        "marks go on against the witness",
        "§6",
        "tests/spool/test_flips.py",
        "agent/spool/opening.py",
        " and witness.seen() == _commit(db)",
        "",
    ),
    Mutant(
        "what a person sends again is rendered anew",
        "L3",
        "tests/spool/test_acts.py",
        "agent/spool/acts/doubt.py",
        "    if not payload and submission is None:\n",
        "    if submission is not None:\n",
    ),
    Mutant(
        "an error tells the token",
        "§6",
        "tests/sinks/test_wire.py",
        "agent/sinks/credentials.py",
        'said = said.replace(text, "[token]")',
        "said = said.strip()",
    ),
    Mutant(
        "marks go on after a failed commit",
        "L2",
        "tests/laws/test_first_sight.py",
        "agent/metering.py",
        "            self.rebuild()\n            raise",
        "            raise",
    ),
    Mutant(
        "records and marks in two transactions",
        "L2",
        "tests/spool/test_atomic.py",
        "agent/spool/store.py",
        "            seqs = self._write_records(",
        '            self.db.execute("COMMIT; BEGIN") if records else None\n            seqs = self._write_records(',
    ),
    Mutant(
        "random id",
        "L3",
        "tests/laws/test_records.py",
        "agent/record.py",
        "digest.hex()",
        "uuid.uuid4().hex",
    ),
    Mutant(
        "first value skipped",
        "first sight",
        "tests/laws/test_counters.py",
        "agent/usage.py",
        "moved = sample.value if born or mark is not None else 0",
        "moved = 0",
    ),
    Mutant(
        "what ran before us billed from zero",
        "first sight",
        "tests/laws/test_counters.py",
        "agent/usage.py",
        "            return self.from_zero",
        "            return True",
    ),
    Mutant(
        "reset billed",
        "L4",
        "tests/laws/test_counters.py",
        "agent/usage.py",
        '        return 0, Mark(sample.identity, sample.value, sample.taken), "inferred_reset"',
        '        return sample.value, Mark(sample.identity, sample.value, sample.taken), "inferred_reset"',
    ),
    Mutant(
        "debt forgotten: the residual is clamped at zero",
        "L1",
        "tests/laws/test_random_trees.py",
        "agent/usage.py",
        "return (balance, 0) if balance > 0 else (0, balance)",
        "return (max(0, balance), 0)",
    ),
    Mutant(
        "anchor read last",
        "L1",
        "tests/sources/test_cgroups.py",
        "agent/sources/cgroups.py",
        "        self._read_counters(groups)\n        self._raise_trouble()\n        readings",
        "        self._read_counters(groups[::-1])\n        self._raise_trouble()\n        readings",
    ),
    Mutant(
        "a dying group's debt is dropped",
        "L1",
        "tests/laws/test_random_trees.py",
        "agent/usage.py",
        "parent.in_flight[meter] = parent.in_flight.get(meter, 0) + debt",
        "parent.in_flight[meter] = parent.in_flight.get(meter, 0)",
    ),
    Mutant(
        "float division",
        "L6",
        "tests/laws/test_splitting.py",
        "agent/usage.py",
        "upto = quantity * (edge - start) // span",
        "upto = int(quantity / span * (edge - start))",
    ),
    Mutant(
        "nothing is split at a window's edge",
        "L6",
        "tests/laws/test_reload.py",
        "agent/windows.py",
        "            right = min(end, high)",
        "            right = end",
    ),
    Mutant(
        "window closed by the fastest source",
        "closing",
        "tests/laws/test_windows.py",
        "agent/books.py",
        "max(min(marks), max(marks) - MAX_LATENESS)",
        "max(marks)",
    ),
    Mutant(
        "windows close on an unconfirmed clock",
        "L5",
        "tests/laws/test_windows.py",
        "agent/books.py",
        "self._close_passed() if may_close else ([], set())",
        "self._close_passed()",
    ),
    Mutant(
        "every step of the wall clock is believed",
        "L5",
        "tests/laws/test_clock.py",
        "agent/clock.py",
        "        if synchronised:\n            self._move(offset)",
        "        if True:\n            self._move(offset)",
    ),
    Mutant(
        "late usage overwrites its record",
        "L7",
        "tests/laws/test_reattribution.py",
        "agent/spool/store.py",
        "            n = following.get((record.start, key), 0)",
        "            n = 0",
    ),
    Mutant(
        "unattributed usage is billed",
        "L7",
        "tests/spool/test_outbox.py",
        "agent/spool/outbox.py",
        'BILLED = ("usage", "manual", "correction")',
        'BILLED = ("usage", "manual", "correction", "unattributed")',
    ),
    Mutant(
        "the first of two rules wins",
        "attribution",
        "tests/laws/test_attribution.py",
        "agent/attribution.py",
        "        if len(found) > 1:",
        "        if len(found) > 9:",
    ),
    Mutant(
        "an inner group's customer beats the outer one's",
        "attribution",
        "tests/laws/test_tree.py",
        "agent/attribution.py",
        "            if owner.customer is None:",
        "            if owner.customer is None or found is not None:",
    ),
    Mutant(
        "a tenant's directory names its customer",
        "L11",
        "tests/sources/test_ownership.py",
        "agent/sources/ownership.py",
        "        if not trusted and not self._root_named(",
        "        if False and not self._root_named(",
    ),
    Mutant(
        "a gauge holds its next value",
        "gauges",
        "tests/laws/test_windows.py",
        "agent/usage.py",
        "quantity = mark.value * ((end - start) // NS_PER_MS)\n        self.out",
        "quantity = level * ((end - start) // NS_PER_MS)\n        self.out",
    ),
    Mutant(
        "a restored spool is taken for the newest",
        "rollback",
        "tests/spool/test_opening.py",
        "agent/spool/identity.py",
        "            if seen > commit:",
        "            if seen > commit + 1_000_000:",
    ),
    Mutant(
        "a second agent is let in",
        "L2",
        "tests/spool/test_opening.py",
        "agent/spool/lock.py",
        "        except BlockingIOError:\n            return False",
        "        except BlockingIOError:\n            return True",
    ),
)


NO_BUG = Mutant("none", "", "", "agent/__init__.py", "__version__", "__version__")


def plant(mutant: Mutant, where: Path) -> None:
    """Copy what the tests need and put the bug in. Raises AssertionError when its place is gone."""
    for name in ("agent", "tests", "config"):
        shutil.copytree(ROOT / name, where / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", where)
    path = where / mutant.file
    text = path.read_text()
    assert text.count(mutant.old) == 1, f"{mutant.name}: its place in {mutant.file} is gone; mend the mutant"
    path.write_text(text.replace(mutant.old, mutant.new))


def caught_by(mutant: Mutant) -> str | None:
    """The first test that fails with the bug in, or None."""
    with tempfile.TemporaryDirectory(prefix="mutant-") as scratch:
        where = Path(scratch)
        plant(mutant, where)
        near = first_failure(where, [mutant.near]) if mutant.near else None
        return near or first_failure(where, FAST)


def first_failure(where: Path, tests: Sequence[str]) -> str | None:
    """The first of `tests` that fails in the copy at `where`, or None."""
    command = [sys.executable, "-m", "pytest", "-x", "-q", "--tb=no", "-p", "no:cacheprovider"]
    command += ["-m", "not real and not fault", *tests]
    environ = os.environ | {"PYTHONPATH": str(where), "PYTHONDONTWRITEBYTECODE": "1"}
    run = subprocess.run(command, cwd=where, env=environ, capture_output=True, text=True, timeout=SECONDS, check=False)
    if run.returncode == 0:
        return None
    failed = [line.split(" ")[1] for line in run.stdout.splitlines() if line.startswith(("FAILED ", "ERROR "))]
    assert failed, f"the tests did not run:\n{run.stdout}{run.stderr}"
    return failed[0]


def main(names: list[str]) -> int:
    """Print the table; the exit code says whether all were caught."""
    chosen = [m for m in MUTANTS if not names or m.name in names]
    missed = 0
    sound = caught_by(NO_BUG)
    assert sound is None, f"the tests fail without a bug: {sound}"
    print(f"{'bug':52} {'law':12} caught by")
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        for mutant, test in zip(chosen, pool.map(caught_by, chosen), strict=True):
            missed += test is None
            print(f"{mutant.name:52} {mutant.law:12} {test or 'NOBODY'}", flush=True)
    print(f"{len(chosen) - missed} passed, {missed} failed")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
