"""Laws L9 and L10, decided: which records an attempt settles, what may be sent again, and until when."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from agent.clock import NOBODY_KNOWS, Age, Moment
from agent.delivery.judgement import Verdict, forgotten, judge
from agent.sinks import Answer, Outcome, Terms
from agent.spool.outbox import Submission
from tests.delivery.fakes import HOUR, S, submission
from tests.spool.ledger import NOON

FOR_EVER = Terms(max_batch=10)
NEVER = Terms(max_batch=10, dedupe_horizon=0)
NATURAL = Terms(max_batch=10, key="natural")
WHOLE = Terms(max_batch=10, splits=False)
LATER = NOON + S

LOST = Answer(outcome="ambiguous", why="time-out")
REFUSED = Answer(outcome="retry", why="429", definite=True)
UNSENT = Answer(outcome="retry", why="connection refused", left=False)
SPLIT = Answer(outcome="split", why="400", definite=True)
UNSURE_SPLIT = Answer(outcome="split", why="400")


def at(now: int) -> Callable[[int], Age]:
    """How old things are then."""
    return Moment(now, now).age


def judged(one: Submission, answer: Answer, terms: Terms = FOR_EVER, now: int = LATER) -> Verdict:
    """Of an attempt that began at noon."""
    return judge(one, answer, terms, NOON, at(now))


def settled(verdict: Verdict) -> dict[int, str]:
    """Sequence number → outcome."""
    return {seq: outcome for seq, (outcome, _) in verdict.settled.items()}


@pytest.mark.parametrize(
    ("outcome", "tainted", "wanted"),
    [
        ("delivered", None, "delivered"),
        ("delivered", NOON, "delivered"),
        ("duplicate", None, "conflict"),
        ("duplicate", NOON - HOUR, "duplicate"),
        ("conflict", None, "conflict"),
        ("conflict", NOON, "conflict"),
        ("rejected", None, "rejected"),
        ("rejected", NOON, "rejected"),
        ("retry", None, None),
        ("ambiguous", None, None),
    ],
)
def test_an_outcome_becomes(outcome: Outcome, tainted: int | None, wanted: str | None) -> None:
    """L9: a duplicate answer is delivery only where an earlier attempt of ours may have arrived."""
    verdict = judged(submission([1], tainted=tainted), Answer(outcome=outcome, why="x"))
    assert settled(verdict) == ({} if wanted is None else {1: wanted})


def test_a_duplicate_after_refusals_only_is_somebody_elses() -> None:
    """L9: attempts that surely were not taken make no id known."""
    one = submission([1], attempts=3)
    assert settled(judged(one, Answer(outcome="duplicate", why="409"))) == {1: "conflict"}


@pytest.mark.parametrize(
    ("answer", "taints"),
    [
        (LOST, True),
        (Answer(outcome="retry", why="503"), True),
        (REFUSED, False),
        (UNSENT, False),
        (SPLIT, False),
        (UNSURE_SPLIT, True),
        (Answer(outcome="ambiguous", why="reset", left=False), False),
        (Answer(outcome="delivered", why="207", items={1: ("ambiguous", "?")}), True),
        (Answer(outcome="delivered", why="207", items={1: ("retry", "throttled")}), False),
        (Answer(outcome="retry", why="503", items={2: ("delivered", "ok")}), True),
        (Answer(outcome="retry", why="503", items={1: ("retry", "x"), 2: ("retry", "x")}), False),
    ],
)
def test_what_may_have_arrived_taints_from_when_its_attempt_began(answer: Answer, *, taints: bool) -> None:
    """L10: whatever has left and is no definite refusal; an item named with `retry` was read, and not taken."""
    verdict = judged(submission([1, 2]), answer)
    assert verdict.tainted == (NOON if taints else None)


@pytest.mark.parametrize("answer", [LOST, REFUSED, UNSENT, SPLIT, UNSURE_SPLIT])
def test_a_taint_stays_with_the_time_of_the_first(answer: Answer) -> None:
    """L10: sticky. A later refusal says nothing of the attempt before it."""
    assert judged(submission([1, 2], tainted=NOON - HOUR), answer).tainted == NOON - HOUR


def test_the_horizon_runs_from_the_first_tainted_attempt_less_a_tenth() -> None:
    """L10: not from the last one, or it would never end."""
    terms = Terms(max_batch=10, dedupe_horizon=10 * HOUR)
    one = submission([1], tainted=NOON - 9 * HOUR)
    verdict = judge(one, LOST, terms, NOON - S, at(NOON - S))
    assert (settled(verdict), verdict.tainted) == ({}, NOON - 9 * HOUR)
    verdict = judge(one, LOST, terms, NOON - S, at(NOON))
    assert settled(verdict) == {1: "ambiguous"}
    assert "no longer knows its id" in verdict.settled[1][1]


def test_a_sink_that_knows_no_ids_is_never_sent_a_thing_twice() -> None:
    """Horizon 0: ambiguous at once; but a definite refusal may be tried again."""
    assert settled(judged(submission([1, 2]), LOST, NEVER, NOON)) == {1: "ambiguous", 2: "ambiguous"}
    assert settled(judged(submission([1, 2]), UNSURE_SPLIT, NEVER, NOON)) == {1: "ambiguous", 2: "ambiguous"}
    assert judged(submission([1, 2]), REFUSED, NEVER) == Verdict({}, (), None, "retry")
    assert judged(submission([1, 2]), UNSENT, NEVER) == Verdict({}, (), None, "retry")


def test_a_sink_that_knows_ids_for_ever_is_asked_for_ever() -> None:
    """L8: no age limit, no retry limit."""
    assert not forgotten(NOON, FOR_EVER, at(NOON + 10_000 * HOUR))
    assert not forgotten(None, NEVER, at(NOON))
    assert forgotten(NOON, NEVER, at(NOON))


def test_each_record_has_its_own_fate() -> None:
    """L9: one bad record holds up no other, and what the answer does not name shares the rest's."""
    items: dict[int, tuple[Outcome, str]] = {2: ("rejected", "no such customer"), 4: ("retry", "throttled")}
    verdict = judged(submission([1, 2, 3, 4]), Answer(outcome="delivered", why="207", items=items))
    assert settled(verdict) == {1: "delivered", 2: "rejected", 3: "delivered"}
    assert (verdict.groups, verdict.tainted) == ((), None)


