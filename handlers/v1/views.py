"""The JSON that OpenAI's clients get to see."""

from typing import Annotated, Literal, NotRequired

from pydantic import Field
from typing_extensions import TypedDict  # typing's own cannot be described before Python 3.12

from chat.errors import ChatError
from chat.events import RunCompleted
from chat.routing import Choice
from chat.runs import Run
from chat.sessions import Turn
from chat.steps import Call
from handlers.formats.completions import (
    Annotation,
    CompletionUsage,
    FinishReason,
    annotations_of,
    completion_id,
    finish_reason,
    usage_object,
)


class OpenAIModelView(TypedDict):
    id: str
    object: Literal["model"]
    created: int
    owned_by: Annotated[str, Field(description="Its provider.")]


class OpenAIModelsView(TypedDict):
    object: Literal["list"]
    data: list[OpenAIModelView]


class FunctionCallView(TypedDict):
    name: str
    arguments: str


class ToolCallView(TypedDict):
    id: str
    type: Literal["function"]
    function: FunctionCallView


class CompletionMessageView(TypedDict):
    role: Literal["assistant"]
    content: str | None
    refusal: None
    annotations: NotRequired[list[Annotation]]
    tool_calls: NotRequired[list[ToolCallView]]


class ChoiceView(TypedDict):
    index: Literal[0]
    message: CompletionMessageView
    logprobs: None
    finish_reason: FinishReason


class CompletionView(TypedDict):
    """A whole answer."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[ChoiceView]
    usage: CompletionUsage | None


class ErrorObjectView(TypedDict):
    """``code`` is what programs go by."""

    message: str
    type: str
    param: str | None
    code: str


class ErrorView(TypedDict):
    """How ``/v1`` says what went wrong: https://platform.openai.com/docs/guides/error-codes."""

    error: ErrorObjectView


def openai_model_view(choice: Choice) -> OpenAIModelView:
    return {"id": choice.id, "object": "model", "created": 0, "owned_by": choice.provider}


def completion_view(run: Run, said: Turn) -> CompletionView:
    """Raises ChatError ``run_stopped``: there is no room here to say that an answer is only a part of one."""
    ended = run.terminal
    if not isinstance(ended, RunCompleted):
        stopped = "The answer was stopped before it was complete."
        raise ChatError("run_stopped", stopped, details={"run_id": run.id, "answer": said.content})
    calls = [_call_view(call) for step in said.steps for call in step.calls if not call.answered]
    message: CompletionMessageView = {"role": "assistant", "content": said.content or None, "refusal": None}
    if calls:
        message["tool_calls"] = calls
    if annotations := annotations_of(said.sources):
        message["annotations"] = annotations
    choice: ChoiceView = {
        "index": 0,
        "message": message,
        "logprobs": None,
        "finish_reason": finish_reason(ended.finish_reason),
    }
    return {
        "id": completion_id(run),
        "object": "chat.completion",
        "created": run.created_at // 1000,
        "model": run.model,
        "choices": [choice],
        "usage": None if ended.usage is None else usage_object(ended.usage),
    }


def _call_view(call: Call) -> ToolCallView:
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
