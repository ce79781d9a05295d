"""Label selectors mean what they mean to Kubernetes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.selector import parse, selects, written

LABELS = {"tenant": "acme", "tier": "gold", "billing/customer": "acme-1", "empty": ""}


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("tenant=acme", True),
        ("tenant==acme", True),
        ("tenant = acme , tier=gold", True),
        ("tenant=globex", False),
        ("tenant!=globex", True),
        ("missing!=anything", True),  # as kubectl has it
        ("missing notin (a, b)", True),
        ("tier in (silver, gold)", True),
        ("tier notin (silver,gold)", False),
        ("tenant", True),
        ("missing", False),
        ("!missing", True),
        ("!tenant", False),
        ("billing/customer=acme-1,!trial", True),
        ("empty=", True),
        ("empty in (,x)", True),
        ("tenant=", False),
    ],
)
def test_each_operator(text: str, holds: bool) -> None:
    """Equality, sets, presence, absence; a comma is an and."""
    assert selects(text, LABELS) is holds
    assert selects(written(text), LABELS) is holds
    assert selects(text, {f"x.{key}": value for key, value in LABELS.items()}, "x.") is holds


@pytest.mark.parametrize(
    "text", ["", ",", "a=b,", "a=b c", "a in b", "a in (b", "a=b=c", "-a", "a/b/c=d", "a=b,,c=d", "a in (b c)", "=b"]
)
def test_what_cannot_be_read_is_refused(text: str) -> None:
    """With the place from which on it cannot."""
    with pytest.raises(ValueError, match=r"selector|value"):
        parse(text)


words = st.sampled_from(["a", "b", "c"])
requirements = st.one_of(
    st.builds("{}={}".format, words, words),
    st.builds("{}!={}".format, words, words),
    st.builds("{} in ({},{})".format, words, words, words),
    st.builds("{} notin ({},{})".format, words, words, words),
    words,
    words.map("!{}".format),
)


@given(st.lists(requirements, min_size=1, max_size=4), st.dictionaries(words, words))
def test_one_spelling_means_the_same(parts: list[str], labels: dict[str, str]) -> None:
    """Ties are found by comparing spellings, so that order must not matter, nor repetition."""
    text = ",".join(parts)
    assert written(",".join([*reversed(parts), parts[0]])) == written(text)
    assert selects(written(text), labels) is selects(text, labels) is all(selects(part, labels) for part in parts)