def test_an_answer_about_records_that_were_not_sent_settles_nothing_of_them() -> None:
    """A back end may say anything."""
    verdict = judged(submission([1]), Answer(outcome="retry", why="x", definite=True, items={9: ("delivered", "ok")}))
    assert verdict == Verdict({}, (), None, "retry")


@pytest.mark.parametrize(("seqs", "groups"), [([1, 2], ((1,), (2,))), ([1, 2, 5, 6, 9], ((1, 2, 5), (6, 9)))])
def test_a_batch_refused_whole_goes_on_in_halves(seqs: list[int], groups: tuple[tuple[int, ...], ...]) -> None:
    """So that one poison record is found in as many steps as its batch has doublings."""
    assert judged(submission(seqs), SPLIT) == Verdict({}, groups, None, "split")


def test_only_what_is_open_is_split() -> None:
    """What the answer settles by name does not go on."""
    answer = structs.replace(SPLIT, items={2: ("rejected", "this one")})
    verdict = judged(submission([1, 2, 3]), answer)
    assert (settled(verdict), verdict.groups) == ({2: "rejected"}, ((1,), (3,)))


def test_a_batch_that_is_recognised_as_one_is_never_split() -> None:
    """Where the batch is the key: refused whole it is rejected; unsure, it is ambiguous. Both wait for a person."""
    assert settled(judged(submission([1, 2]), SPLIT, WHOLE)) == {1: "rejected", 2: "rejected"}
    assert settled(judged(submission([1, 2]), UNSURE_SPLIT, WHOLE)) == {1: "ambiguous", 2: "ambiguous"}


