"""What ChatKit's widget sends, as far as it can be told without its package."""

from typing import Any, Literal

from pydantic import Field

from chat.commands import OnBusy
from handlers.bodies import COLLECTION_MEANS, Body, CollectionName, Key, TemplateName, UserId

Operation = Literal[
    "threads.create",
    "threads.add_user_message",
    "threads.add_client_tool_output",
    "threads.add_structured_input",
    "threads.retry_after_item",
    "threads.custom_action",
    "threads.sync_custom_action",
    "threads.get_by_id",
    "threads.list",
    "threads.update",
    "threads.delete",
    "items.list",
    "items.feedback",
    "attachments.create",
    "attachments.delete",
    "input.transcribe",
]


class ChatKitMetadata(Body):
    request_id: Key | None = Field(None, description="Idempotency key, where a header cannot be sent.")


class ChatKitBody(Body):
    """``params`` are what the operation takes, as ``chatkit.types`` in ``openai-chatkit`` has it."""

    type: Operation
    params: dict[str, Any] = Field(default_factory=dict)
    metadata: ChatKitMetadata = Field(default_factory=ChatKitMetadata)


class ChatKitQuery(Body):
    """What the page may say in the URL that it gives to the widget."""

    user_id: UserId | None = Field(None, description="Whose threads these are; without it all are listed.")
    template: TemplateName | None = Field(None, description="The prompt template; without it the session's.")
    collection: CollectionName | None = Field(None, description=COLLECTION_MEANS)
    on_busy: OnBusy = Field(OnBusy.REJECT, description="What to do while the thread is still being answered.")
    on_disconnect: Literal["continue", "cancel"] = Field(
        "continue",
        description="Whether the run goes on when this connection is lost. With `cancel` the widget has a button to "
        "stop, which is to close the connection.",
    )
