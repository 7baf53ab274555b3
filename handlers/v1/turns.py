"""What clients of OpenAI's way to write a conversation say, as its turns."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

from chat.errors import ChatError
from chat.sessions import Turn
from chat.steps import Call, Step, answered
from handlers.v1.bodies import CompletionMessage


def instructions_of(messages: Iterable[CompletionMessage]) -> list[str]:
    """What the client tells the model."""
    return [message.text for message in messages if message.role in ("system", "developer")]


def turns_of(messages: Iterable[CompletionMessage]) -> Sequence[Turn]:
    """The conversation. A tool's messages are part of the answer that called it, and so are those of the same answer.

    Raises:
        ChatError: ``invalid_request`` for results that nobody asked for, calls without a result, and an end that
            leaves nothing to answer.
    """
    turns: list[Turn] = []
    answer: str | None = None
    for message in messages:
        if message.role == "tool":
            turns[-1:] = [_with_result(turns[-1] if turns else Turn("user", ""), message)]
            continue
        _refuse_open_calls(turns)
        if message.role == "user":
            turns.append(Turn("user", message.text))
            answer = None
        elif message.role == "assistant":
            before = turns.pop() if answer is not None and answer == message.answer else Turn("assistant", "")
            turns.append(_said(before, message))
            answer = message.answer
    _refuse_open_calls(turns)
    if not turns or (turns[-1].role == "assistant" and not turns[-1].steps):
        raise ChatError("invalid_request", "messages: the last one has to be the user's, or a tool's.")
    if turns[-1].role == "user" and not turns[-1].content:
        raise ChatError("invalid_request", "messages: the last one is empty.")
    return turns


def _said(before: Turn, message: CompletionMessage) -> Turn:
    calls = [Call(call.id, call.function.name, call.function.arguments) for call in message.tool_calls or ()]
    steps = [Step(message.text, calls)] if calls else []
    return Turn("assistant", before.content + message.text, (*before.steps, *steps))


def _with_result(turn: Turn, message: CompletionMessage) -> Turn:
    if not any(call.id == message.tool_call_id for step in turn.steps for call in step.calls):
        raise ChatError("invalid_request", "messages: a tool's message has to follow the call that it answers.")
    told = [Step("", [Call(message.tool_call_id or "", "", "", result=message.text)])]
    return replace(turn, steps=answered(turn.steps, told))


def _refuse_open_calls(turns: Sequence[Turn]) -> None:
    if turns and not all(call.answered for step in turns[-1].steps for call in step.calls):
        raise ChatError("invalid_request", "messages: every tool call has to be followed by its tool's message.")
