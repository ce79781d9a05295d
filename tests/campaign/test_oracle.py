"""The oracle itself: it finds what is lost, doubled or hidden, and takes no excuse that is none."""

from collections import Counter
from fractions import Fraction

import pytest

from tests.campaign.oracle import End, Ledger, Owner, Standing, Used, judge
from tests.campaign.row import Verdict

TRUTH: dict[Owner, Used] = {"acme": Used(10, 10)}


def standing(name: str, worth: int, state: str = "delivered", why: str = "") -> Standing:
    """One record of acme's."""
    return Standing(name, "acme", Fraction(worth), state, why)


def ledger(*records: Standing, carried: int = 0, gaps: tuple[str, ...] = ()) -> Ledger:
    """A spool."""
    return Ledger(records, {"acme": Fraction(carried)}, gaps)


def end(total: int, *names: str) -> End:
    """What arrived."""
    return End({"acme": Fraction(total)}, Counter(names))


def found(verdict: Verdict) -> tuple[int, int]:
    """Lost and doubled."""
    return verdict.lost, verdict.doubled


def test_what_arrived_once_is_right() -> None:
    """With what rounding carries on."""
    assert judge(TRUTH, end(9, "a", "b"), [ledger(standing("a", 4), standing("b", 5), carried=1)]) == Verdict(
        2, 0, 0, {}
    )


@pytest.mark.parametrize("state", ["ambiguous", "held", "rejected", "conflict"])
def test_what_waits_for_a_person_is_not_lost_if_it_says_why(state: str) -> None:
    """And is, if it does not."""
    verdict = judge(TRUTH, end(4, "a"), [ledger(standing("a", 4), standing("b", 6, state, "no answer"))])
    assert (found(verdict), verdict.stuck) == ((0, 0), {f"{state}: no answer": 1})
    assert found(judge(TRUTH, end(4, "a"), [ledger(standing("a", 4), standing("b", 6, state))])) == (1, 0)


def test_what_is_ambiguous_and_has_arrived_counts_once() -> None:
    """Nobody sent it again."""
    assert found(judge(TRUTH, end(10, "a"), [ledger(standing("a", 10, "ambiguous", "no answer"))])) == (0, 0)


def test_what_is_told_to_be_delivered_must_be_there() -> None:
    """Though the sum might be right."""
    assert found(judge(TRUTH, end(10, "a"), [ledger(standing("a", 10), standing("b", 3))])) == (3, 0)


@pytest.mark.parametrize(("total", "lost", "doubled"), [(7, 3, 0), (12, 0, 2)])
def test_sums_that_differ_are_lost_or_doubled(total: int, lost: int, doubled: int) -> None:
    """By so much."""
    assert found(judge(TRUTH, end(total, "a"), [ledger(standing("a", total))])) == (lost, doubled)


def test_an_id_that_arrived_twice_is_doubled() -> None:
    """And what it came to."""
    assert found(judge(TRUTH, end(20, "a", "a"), [ledger(standing("a", 10))])) == (0, 11)


def test_other_bytes_under_an_id_are_wrong() -> None:
    """L3."""
    came = End({"acme": Fraction(10)}, Counter(["a"]), frozenset(["a"]))
    assert found(judge(TRUTH, came, [ledger(standing("a", 10))])) == (0, 1)


def test_a_gap_excuses_only_where_a_fault_may_leave_one() -> None:
    """And never too much."""
    torn = ledger(standing("a", 7), gaps=("new_epoch",))
    assert found(judge(TRUTH, end(7, "a"), [torn], gaps=True)) == (0, 0)
    assert found(judge(TRUTH, end(7, "a"), [torn])) == (4, 0)
    assert found(judge(TRUTH, end(7, "a"), [torn], known=["new_epoch"])) == (3, 0)
    assert found(judge(TRUTH, end(12, "a"), [ledger(standing("a", 12), gaps=("new_epoch",))], gaps=True)) == (0, 2)


def test_what_is_still_owed_when_all_is_over_is_wrong() -> None:
    """It should have been sent."""
    assert found(judge(TRUTH, end(4, "a"), [ledger(standing("a", 4), standing("b", 6, "owed"))])) == (1, 0)


def test_a_copy_of_a_ledger_owes_nothing_twice() -> None:
    """A cloned disk: what one delivers the other holds."""
    copy = ledger(standing("a", 10, "held", "cloned"))
    assert found(judge(TRUTH, end(10, "a"), [ledger(standing("a", 10)), copy])) == (0, 0)


def test_after_a_power_cut_the_truth_lies_between_two_numbers() -> None:
    """Neither less nor more."""
    truth: dict[Owner, Used] = {"acme": Used(5, 8)}
    for total, wanted in ((4, (1, 0)), (5, (0, 0)), (8, (0, 0)), (9, (0, 1))):
        assert found(judge(truth, end(total, "a"), [ledger(standing("a", total))])) == wanted
