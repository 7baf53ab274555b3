"""The one place where followed events become an EventSourceResponse."""

import asyncio
import random
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Generator, Mapping
from contextlib import closing
from functools import partial
from types import coroutine
from typing import Any

from sse_starlette import EventSourceResponse
from sse_starlette.sse import SendTimeoutError
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from chat.engine import Engine
from chat.errors import ChatError
from chat.following import Follower
from chat.ports import Batch
from chat.runs import Cursor, Run, parse_cursor
from handlers.context import engine_of, service_of, wire_of
from handlers.formats import Encoder
from handlers.formats.frames import PING, retry
from handlers.pulse import Pulse
from handlers.views import events_url

RETRY_MS = (500, 3_000)
"""Milliseconds, drawn anew for every stream that is sent away: not all clients of a deploy come back at once."""


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
        yield retry(_retry_ms())

    return EventSourceResponse(frames(), sep="\n", ping=0)


async def follow(
    request: Request, run_id: str, after: int, encoder: Encoder, *, replayed: bool = False, cancel: bool = False
) -> Response:
    """Stream what the run has behind ``after``. ``cancel``: the run ends when this client goes away.

    Raises:
        ChatError: ``not_found``, ``cursor_ahead``, ``cursor_expired``.
    """
    engine = engine_of(request)
    run = await engine.resumable(run_id, 0 if encoder.replays else after)
    if not (encoder.replays or run.status.active) and after == run.last_seq:
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
    """A run as an event stream: sse-starlette's response, in one task instead of four.

    The response still sees to the head, the order of things, the client's leaving and the end. Its task group, with a
    task each for frames, pings, the client's leaving and the server's stop, costs 13 KiB and 0.3 ms of CPU a stream:
    here the request's own task sends, one more listens for the client's leaving, and :class:`Pulse` has the rest.
    Frames go straight to the server, past six middlewares, which look at heads only; and what becomes visible while
    the task waits goes out from the loop. Only a send that has to wait for its reader wakes the task.
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
        super().__init__(self._frames(), headers=headers, sep="\n", ping=0, client_close_handler_callable=on_leaving)
        self.since = 0.0
        self.sending = False
        self._engine = engine
        self._pulse = pulse
        self._run = run
        self._after = after
        self._encoder = encoder
        self._follower: Follower | None = None
        self._blocked: Awaitable[None] | None = None
        self._task: asyncio.Task[Any] | None = None
        self._cut = False
        self._why: BaseException | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] == "HEAD":
            return await super().__call__(scope, receive, send)
        self._loop = asyncio.get_running_loop()
        self._wire = wire_of(scope, send)
        self._task = task = asyncio.current_task()
        assert task is not None
        listening = self._loop.create_task(self._listen_for_disconnect(receive))
        listening.add_done_callback(self._left)
        self.since = self._loop.time()
        self._pulse.add(self)
        try:
            await self._stream_response(partial(self._send, send))
        except asyncio.CancelledError:
            if not self._cut or task.uncancel():
                raise
            if self._why is not None:
                raise self._why from None
        finally:
            self._task = None
            self._pulse.remove(self)
            listening.cancel()

    def ping(self) -> None:
        if self._follower is not None and self._follower.waiting and not self._sent(PING):
            self._follower.nudge()

    def drop(self) -> None:
        self._end(SendTimeoutError())

    def _left(self, listening: "asyncio.Task[None]") -> None:
        if not listening.cancelled():
            self._end(listening.exception())

    def _end(self, why: BaseException | None) -> None:
        """Stop sending, once, and if ``why`` is given raise it."""
        if self._task is not None and not self._cut:
            self._cut, self._why = True, why
            self._task.cancel()

    async def _frames(self) -> AsyncGenerator[bytes, None]:
        yield self._encoder.opening(self._run, self._after)  # through the middlewares: one waits with the head for it
        try:
            start = 0 if self._encoder.replays else self._after
            with closing(await self._engine.follower(self._run.id, start, self._push)) as self._follower:
                while (batch := await self._follower.next()) is not None:
                    if batch.events:
                        self._push(batch)
                    if self._blocked is not None:
                        await self._blocked
                        self._blocked = None
                if self._follower.ended:
                    return
        except ChatError as error:
            yield self._encoder.trouble(error)
        yield self._encoder.leaving(_retry_ms())

    def _push(self, batch: Batch) -> bool:
        frames = batch.shown.get(self._encoder)
        if frames is None:
            frames = self._encoder.encode(self._run.id, batch.first_seq, batch.events)
            batch.shown[self._encoder] = frames
        return not frames or self._sent(frames)

    async def _send(self, send: Send, message: Message) -> None:
        """Send it under the eyes of the pulse."""
        self.since = self._loop.time()
        self.sending = True
        await send(message)  # when it fails the stream is over
        self.sending = False

    def _sent(self, frames: bytes) -> bool:
        """Send without waiting. False if that could not be: ``_blocked`` is to be awaited before the next."""
        message = {"type": "http.response.body", "body": frames, "more_body": True}
        self._blocked = begun(self._send(self._wire, message))
        return self._blocked is None


def begun(work: Coroutine[Any, Any, None]) -> Awaitable[None] | None:
    """Run it up to where it has to wait: None if it came to its end, else what is left of it.

    What a task's eager start does from Python 3.12 on, without a task.
    """
    try:
        waits_for = work.send(None)
    except StopIteration:
        return None
    return _rest(work, waits_for)


@coroutine
def _rest(work: Coroutine[Any, Any, None], waits_for: object) -> Generator[object, None, None]:
    try:
        yield waits_for
    except BaseException:
        work.close()
        raise
    yield from work.__await__()


def _retry_ms() -> int:
    return random.randint(*RETRY_MS)  # noqa: S311  # jitter, no secret
