"""A scripted OpenAI-compatible server: raw HTTP/1.1 over TCP, so that it can misbehave, too.

    gate = asyncio.Event()
    async with Upstream(reply(chunk("Hello "), gate, chunk("world"), finish(), done())) as upstream:
        ...  # what is tested, in this process or in another one, talks to upstream.base_url
        request = await upstream.request(0)
        gate.set()
        await soon(request.closed.wait())

The replies are given out in turn, one a request, and the last one again and again. A body is a row of actions: bytes
are sent as one HTTP chunk, an event is waited for, a number is slept, an ``End`` ends it the hard way.
"""

import asyncio
import json
import socket
import struct
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, TypeAlias

from tests.listener import Listener
from tests.patience import PATIENCE


class End(Enum):
    """How a body ends that does not end well."""

    CLOSE = "FIN where another HTTP chunk is due"
    ABORT = "RST"
    HOLD = "silence until the client closes"


@dataclass(frozen=True, slots=True)
class Raw:
    """Bytes for the socket as they are, in no HTTP chunk."""

    data: bytes


Action: TypeAlias = bytes | Raw | asyncio.Event | float | End


@dataclass(frozen=True, slots=True)
class Reply:
    """``headers`` come on top of those of an event stream; one that is None is left out."""

    status: int
    headers: Mapping[str, str | None]
    actions: tuple[Action, ...]


@dataclass(frozen=True, slots=True)
class Request:
    """``headers`` have lower-case names. ``closed`` is set once the connection is: by the client, if not by us."""

    path: str
    headers: Mapping[str, str]
    body: Any
    closed: asyncio.Event = field(compare=False)


class Upstream(Listener):
    """Gives out its replies and keeps the requests."""

    def __init__(self, *replies: Reply) -> None:
        super().__init__()
        self.requests: list[Request] = []
        self._replies = replies
        self._arrived = asyncio.Condition()

    @property
    def base_url(self) -> str:
        return f"{self.url}/v1"

    async def request(self, number: int) -> Request:
        """The request of this number, from 0; waits for it if it has not come yet."""
        async with asyncio.timeout(PATIENCE), self._arrived:
            await self._arrived.wait_for(lambda: len(self.requests) > number)
        return self.requests[number]

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        closed = asyncio.Event()
        player: asyncio.Task[None] | None = None
        try:
            # Reading on while a reply is played is what notices that the client has closed.
            while True:
                request = await _read(reader, closed)
                async with self._arrived:
                    reply = self._replies[min(len(self.requests), len(self._replies) - 1)]
                    self.requests.append(request)
                    self._arrived.notify_all()
                player = self._start(_play(reply, writer))
        except (asyncio.IncompleteReadError, ConnectionError):
            closed.set()
        finally:
            if player is not None:
                player.cancel()
            writer.transport.abort()  # the conversation is over, whatever is still unsent


async def _read(reader: asyncio.StreamReader, closed: asyncio.Event) -> Request:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    first, *lines = head.strip().split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    return Request(first.split(" ")[1], headers, json.loads(body or b"null"), closed)


async def _play(reply: Reply, writer: asyncio.StreamWriter) -> None:
    headers = {"Content-Type": "text/event-stream", "Transfer-Encoding": "chunked", **reply.headers}
    lines = [f"{name}: {value}\r\n" for name, value in headers.items() if value is not None]
    writer.write(f"HTTP/1.1 {reply.status} Scripted\r\n{''.join(lines)}\r\n".encode("latin-1"))
    with suppress(ConnectionError):  # the client may leave at any moment
        for action in reply.actions:
            await _act(action, writer)
        if headers["Transfer-Encoding"] == "chunked":
            writer.write(b"0\r\n\r\n")


async def _act(action: Action, writer: asyncio.StreamWriter) -> None:
    match action:
        case bytes():
            writer.write(b"%x\r\n%b\r\n" % (len(action), action))
            await writer.drain()
        case Raw(data):
            writer.write(data)
            await writer.drain()
        case asyncio.Event():
            await action.wait()
        case End.CLOSE:
            writer.close()
            await asyncio.Event().wait()
        case End.ABORT:
            linger = struct.pack("ii", 1, 0)  # for no time at all: the kernel sends RST and not FIN
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            writer.transport.abort()
            await asyncio.Event().wait()
        case End.HOLD:
            await asyncio.Event().wait()
        case _:
            await asyncio.sleep(action)


def reply(*actions: Action, status: int = 200, headers: Mapping[str, str | None] | None = None) -> Reply:
    """A reply, by default with the head of an event stream."""
    return Reply(status, headers or {}, actions)


def refusal(status: int, body: object = None, **headers: str) -> Reply:
    """A reply with an error's JSON; ``retry_after="1"`` becomes the header ``retry-after``."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Reply(status, {"Content-Type": "application/json", **named}, (json.dumps(body).encode(),))


def completion(*texts: str, reason: str = "stop") -> Reply:
    """A whole good answer: role, texts, finish reason, usage and the end mark."""
    usage = sse({"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": len(texts)}})
    return reply(chunk("", role="assistant"), *map(chunk, texts), finish(reason), usage, done())


def calling(call_id: str, name: str, arguments: object, *before: Action) -> Reply:
    """An answer that calls a tool, after whatever stands before it: the JSON of the arguments comes in two pieces."""

    def piece(**members: object) -> bytes:
        return sse({"choices": [{"index": 0, "delta": {"tool_calls": [{"index": 0, **members}]}}]})

    written = json.dumps(arguments)
    half = len(written) // 2
    return reply(
        *before,
        piece(id=call_id, type="function", function={"name": name, "arguments": ""}),
        piece(function={"arguments": written[:half]}),
        piece(function={"arguments": written[half:]}),
        finish("tool_calls"),
        done(),
    )


def thought(text: str) -> bytes:
    """The event of a token of reasoning."""
    return sse({"choices": [{"index": 0, "delta": {"reasoning_content": text}}]})


def chunk(text: str, **delta: object) -> bytes:
    """The event of one token."""
    return sse({"choices": [{"index": 0, "delta": {"content": text, **delta}, "finish_reason": None}]})


def finish(reason: str = "stop") -> bytes:
    """The event that says why the answer ends here."""
    return sse({"choices": [{"index": 0, "delta": {}, "finish_reason": reason}]})


def done() -> bytes:
    return b"data: [DONE]\n\n"


def sse(data: object) -> bytes:
    """Any JSON as an event."""
    return b"data: " + json.dumps(data).encode() + b"\n\n"
