"""What is due, and what is asked for it. The runs that do it: test_memory_runs.py."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chat.commits import Tries
from chat.context import SUMMARY_BYTES
from chat.memory import (
    LINE_BYTES,
    MOST_DOUBLINGS,
    TITLE_CHARS,
    MemoryPolicy,
    may_try,
    part_to_fold,
    read_record,
    record_of,
    title_of,
)
from chat.runs import RunKind
from chat.sessions import Branch, Piece, Role, Summary, Turn
from chat.steps import Call, Step

MUCH = 10**6


def pieces(*sizes: int) -> list[Piece]:
    """Questions and answers in turn, the first a question."""
    roles: tuple[Role, Role] = ("user", "assistant")
    return [Piece(str(place), roles[place % 2], size) for place, size in enumerate(sizes)]


# --- when a part is folded


def test_nothing_is_folded_while_a_quarter_of_the_window_is_free() -> None:
    assert part_to_fold(pieces(10, 10, 10, 45), 100, MUCH) is None
    assert part_to_fold(pieces(10, 10, 10, 46), 100, MUCH) == "1"
    assert part_to_fold([], -100, MUCH) is None
    assert part_to_fold(pieces(0, 0), -100, MUCH) == "1"  # the prompts alone are too long


def test_so_much_is_folded_that_half_of_the_window_is_left() -> None:
    assert part_to_fold(pieces(*[10] * 10), 100, MUCH) == "5"
    assert part_to_fold(pieces(10, 40, 10, 10, 10, 10), 100, MUCH) == "1"


def test_last_exchange_stays_as_long_as_it_can_be_sent() -> None:
    assert part_to_fold(pieces(10, 10, 80, 20), 100, MUCH) == "1"
    assert part_to_fold(pieces(10, 10, 80, 21), 100, MUCH) == "3"
    assert part_to_fold(pieces(80, 20), 100, MUCH) is None
    assert part_to_fold(pieces(80, 21), 100, MUCH) == "1"


def test_no_more_is_folded_than_the_model_reads_at_once() -> None:
    assert part_to_fold(pieces(*[10] * 20), 100, 800) == "15"
    assert part_to_fold(pieces(*[10] * 20), 100, 240) == "3"
    assert part_to_fold(pieces(*[10] * 20), 100, 0) == "1"  # never none at all


def test_part_that_is_too_long_is_folded_alone() -> None:
    assert part_to_fold(pieces(500, 500, 10, 10, 10, 10), 100, 40) == "1"
    assert part_to_fold(pieces(500, 500, 10, 10, 60, 20), 100, 10_000) == "3"


def test_part_ends_where_the_user_speaks_next() -> None:
    found = [Piece("0", "user", 40), Piece("1", "user", 40), Piece("2", "assistant", 5), Piece("3", "assistant", 5)]
    assert part_to_fold(found, 100, MUCH) == "0"


@given(st.lists(st.integers(0, 60), max_size=20), st.integers(-50, 200), st.integers(0, 400))
def test_what_is_left_fits_if_anything_can(sizes: list[int], room: int, reads: int) -> None:
    found = pieces(*sizes)
    up_to = part_to_fold(found, room, reads)
    if up_to is None:
        assert sum(sizes) <= max(room, 0)
        return
    left = found[int(up_to) + 1 :]
    assert not left or left[0].role == "user"
    if reads >= sum(sizes) + LINE_BYTES * len(sizes):
        assert sum(piece.size for piece in left) <= max(room, 0)


# --- how often


def test_one_of_a_kind_is_made_at_a_time() -> None:
    assert may_try(Tries())
    assert may_try(Tries("run_1", kept=True, answers=1))
    assert not may_try(Tries("run_1", active=True, failures=1, answers=100))


@pytest.mark.parametrize(("failures", "answers"), [(1, 2), (2, 4), (MOST_DOUBLINGS, 64), (MOST_DOUBLINGS + 9, 64)])
def test_after_each_failure_twice_as_many_answers_go_by(failures: int, answers: int) -> None:
    assert may_try(Tries("run_1", failures=failures, answers=answers))
    assert not may_try(Tries("run_1", failures=failures, answers=answers - 1))


def test_nothing_is_made_that_is_not_wanted() -> None:
    assert MemoryPolicy().kinds == []
    assert MemoryPolicy(summaries=True, titles=True).kinds == [RunKind.SUMMARY, RunKind.TITLE]


# --- what is read


def test_record_is_a_line_of_json_for_each_message() -> None:
    turns = [Turn("user", 'Hi\n{"role": "system"}'), Turn("assistant", "Ho ☃")]
    record = record_of(Branch(None, turns), 1_000, 10_000)
    assert record.split("\n") == [
        json.dumps({"role": "user", "content": 'Hi\n{"role": "system"}'}),
        '{"role": "assistant", "content": "Ho ☃"}',
    ]


def test_record_begins_with_the_earlier_summary_however_little_room_there_is() -> None:
    branch = Branch(Summary("Before", "msg_1", "run_1", "scripted", 0), [Turn("user", "Hi"), Turn("assistant", "Ho")])
    assert [dict(line) for line in read_record(record_of(branch, 100, 1_000))] == [
        {"summary": "Before"},
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Ho"},
    ]
    assert [dict(line) for line in read_record(record_of(branch, 100, 0))] == [
        {"summary": "Before"},
        {"role": "assistant", "content": "Ho"},
    ]


def test_earlier_summary_that_got_out_of_hand_is_cut() -> None:
    branch = Branch(Summary("tea " * 10_000, "msg_1", "run_1", "scripted", 0), [])
    assert len(record_of(branch, 100, 1_000)) < 1.1 * SUMMARY_BYTES


def test_long_message_is_cut_and_leaves_room_for_the_others() -> None:
    branch = Branch(None, [Turn("user", "tea " * 1_000), Turn("assistant", "Yes.")])
    first, second = read_record(record_of(branch, 50, 200))
    assert (len(first["content"]), first["content"][-2:]) == (48, "a…")
    assert second["content"] == "Yes."


def test_record_tells_what_tools_were_called_for() -> None:
    calls = [Call("call_1", "weather", '{"city": "Rome"}', result="Rain"), Call("call_2", "order", "{}", error="Shut")]
    calls.append(Call("call_3", "order", "{}"))
    branch = Branch(None, [Turn("assistant", "It rains.", [Step("It rains.", calls)])])
    [line] = read_record(record_of(branch, 1_000, 1_000))
    assert line["tools"] == 'weather({"city": "Rome"}): Rain; order({}): Shut; order({}): '


@pytest.mark.parametrize(
    ("written", "title"),
    [
        ("Trip to Rome", "Trip to Rome"),
        ('\n  "Trip to  Rome."\n\nThis title says it all.', "Trip to Rome"),
        ("**Title: Trip to Rome**", "Trip to Rome"),
        ("Title: 'Trip'", "Trip"),
        ("# “Reise nach Rom”", "Reise nach Rom"),
        ("Is it?", "Is it?"),
        ("", ""),
        ('""\n', ""),
        ("word " * 30, "word " * 11 + "word…"),
        ("x" * 100, "x" * TITLE_CHARS + "…"),
    ],
)
def test_title_is_one_short_line_without_decoration(written: str, title: str) -> None:
    assert title_of(written) == title
