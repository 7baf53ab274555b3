"""The client's own tools."""

from collections.abc import Iterable, Sequence

from chat.terms import ToolSpec
from handlers.terms import NO_PARAMETERS
from handlers.v1.bodies import FunctionSpec


def tools_of(functions: Iterable[FunctionSpec]) -> Sequence[ToolSpec]:
    return [
        ToolSpec(tool.name, tool.description or "", tool.parameters or NO_PARAMETERS, strict=bool(tool.strict))
        for tool in functions
    ]