def test_a_batch_is_split_after_an_unsure_refusal_only_where_single_records_are_known_again() -> None:
    """DESIGN §7: the parts might be added to what was taken; a sink that knows our ids discards those itself."""
    assert judged(submission([1, 2]), UNSURE_SPLIT).groups == ((1,), (2,))
    assert settled(judged(submission([1, 2]), UNSURE_SPLIT, NATURAL)) == {1: "ambiguous", 2: "ambiguous"}
    assert judged(submission([1, 2]), SPLIT, NATURAL).groups == ((1,), (2,))
    soon = Terms(max_batch=10, dedupe_horizon=HOUR)
    assert judged(submission([1, 2], tainted=NOON - 2 * HOUR), UNSURE_SPLIT, soon).groups == ()


@pytest.mark.parametrize("answer", [SPLIT, UNSURE_SPLIT])
@pytest.mark.parametrize("terms", [FOR_EVER, NEVER, NATURAL, WHOLE])
@pytest.mark.parametrize("tainted", [None, NOON - HOUR])
def test_a_record_that_is_refused_alone_is_rejected(answer: Answer, terms: Terms, tainted: int | None) -> None:
    """The back end has said what is wrong with this very one; whoever decides learns of earlier attempts."""
    verdict = judged(submission([1], tainted=tainted), answer, terms)
    assert settled(verdict) == {1: "rejected"}
    assert ("an earlier attempt may have arrived" in verdict.settled[1][1]) == (tainted is not None)


outcomes = st.sampled_from(get_args(Outcome))
answers = st.builds(
    Answer,
    outcome=outcomes | st.just("split"),
    why=st.just("x"),
    items=st.dictionaries(st.integers(1, 5), st.tuples(outcomes, st.just("y")), max_size=5),
    left=st.booleans(),
    definite=st.booleans(),
)
every_terms = st.builds(
    Terms,
    max_batch=st.just(10),
    dedupe_horizon=st.sampled_from([None, 0, 20 * S]),
    key=st.sampled_from(["record", "natural"]),
    splits=st.booleans(),
)


@dataclass
class Told:
    """What became of one submission over many attempts."""

    verdicts: list[tuple[Submission, Answer, int, Verdict]]


def attempts(script: list[tuple[Answer, int]], terms: Terms) -> Told:
    """Each answer in turn, of whatever is left after the one before; a split goes on with its first part."""
    one, now, told = submission(range(1, 6)), NOON, Told([])
    for answer, pause in script:
        began, now = now, now + S
        verdict = judge(one, answer, terms, began, at(now))
        told.verdicts.append((one, answer, began, verdict))
        keep = verdict.groups[0] if verdict.groups else {i.seq for i in one.items} - verdict.settled.keys()
        items = tuple(item for item in one.items if item.seq in keep)
        one = structs.replace(one, items=items, tainted=verdict.tainted, attempts=one.attempts + 1)
        now += pause * S
        if not items or forgotten(one.tainted, terms, at(now)):
            break
    return told


