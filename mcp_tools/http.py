"""A server that is reached by streamable HTTP: the package's transport, on a client with limits."""

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cache
from http import HTTPStatus

import httpx2
from mcp.client._transport import TransportStreams
from mcp.client.streamable_http import MCP_SESSION_ID, streamable_http_client

from mcp_tools.config import ServerConfig
from mcp_tools.stdio import LONGEST_MESSAGE

CONNECT_SECONDS = 5.0
SILENT_SECONDS = 300.0
"""Of a stream on which nothing comes: it is opened again. A call has its tool's timeout besides."""

FAREWELL_SECONDS = 2.0
"""For the request that ends a session; a server that is away must not hold up the end of the process."""


@dataclass(slots=True)
class Watch:
    """What the responses tell that the package keeps to itself.

    ``status`` is that of the last one that was an error. ``forgotten``: the server knows our session no more.
    """

    status: int | None = None
    forgotten: bool = False

    async def request(self, request: httpx2.Request) -> None:
        if request.method == "DELETE":
            request.extensions["timeout"] = dict.fromkeys(("connect", "read", "write", "pool"), FAREWELL_SECONDS)

    async def response(self, response: httpx2.Response) -> None:
        if response.headers.get("content-encoding", "identity") != "identity":
            raise httpx2.DecodingError("compressed, which was not asked for", request=response.request)
        if not response.headers.get("content-type", "").startswith("text/event-stream"):
            assert isinstance(response.stream, httpx2.AsyncByteStream)
            response.stream = _Bounded(response.stream)
        if response.is_error:
            self.status = response.status_code
        if response.status_code == HTTPStatus.NOT_FOUND and MCP_SESSION_ID in response.request.headers:
            self.forgotten = True


class _Bounded(httpx2.AsyncByteStream):
    """A body that may not be longer than a message."""

    def __init__(self, stream: httpx2.AsyncByteStream) -> None:
        self._stream = stream

    async def __aiter__(self) -> AsyncIterator[bytes]:
        room = LONGEST_MESSAGE
        async for part in self._stream:
            room -= len(part)
            if room < 0:
                raise httpx2.StreamError("longer than a message may be")
            yield part

    async def aclose(self) -> None:
        await self._stream.aclose()


@cache
def _trust() -> ssl.SSLContext:
    """Made once: to read the certificates takes 30 ms, in which no token is sent."""
    return httpx2.create_ssl_context()


@asynccontextmanager
async def reached(server: ServerConfig, watch: Watch) -> AsyncIterator[TransportStreams]:
    """Talk to it. A broken connection ends the block from inside, as an ``ExceptionGroup``."""
    assert server.url is not None
    client = httpx2.AsyncClient(
        verify=_trust(),
        headers={"Accept-Encoding": "identity", **server.headers},
        timeout=httpx2.Timeout(CONNECT_SECONDS, read=SILENT_SECONDS),
        event_hooks={"request": [watch.request], "response": [watch.response]},
    )
    async with (
        client,
        streamable_http_client(server.url, http_client=client, max_sse_event_size=LONGEST_MESSAGE) as streams,
    ):
        yield streams
