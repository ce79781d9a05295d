"""What a reply means, and how long its server asks to wait: nothing unlisted is ever believed."""

from collections.abc import Mapping

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.model import NS_PER_S
from agent.sinks.meaning import COMMON, DELIVERED, LONGEST_WAIT, Meaning, Reply, asked_to_wait, http_date, judge

NOON = "Mon, 23 Nov 2026 12:00:00 GMT"
TABLE: Mapping[int, Meaning] = {204: DELIVERED}


@given(status=st.integers(200, 599))
def test_only_listed_statuses_are_definite_or_delivered(status: int) -> None:
    """L10: anything not on a list of definite refusals is ambiguous, a redirect aside, which nobody took."""
    answer = judge(Reply(status, httpx.Headers(), b""), TABLE, str)
    listed = status in TABLE or status in COMMON or 300 <= status < 400
    assert (answer.outcome == "ambiguous") is not listed
    assert not answer.definite or listed


@pytest.mark.parametrize(
    ("asked", "date", "seconds"),
    [
        ("7", None, 7),
        ("0", None, 0),
        (" 7 ", NOON, 7),
        ("Mon, 23 Nov 2026 12:00:30 GMT", NOON, 30),
        ("Mon, 23 Nov 2026 11:00:00 GMT", NOON, 0),
        ("Mon, 23 Nov 2026 12:00:30 GMT", None, None),  # against no clock but the server's own
        ("-7", NOON, None),
        ("soon", NOON, None),
        ("99999999999999999999", NOON, LONGEST_WAIT // NS_PER_S),
        ("Mon, 23 Nov 2099 12:00:30 GMT", NOON, LONGEST_WAIT // NS_PER_S),
        ("\u0667", NOON, None),
    ],
)
def test_a_server_that_asks_to_wait_is_heard(asked: str, date: str | None, seconds: int | None) -> None:
    """Seconds, or a date measured by the server's own clock; never longer than a day."""
    headers = {"retry-after": asked} | ({} if date is None else {"date": date})
    assert asked_to_wait(headers) == (None if seconds is None else seconds * NS_PER_S)


@given(st.text())
def test_no_header_breaks_the_reading_of_a_date(text: str) -> None:
    """Whatever a server calls a date is one, or none."""
    found = http_date(text)
    assert found is None or isinstance(found, int)