@given(st.lists(st.tuples(answers, st.integers(0, 8)), max_size=12), every_terms)
def test_over_any_answers_the_laws_hold(script: list[tuple[Answer, int]], terms: Terms) -> None:
    """L9, L10: nobody is forgotten, a taint is sticky and of the first, and nothing unknown is sent again."""
    first: int | None = None
    for one, answer, began, verdict in attempts(script, terms).verdicts:
        seqs = {item.seq for item in one.items}
        grouped = [seq for group in verdict.groups for seq in group]
        assert verdict.settled.keys() <= seqs
        assert sorted(grouped) == (sorted(seqs - verdict.settled.keys()) if grouped else [])
        assert one.tainted == first
        open_ = seqs - verdict.settled.keys()
        unnamed = [seq for seq in open_ if answer.items.get(seq, ("ambiguous", ""))[0] == "ambiguous"]
        turned_away = answer.definite or (answer.outcome == "duplicate" and not answer.items)
        if first is None and unnamed and answer.left and not turned_away:
            first = began
        if open_:
            assert verdict.tainted == first
        outcomes = {outcome for outcome, _ in verdict.settled.values()}
        assert "duplicate" not in outcomes or one.tainted is not None
        assert not open_ or terms.dedupe_horizon != 0 or verdict.tainted is None
        assert not verdict.groups or terms.splits
        assert not verdict.groups or turned_away or not answer.left or terms.key == "record"
        assert all(verdict.groups)


@pytest.mark.parametrize(
    ("age", "gone"),
    [
        (Age(0, 0), False),
        (Age(9 * HOUR - 1, 9 * HOUR - 1), False),
        (Age(0, 9 * HOUR), None),
        (Age(0, NOBODY_KNOWS), None),
        (Age(9 * HOUR, NOBODY_KNOWS), True),
        (Age(NOBODY_KNOWS, NOBODY_KNOWS), True),
    ],
)
def test_what_may_be_too_old_by_a_clock_that_is_not_confirmed_is_neither_known_nor_forgotten(
    age: Age, *, gone: bool | None
) -> None:
    """L10: it waits. A sink that knows nothing, or everything, needs no clock."""
    assert forgotten(NOON, Terms(max_batch=1, dedupe_horizon=10 * HOUR), lambda _: age) is gone
    assert forgotten(NOON, NEVER, lambda _: age)
    assert not forgotten(NOON, FOR_EVER, lambda _: age)


@pytest.mark.parametrize("stepped", [-24 * HOUR, 24 * HOUR])
def test_a_step_of_the_clock_neither_stretches_a_horizon_nor_has_anything_sent_again(stepped: int) -> None:
    """L10: billing time steps; what may have left is as old as before."""
    moment = Moment(NOON + HOUR + stepped, NOON + HOUR)
    assert forgotten(NOON, Terms(max_batch=1, dedupe_horizon=HOUR), moment.age)
    assert not forgotten(NOON, Terms(max_batch=1, dedupe_horizon=2 * HOUR), moment.age)


@pytest.mark.parametrize("tainted", [None, NOON - HOUR])
def test_a_batch_that_is_called_a_duplicate_is_split_until_it_is_known_which(tainted: int | None) -> None:
    """L9: the others may have been turned away with the one that was known: they were lost as delivered."""
    known = Answer(outcome="duplicate", why="409")
    verdict = judged(submission([1, 2, 3], tainted=tainted), known)
    assert verdict == Verdict({}, ((1, 2), (3,)), tainted, "split")
    named = structs.replace(known, outcome="delivered", items={2: ("duplicate", "seen")})
    assert settled(judged(submission([1, 2], tainted=NOON), named)) == {1: "delivered", 2: "duplicate"}
    whole = judged(submission([1, 2], tainted=tainted), known, WHOLE)
    assert set(settled(whole).values()) == {"conflict" if tainted is None else "duplicate"}


def test_what_is_refused_as_a_batch_and_may_be_there_is_looked_for_in_parts() -> None:
    """L9, where ids are forgotten and can be read: one poison record would else be sent with its batch for ever."""
    verdict = judged(submission([1, 2, 3]), UNSURE_SPLIT, structs.replace(NEVER, visibility_delay=HOUR))
    assert (verdict.settled, verdict.groups, verdict.tainted) == ({}, ((1, 2), (3,)), NOON)
    verdict = judged(submission([1, 2, 3]), LOST, structs.replace(NEVER, visibility_delay=HOUR))
    assert (verdict.settled, verdict.groups, verdict.outcome) == ({}, (), "ambiguous")
