"""What a client says about how it wants to be answered, checked."""

from collections.abc import Mapping, Sequence
from typing import Any

from starlette.requests import Request

from chat.errors import ChatError
from chat.terms import Terms, ToolSpec
from handlers.bodies import nested_within
from handlers.context import engine_of

NO_PARAMETERS: dict[str, Any] = {"type": "object", "properties": {}}
"""The schema of a tool that takes nothing."""

SCHEMA_DEPTH = 64
"""Levels of a tool's schema: what is deeper could be read, and not written down again."""


def terms_of(
    request: Request,
    prompt: str | None,
    instructions: Sequence[str],
    tools: Sequence[ToolSpec] = (),
    options: Mapping[str, object] | None = None,
) -> Terms:
    """``prompt`` is the template's, which the client's ``instructions`` stand behind; ``tools`` are its own.

    Raises:
        ChatError: ``invalid_request`` for tools that cannot stand beside this service's.
    """
    said = [*([prompt] if prompt else []), *instructions]
    return Terms("\n\n".join(said) or None, _own_tools(request, tools), options or {})


def _own_tools(request: Request, specs: Sequence[ToolSpec]) -> Sequence[ToolSpec]:
    ours = {spec.name for spec in engine_of(request).tools.specs}
    names = [spec.name for spec in specs]
    if len(set(names)) < len(names) or not ours.isdisjoint(names):
        raise ChatError("invalid_request", "tools: a name is given twice, or is that of one of this service's tools.")
    if not all(nested_within(SCHEMA_DEPTH, spec.parameters) for spec in specs):
        raise ChatError("invalid_request", f"tools: a schema may be at most {SCHEMA_DEPTH} levels deep.")
    return specs
