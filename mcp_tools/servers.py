"""All MCP servers as one source of tools."""

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any

from mcp import MCPError
from mcp_types import (
    CONNECTION_CLOSED,
    CallToolRequest,
    CallToolRequestParams,
    CallToolResult,
    InputRequiredResult,
)
from pydantic import TypeAdapter, ValidationError
from pydantic_core import from_json

from chat.tools import FAILED, Tool, ToolContext, ToolError
from mcp_tools.config import ServerConfig
from mcp_tools.connection import Connection
from mcp_tools.listing import MOST_TOOLS
from mcp_tools.names import name_of
from mcp_tools.results import text_of

SETTLE_SECONDS = 5.0
"""What the first runs of a process wait for its servers; those that take longer are there for later runs."""

AWAY = "The server of this tool is not connected now. The call was not made."
BROKEN = "The connection to the server broke. The call may have taken effect."
UNREADABLE = "The server's answer cannot be read. The call may have taken effect."
ASKS_BACK = "The server asks for more input, which cannot be given here. The call was not completed."

_ANSWER: TypeAdapter[CallToolResult | InputRequiredResult] = TypeAdapter(CallToolResult | InputRequiredResult)

_Calling = asyncio.Task[CallToolResult | InputRequiredResult]


class Servers:
    """A :class:`chat.tools.ToolSource`. ``taken`` are names that the servers' tools cannot have."""

    def __init__(self, configs: Sequence[ServerConfig], *, taken: Collection[str] = (), version: str = "") -> None:
        self._connections = [Connection(config, version) for config in configs]
        self._taken = taken
        self._asking = frozenset(
            name_of(config.prefix, tool)
            for config in configs
            for tool in (config.approval if isinstance(config.approval, frozenset) else ())
        )
        self._always_asking = tuple(f"{config.prefix}__" for config in configs if config.approval is True)
        self._calls: set[_Calling] = set()
        self._deadline = 0.0

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Connect and stay connected while inside. On the way out every process that was started is ended."""
        self._deadline = asyncio.get_running_loop().time() + SETTLE_SECONDS
        owners = [asyncio.create_task(connection.run()) for connection in self._connections]
        try:
            yield
        finally:
            for connection, owner in zip(self._connections, owners, strict=True):
                connection.stop()
                owner.cancel()
            await asyncio.gather(*owners, *self._calls, return_exceptions=True)

    @property
    def tools(self) -> Mapping[str, Tool]:
        """Those of the servers in the order of the file, as many as a model may be told of."""
        room, tools = MOST_TOOLS - len(self._taken), dict[str, Tool]()
        for connection in self._connections:
            for name, (own, spec) in connection.listing.tools.items():
                if len(tools) < room and name not in self._taken:
                    run = partial(self._call, connection, own)
                    tools[name] = Tool(spec, run, connection.config.timeout, self.asks(name))
        return tools

    def asks(self, name: str) -> bool:
        """It is the config that says so, whether the server is there or not."""
        return name in self._asking or name.startswith(self._always_asking)

    async def settled(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout_at(self._deadline):
                for connection in self._connections:
                    await connection.settled.wait()

    async def _call(self, connection: Connection, tool: str, arguments: str, _: ToolContext) -> str:
        request = CallToolRequest(params=CallToolRequestParams(name=tool, arguments=_values(arguments)))
        if (client := connection.client) is None:
            raise ToolError(AWAY)
        # A task of its own: to cancel it tells the server, for which nobody has to wait.
        calling = asyncio.create_task(client.session.send_request(request, _ANSWER))
        self._calls.add(calling)
        calling.add_done_callback(self._done)
        try:
            await asyncio.wait({calling})
        finally:
            calling.cancel()
        try:
            return _told(calling.result())
        except MCPError as error:
            connection.look()
            # Servers use the same code for errors of their own, whose words the model needs.
            raise ToolError(f"{BROKEN} ({error})" if error.code == CONNECTION_CLOSED else str(error)) from None
        except ValidationError:
            raise ToolError(UNREADABLE) from None

    def _done(self, calling: _Calling) -> None:
        self._calls.discard(calling)
        if not calling.cancelled():
            calling.exception()  # nobody else may have waited for it


def _values(arguments: str) -> dict[str, Any]:
    try:
        values = from_json(arguments.encode(errors="replace") or b"{}", allow_inf_nan=False)
    except ValueError as error:
        raise ToolError(f"The arguments are not JSON: {error}") from None
    if not isinstance(values, dict):
        raise ToolError("The arguments are not a JSON object.")
    return values


def _told(answer: CallToolResult | InputRequiredResult) -> str:
    if isinstance(answer, InputRequiredResult):
        raise ToolError(ASKS_BACK)
    text = text_of(answer)
    if answer.is_error:
        raise ToolError(text or FAILED)
    return text
