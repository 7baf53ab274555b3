"""The way of a stream's bytes to its client: past all middlewares, which look at heads only."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Generator
from types import coroutine
from typing import Any, Protocol, TypeAlias, cast

from starlette.types import Receive, Scope, Send

_WIRE = "parley.wire"
# What is needed of uvicorn's own state of a request. Nothing public leads there, but two coroutines and a message for
# each token cost as much as all else that is done to show it. Under another server, or should a release move these
# names, it is sent through them.
_CYCLE = ("chunked_encoding", "disconnected", "flow", "transport")

Rest: TypeAlias = Callable[[Receive], Awaitable[None]]
"""What is left of a response when its head is sent."""


class Way(Protocol):
    """How a stream's body goes out: :class:`Wire`, or what stands before it."""

    def write(self, body: bytes) -> Awaitable[None] | None:
        """Send a piece of the body without waiting; if that cannot be, what is to be awaited before the next."""
        ...

    async def end(self) -> None: ...


class Wire:
    """One request's connection, as the server gave it to the outermost application.

    ``rest``, if a response sets it, is awaited when the middlewares have returned: a stream that waits for hours
    inside of them would keep twenty suspended coroutines, 10 KiB, that have nothing more to do.
    """

    __slots__ = ("_cycle", "_on_end", "_send", "rest")

    def __init__(self, send: Send) -> None:
        self._send = send
        cycle: Any = getattr(send, "__self__", None)
        self._cycle = cycle if all(hasattr(cycle, name) for name in _CYCLE) else None
        self.rest: Rest | None = None
        self._on_end: list[Callable[[], None]] = []

    def on_end(self, leave: Callable[[], None]) -> None:
        """Call it when the request is over, however it ends."""
        self._on_end.append(leave)

    def over(self) -> None:
        while self._on_end:
            self._on_end.pop()()

    def write(self, body: bytes) -> Awaitable[None] | None:
        """Send a piece of the body without waiting; if that cannot be, what is to be awaited before the next."""
        cycle = self._cycle
        if cycle is not None and cycle.chunked_encoding and not cycle.flow.write_paused:
            if not cycle.disconnected:
                cycle.transport.write(b"%x\r\n%b\r\n" % (len(body), body))
            return None
        sending = self._send({"type": "http.response.body", "body": body, "more_body": True})
        return begun(cast("Coroutine[Any, Any, None]", sending))

    async def end(self) -> None:
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    @property
    def transport(self) -> asyncio.Transport:
        """The connection itself, under uvicorn.

        Raises:
            AttributeError: the server is another one.
        """
        cycle: Any = self._send.__self__  # type: ignore[attr-defined]
        return cast(asyncio.Transport, cycle.transport)


def lay_wire(scope: Scope, send: Send) -> Wire:
    """For :func:`wire_of`, by the outermost application, which says when the request is over."""
    wire = scope[_WIRE] = Wire(send)
    return wire


def wire_of(scope: Scope) -> Wire:
    return cast(Wire, scope[_WIRE])


def rest_of(scope: Scope) -> Rest | None:
    """What is to be awaited when the middlewares have returned."""
    wire: Wire = scope.pop(_WIRE)
    rest, wire.rest = wire.rest, None  # what a stream holds goes when it ends, and waits for no garbage collector
    return rest


def begun(work: Coroutine[Any, Any, None]) -> Awaitable[None] | None:
    """Run it up to where it has to wait: None if it came to its end, else what is left of it.

    What a task's eager start does from Python 3.12 on, without a task.
    """
    try:
        waits_for = work.send(None)
    except StopIteration:
        return None
    return _left(work, waits_for)


@coroutine
def _left(work: Coroutine[Any, Any, None], waits_for: object) -> Generator[object, None, None]:
    try:
        yield waits_for
    except BaseException:
        work.close()
        raise
    yield from work.__await__()
