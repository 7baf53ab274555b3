"""uvicorn's connections, with deadlines: a slow client is told 408 and shown out, whatever it is slow with."""

import asyncio
from enum import Enum, auto
from http import HTTPStatus
from typing import Any

from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from handlers.door import PLACE, Door, Line
from handlers.headers import GUARDS

HEAD_BYTES = 64 * 1024
"""Largest head, as h11 has it; httptools would collect without end."""

_GUARDS = b"".join([b"%b: %b\r\n" % guard for guard in GUARDS])


class _Phase(Enum):
    HEAD = auto()
    BODY = auto()
    ANSWER = auto()
    """The request is there. When it is answered, uvicorn's own keep-alive has the clock."""


class Connection(HttpToolsProtocol):
    """A request that comes in one piece, as most do, costs nothing but a look."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._door: Door | None = app_state.get(PLACE)
        self._line: Line | None = None
        self._phase = _Phase.HEAD
        self._messages = 0
        self._waits_for: tuple[_Phase, int] | None = None
        self._loose = 0  # bytes that came, since the last of a body, and are none of it

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._stand_in_line()

    def data_received(self, data: bytes) -> None:
        self._loose += len(data)
        super().data_received(data)
        if self._phase is _Phase.ANSWER:
            self._loose = 0
            if self._idle:  # by an empty line, and without the keep-alive that any byte puts an end to
                self._phase = _Phase.HEAD
        elif self._loose > HEAD_BYTES:
            self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
        self._stand_in_line()

    def connection_lost(self, exc: Exception | None) -> None:
        self._leave()
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        self._phase, self._messages = _Phase.HEAD, self._messages + 1
        super().on_message_begin()

    def send_400_response(self, msg: str) -> None:
        """What is no HTTP is answered here, and the application never hears of it."""
        self._answer(HTTPStatus.BAD_REQUEST, msg)

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._phase is _Phase.HEAD:  # no trailers: nobody reads them
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._phase, self._loose = _Phase.BODY, 0
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._loose = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._phase = _Phase.ANSWER
        super().on_message_complete()

    def late(self) -> None:
        """The time is over, or the place is taken."""
        self._line = self._waits_for = None
        if self._phase is _Phase.BODY and self.flow.read_paused:
            self._stand_in_line()  # it is the handler that has not read yet
        else:
            self._refuse(HTTPStatus.REQUEST_TIMEOUT)

    @property
    def _idle(self) -> bool:
        return self.cycle is not None and self.cycle.response_complete and self.timeout_keep_alive_task is None

    def _stand_in_line(self) -> None:
        waits_for = (self._phase, self._messages)
        if self._door is None or waits_for == self._waits_for:
            return
        if self._line is not None:
            self._line.leave(self)
        self._waits_for, self._line = waits_for, None
        if self._phase is not _Phase.ANSWER:
            self._line = self._door.heads if self._phase is _Phase.HEAD else self._door.bodies
            self._line.join(self)

    def _leave(self) -> None:
        if self._line is not None:
            self._line.leave(self)
        self._line = self._door = None

    def _refuse(self, status: HTTPStatus) -> None:
        """Say why, where it is this client's turn to be answered, and close."""
        self._leave()
        answered = self.cycle is None or self.cycle.response_complete
        if self._phase is _Phase.HEAD:
            may_say = answered and self._messages > 0
        else:
            may_say = not (answered or self.cycle.response_started or self.pipeline)
        if may_say:
            self._answer(status)
        else:
            self.transport.abort()

    def _answer(self, status: HTTPStatus, text: str = "") -> None:
        """It is the last that this connection says."""
        body = text.encode()
        first = f"HTTP/1.1 {status.value} {status.phrase}\r\ncontent-length: {len(body)}\r\nconnection: close\r\n"
        kind = b"content-type: text/plain; charset=utf-8\r\n" if body else b""
        self.transport.write(first.encode() + kind + _GUARDS + b"\r\n" + body)
        self.transport.close()
