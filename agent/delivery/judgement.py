"""What follows from one attempt: which records are settled, what is sent again, when and how (laws L9, L10). Pure.

Once a byte has left, whatever is not a definite refusal leaves a submission *tainted* from the first such attempt on,
and it stays so. A tainted one may be sent again unchanged while the sink surely knows its ids, less a tenth; after that
only a person, or a look at what the sink holds, can tell. Times are those of elapsed time. An item that an answer names
with `retry` was surely not taken: the back end has read it and said so.

A batch is split after a definite refusal of all of it; after any other only where the sink knows single records again
(`key: record`), and still knows these: it discards by itself what it took the first time. A record that is alone and
still refused is rejected, definitely refused or not, for then the back end has said what is wrong with this very one.
A batch that is called a duplicate without a word on its records is split, too: one of them was known, and the others
may have been turned away with it.
"""

from collections.abc import Callable, Mapping, Sequence

from msgspec import Struct, structs

from agent.clock import Age
from agent.sinks import Answer, Terms
from agent.spool.outbox import Settled, Submission
from agent.spool.schema import MAY_BE_THERE


class Verdict(Struct, frozen=True):
    """`settled` by sequence number. What is left goes on: as `groups` if there are any, else as the one it was."""

    settled: Mapping[int, tuple[Settled, str]]
    groups: tuple[tuple[int, ...], ...] = ()
    tainted: int | None = None
    outcome: str = ""


def judge(submission: Submission, answer: Answer, terms: Terms, began: int, age: Callable[[int], Age]) -> Verdict:
    """What an attempt that began at `began` comes to. `age`: of a time, when it was answered."""
    if answer.outcome == "duplicate" and not answer.items and terms.splits and len(submission.items) > 1:
        answer = structs.replace(answer, outcome="split", definite=True)  # of one of them, it does not say which
    refused = answer.definite or not answer.left  # whatever it does not name was surely not taken
    settled: dict[int, tuple[Settled, str]] = {}
    open_: list[int] = []
    unsure = False
    for item in submission.items:
        outcome, why = answer.items.get(item.seq, (answer.outcome, answer.why))
        match outcome:
            case "delivered" | "conflict":
                settled[item.seq] = outcome, why
            case "rejected":
                settled[item.seq] = _rejected(submission, why)
            case "duplicate":  # of an earlier attempt of ours; without one, somebody else used our id
                settled[item.seq] = ("conflict" if submission.tainted is None else "duplicate"), why
            case _:
                open_.append(item.seq)
                unsure |= not refused and (outcome == "ambiguous" or item.seq not in answer.items)
    tainted = began if unsure and submission.tainted is None else submission.tainted
    if open_ and answer.outcome == "split" and len(submission.items) == 1:
        return Verdict({open_[0]: _rejected(submission, answer.why)}, (), tainted, "rejected")
    if open_ and forgotten(tainted, terms, age):
        why = f"{answer.why.rstrip('.')}; the sink may have it, and no longer knows its id"
        return Verdict(settled | dict.fromkeys(open_, ("ambiguous", why)), (), tainted, "ambiguous")
    if open_ and answer.outcome == "split":
        if terms.splits and (refused or terms.key == "record"):
            return Verdict(settled, _halves(open_), tainted, "split")
        if refused:
            return Verdict(settled | dict.fromkeys(open_, _rejected(submission, answer.why)), (), tainted, "rejected")
        why = f"{answer.why.rstrip('.')}; it cannot be sent in parts, and some of it may have been taken"
        return Verdict(settled | dict.fromkeys(open_, ("ambiguous", why)), (), tainted, "ambiguous")
    return Verdict(settled, (), tainted, answer.outcome)


def forgotten(tainted: int | None, terms: Terms, age: Callable[[int], Age]) -> bool | None:
    """Whether the sink may no longer know the ids of what may have left at `tainted`.

    None: that depends on a step of the clock which is yet to be confirmed.
    """
    if tainted is None or terms.dedupe_horizon is None:
        return False
    if terms.dedupe_horizon == 0:
        return True
    old, horizon = age(tainted), terms.dedupe_horizon * 9 // 10
    return old.least >= horizon or (None if old.most >= horizon else False)


def _rejected(submission: Submission, why: str) -> tuple[Settled, str]:
    """Refused for good. Whoever decides on it must know whether it may be there all the same."""
    return "rejected", why if submission.tainted is None else f"{why.rstrip('.')}; {MAY_BE_THERE}"


def _halves(seqs: Sequence[int]) -> tuple[tuple[int, ...], ...]:
    middle = (len(seqs) + 1) // 2
    return tuple(half for half in (tuple(seqs[:middle]), tuple(seqs[middle:])) if half)
