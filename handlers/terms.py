"""What a client says about how it wants to be answered, checked."""

from collections.abc import Mapping, Sequence
from typing import Any

from starlette.requests import Request

from chat.errors import ChatError
from chat.terms import Terms, ToolSpec
from handlers.context import engine_of
from handlers.templates import prompt_for

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
        ChatError: ``invalid_request`` for tools of the same name; whatever the session's template raises.
    """
    ours = {spec.name for spec in engine_of(request).tools.specs}
    names = [spec.name for spec in tools]
    if len(set(names)) < len(names) or not ours.isdisjoint(names):
        raise ChatError("invalid_request", "tools: a name is given twice, or is that of one of this service's tools.")
    prompt = await prompt_for(request, None, {}, session_id)
    said = [*([prompt] if prompt else []), *instructions]
    return Terms("\n\n".join(said) or None, tools, options)
