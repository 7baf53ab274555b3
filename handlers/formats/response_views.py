"""A response and its items, as OpenAI's clients know them: https://platform.openai.com/docs/api-reference/responses"""

from typing import Annotated, Literal, TypeAlias

from pydantic import Field
from typing_extensions import TypedDict  # typing's own cannot be described before Python 3.12

ResponseStatus: TypeAlias = Literal["queued", "in_progress", "completed", "incomplete", "failed", "cancelled"]
ItemStatus: TypeAlias = Literal["in_progress", "completed", "incomplete"]
Members: TypeAlias = dict[str, object]


class UrlCitation(TypedDict):
    """A page that the characters are from; both indexes are 0 where nobody knows which those are."""

    type: Literal["url_citation"]
    url: str
    title: str
    start_index: int
    end_index: int


class FileCitation(TypedDict):
    """A document that the text is from, and where in the text that is said."""

    type: Literal["file_citation"]
    file_id: str
    filename: str
    index: int


Annotation: TypeAlias = UrlCitation | FileCitation


class OutputText(TypedDict):
    type: Literal["output_text"]
    text: str
    annotations: list[Annotation]
    logprobs: list[Members]


class MessageItem(TypedDict):
    """Text of the answer."""

    id: str
    type: Literal["message"]
    role: Literal["assistant"]
    status: ItemStatus
    content: list[OutputText]


class ReasoningText(TypedDict):
    type: Literal["reasoning_text"]
    text: str


class ReasoningItem(TypedDict):
    """What the model thought before."""

    id: str
    type: Literal["reasoning"]
    status: ItemStatus
    summary: list[Members]
    content: list[ReasoningText]


class FunctionCallItem(TypedDict):
    """A call of one of the client's own tools."""

    id: str
    type: Literal["function_call"]
    status: ItemStatus
    call_id: str
    name: str
    arguments: str


class ToolText(TypedDict):
    type: Literal["text"]
    text: str


class ToolError(TypedDict):
    type: Literal["mcp_tool_execution_error"]
    content: list[ToolText]


class McpCallItem(TypedDict):
    """A call of one of the service's tools, which it makes itself."""

    id: str
    type: Literal["mcp_call"]
    status: Literal["in_progress", "calling", "completed", "incomplete", "failed"]
    server_label: str
    name: str
    arguments: str
    approval_request_id: Annotated[str | None, Field(description="While it waits for a yes: its id for that.")]
    output: str | None
    error: ToolError | None


Item: TypeAlias = MessageItem | ReasoningItem | FunctionCallItem | McpCallItem


class ResponseError(TypedDict):
    """``type`` is the service's own code."""

    code: Literal["server_error", "rate_limit_exceeded"]
    message: str
    type: str


class IncompleteDetails(TypedDict):
    reason: Literal["max_output_tokens", "content_filter"]


class InputDetails(TypedDict):
    cached_tokens: int
    cache_write_tokens: int


class OutputDetails(TypedDict):
    reasoning_tokens: int


class ResponseUsage(TypedDict):
    input_tokens: int
    input_tokens_details: InputDetails
    output_tokens: int
    output_tokens_details: OutputDetails
    total_tokens: int


class ResponseConversation(TypedDict):
    id: Annotated[str, Field(description="The session.")]


class ResponseTool(TypedDict):
    type: Literal["function"]
    name: str
    description: str
    parameters: Members
    strict: bool


class ResponseView(TypedDict):
    """A run, as a response."""

    id: str
    object: Literal["response"]
    created_at: int
    completed_at: int | None
    status: ResponseStatus
    model: str
    conversation: ResponseConversation
    previous_response_id: str | None
    output: list[Item]
    error: ResponseError | None
    incomplete_details: IncompleteDetails | None
    usage: ResponseUsage | None
    background: bool
    store: Literal[True]
    instructions: str | None
    metadata: dict[str, str]
    tools: list[ResponseTool]
    tool_choice: str | Members
    parallel_tool_calls: bool
    temperature: float | None
    top_p: float | None
    max_output_tokens: int | None
    reasoning: Members
    text: Members
    truncation: Literal["auto"]
