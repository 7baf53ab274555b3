from typing import Any

import pytest

from chat.errors import ChatError
from chat.sessions import Turn
from chat.steps import Call, Step
from handlers.v1.bodies import CompletionMessage
from handlers.v1.turns import instructions_of, turns_of


def said(*messages: dict[str, Any]) -> list[CompletionMessage]:
    return [CompletionMessage.model_validate(message) for message in messages]


def calls(*ids: str) -> list[dict[str, Any]]:
    return [{"id": call_id, "type": "function", "function": {"name": "look", "arguments": "{}"}} for call_id in ids]


USER = {"role": "user", "content": "Hi"}


def test_conversation_becomes_turns_and_what_tells_the_model_instructions() -> None:
    messages = said(
        {"role": "system", "content": "Be kind"},
        {"role": "user", "content": [{"type": "text", "text": "Two "}, {"type": "text", "text": "parts"}]},
        {"role": "assistant", "content": "Yes"},
        {"role": "developer", "content": "Be brief"},
        USER,
    )
    assert turns_of(messages) == [Turn("user", "Two parts"), Turn("assistant", "Yes"), Turn("user", "Hi")]
    assert instructions_of(messages) == ["Be kind", "Be brief"]


def test_results_belong_to_the_answer_that_called() -> None:
    messages = said(
        USER,
        {"role": "assistant", "content": "I look. ", "tool_calls": calls("a", "b")},
        {"role": "tool", "tool_call_id": "b", "content": "two"},
        {"role": "tool", "tool_call_id": "a", "content": "one"},
    )
    step = Step("I look. ", (Call("a", "look", "{}", "one"), Call("b", "look", "{}", "two")))
    assert turns_of(messages) == [Turn("user", "Hi"), Turn("assistant", "I look. ", [step])]


def test_thousands_of_calls_are_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    ids = [str(number) for number in range(2_000)]
    results = [{"role": "tool", "tool_call_id": call_id, "content": "told"} for call_id in ids]
    messages = said(USER, {"role": "assistant", "tool_calls": calls(*ids)}, *results)
    looks = 0

    def counted(call: Call) -> bool:
        nonlocal looks
        looks += 1
        return call.result is not None

    monkeypatch.setattr(Call, "answered", property(counted))
    [step] = turns_of(messages)[-1].steps
    assert {call.result for call in step.calls} == {"told"}
    assert looks < 3 * len(ids)


@pytest.mark.parametrize(
    ("messages", "wrong"),
    [
        ([{"role": "system", "content": "Be kind"}], "the last one has to be"),
        ([USER, {"role": "assistant", "content": "Yes"}], "the last one has to be"),
        ([{"role": "user", "content": ""}], "is empty"),
        ([{"role": "user"}], "is empty"),
        ([{"role": "tool", "tool_call_id": "a", "content": "one"}], "has to follow the call"),
        ([USER, {"role": "tool", "tool_call_id": "a", "content": "one"}], "has to follow the call"),
        (
            [USER, {"role": "assistant", "tool_calls": calls("a")}, {"role": "tool", "tool_call_id": "b"}],
            "has to follow",
        ),
        ([USER, {"role": "assistant", "tool_calls": calls("a")}], "every tool call"),
        ([USER, {"role": "assistant", "tool_calls": calls("a")}, USER], "every tool call"),
        (
            [USER, {"role": "assistant", "tool_calls": calls("a", "b")}, {"role": "tool", "tool_call_id": "a"}, USER],
            "every tool call",
        ),
    ],
)
def test_what_cannot_be_answered_is_refused(messages: list[dict[str, Any]], wrong: str) -> None:
    with pytest.raises(ChatError, match=wrong) as refused:
        turns_of(said(*messages))
    assert refused.value.code == "invalid_request"
