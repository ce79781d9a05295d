"""The proof is of this code: every kind of fault that the campaign has, with numbers that add up."""

import pytest

from tests.campaign import families
from tests.campaign.proof import COLUMNS
from tests.campaign.row import ROWS
from tests.docs.pages import page, section, table

PROOF = page("docs/proof.md")


@pytest.fixture(scope="module")
def proved() -> dict[str, list[int]]:
    """The numbers of each row of the page, by its name."""
    assert families
    rows = table(section(PROOF, "What struck, and what it cost"))
    return {name: [int(number.replace(",", "")) for number in numbers] for name, _, *numbers in rows}


def test_every_kind_of_fault_was_run(proved: dict[str, list[int]]) -> None:
    """A new row without a run is noticed; so is one that is gone."""
    assert [*proved] == [*ROWS, "all"]
    assert all(trials > 0 for trials, *_ in proved.values())


def test_its_numbers_add_up(proved: dict[str, list[int]]) -> None:
    """The last line is the sum of the others."""
    *rows, total = proved.values()
    assert all(len(row) == len(COLUMNS) for row in rows)
    assert total == [sum(column) for column in zip(*rows, strict=True)]


def test_what_each_row_says_is_what_the_code_says() -> None:
    """In the same words."""
    said = {name: says for name, says, *_ in table(section(PROOF, "What struck, and what it cost"))}
    assert {name: row.says for name, row in ROWS.items()} == {
        name: says for name, says in said.items() if name != "all"
    }
