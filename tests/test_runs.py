import re
import time
from contextlib import suppress
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chat.errors import ChatError
from chat.events import Terminal
from chat.ids import ID, anonymous_user, new_id
from chat.runs import STATUS_OF, Cursor, RunStatus, parse_cursor

run_ids = st.from_regex(r"[A-Za-z0-9_-]{1,43}", fullmatch=True)


@given(run_ids, st.integers(0, 10**18 - 1))
def test_cursor_comes_back_as_it_was_sent(run_id: str, seq: int) -> None:
    assert parse_cursor(str(Cursor(run_id, seq))) == Cursor(run_id, seq)


@given(st.text() | st.from_regex(r"[a-z_]{0,50}\.?[0-9٣]{0,30}[\n ]?", fullmatch=True))
def test_cursor_is_read_or_refused(text: str) -> None:
    with suppress(ChatError):  # and nothing else
        cursor = parse_cursor(text)
        assert cursor.seq < 2**63  # what a store can count to
        assert (cursor.run_id, cursor.seq) == (text.partition(".")[0], int(text.partition(".")[2]))


@pytest.mark.parametrize(
    "text",
    ["", ".", "run_1", "run_1.", ".1", "run_1.-1", "run_1.1 ", "run_1.1\n", "run_1.1.1", "run 1.1", "run_1.٣", "1e3",
     "run_1." + "9" * 19, "run_1." + "9" * 5_000, "r" * 44 + ".1"],
)  # fmt: skip
def test_what_was_never_sent_is_no_cursor(text: str) -> None:
    with pytest.raises(ChatError) as caught:
        parse_cursor(text)
    assert caught.value.code == "invalid_cursor"


def test_status_is_active_until_the_end() -> None:
    assert {status for status in RunStatus if status.active} == {RunStatus.QUEUED, RunStatus.RUNNING}


def test_every_end_is_a_status() -> None:
    assert set(STATUS_OF) == set(get_args(Terminal))
    assert set(STATUS_OF.values()) == {status for status in RunStatus if not status.active}


def test_ids_sort_by_time(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    for milliseconds in (0, 1, 2**20, 1_700_000_000_000, 2**48 - 1):
        monkeypatch.setattr(time, "time_ns", lambda ns=milliseconds * 1_000_000: ns)
        made.append(new_id("run"))
    assert made == sorted(made)
    assert made[0].startswith("run_0000000000")


def test_ids_are_not_made_twice_and_fit_where_they_go() -> None:
    made = {new_id("run") for _ in range(1_000)}
    assert len(made) == 1_000
    for run_id in made:
        assert re.fullmatch(r"run_[0-7][0-9a-hjkmnp-tv-z]{25}", run_id)
        event_id = str(Cursor(run_id, 10**18 - 1))
        assert ID.fullmatch(event_id)  # else browsers send a preflight when they resume
        assert parse_cursor(event_id).run_id == run_id


def test_anonymous_users_differ() -> None:
    first, second = anonymous_user(), anonymous_user()
    assert re.fullmatch(r"anonymous-[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", first)
    assert first != second
