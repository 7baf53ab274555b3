import json
from typing import Any

import pytest

from chat.errors import ChatError
from chat.sessions import Turn
from chat.steps import Call, Step
from handlers.ui.bodies import UIMessageBody, is_ui_chat
from handlers.ui.turns import decisions_of, instructions_of, turns_of

STEP = {"type": "step-start"}
ASKED = {"id": "u1", "role": "user", "parts": [{"type": "text", "text": "Weather?"}]}


def messages(*said: dict[str, Any]) -> list[UIMessageBody]:
    return [UIMessageBody.model_validate(one) for one in said]


def text(said: str) -> dict[str, Any]:
    return {"type": "text", "text": said, "state": "done"}


def call(call_id: str, state: str = "output-available", name: str = "tool-look", **more: Any) -> dict[str, Any]:
    return {"type": name, "toolCallId": call_id, "state": state, "input": {"a": "é"}, **more}


def assistant(*parts: dict[str, Any]) -> dict[str, Any]:
    return {"id": "a1", "role": "assistant", "parts": list(parts)}


def test_conversation_becomes_turns_and_what_tells_the_model_instructions() -> None:
    system = {"id": "s", "role": "system", "parts": [text("Be kind")]}
    shown: list[dict[str, Any]] = [
        {"type": "reasoning", "text": "Hm."},
        {"type": "source-url", "url": "x"},
        {"type": "data-x", "data": {}},
    ]
    said = messages(system, ASKED, assistant(STEP, *shown, text("It "), text("rains.")), ASKED)
    question = Turn("user", "Weather?", id="u1")
    assert turns_of(said) == [question, Turn("assistant", "It rains.", id="a1"), question]
    assert instructions_of(said) == ["Be kind"]
    assert turns_of(messages(ASKED, assistant(), ASKED))[1] == Turn("assistant", "", id="a1")


def test_answer_ends_where_a_tool_of_the_clients_was_called() -> None:
    parts = [
        STEP, text("I ask. "), call("1", name="tool-ours", providerExecuted=True, output="yes"),
        STEP, text("I look. "), call("2", output={"sky": [1]}),
        call("3", "output-error", "dynamic-tool", toolName="touch", errorText="Cold."),
        STEP, text("Grey."), call("4", output=""),
    ]  # fmt: skip
    first, second = turns_of(messages(assistant(*parts)))
    arguments = '{"a": "é"}'
    assert first.steps == (
        Step("I ask. ", [Call("1", "ours", arguments, "yes")]),
        Step("I look. ", [Call("2", "look", arguments, '{"sky": [1]}'), Call("3", "touch", arguments, error="Cold.")]),
    )
    assert (first.content, first.id) == ("I ask. I look. ", "a1")
    assert second == Turn("assistant", "Grey.", (Step("Grey.", [Call("4", "look", arguments, "")]),))


def test_calls_without_an_answer_are_kept_and_those_half_written_are_not() -> None:
    [answer, _] = turns_of(messages(assistant(STEP, call("1", "input-streaming"), call("2", "input-available")), ASKED))
    assert answer.steps == (Step("", [Call("2", "look", '{"a": "é"}')]),)


def test_only_what_has_just_been_decided_is_a_decision() -> None:
    waits = call("1", "approval-requested", approval={"id": "r.1"})
    yes = call("2", "approval-responded", approval={"id": "r.2", "approved": True})
    no = call("3", "approval-responded", approval={"id": "r.3", "approved": False, "reason": "No"})
    made = call("4", approval={"id": "r.4", "approved": True}, output=1)
    odd = [call("5", "approval-responded"), call("6", "approval-responded", approval={"id": "r.6"})]
    [message] = messages(assistant(waits, yes, no, made, *odd))
    assert decisions_of(message) == {"r.2": True, "r.3": False}


@pytest.mark.parametrize(
    ("said", "wrong"),
    [
        ([], "has to be the user's"),
        ([{"role": "system", "parts": [text("Be kind")]}], "has to be the user's"),
        ([{"role": "user", "parts": []}], "is empty"),
        ([{"role": "user", "parts": [{"type": "file", "url": "data:,", "mediaType": "image/png"}]}], "files are not"),
        ([ASKED, assistant(text("It rains."))], "has to be the user's, or have"),
        ([ASKED, assistant(STEP, call("1", providerExecuted=True, output=1), STEP, text("Yes"))], "or have a tool's"),
        ([ASKED, assistant(call("1", "input-available"))], "not all been answered"),
        ([ASKED, assistant({"type": "tool-look", "state": "output-available"})], "no toolCallId"),
        ([ASKED, assistant(call("1", output=json.loads("[" * 102 + "]" * 102)))], "over 100 levels deep"),
    ],
)
def test_what_cannot_be_answered_is_refused(said: list[dict[str, Any]], wrong: str) -> None:
    with pytest.raises(ChatError, match=wrong) as refused:
        turns_of(messages(*said))
    assert refused.value.code == "invalid_request"


@pytest.mark.parametrize(
    ("body", "theirs"),
    [
        ({"messages": [ASKED]}, True),
        ({"message": ASKED}, True),
        ({"id": "one", "trigger": "regenerate-message"}, True),
        ({"messages": [{"role": "user", "content": "Hi"}]}, False),
        ({"messages": [{"role": "user", "content": "Hi", "parts": []}], "id": "one"}, False),
        ({"messages": [{"role": "user", "content": "Hi"}], "trigger": "button"}, False),
        ({"messages": "Hi", "message": "Hi"}, False),
        ([ASKED], False),
        ("Hi", False),
    ],
)
def test_bodies_are_told_apart(body: object, theirs: bool) -> None:
    assert is_ui_chat(body) is theirs
