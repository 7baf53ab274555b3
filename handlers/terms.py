"""What a client says about how it wants to be answered, checked."""

from collections.abc import Mapping, Sequence
from typing import Any

from starlette.requests import Request

from chat.terms import Terms, ToolSpec
from handlers.templates import prompt_for
from handlers.tools import own_tools

NO_PARAMETERS: dict[str, Any] = {"type": "object", "properties": {}}
"""The schema of a tool that takes nothing."""


async def terms_of(
    request: Request,
    instructions: Sequence[str],
    tools: Sequence[ToolSpec],
    options: Mapping[str, object],
    session_id: str | None,
) -> Terms:
    """Behind the prompt that the session has.

    Raises:
        ChatError: ``invalid_request`` for tools that cannot be; whatever the session's template raises.
    """
    prompt = await prompt_for(request, None, {}, session_id)
    said = [*([prompt] if prompt else []), *instructions]
    return Terms("\n\n".join(said) or None, own_tools(request, tools), options)
