"""The one place where followed events become an EventSourceResponse."""

import asyncio
import random
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import closing
from typing import Any

from sse_starlette import EventSourceResponse
from sse_starlette.sse import SendTimeoutError
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from chat.engine import Engine
from chat.errors import ChatError
from chat.events import Terminal
from chat.following import Follower
from chat.ports import Batch
from chat.runs import Cursor, Run, parse_cursor
from handlers.context import engine_of, service_of, wire_of
from handlers.formats import Encoder
from handlers.formats.frames import PING, notice, retry
from handlers.pulse import Pulse
from handlers.views import events_url

RETRY_MS = (500, 3_000)
"""Milliseconds, drawn anew for every stream that is sent away: not all clients of a deploy come back at once."""

GRACE = 1.0
"""Seconds that a stream gets when the server stops. The engine has ended them all by then but those that stall."""


def cursor_of(request: Request, after: str | None = None) -> Cursor | None:
    """The ``Last-Event-ID``, or else an event id from ``?after=``.

    Raises:
        ChatError: ``invalid_cursor``.
    """
    text = request.headers.get("last-event-id") or after
    return parse_cursor(text) if text else None


def run_headers(run: Run, *, replayed: bool = False) -> dict[str, str]:
    """The headers that tell where an answer is to be found again."""
    headers = {
        "X-Session-Id": run.session_id,
        "X-User-Id": run.user_id,
        "X-Run-Id": run.id,
        "Location": events_url(run.id),
    }
    return headers | ({"Idempotency-Replayed": "true"} if replayed else {})


def nothing_more() -> Response:
    """Tells EventSource that it has everything and may stop."""
    return Response(status_code=204, headers={"Cache-Control": "no-store"})


def try_again() -> Response:
    """An empty stream that sends EventSource away for a moment: any status but 200 would make it give up."""

    async def frames() -> AsyncGenerator[bytes, None]:
        yield _retry()

    return EventSourceResponse(frames(), sep="\n", ping=0)


async def follow(
    request: Request, run_id: str, after: int, encoder: Encoder, *, replayed: bool = False, cancel: bool = False
) -> Response:
    """Stream what the run has behind ``after``. ``cancel``: the run ends when this client goes away.

    Raises:
        ChatError: ``not_found``, ``cursor_ahead``, ``cursor_expired``.
    """
    engine = engine_of(request)
    run = await engine.resumable(run_id, after)
    if not run.status.active and after == run.last_seq:
        return nothing_more()

    async def gone(_: Message) -> None:
        await engine.cancel(run_id, "client_disconnected")

    return RunStream(
        engine,
        service_of(request).pulse,
        run,
        after,
        encoder,
        headers=run_headers(run, replayed=replayed),
        on_leaving=gone if cancel else None,
    )


class RunStream(EventSourceResponse):
    """A run as an event stream: sse-starlette's response, with sends of its own between the first frame and the last.

    The response still sees to the head, the client's leaving, the server's stop and the end. Frames go straight to
    the server from where they are made: past the cancel scope that the response opens around each (15 us of CPU), and
    past six middlewares, which look at heads only. What that scope and the pings' task were for is :class:`Pulse`'s.
    """

    def __init__(
        self,
        engine: Engine,
        pulse: Pulse,
        run: Run,
        after: int,
        encoder: Encoder,
        *,
        headers: Mapping[str, str],
        on_leaving: Callable[[Message], Awaitable[None]] | None,
    ) -> None:
        super().__init__(
            self._frames(),
            headers=headers,
            sep="\n",
            ping=0,
            shutdown_grace_period=GRACE,
            client_close_handler_callable=on_leaving,
        )
        self.since = 0.0
        self.sending = False
        self._engine = engine
        self._pulse = pulse
        self._run = run
        self._after = after
        self._encoder = encoder
        self._follower: Follower | None = None
        self._task: asyncio.Task[Any] | None = None
        self._dropped = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._loop = asyncio.get_running_loop()
        self._wire = wire_of(scope, send)
        self.since = self._loop.time()
        self._pulse.add(self)
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._pulse.remove(self)

    def ping(self) -> None:
        if self._follower is not None:
            self._follower.nudge()

    def drop(self) -> None:
        if not self._dropped and self._task is not None:
            self._dropped = True
            self._task.cancel()

    async def _frames(self) -> AsyncGenerator[bytes, None]:
        self._task = asyncio.current_task()
        yield self._encoder.opening(self._run, self._after)  # through the middlewares: one waits with the head for it
        try:
            with closing(await self._engine.follower(self._run.id, self._after)) as self._follower:
                while (batch := await self._follower.next()) is not None:
                    await self._send(self._encoded(batch) if batch.events else PING)
                    if batch.events and isinstance(batch.events[-1], Terminal):
                        return
        except ChatError as error:
            # Without an id: what the client has seen so far is where it resumes.
            yield notice("stream.error", {"code": error.code, "message": error.message, "retryable": True})
        yield _retry()

    def _encoded(self, batch: Batch) -> bytes:
        frames = batch.shown.get(self._encoder)
        if frames is None:
            frames = self._encoder.encode(self._run.id, batch.first_seq, batch.events)
            batch.shown[self._encoder] = frames
        return frames

    async def _send(self, frames: bytes) -> None:
        self.since = self._loop.time()
        self.sending = True
        try:
            await self._wire({"type": "http.response.body", "body": frames, "more_body": True})
        except asyncio.CancelledError:
            if self._dropped and self._task is not None and not self._task.uncancel():
                raise SendTimeoutError from None
            raise
        finally:
            self.sending = False


def _retry() -> bytes:
    return retry(random.randint(*RETRY_MS))  # noqa: S311  # jitter, no secret
