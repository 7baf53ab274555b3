"""What the AI SDK's chat sends."""

from typing import Annotated, Any, Literal

from pydantic import AliasChoices, ConfigDict, Field, StringConstraints, model_validator
from pydantic.alias_generators import to_camel

from chat.commands import OnBusy
from handlers.bodies import (
    COLLECTION_MEANS,
    Body,
    CollectionName,
    Flag,
    Id,
    Key,
    ModelName,
    TemplateName,
    UserId,
    Variables,
)

MessageId = Annotated[str, StringConstraints(min_length=1, max_length=256)]
CallId = Annotated[str, StringConstraints(min_length=1, max_length=256)]
ToolName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,64}$")]


class _Camel(Body):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True)


class UIApproval(_Camel):
    """What became of a call that asked for a yes."""

    id: str
    approved: Flag | None = None


class UIPart(_Camel):
    """A part of a message, as its ``type`` says: text, a call of a tool, or what is only for show."""

    type: str
    text: str | None = None
    tool_call_id: CallId | None = None
    tool_name: ToolName | None = Field(None, description="Of a `dynamic-tool`; others have it in their type.")
    state: str | None = None
    input: Any = None
    output: Any = None
    error_text: str | None = None
    provider_executed: Flag | None = Field(None, description="The service has run it, and not the client.")
    approval: UIApproval | None = None

    @property
    def called(self) -> str | None:
        """The name of the tool, if the part is a call."""
        if self.type.startswith("tool-"):
            return self.type.removeprefix("tool-")
        return self.tool_name if self.type == "dynamic-tool" else None


class UIMessageBody(_Camel):
    id: MessageId | None = Field(None, description="An answer has the id that its stream began with.")
    role: Literal["system", "user", "assistant"]
    parts: list[UIPart]


class UIToolBody(_Camel):
    description: str = ""
    input_schema: dict[str, Any] = Field(
        default_factory=lambda: {"type": "object", "properties": {}},
        validation_alias=AliasChoices("inputSchema", "input_schema", "parameters"),
    )


class UIChatBody(_Camel):
    """The body of the AI SDK's chat, and what may be added to it with its transport's ``body``."""

    id: Id = Field(description="The conversation; an unknown id creates it.")
    messages: list[UIMessageBody] = Field(
        default_factory=list, description="The conversation as the client sees it, or its last message alone."
    )
    message: UIMessageBody | None = Field(None, description="The last message alone, where there are no `messages`.")
    trigger: Literal["submit-message", "regenerate-message"] = "submit-message"
    message_id: MessageId | None = Field(None, description="The message that is edited, or answered anew.")
    user_id: UserId | None = Field(None, description="Whose conversation it is; without it an anonymous id is made.")
    model: ModelName | None = Field(None, description="The model that is to answer, one of `GET /models`.")
    template: TemplateName | None = Field(None, description="The prompt template; without it the session's.")
    variables: Variables
    collection: CollectionName | None = Field(None, description=COLLECTION_MEANS)
    tools: dict[ToolName, UIToolBody] = Field(
        default_factory=dict, description="The client's own tools by their names, which it runs itself."
    )
    on_busy: OnBusy = Field(OnBusy.REJECT, description="What to do while the session is still answering.")
    on_disconnect: Literal["continue", "cancel"] = Field(
        "continue", description="Whether the run goes on when this connection is lost."
    )
    request_id: Key | None = Field(None, description="Idempotency key, where a header cannot be sent.")

    @model_validator(mode="after")
    def _said(self) -> "UIChatBody":
        if not self.said and self.trigger == "submit-message":
            raise ValueError("messages: there is none")
        return self

    @property
    def said(self) -> list[UIMessageBody]:
        return self.messages or ([self.message] if self.message else [])


class UIStopBody(_Camel):
    active_stream_id: str | None = Field(None, description="Only stop this run: a stop that comes late stops no other.")


def is_ui_chat(value: object) -> bool:
    """Whether the JSON is the AI SDK's: its messages have parts, and not content."""
    if not isinstance(value, dict):
        return False
    messages = value.get("messages")
    brought = [*(messages if isinstance(messages, list) else []), value.get("message")]
    parted = any(isinstance(message, dict) and "parts" in message and "content" not in message for message in brought)
    return parted or value.get("trigger") in ("submit-message", "regenerate-message")
