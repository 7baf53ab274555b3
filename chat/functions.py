"""Python functions as tools."""

import asyncio
import inspect
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from contextvars import copy_context
from importlib import import_module
from inspect import Parameter
from threading import Thread
from typing import Any, get_type_hints

from pydantic import BaseModel, ConfigDict, PydanticUserError, ValidationError, create_model
from pydantic_core import to_json

from chat.terms import ToolSpec
from chat.tools import TIMEOUT, Tool, Toolbox, ToolContext, ToolError

PROBLEMS = 10
"""What is wrong with a call's arguments is told so far; the model can ask again."""

_NAMELESS = (Parameter.POSITIONAL_ONLY, Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)


def tool_of(function: Callable[..., Any], *, timeout: float = TIMEOUT, approval: bool = False) -> Tool:
    """The function as a tool: its name, its docstring, and the schema that Pydantic makes of its type hints.

    A parameter of the type :class:`ToolContext` is given that, and hidden from the model. A plain function runs in a
    thread, which goes on unseen after ``timeout`` seconds: it cannot be stopped. ``approval``: each call waits for
    somebody's yes.

    Raises:
        TypeError: it has no docstring, a parameter without a type, or one that no JSON can fill.
    """
    name = getattr(function, "__name__", type(function).__name__)
    description = inspect.getdoc(function) if callable(function) else None
    if not description:
        raise TypeError(f"{name} is no function with a docstring, which tells the model what it does")
    context, fields = _parameters(name, function)
    try:
        model = create_model(name, __config__=ConfigDict(extra="forbid", allow_inf_nan=False), **fields)
        schema = model.model_json_schema()
    except PydanticUserError as error:
        raise TypeError(f"{name}: {error.message}") from error
    schema.pop("title", None)

    async def run(arguments: str, given: ToolContext) -> str:
        values = _checked(model, arguments)
        if context is not None:
            values[context] = given
        value: object = await (
            function(**values) if inspect.iscoroutinefunction(function) else _in_thread(function, values)
        )
        if inspect.isawaitable(value):  # a plain function around one that is none
            value = await value
        return value if isinstance(value, str) else to_json(value, fallback=str).decode()

    return Tool(ToolSpec(name, description, schema), run, timeout, approval)


async def _in_thread(function: Callable[..., Any], values: dict[str, Any]) -> object:
    """Run it in a thread of its own.

    The loop's pool has a few threads, for the look-up of names too: tools that hang would stop all that. And a daemon
    does not hold the process when it stops.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[Any] = loop.create_future()
    context = copy_context()

    def tell(settle: Callable[[Any], None], what: object) -> None:
        if not done.done():
            settle(what)

    def work() -> None:
        try:
            outcome = done.set_result, context.run(function, **values)
        except Exception as error:
            outcome = done.set_exception, error
        except BaseException as error:  # such as SystemExit, which would end the server
            outcome = done.set_exception, RuntimeError(f"the tool raised {type(error).__name__}")
        with suppress(RuntimeError):  # the loop has ended meanwhile
            loop.call_soon_threadsafe(tell, *outcome)

    Thread(target=work, name=f"tool {function.__name__}", daemon=True).start()
    return await done


def _parameters(name: str, function: Callable[..., Any]) -> tuple[str | None, dict[str, Any]]:
    """The name of the parameter that is for the context, and Pydantic's fields of the others."""
    hints = get_type_hints(function, include_extras=True)
    context, fields = None, {}
    for parameter in inspect.signature(function).parameters.values():
        if parameter.name not in hints or parameter.kind in _NAMELESS:
            raise TypeError(f"{name}: {parameter.name} has no type, or is not one named value")
        if hints[parameter.name] is ToolContext:
            context = parameter.name
        else:
            default = ... if parameter.default is parameter.empty else parameter.default
            fields[parameter.name] = (hints[parameter.name], default)
    return context, fields


def _checked(model: type[BaseModel], arguments: str) -> dict[str, Any]:
    try:
        found = model.model_validate_json(arguments or "{}")
    except ValidationError as error:
        problems = error.errors(include_url=False, include_input=False)[:PROBLEMS]
        wrong = [f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}" for problem in problems]
        raise ToolError("The arguments do not fit: " + "; ".join(wrong)) from None
    return {name: getattr(found, name) for name in model.model_fields}


def load_tools(modules: Iterable[str]) -> Toolbox:
    """The tools of these modules: what each lists in ``TOOLS``, functions or :class:`chat.tools.Tool`.

    A module may bring a ``SYSTEM_PROMPT``.

    Raises:
        ValueError: a module is not there, lists no tools, or something in its list cannot be one.
    """
    tools: dict[str, Tool] = {}
    prompts: list[str] = []
    for name in modules:
        try:
            module = import_module(name)
        except Exception as error:  # it runs whatever its author wrote
            raise ValueError(f"{name} cannot be imported: {error}") from error
        listed = getattr(module, "TOOLS", None)
        if not isinstance(listed, Sequence) or not listed:
            raise ValueError(f"{name} has no list TOOLS")
        for item in listed:
            try:
                tool = item if isinstance(item, Tool) else tool_of(item)
            except (TypeError, NameError) as error:
                raise ValueError(f"{name}: {error}") from error
            if tool.spec.name in tools:
                raise ValueError(f"{name}: there are two tools {tool.spec.name}")
            tools[tool.spec.name] = tool
        if prompt := getattr(module, "SYSTEM_PROMPT", None):
            prompts.append(str(prompt))
    return Toolbox(tools.values(), prompt="\n\n".join(prompts) or None)
