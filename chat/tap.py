"""A model's response that is heard as it arrives, with no task between the socket and whoever listens."""

import asyncio
from collections.abc import Callable, Sequence
from typing import TypeAlias

import aiohttp

from chat.ports import Part
from chat.upstream import CompletionDecoder

END_GRACE = 1.0
"""Seconds that the end of a body may come behind the end of its answer, for the connection to serve another request:
most servers send it in a packet of its own."""

Listen: TypeAlias = Callable[[Sequence[Part]], bool]
"""Takes the parts of one read; False if it does not, and the task that waits is to be given them."""


class Tap(asyncio.Protocol):
    """Stands before aiohttp's protocol on the connection of one response, and decodes what that has parsed.

    While a task waits in :meth:`next`, parts are offered to ``listen`` first, in the same turn of the loop: a future, a
    step of the task and the ten coroutines between the socket and the journal cost more than all that is done with a
    token. What arrives while nobody waits stays with aiohttp, whose limits then hold the sender back.
    """

    def __init__(self, response: aiohttp.ClientResponse, decoder: CompletionDecoder, listen: Listen) -> None:
        connection = response.connection
        self._transport = None if connection is None else connection.transport
        self._inner = asyncio.Protocol()
        self._content = response.content
        self._decoder = decoder
        self._listen = listen
        self._loop = asyncio.get_running_loop()
        self._waiter: asyncio.Future[Sequence[Part] | None] | None = None
        if connection is not None and self._transport is not None:  # else all of it is here already
            assert connection.protocol is not None
            self._inner = connection.protocol
            self._transport.set_protocol(self)
            connection.add_callback(self._leave)

    async def next(self) -> Sequence[Part]:
        """The parts of the next read that nobody has listened to; behind the last, those that the end completes.

        Raises:
            aiohttp.ClientError, RuntimeError: the response broke off.
        """
        while True:
            if data := self._content.read_nowait():
                return self._decoder.feed(data)
            if self._content.is_eof():
                return self._decoder.finish()
            if self._transport is None or self._transport.is_closing():
                raise aiohttp.ClientConnectionError("The connection was closed.")
            self._waiter = self._loop.create_future()
            try:
                parts = await self._waiter
            finally:
                self._waiter = None
            if parts is not None:
                return parts

    def data_received(self, data: bytes) -> None:
        self._inner.data_received(data)
        if self._waiter is None or self._waiter.done():
            return
        content = self._content
        if content.is_eof() or content.exception() is not None:
            self._waiter.set_result(None)
        elif read := content.read_nowait():
            parts = self._decoder.feed(read)
            if not self._listen(parts):
                self._waiter.set_result(parts)

    def eof_received(self) -> bool | None:
        return self._inner.eof_received()

    def connection_lost(self, error: Exception | None) -> None:
        self._inner.connection_lost(error)
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def pause_writing(self) -> None:
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        self._inner.resume_writing()

    def _leave(self) -> None:
        """The connection goes back to aiohttp."""
        if self._transport is not None and self._transport.get_protocol() is self:
            self._transport.set_protocol(self._inner)


class Lingering:
    """Responses that were heard out, and of which only the end of the body is still to come.

    Nobody waits for it. When it comes aiohttp takes the connection back, which saves the next request a new one; the
    connection of a server that does not send it is closed.
    """

    def __init__(self) -> None:
        self._open: dict[aiohttp.ClientResponse, asyncio.TimerHandle] = {}

    def keep(self, response: aiohttp.ClientResponse) -> None:
        self._open[response] = asyncio.get_running_loop().call_later(END_GRACE, self._drop, response)
        response.content.on_eof(lambda: self._drop(response))

    def close(self) -> None:
        for response in list(self._open):
            self._drop(response)

    def _drop(self, response: aiohttp.ClientResponse) -> None:
        """One whose end has come is closed already."""
        if (timer := self._open.pop(response, None)) is not None:
            timer.cancel()
            response.close()
