"""What the AI SDK's messages say, as the conversation's turns."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from chat.errors import ChatError
from chat.sessions import Turn
from chat.steps import Call, Step
from handlers.bodies import nested_within
from handlers.ui.bodies import UIMessageBody, UIPart

VALUE_DEPTH = 100
"""Levels of what a tool is given or returns: what is much deeper could be read, and not written down again."""


def instructions_of(messages: Iterable[UIMessageBody]) -> list[str]:
    """What the client tells the model."""
    return [_text(message.parts) for message in messages if message.role == "system"]


def turns_of(messages: Iterable[UIMessageBody]) -> Sequence[Turn]:
    """The conversation; a message that several runs have written is as many turns.

    Raises:
        ChatError: ``invalid_request`` for what is not text, and an end that leaves nothing to answer.
    """
    turns: list[Turn] = []
    for message in messages:
        if any(part.type == "file" for part in message.parts):
            raise ChatError("invalid_request", "messages: files are not taken here, only text.")
        if message.role == "user":
            turns.append(Turn("user", _text(message.parts), id=message.id))
        elif message.role == "assistant":
            answers = list(_answers(message.parts)) or [Turn("assistant", "")]
            turns += [replace(answers[0], id=message.id), *answers[1:]]
    _refuse_nothing_to_answer(turns)
    return turns


def decisions_of(message: UIMessageBody) -> Mapping[str, bool]:
    """Which calls the client has just said yes or no to, by the ids of their approvals."""
    answers = [part.approval for part in message.parts if part.state == "approval-responded"]
    return {answer.id: answer.approved for answer in answers if answer is not None and answer.approved is not None}


def _refuse_nothing_to_answer(turns: Sequence[Turn]) -> None:
    if not turns:
        raise ChatError("invalid_request", "messages: the last one has to be the user's.")
    last = turns[-1]
    if last.role == "user" and not last.content:
        raise ChatError("invalid_request", "messages: the last one is empty.")
    if last.role == "assistant":
        # The text of an answer's turn is that of all its steps: more of it stands behind the last call.
        if not last.steps or len(last.content) > sum(len(step.text) for step in last.steps):
            raise ChatError("invalid_request", "messages: the last one has to be the user's, or have a tool's output.")
        if not all(call.answered for call in last.steps[-1].calls):
            raise ChatError("invalid_request", "messages: the tools of the last one have not all been answered.")


def _answers(parts: Iterable[UIPart]) -> Iterator[Turn]:
    """A run ends where it has called a tool of the client's: what follows is the next one's answer."""
    texts: list[str] = []
    steps: list[Step] = []
    for step in _steps(parts):
        text = _text(step)
        calls = [_call(part) for part in step if part.called and part.state != "input-streaming"]
        texts.append(text)
        if calls:
            steps.append(Step(text, calls))
        if any(part.called and not part.provider_executed for part in step):
            yield Turn("assistant", "".join(texts), tuple(steps))
            texts, steps = [], []
    if texts:
        yield Turn("assistant", "".join(texts), tuple(steps))


def _steps(parts: Iterable[UIPart]) -> Iterator[Sequence[UIPart]]:
    step: list[UIPart] = []
    for part in parts:
        if part.type != "step-start":
            step.append(part)
        elif step:
            yield step
            step = []
    if step:
        yield step


def _call(part: UIPart) -> Call:
    if part.tool_call_id is None:
        raise ChatError("invalid_request", "messages: a tool's part has no toolCallId.")
    call = Call(part.tool_call_id, part.called or "", _written(part.input))
    if part.state == "output-available":
        return replace(call, result=part.output if isinstance(part.output, str) else _written(part.output))
    return replace(call, error=part.error_text or "") if part.state == "output-error" else call


def _written(value: object) -> str:
    if not nested_within(VALUE_DEPTH, value):
        raise ChatError("invalid_request", f"messages: a tool's input or output is over {VALUE_DEPTH} levels deep.")
    return json.dumps(value, ensure_ascii=False)


def _text(parts: Iterable[UIPart]) -> str:
    return "".join([part.text or "" for part in parts if part.type == "text"])
