"""The connection to one server: made, kept, and made again."""

import asyncio
import logging
import random
from collections.abc import Iterator
from contextlib import suppress
from itertools import chain, cycle, repeat

from mcp import Client, MCPError
from mcp.client import IncomingMessage
from mcp.client.subscriptions import SubscriptionLost
from mcp_types import CONNECTION_CLOSED, Implementation, ToolListChangedNotification
from mcp_types.version import MODERN_PROTOCOL_VERSIONS
from pydantic import ValidationError

from mcp_tools.config import ServerConfig
from mcp_tools.http import Watch, reached
from mcp_tools.listing import Listing
from mcp_tools.stdio import started

CONNECT_SECONDS = 30.0
"""From the start of a server to its first list of tools: ``npx`` may have to download it."""

LIST_SECONDS = 10.0
"""For a list that is asked for again. Of a server that is busy with a call we keep the one that there is."""

REFRESH_SECONDS = 60.0
"""After which the list is asked for anyway: not every server tells of changes, or that it has gone."""

REFRESH_PAUSE = 1.0
"""Between two lists at the least, however often a server says that its tools have changed."""

REFRESH_SHARE = 50
"""Times as long as a list took is the pause behind it: to read tens of thousands of tools takes a second."""

PAUSES = (1.0, 2.0, 5.0, 10.0, 30.0, 60.0)
"""Seconds before a connection is tried again, less a random part; the last one repeats."""

STEADY_SECONDS = 60.0
"""When a connection that has lasted so long is lost, the pauses begin anew."""

MODES = ("auto", "legacy")
"""How to greet a server, in turn until it answers. ``auto`` asks for the newer protocol and then for the older one;
some servers end when the first thing they hear is not the older one's greeting."""

logger = logging.getLogger(__name__)


class Connection:
    """One task runs it: what it enters it also leaves, as the package's cancel scopes want it.

    ``settled`` is set when the first try has come to an end, a good one or not.
    """

    def __init__(self, config: ServerConfig, version: str) -> None:
        self.config = config
        self.listing = Listing(config)
        self.settled = asyncio.Event()
        self._info = Implementation(name="parley", version=version)
        self._client: Client | None = None
        self._lost = asyncio.Event()
        self._look = asyncio.Event()
        self._stopping = False

    @property
    def client(self) -> Client | None:
        """Whom to ask; None while the server is away."""
        return None if self._lost.is_set() else self._client

    async def run(self) -> None:
        """Connect, and connect again, until cancelled, which is to be told by :meth:`stop` first."""
        loop, pauses = asyncio.get_running_loop(), _pauses()
        modes = cycle(MODES)
        mode = next(modes)
        while True:
            began, watch, reason = loop.time(), Watch(), "it ended the connection"
            try:
                await self._connect(mode, watch)
            except Exception as error:  # whatever a server, a network and two libraries come up with
                reason = _reason(error, watch.status)
                if self._client is None and any(isinstance(leaf, MCPError) for leaf in _leaves(error)):
                    mode = next(modes)
            finally:
                self._client = None
                self.settled.set()
            if self._stopping:
                return
            if loop.time() - began > STEADY_SECONDS:
                pauses = _pauses()
            pause = next(pauses)
            extra = {"server": self.config.name, "reason": reason, "again_in": round(pause, 1)}
            logger.warning("an MCP server is away", extra=extra)
            await asyncio.sleep(pause)

    def stop(self) -> None:
        """The next connection that ends is the last: anyio may take a cancellation for one of its own."""
        self._stopping = True

    def look(self) -> None:
        """Ask for the list soon, which shows whether the server is there."""
        self._look.set()

    def _lose(self) -> None:
        self._lost.set()
        self._look.set()

    async def _connect(self, mode: str, watch: Watch) -> None:
        """Return when the connection is lost; or raise what says so."""
        self._lost.clear()
        config = self.config
        transport = reached(config, watch) if config.command is None else started(config, self._lose)
        client = Client(transport, mode=mode, cache=None, client_info=self._info, message_handler=self._heard)
        self.listing.begin()
        async with asyncio.timeout(CONNECT_SECONDS) as limit, client:
            await self.listing.read(client)
            limit.reschedule(None)
            self._client = client
            self.settled.set()
            watch.status = None  # older servers refuse the first greeting
            extra = {"server": config.name, "tools": len(self.listing.tools), "protocol": client.protocol_version}
            logger.info("an MCP server is connected", extra=extra)
            await self._stay(client, watch)

    async def _stay(self, client: Client, watch: Watch) -> None:
        listening: asyncio.Task[None] | None = None
        try:
            while not (self._lost.is_set() or watch.forgotten):
                if _tells(client) and (listening is None or listening.done()):
                    listening = asyncio.create_task(self._listen(client))
                await _within(REFRESH_SECONDS, self._look)
                self._look.clear()
                if not (self._lost.is_set() or watch.forgotten):
                    await self._refresh(client)
        finally:
            self._lost.set()
            if listening is not None:
                listening.cancel()

    async def _refresh(self, client: Client) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            async with asyncio.timeout(LIST_SECONDS):
                await self.listing.read(client)
        except (TimeoutError, ValidationError, MCPError) as error:
            if isinstance(error, MCPError) and error.code == CONNECTION_CLOSED:
                raise
            extra = {"server": self.config.name, "reason": _reason(error, None)}
            logger.warning("an MCP server does not list its tools", extra=extra)
        await _within(max(REFRESH_PAUSE, REFRESH_SHARE * (loop.time() - began)), self._lost)

    async def _listen(self, client: Client) -> None:
        """Look when the list changes, as the newer protocol tells it; the next look listens again if this has ended."""
        with suppress(MCPError, SubscriptionLost):
            async with client.listen(tools_list_changed=True) as changes:
                self._look.set()  # it may have changed before we listened
                async for _ in changes:
                    self._look.set()

    async def _heard(self, message: IncomingMessage) -> None:
        if isinstance(message, ToolListChangedNotification):
            self._look.set()


async def _within(seconds: float, event: asyncio.Event) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()


def _tells(client: Client) -> bool:
    """Whether changes have to be subscribed to, and can be."""
    tools = client.server_capabilities.tools
    return client.protocol_version in MODERN_PROTOCOL_VERSIONS and tools is not None and bool(tools.list_changed)


def _pauses() -> Iterator[float]:
    for pause in chain(PAUSES, repeat(PAUSES[-1])):
        yield pause * random.uniform(0.5, 1)  # noqa: S311  # nosec B311  # jitter, no secret


def _reason(error: BaseException, status: int | None) -> str:
    """What went wrong, in words that are ours: texts of others may quote a URL, a header or what was said."""
    reasons = [_words(leaf) for leaf in _leaves(error)]
    if status is not None:
        reasons.append(f"HTTP {status}")
    return ", ".join(dict.fromkeys(reasons))


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for part in error.exceptions:
            yield from _leaves(part)
    else:
        yield error


def _words(error: BaseException) -> str:
    match error:
        case OSError(strerror=str(text)):
            return text
        case TimeoutError():
            return "no answer in time"
        case ValidationError():
            return "an answer that the protocol does not allow"
        case MCPError():
            return f"error {error.code}"
        case _:
            return type(error).__name__
