"""Bytes past the middlewares: the same on the wire as if the server's own ``send`` had sent them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from starlette.types import Message, Receive, Scope, Send
from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from handlers.wire import Wire
from tests.patience import soon

REQUEST = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


class Socket(asyncio.Transport):
    """Keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.closed = False

    def write(self, data: Any) -> None:
        self.written += bytes(data)

    def is_closing(self) -> bool:
        return False

    def close(self) -> None:
        self.closed = True

    def get_write_buffer_size(self) -> int:
        return 0


@asynccontextmanager
async def connected(kind: type[HttpToolsProtocol | H11Protocol]) -> AsyncIterator[tuple[Wire, Any, Socket]]:
    """A request whose head has been answered; ``send`` is the server's own."""
    laid: asyncio.Future[Wire] = asyncio.get_running_loop().create_future()
    leave = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        laid.set_result(Wire(send))
        await leave.wait()
        await laid.result().end()

    config = Config(app, lifespan="off", log_config=None)
    config.load()
    state = ServerState()
    protocol, socket = kind(config, state, {}), Socket()
    protocol.connection_made(socket)
    protocol.data_received(REQUEST)
    wire = await soon(laid)
    socket.written = b""
    try:
        yield wire, protocol, socket
    finally:
        leave.set()
        await asyncio.gather(*state.tasks)
        protocol.connection_lost(None)


@pytest.mark.parametrize("kind", [HttpToolsProtocol, H11Protocol])
async def test_piece_goes_out_at_once_as_one_chunk(kind: type[HttpToolsProtocol | H11Protocol]) -> None:
    async with connected(kind) as (wire, _, socket):
        assert wire.write(b"data: a\n\n") is None
        assert wire.write(b"x" * 17) is None
        assert socket.written == b"9\r\ndata: a\n\n\r\n" + b"11\r\n" + b"x" * 17 + b"\r\n"
    assert socket.written.endswith(b"\r\n0\r\n\r\n")


async def test_no_message_is_made_for_the_server_that_we_run(monkeypatch: pytest.MonkeyPatch) -> None:
    async with connected(HttpToolsProtocol) as (wire, _, socket):

        async def send(_: Message) -> None:
            raise AssertionError("the way through the server's messages")

        with monkeypatch.context() as patch:
            patch.setattr(wire, "_send", send)
            assert wire.write(b": ping\n\n") is None
        assert socket.written == b"8\r\n: ping\n\n\r\n"


@pytest.mark.parametrize("kind", [HttpToolsProtocol, H11Protocol])
async def test_reader_that_takes_no_more_is_waited_for(kind: type[HttpToolsProtocol | H11Protocol]) -> None:
    async with connected(kind) as (wire, protocol, socket):
        protocol.pause_writing()
        blocked = wire.write(b"a")
        assert blocked is not None
        assert socket.written == b""
        protocol.resume_writing()
        await soon(blocked)
        assert socket.written == b"1\r\na\r\n"


@pytest.mark.parametrize("kind", [HttpToolsProtocol, H11Protocol])
async def test_nothing_is_written_for_a_client_that_has_gone(kind: type[HttpToolsProtocol | H11Protocol]) -> None:
    async with connected(kind) as (wire, protocol, socket):
        protocol.connection_lost(None)
        assert wire.write(b"a") is None
        assert socket.written == b""


@pytest.mark.parametrize("kind", [HttpToolsProtocol, H11Protocol])
async def test_connection_is_at_hand_for_who_wants_to_cut_it(kind: type[HttpToolsProtocol | H11Protocol]) -> None:
    async with connected(kind) as (wire, _, socket):
        assert wire.transport is socket
