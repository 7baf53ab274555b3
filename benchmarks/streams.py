"""Raw readers of event streams, many of them in one process and cheap, and the little HTTP that the benchmarks need.

Whoever uses them is the client's process: the servers under measurement run beside it.
"""

import asyncio
import http.client
import json
import re
import resource
from collections.abc import Callable, Mapping
from typing import Any, TypeVar, cast

from benchmarks.processes import Server

IDS = re.compile(rb"id: [A-Za-z0-9_-]+\.([0-9]+)\n")
"""An event's id; the group is its place in the log."""

END = b"0\r\n\r\n"
"""The last chunk of a response."""

PATIENCE = 60.0
"""Seconds that a response gets to begin."""

OPENING = 64
"""Connections that are opened side by side: more only wait in the server's backlog."""

PORTS = 20_000
"""Connections from one source address: the kernel hands out some 28,000 ports."""


def raise_descriptor_limit() -> int:
    """As many descriptors as the system allows, for this process and those it starts; how many that is."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def ask(server: Server, method: str, path: str, body: object = None, **headers: str) -> dict[str, Any]:
    """One request on a connection of its own; the JSON that answers it."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE)
    try:
        content = None if body is None else json.dumps(body)
        connection.request(method, path, content, {"Content-Type": "application/json", **headers})
        response = connection.getresponse()
        answer = response.read()
        if response.status >= 300:
            raise RuntimeError(f"{method} {path} was answered with {response.status}: {answer[:500]!r}")
        found: dict[str, Any] = json.loads(answer)
        return found
    finally:
        connection.close()


def start_run(server: Server, message: str = "Hello there") -> str:
    """Start a run in a new session and follow it from nowhere; its id."""
    return str(ask(server, "POST", "/chat", {"message": message}, Prefer="respond-async")["run_id"])


def request(method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None) -> bytes:
    """The bytes of a request that accepts a stream."""
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost", "Accept: text/event-stream"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    if body:
        lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
    return "\r\n".join([*lines, "", ""]).encode() + body


def follow(run_id: str, after: int | None = None, query: str = "") -> bytes:
    """The bytes of a request for a run's events, resumed behind ``after`` as EventSource does."""
    headers = {} if after is None else {"Last-Event-ID": f"{run_id}.{after}"}
    return request("GET", f"/runs/{run_id}/events{query}", headers=headers)


class Reader(asyncio.Protocol):
    """One connection with one request. ``opened`` is done when the stream has begun, or failed to."""

    def __init__(self, content: bytes) -> None:
        self._request = content
        self._head: bytes | None = b""
        self.opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)  # uvloop's is no subclass
        self.transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        if self._head is not None:
            self._head += data
            head, _, data = self._head.partition(b"\r\n\r\n")
            if not head.startswith(b"HTTP/1.1 200"):
                self._fail(head + data)
                return
            if not data:  # the head alone shows no event yet
                return
            self._head = None
            if not self.opened.done():
                self.opened.set_result(None)
        self.received(data)

    def received(self, data: bytes) -> None:
        """Part of the body, with the marks of its chunks: they stand between frames and harm no search for lines."""
        raise NotImplementedError

    def connection_lost(self, _: Exception | None) -> None:
        self._fail(b"closed before the first event")
        if not self.closed.done():
            self.closed.set_result(None)

    def leave(self) -> None:
        self.transport.abort()

    def _fail(self, why: bytes) -> None:
        if not self.opened.done():
            self.opened.set_exception(RuntimeError(why[:500].decode(errors="replace")))


class Whole(Reader):
    """Keeps all that it gets, for later: nothing is parsed beside the server."""

    def __init__(self, content: bytes) -> None:
        super().__init__(content)
        self.body = bytearray()
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def received(self, data: bytes) -> None:
        self.body += data
        if data.endswith(END) and not self.done.done():
            self.done.set_result(None)


R = TypeVar("R", bound=Reader)


async def connect(reader: R, server: Server, source: str | None = None) -> R:
    """Open the connection and wait for the stream's first event."""
    loop = asyncio.get_running_loop()
    address = (source, 0) if source else None
    await loop.create_connection(lambda: reader, "127.0.0.1", server.port, local_addr=address)
    async with asyncio.timeout(PATIENCE):
        await reader.opened
    return reader


async def connect_all(make: Callable[[int], R], count: int, server: Server) -> list[R]:
    """``count`` readers, every one with its first event, ``OPENING`` at a time."""
    turns = asyncio.Semaphore(OPENING)

    async def one(number: int) -> R:
        async with turns:
            return await connect(make(number), server, f"127.0.0.{1 + number // PORTS}")

    return await asyncio.gather(*[one(number) for number in range(count)])
