"""Tool calls in what the servers stream."""

import pytest

from chat.events import TextDelta, ToolDelta, ToolStarted
from chat.ports import Finished
from chat.upstream import (
    MAX_CALLS,
    MAX_NAME_LENGTH,
    CompletionDecoder,
)
from tests.decoding import parts_of
from tests.upstream import chunk, finish, sse


def fragment(arguments: object = None, **members: object) -> bytes:
    """A chunk with a piece of a tool call."""
    name = members.pop("name", None)
    function = {"name": name, "arguments": arguments}
    call = {key: value for key, value in members.items() if value is not None} | {"function": function}
    return sse({"choices": [{"delta": {"tool_calls": [call]}}]})


def test_tool_calls_come_in_pieces_and_several_at_a_time() -> None:
    parts = parts_of(
        chunk("Well."),
        fragment("", index=0, id="call_1", name="f"),
        fragment('{"a":', index=0),
        fragment("{}", index=1, id="call_2", name="g"),
        fragment(" 1}", index=0),
        finish("tool_calls"),
    )
    assert parts == [
        TextDelta("Well."),
        ToolStarted("call_1", "f"),
        ToolDelta("call_1", '{"a":'),
        ToolStarted("call_2", "g"),
        ToolDelta("call_2", "{}"),
        ToolDelta("call_1", " 1}"),
        Finished("tool_calls"),
    ]


def test_calls_without_an_index_are_told_apart_by_their_ids_or_names() -> None:
    whole = [fragment('{"a": 1}', id="call_1", name="f"), fragment('{"a": 2}', id="call_2", name="f")]
    assert parts_of(*whole, finish("stop"))[:-1] == [
        ToolStarted("call_1", "f"),
        ToolDelta("call_1", '{"a": 1}'),
        ToolStarted("call_2", "f"),
        ToolDelta("call_2", '{"a": 2}'),
    ]
    nameless = parts_of(fragment({"a": "é"}, name="f"), fragment(name="f"), fragment("{}"), finish("stop"))
    first, delta, second, more, _ = nameless
    assert isinstance(first, ToolStarted)
    assert isinstance(second, ToolStarted)
    assert delta == ToolDelta(first.call_id, '{"a": "\\u00e9"}')
    assert more == ToolDelta(second.call_id, "{}")
    assert first.call_id != second.call_id


def test_calls_that_share_an_index_are_told_apart_by_their_ids() -> None:
    parts = parts_of(
        fragment("", index=0, id="call_1", name="f"),
        fragment("{}", index=0, id=""),
        fragment("", index=0, id="call_2", name="f"),
        fragment("[]", index=0),
        finish(),
    )
    assert parts[:-1] == [
        ToolStarted("call_1", "f"),
        ToolDelta("call_1", "{}"),
        ToolStarted("call_2", "f"),
        ToolDelta("call_2", "[]"),
    ]


def test_call_whose_index_or_id_changes_stays_one() -> None:
    moved = [fragment(text, index=index, id="call_1", name="f") for index, text in enumerate("{ }")]
    renamed = [fragment("{", index=0, id="call_1", name="f"), fragment("}", index=0, id="call_2")]
    unmarked = [fragment("{", id="call_1", name="f"), fragment("}", id="call_2")]
    for fragments, text in (moved, "{ }"), (renamed, "{}"), (unmarked, "{}"):
        started, *deltas, _ = parts_of(*fragments, finish())
        assert started == ToolStarted("call_1", "f")
        assert deltas == [ToolDelta("call_1", piece) for piece in text]


def test_pieces_of_an_ignored_call_go_to_no_other() -> None:
    parts = parts_of(
        fragment("{}", id="call_1", name="f"), fragment("[", id="call_2", index=1), fragment("]"), finish()
    )
    assert parts[:-1] == [ToolStarted("call_1", "f"), ToolDelta("call_1", "{}")]


@pytest.mark.parametrize("given", [None, "", "call_0", "an id", "\n", "x" * 65])
def test_id_that_cannot_be_one_is_replaced_by_what_every_server_takes(given: str | None) -> None:
    decoder = CompletionDecoder(taken={"call_0"})
    [started] = decoder.feed(fragment(index=0, id=given, name="f"))
    assert isinstance(started, ToolStarted)
    assert started.call_id.isalnum()
    assert len(started.call_id) == 9


def test_calls_without_a_name_and_more_than_anybody_needs_are_ignored() -> None:
    assert parts_of(fragment("{}", index=0, id="call_1"), finish()) == [Finished("stop")]
    odd = [7, "odd", {"index": 0}, {"index": 0, "function": "f"}]
    assert parts_of(sse({"choices": [{"delta": {"tool_calls": odd}}]}), finish()) == [Finished("stop")]
    many = [fragment(index=index, name="f") for index in range(MAX_CALLS + 9)]
    assert len(parts_of(*many, finish())) == MAX_CALLS + 1
    [started, _] = parts_of(fragment(index=0, name="f" * 999), finish())
    assert isinstance(started, ToolStarted)
    assert len(started.name) == MAX_NAME_LENGTH
