"""Tools: what the model may call, and how a call is answered."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Protocol, TypeAlias

from chat.events import Source
from chat.ids import new_id
from chat.ports import Store
from chat.records import Record
from chat.runs import Run
from chat.steps import Call
from chat.terms import Terms, ToolSpec
from chat.tracing import NO_SPAN, StepSpan, ToolSpan

TIMEOUT = 30.0
"""Seconds that a call may take, where its tool says nothing else."""

LONGEST_RESULT = 65_536
"""Characters of a result or an error; what is behind them is cut: it would fill the model's context."""

FAILED = "The tool failed."

Cite: TypeAlias = Callable[[Source], bool]
"""Makes it one of the answer's sources, if it is none yet; False if the answer cannot have more of them."""

logger = logging.getLogger(__name__)


class ToolError(Exception):
    """What a tool raises to tell the model what went wrong. Any other error is logged, and its text kept from it."""


def no_source(_: Source) -> bool:
    """For calls that are of no answer."""
    return False


@dataclass(frozen=True, slots=True)
class ToolContext:
    """Whose call it is. A tool that has a parameter of this type is given it; the model does not see it.

    What a tool cites right before it returns is in the log together with its result.
    """

    run: Run
    call_id: str
    store: Store
    cite: Cite = no_source

    async def save(self, kind: str, data: Mapping[str, object]) -> str:
        """Write a record down, which ``GET /records`` shows; its id.

        Raises:
            ChatError: ``store_unavailable``.
        """
        run = self.run
        record = Record(new_id("rec"), kind, run.session_id, run.user_id, run.id, dict(data), 0)
        await self.store.save_record(record)
        return record.id


@dataclass(frozen=True, slots=True)
class Tool:
    """``run`` takes the arguments as the model wrote them and returns what the model is told.

    It raises :class:`ToolError` to say in its own words what went wrong. ``timeout`` is in seconds. ``approval``: each
    call waits for somebody's yes.
    """

    spec: ToolSpec
    run: Callable[[str, ToolContext], Awaitable[str]]
    timeout: float = TIMEOUT
    approval: bool = False


class ToolSource(Protocol):
    """Tools that come and go while the process runs."""

    @property
    def tools(self) -> Mapping[str, Tool]:
        """Those that there are now, by name."""
        ...

    def asks(self, name: str) -> bool:
        """Whether a call by this name needs somebody's yes, be the tool there now or not."""
        ...

    async def settled(self) -> None:
        """Return when it has shown which tools there are at first, or has been waited for long enough."""
        ...


class NoSource:
    """For where all tools are there from the start."""

    tools: Mapping[str, Tool] = MappingProxyType({})

    def asks(self, _: str) -> bool:
        return False

    async def settled(self) -> None:
        return


class Toolbox:
    """The tools that there are, by name: those that stay, which go first, and those of ``source``."""

    def __init__(
        self, tools: Iterable[Tool] = (), *, prompt: str | None = None, source: ToolSource | None = None
    ) -> None:
        self._tools = {tool.spec.name: tool for tool in tools}
        self._source: ToolSource = source or NoSource()
        self._searching: Mapping[str, Tool] = {}
        self.prompt = prompt
        """The system prompt that comes with the tools, for where none is set."""

    @property
    def specs(self) -> Sequence[ToolSpec]:
        more = (tool.spec for name, tool in self._source.tools.items() if name not in self._tools)
        return [*(tool.spec for tool in self._tools.values()), *more]

    def joined(self, source: ToolSource) -> "Toolbox":
        """These, and those of the source."""
        return Toolbox(self._tools.values(), prompt=self.prompt, source=source)

    def searching(self, tool: Tool) -> "Toolbox":
        """These, and one for runs that have a collection of documents, unless another has its name."""
        box = copy(self)
        box._searching = {tool.spec.name: tool}
        return box

    def offered(self, terms: Terms) -> Sequence[ToolSpec]:
        """Those that a run on these terms may call, less those whose names the client's own have."""
        searching = self._searching if terms.collection is not None else {}
        specs = {spec.name: spec for spec in self.specs}
        specs |= {name: tool.spec for name, tool in searching.items() if name not in specs}
        theirs = {spec.name for spec in terms.tools}
        return [spec for name, spec in specs.items() if name not in theirs]

    async def settled(self) -> None:
        """Return when a run can begin with all tools that it can hope for."""
        await self._source.settled()

    def asks(self, call: Call) -> bool:
        """Whether the call needs somebody's yes."""
        tool = self._tools.get(call.name)
        return self._source.asks(call.name) if tool is None else tool.approval

    async def answer(
        self, call: Call, run: Run, store: Store, span: StepSpan = NO_SPAN, cite: Cite = no_source
    ) -> Call:
        """Run the tool: the call with its result, or with the error as the model is told it. Never raises."""
        name = call.name
        tool = self._tools.get(name) or self._source.tools.get(name) or self._searching.get(name)
        with span.tool_call(call.id, None if tool is None else name) as called:
            if tool is None:
                called.failed("unknown_tool")
                return replace(call, error="There is no such tool.")
            return await _made(tool, call, ToolContext(run, call.id, store, cite), called)


async def _made(tool: Tool, call: Call, context: ToolContext, span: ToolSpan) -> Call:
    extra = {"run_id": context.run.id, "tool": call.name, "call_id": call.id}
    try:
        async with asyncio.timeout(tool.timeout) as limit:
            return replace(call, result=_told(await tool.run(call.arguments, context)))
    except ToolError as error:
        span.failed(type(error).__name__)
        return replace(call, error=_told(str(error)) or FAILED)
    except (Exception, asyncio.CancelledError) as error:
        task = asyncio.current_task()
        if isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling():
            raise  # the run is being stopped; else the tool has cancelled itself
        if isinstance(error, TimeoutError) and limit.expired():
            span.failed("timeout")
            logger.warning("a tool took too long", extra=extra)
            return replace(call, error="The tool took too long. It may have taken effect.")
        span.failed(type(error).__name__)
        logger.exception("a tool failed", extra=extra)
        return replace(call, error=FAILED)


def _told(text: str) -> str:
    """What can be stored, and does not fill the model's context."""
    return text.encode(errors="replace").decode()[:LONGEST_RESULT]


NO_TOOLS = Toolbox()
