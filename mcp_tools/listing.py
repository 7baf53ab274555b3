"""The tools that a server has listed last, bounded."""

import logging

from mcp import Client
from mcp_types import Tool as Listed
from pydantic_core import to_json

from chat.terms import ToolSpec
from mcp_tools.config import ServerConfig
from mcp_tools.names import name_of
from mcp_tools.specs import spec_of

MOST_TOOLS = 128
"""Of one server, and of all together: OpenAI refuses a request with more."""

MOST_PAGES = 50
"""Of one list."""

MOST_KEPT = 16 * 1024 * 1024
"""Bytes of tools that the package keeps of one connection: of a list in pages it never forgets any."""

logger = logging.getLogger(__name__)


class Listing:
    """``tools``: by their names here, the server's name and what the model is told. They outlive the connection."""

    def __init__(self, config: ServerConfig) -> None:
        self.tools: dict[str, tuple[str, ToolSpec]] = {}
        self._config = config
        self._complaint: object = None
        self._known: set[str] = set()
        self._kept = 0

    def begin(self) -> None:
        """A new connection."""
        self._known, self._kept = set(), 0

    async def read(self, client: Client) -> None:
        """Ask for the list.

        Raises:
            MCPError, ValidationError: from the package.
            MemoryError: it would keep too much.
        """
        listed: list[Listed] = []
        cursor: str | None = None
        for _ in range(MOST_PAGES):
            page = await client.list_tools(cursor=cursor)
            self._weigh(page.tools)
            allowed = self._config.tools
            listed += [tool for tool in page.tools if allowed is None or tool.name in allowed]
            cursor = page.next_cursor
            if cursor is None or len(listed) > MOST_TOOLS:
                break
        self._take(listed)

    def _weigh(self, tools: list[Listed]) -> None:
        for tool in tools:
            if tool.name not in self._known:
                self._known.add(tool.name)
                self._kept += len(to_json(tool))
        if self._kept > MOST_KEPT:
            raise MemoryError("lists ever new tools")

    def _take(self, listed: list[Listed]) -> None:
        tools: dict[str, tuple[str, ToolSpec]] = {}
        for tool in listed[:MOST_TOOLS]:
            name = name_of(self._config.prefix, tool.name)
            if name not in tools and (spec := spec_of(name, tool)) is not None:
                tools[name] = tool.name, spec
        self.tools = tools
        self._complain(len(listed) - len(tools), {tool.name for tool in listed})

    def _complain(self, left_out: int, there: set[str]) -> None:
        """Say what is missing, once."""
        config = self._config
        named = (config.approval if isinstance(config.approval, frozenset) else frozenset()) | (
            config.tools or frozenset()
        )
        unknown = sorted(named - there)
        if (left_out, unknown) not in (self._complaint, (0, [])):
            extra = {"server": config.name, "left_out": left_out, "unknown": unknown}
            logger.warning("some tools of an MCP server are not there", extra=extra)
        self._complaint = left_out, unknown
