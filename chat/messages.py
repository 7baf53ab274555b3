"""What a model is sent, as OpenAI's API has it."""

import json
import re
from collections.abc import Iterator

from chat.ports import ModelRequest
from chat.providers import Placeholders
from chat.steps import Step
from chat.terms import ToolSpec

CONTINUE = (
    "Your answer was cut off. Continue it exactly where it stopped, in the middle of a word if need be. "
    "Do not repeat any of it, do not apologise, and do not comment on the interruption."
)
"""What the model is told when it has to go on behind the stored part of an answer."""

UNANSWERED = "The run was stopped before the tool had answered. It may have taken effect."
"""What the model is told of a call that a stop left without an answer."""

# Some servers refuse a history with other names, which only a model invents.
_NO_NAME = re.compile(r"[^A-Za-z0-9_-]")


def tool_of(spec: ToolSpec) -> dict[str, object]:
    """A tool that the model may call."""
    function = {"name": spec.name, "description": spec.description, "parameters": dict(spec.parameters)}
    return {"type": "function", "function": function | ({"strict": True} if spec.strict else {})}


def messages_of(request: ModelRequest, placeholders: Placeholders) -> list[dict[str, object]]:
    """The conversation, and what of its answer there is already."""
    messages: list[dict[str, object]] = []
    for turn in request.messages:
        for step in turn.steps:
            messages += _step(step, placeholders)
        said = turn.content[sum(len(step.text) for step in turn.steps) :]
        if said or not turn.steps:
            extra = placeholders.message if turn.role == "assistant" else {}
            messages.append({"role": turn.role, "content": said, **extra})
    for step in request.steps:
        messages += _step(step, placeholders)
    if request.prefix:
        messages.append({"role": "assistant", "content": request.prefix, **placeholders.message})
        messages.append({"role": "user", "content": CONTINUE})
    return messages


def _step(step: Step, placeholders: Placeholders) -> Iterator[dict[str, object]]:
    """What the model said and called, and what it was answered: a message each."""
    calls = [
        {
            "id": call.id,
            "type": "function",
            "function": {"name": _NO_NAME.sub("_", call.name), "arguments": _object(call.arguments)},
            **placeholders.call,
        }
        for call in step.calls
    ]
    yield {"role": "assistant", "content": step.text or None, "tool_calls": calls, **placeholders.message}
    for call in step.calls:
        answer = call.result if call.result is not None else f"Error: {call.error or UNANSWERED}"
        yield {"role": "tool", "tool_call_id": call.id, "content": answer}


def _object(arguments: str) -> str:
    """The arguments, if they are a JSON object: some servers refuse what is none, even if a model wrote it."""
    try:
        found = json.loads(arguments)
    except (ValueError, RecursionError):
        return "{}"
    return arguments if isinstance(found, dict) else "{}"
