"""The client's own tools."""

from collections.abc import Iterable, Sequence

from chat.terms import ToolSpec
from handlers.terms import NO_PARAMETERS
from handlers.v1.bodies import FunctionSpec


def tools_of(functions: Iterable[FunctionSpec]) -> Sequence[ToolSpec]:
    return [
        ToolSpec(
            function.name,
            function.description or "",
            function.parameters or NO_PARAMETERS,
            strict=bool(function.strict),
        )
        for function in functions
    ]
