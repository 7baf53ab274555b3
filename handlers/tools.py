"""Tools that a client brings along and runs itself."""

from collections.abc import Sequence

from starlette.requests import Request

from chat.errors import ChatError
from chat.terms import ToolSpec
from handlers.bodies import nested_within
from handlers.context import engine_of

SCHEMA_DEPTH = 64
"""Levels of a tool's schema: what is deeper could be read, and not written down again."""


def own_tools(request: Request, specs: Sequence[ToolSpec]) -> Sequence[ToolSpec]:
    """The client's tools, if they can stand beside this service's.

    Raises:
        ChatError: ``invalid_request``.
    """
    ours = {spec.name for spec in engine_of(request).tools.specs}
    names = [spec.name for spec in specs]
    if len(set(names)) < len(names) or not ours.isdisjoint(names):
        raise ChatError("invalid_request", "tools: a name is given twice, or is that of one of this service's tools.")
    if not all(nested_within(SCHEMA_DEPTH, spec.parameters) for spec in specs):
        raise ChatError("invalid_request", f"tools: a schema may be at most {SCHEMA_DEPTH} levels deep.")
    return specs
