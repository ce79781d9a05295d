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

Where a sink no longer knows ids but can be read back, what may have arrived is looked for, once the connection is
surely closed and the time has passed after which usage is seen. What is found is delivered. Only two looks that both
see nothing, as far apart as that time is long, clear the doubt: one forward step of the clock makes either of them
early, never both. Whatever else comes of it is for a person.
"""

from collections.abc import Callable, Mapping, Sequence

from msgspec import Struct, structs

from agent.clock import Age, Moment
from agent.model import NS_PER_S
from agent.sinks import Answer, Look, Terms
from agent.spool.outbox import Settled, Submission
from agent.spool.schema import MAY_BE_THERE

APART = 120 * NS_PER_S  # least time between two looks: a kernel gives up a closed connection's last bytes before
UNREAD = 24 * 3600 * NS_PER_S  # what cannot be read back for so long is for a person


class Doubt(Struct, frozen=True):
    """Of a submission that may have arrived, while it is looked for. Times in ns of elapsed time.

    `since`: no byte of it has been on its way from then on. `empty`: when a first look began that saw nothing of it.
    """

    since: int
    empty: int | None = None
    unread: int = 0  # looks in a row that told nothing


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
        unknown = open_ if terms.visibility_delay is None else ()  # else it is looked for, in parts if need be
        halves = _halves(open_) if answer.outcome == "split" and terms.splits and not unknown else ()
        outcome = "split" if halves else "ambiguous"
        return Verdict(settled | dict.fromkeys(unknown, ("ambiguous", why)), halves, tainted, outcome)
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


def ripe(doubt: Doubt, delay: int, now: Moment) -> int | None:
    """From when on a look may count. None: how long ago it was is not known any more, and the wait begins anew."""
    last = doubt.since if doubt.empty is None else doubt.empty
    if last > now.elapsed or last < max(now.unsure_before, now.lost_before):
        return None
    return last + (delay if doubt.empty is None else max(delay, APART))


class Seen(Struct, frozen=True):
    """What follows from a look. What is not `settled` goes on: in `doubt`, or, cleared of it, to be sent again."""

    settled: Mapping[int, tuple[Settled, str]]
    doubt: Doubt | None
    outcome: str


def weigh(submission: Submission, look: Look, doubt: Doubt, began: int) -> Seen:
    """What a look that began at `began`, when it was ripe, comes to."""
    settled: dict[int, tuple[Settled, str]] = {}
    for item in submission.items:
        if item.seq in look.found:
            settled[item.seq] = "delivered", f"read back: {look.found[item.seq]}"
    left = [item.seq for item in submission.items if item.seq not in settled]
    outcome = "not read" if look.failed else "found" if settled else "not found"
    if settled and left and doubt.empty is not None:
        why = "others were seen only at the second look, so that not having seen this one tells nothing"
        return Seen(settled | dict.fromkeys(left, ("ambiguous", why)), None, outcome)
    if look.failed and began - doubt.since >= UNREAD:
        why = f"it may have arrived, and could not be read back for a day: {look.why}"
        return Seen(settled | dict.fromkeys(left, ("ambiguous", why)), None, outcome)
    if look.failed:
        return Seen(settled, structs.replace(doubt, unread=doubt.unread + 1), outcome)
    if doubt.empty is None:
        return Seen(settled, structs.replace(doubt, empty=began, unread=0), outcome)
    return Seen(settled, None, outcome)


def _rejected(submission: Submission, why: str) -> tuple[Settled, str]:
    """Refused for good. Whoever decides on it must know whether it may be there all the same."""
    return "rejected", why if submission.tainted is None else f"{why.rstrip('.')}; {MAY_BE_THERE}"


def _halves(seqs: Sequence[int]) -> tuple[tuple[int, ...], ...]:
    middle = (len(seqs) + 1) // 2
    return tuple(half for half in (tuple(seqs[:middle]), tuple(seqs[middle:])) if half)
