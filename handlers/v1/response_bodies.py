"""What OpenAI's clients send when they ask for a response."""

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, StrictFloat, StrictInt, StringConstraints, Tag

from chat.commands import OnBusy
from handlers.bodies import COLLECTION_MEANS, Body, CollectionName, Flag, Id, ModelName, UserId
from handlers.v1.bodies import CallId, FunctionSpec, ToolName

ECHOED = {
    "background",
    "instructions",
    "max_output_tokens",
    "metadata",
    "parallel_tool_calls",
    "previous_response_id",
    "reasoning",
    "temperature",
    "text",
    "tool_choice",
    "top_p",
}
"""Members that a client reads again in its response."""

DELIVERY = {"stream", "background", "on_busy"}
"""Members that do not count in what a request means."""


class ContentPart(Body):
    type: Literal["input_text", "output_text", "text"]
    text: str


Content = str | list[ContentPart]


def text_of(content: Content) -> str:
    return content if isinstance(content, str) else "".join([part.text for part in content])


class MessageInput(Body):
    type: Literal["message"] = "message"
    role: Literal["user", "assistant", "system", "developer"]
    content: Content = Field(description="Text; other kinds of content are not taken.")


class FunctionCallInput(Body):
    type: Literal["function_call"]
    call_id: CallId
    name: ToolName
    arguments: str


class FunctionCallOutput(Body):
    type: Literal["function_call_output"]
    call_id: CallId
    output: Content = Field(description="What came of the call, as text.")


class McpErrorInput(Body):
    content: list[ContentPart] = Field(default_factory=list)
    message: str = ""


class McpCallInput(Body):
    """A call of one of the service's tools, as it was in a response's output."""

    type: Literal["mcp_call"]
    id: CallId
    name: ToolName
    arguments: str
    output: str | None = None
    error: McpErrorInput | None = None


class ReasoningInput(Body):
    """Taken, because clients send the whole output back, and left out: the model's server has no place for it."""

    type: Literal["reasoning"]


def _type_of(item: object) -> str:
    return str(item.get("type", "message")) if isinstance(item, dict) else getattr(item, "type", "")


InputItem = Annotated[
    Annotated[MessageInput, Tag("message")]
    | Annotated[FunctionCallInput, Tag("function_call")]
    | Annotated[FunctionCallOutput, Tag("function_call_output")]
    | Annotated[McpCallInput, Tag("mcp_call")]
    | Annotated[ReasoningInput, Tag("reasoning")],
    Discriminator(_type_of),
]

Input = Annotated[
    Annotated[str, Tag("text"), StringConstraints(min_length=1)]
    | Annotated[list[InputItem], Tag("items"), Field(min_length=1)],
    Discriminator(lambda value: "text" if isinstance(value, str) else "items"),
]


class ConversationBody(Body):
    id: Id


class FunctionToolBody(FunctionSpec):
    type: Literal["function"]


class FunctionChoice(Body):
    type: Literal["function"]
    name: ToolName


class ReasoningBody(Body):
    effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = None
    summary: Literal["auto", "concise", "detailed"] | None = Field(
        None, description="Makes no difference: reasoning comes as the model's server sends it."
    )


class PlainFormat(Body):
    type: Literal["text", "json_object"]


class SchemaFormat(Body):
    type: Literal["json_schema"]
    name: ToolName
    description: str | None = None
    schema_: dict[str, Any] = Field(alias="schema")
    strict: Flag | None = None


class TextBody(Body):
    format: Annotated[PlainFormat | SchemaFormat, Discriminator("type")] | None = None
    verbosity: Literal["low", "medium", "high"] | None = None


class ResponseBody(Body):
    model: ModelName | None = Field(None, description="One of `GET /v1/models`; the default where none is given.")
    input: Input = Field(description="What the user says, or items; the last one is the user's, or a call's output.")
    instructions: str | None = Field(None, description="What the model is told; for this response alone.")
    previous_response_id: str | None = Field(
        None, description="The response that is continued; another one after the same is a branch."
    )
    conversation: Id | ConversationBody | None = Field(
        None, description="The session, in which the input is what is new; an unknown id creates it."
    )
    background: Flag | None = Field(None, description="Without `stream`: return at once, to be asked again.")
    stream: Flag | None = Field(None, description="Events as they are written, instead of the whole response.")
    store: Literal[True] | None = Field(None, description="Everything is stored before it is shown; not to be refused.")
    tools: list[FunctionToolBody] | None = Field(None, description="The client's own, which it runs itself.")
    tool_choice: Literal["none", "auto", "required"] | FunctionChoice | None = None
    parallel_tool_calls: Flag | None = None
    temperature: StrictFloat | None = None
    top_p: StrictFloat | None = None
    max_output_tokens: int | None = Field(None, ge=1)
    reasoning: ReasoningBody | None = None
    text: TextBody | None = None
    metadata: (
        dict[
            Annotated[str, StringConstraints(max_length=64)],
            Annotated[str, StringConstraints(max_length=512)],
        ]
        | None
    ) = Field(None, max_length=16, description="Given back with the response.")
    user: UserId | None = Field(None, description="Whose conversation it is; without it an anonymous id is made.")
    prompt: None = Field(None, description="Not taken, nor are the next ones: each would change the answer.")
    context_management: None = None
    moderation: None = None
    max_tool_calls: None = None
    top_logprobs: Annotated[StrictInt, Field(ge=0, le=0)] | None = None
    collection: CollectionName | None = Field(None, description=COLLECTION_MEANS)
    on_busy: OnBusy = Field(OnBusy.REJECT, description="What to do while the session is still answering.")


class ResponseQuery(Body):
    stream: Flag = Field(default=False, description="Events from the start on, or from behind `starting_after`.")
    starting_after: int | None = Field(
        None, ge=0, le=2**53, description="The `sequence_number` of the last event that the client has seen."
    )
