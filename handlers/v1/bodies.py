"""What OpenAI's clients send."""

from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints
from starlette.requests import Request

from chat.commands import OnBusy
from handlers.bodies import COLLECTION_MEANS, Body, CollectionName, Flag, Id, Key, ModelName, UserId, checked

ToolName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
CallId = Annotated[str, StringConstraints(min_length=1, max_length=256)]

OPTIONS = {
    "temperature",
    "top_p",
    "max_tokens",
    "max_completion_tokens",
    "stop",
    "seed",
    "presence_penalty",
    "frequency_penalty",
    "logit_bias",
    "response_format",
    "reasoning_effort",
    "verbosity",
    "tool_choice",
    "parallel_tool_calls",
}
"""Members that go to the model's server as they are; it says what is wrong with them."""

DELIVERY = {"stream", "stream_options", "on_busy", "on_disconnect", "request_id", "metadata"}
"""Members that do not count in what a request means."""

BESIDE = {"collection"}
"""Members that count where they are there: see :func:`handlers.documents.meant_by`."""


class TextPart(Body):
    type: Literal["text"]
    text: str


class FunctionCall(Body):
    name: ToolName
    arguments: str


class ToolCallBody(Body):
    id: CallId
    type: Literal["function"] = "function"
    function: FunctionCall


class CompletionMessage(Body):
    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[TextPart] | None = Field(None, description="Text; other kinds of content are not taken.")
    tool_calls: list[ToolCallBody] | None = None
    tool_call_id: CallId | None = None

    @property
    def answer(self) -> str | None:
        """Which answer it is a part of, where that can be told."""
        return None

    @property
    def text(self) -> str:
        if isinstance(self.content, list):
            return "".join([part.text for part in self.content])
        return self.content or ""


class FunctionSpec(Body):
    name: ToolName
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: Flag | None = Field(None, description="Whether the model is held to the schema.")


class ToolBody(Body):
    type: Literal["function"] = "function"
    function: FunctionSpec


class StreamOptions(Body):
    include_usage: Flag | None = None


class CompletionMetadata(Body):
    session_id: Id | None = Field(None, description="The same as `X-Session-Id`, which goes before it.")


def session_in_header(request: Request) -> str | None:
    """Raises ChatError ``invalid_request``."""
    header = request.headers.get("x-session-id")
    return None if header is None else checked(CompletionMetadata, {"session_id": header}).session_id


class CompletionBody(Body):
    model: ModelName | None = Field(None, description="One of `GET /v1/models`; the default where none is given.")
    messages: list[CompletionMessage] = Field(
        min_length=1, description="The conversation; the last one is the user's, or a tool's."
    )
    stream: Flag | None = Field(None, description="Chunks as they are written, instead of the whole answer.")
    stream_options: StreamOptions | None = None
    n: Literal[1] | None = Field(None, description="One answer, and no more.")
    tools: list[ToolBody] | None = Field(None, description="The client's own, which it runs itself.")
    user: UserId | None = Field(None, description="Whose conversation it is; without it an anonymous id is made.")
    metadata: CompletionMetadata | None = None
    collection: CollectionName | None = Field(None, description=COLLECTION_MEANS)
    temperature: Any = None
    top_p: Any = None
    max_tokens: Any = None
    max_completion_tokens: Any = None
    stop: Any = None
    seed: Any = None
    presence_penalty: Any = None
    frequency_penalty: Any = None
    logit_bias: Any = None
    response_format: Any = None
    reasoning_effort: Any = None
    verbosity: Any = None
    tool_choice: Any = None
    parallel_tool_calls: Any = None
    on_busy: OnBusy = Field(OnBusy.REJECT, description="What to do while the session is still answering.")
    on_disconnect: Literal["continue", "cancel"] = Field(
        "continue", description="Whether the run goes on when this connection is lost."
    )
    request_id: Key | None = Field(None, description="Idempotency key, where a header cannot be sent.")
