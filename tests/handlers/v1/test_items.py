from collections.abc import Mapping
from typing import Any

import pytest

from chat.errors import ChatError
from chat.sessions import Turn
from chat.steps import Call, Step
from handlers.v1.items import instructions_in, refuse_open_calls, turns_in, with_results
from handlers.v1.response_bodies import InputItem, ResponseBody

USER = {"role": "user", "content": "Hi"}


def items(*said: dict[str, Any]) -> list[InputItem]:
    found = ResponseBody.model_validate({"input": list(said)}).input
    assert isinstance(found, list)
    return found


def text(role: str, *texts: str, kind: str = "input_text") -> dict[str, Any]:
    return {"type": "message", "role": role, "content": [{"type": kind, "text": text} for text in texts]}


def call(call_id: str) -> dict[str, Any]:
    return {"type": "function_call", "id": f"fc_{call_id}", "call_id": call_id, "name": "look", "arguments": "{}"}


def output(call_id: str, said: object = "Sun") -> dict[str, Any]:
    return {"type": "function_call_output", "call_id": call_id, "output": said}


def made(call_id: str, **came: object) -> dict[str, Any]:
    return {"type": "mcp_call", "id": call_id, "server_label": "parley", "name": "order", "arguments": "{}", **came}


def test_conversation_becomes_turns_and_what_tells_the_model_instructions() -> None:
    said = items(
        {"role": "system", "content": "Be kind"},
        text("user", "Two ", "parts"),
        {"type": "reasoning", "id": "rs_1", "summary": []},
        text("assistant", "Yes", kind="output_text"),
        {"role": "developer", "content": "Be brief"},
        USER,
    )
    assert turns_in(said) == ({}, [Turn("user", "Two parts"), Turn("assistant", "Yes", []), Turn("user", "Hi")])
    assert instructions_in(said) == ["Be kind", "Be brief"]


def test_output_of_a_response_is_one_answer() -> None:
    said = items(
        USER,
        text("assistant", "I order. ", kind="output_text"),
        made("mcp_1", output="ordered"),
        made("mcp_2", error={"type": "mcp_tool_execution_error", "content": [{"type": "text", "text": "No tea."}]}),
        text("assistant", "Now ", kind="output_text"),
        {"type": "reasoning", "id": "rs_1", "summary": []},
        text("assistant", "you. ", kind="output_text"),
        call("a"),
        call("b"),
        text("assistant", "Wait.", kind="output_text"),  # said while it called
        output("b"),
        output("a", [{"type": "input_text", "text": "Ra"}, {"type": "input_text", "text": "in"}]),
        text("assistant", "It rains.", kind="output_text"),
        text("user", "And?"),
    )
    ours = Call("mcp_1", "order", "{}", "ordered"), Call("mcp_2", "order", "{}", None, "No tea.")
    theirs = Call("a", "look", "{}", "Rain"), Call("b", "look", "{}", "Sun")
    steps = [Step("I order. ", ours), Step("Now you. Wait.", theirs)]
    assert turns_in(said) == (
        {},
        [
            Turn("user", "Hi"),
            Turn("assistant", "I order. Now you. Wait.", steps),
            Turn("assistant", "It rains.", []),
            Turn("user", "And?"),
        ],
    )


def test_outputs_before_everything_are_those_of_the_answer_that_is_continued() -> None:
    assert turns_in(items(output("a"), output("b", "Rain"))) == ({"a": "Sun", "b": "Rain"}, [])
    assert turns_in(items(output("a"), USER)) == ({"a": "Sun"}, [Turn("user", "Hi")])


def test_calls_that_end_an_answer_wait_for_their_outputs() -> None:
    turn = Turn("assistant", "I look. ", [Step("I look. ", (Call("a", "look", "{}"), Call("b", "look", "{}")))])
    half = with_results(turn, {"a": "Sun"})
    with pytest.raises(ChatError, match="every function_call"):
        refuse_open_calls(half)
    whole = with_results(half, {"a": "Rain", "b": "Sun"})
    assert [call.result for step in whole.steps for call in step.calls] == ["Rain", "Sun"]
    refuse_open_calls(whole)


def test_error_of_another_shape_is_told_too() -> None:
    _, turns = turns_in(items(made("mcp_1", error={"type": "http_error", "code": 500, "message": "Broke."}), USER))
    assert turns[0].steps[0].calls[0].error == "Broke."


@pytest.mark.parametrize(
    ("said", "wrong"),
    [
        ([{"role": "system", "content": "Be kind"}], "the last item has to be"),
        ([USER, {"role": "assistant", "content": "Yes"}], "the last item has to be"),
        ([USER, made("mcp_1", output="done")], "the last item has to be"),
        ([USER, call("a"), output("a"), {"role": "assistant", "content": "Yes"}], "the last item has to be"),
        ([{"role": "user", "content": ""}], "is empty"),
        ([{"role": "user", "content": []}], "is empty"),
        ([USER, output("a")], "has to follow the function_call"),
        ([USER, call("a"), output("b")], "has to follow the function_call"),
        ([USER, call("a")], "every function_call"),
        ([USER, call("a"), USER], "every function_call"),
        ([USER, call("a"), call("b"), output("a"), USER], "every function_call"),
        ([USER, call("a"), call("b"), output("a"), call("c")], "every function_call"),
    ],
)
def test_what_cannot_be_answered_is_refused(said: list[dict[str, Any]], wrong: str) -> None:
    with pytest.raises(ChatError, match=wrong) as refused:
        turns_in(items(*said))
    assert refused.value.code == "invalid_request"


def test_thousands_of_outputs_are_put_to_their_calls_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    ids = [str(number) for number in range(2_000)]
    made_anew = 0

    def counted(turn: Turn, results: Mapping[str, str]) -> Turn:
        nonlocal made_anew
        made_anew += 1
        return with_results(turn, results)

    monkeypatch.setattr("handlers.v1.items.with_results", counted)
    _, turns = turns_in(items(USER, *[call(call_id) for call_id in ids], *[output(call_id) for call_id in ids]))
    assert {made.result for made in turns[-1].steps[0].calls} == {"Sun"}
    assert made_anew == 1
