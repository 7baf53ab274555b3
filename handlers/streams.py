"""The one place where followed events become an EventSourceResponse."""

import random
from collections.abc import AsyncGenerator
from contextlib import aclosing

from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message

from chat.engine import Engine
from chat.errors import ChatError
from chat.events import Terminal
from chat.runs import Cursor, Run, parse_cursor
from handlers.context import engine_of, service_of
from handlers.formats import Encoder
from handlers.formats.frames import notice, retry
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
    engine, service = engine_of(request), service_of(request)
    run = await engine.resumable(run_id, after)
    if not run.status.active and after == run.last_seq:
        return nothing_more()

    async def gone(_: Message) -> None:
        await engine.cancel(run_id, "client_disconnected")

    return EventSourceResponse(
        _frames(engine, run, after, encoder),
        headers=run_headers(run, replayed=replayed),
        sep="\n",
        ping=service.ping,
        ping_message_factory=_ping,
        send_timeout=service.send_timeout,
        shutdown_grace_period=GRACE,
        client_close_handler_callable=gone if cancel else None,
    )


async def _frames(engine: Engine, run: Run, after: int, encoder: Encoder) -> AsyncGenerator[bytes, None]:
    yield encoder.opening(run, after)
    try:
        async with aclosing(engine.follow(run.id, after)) as batches:
            async for batch in batches:
                yield encoder.encode(run.id, batch.first_seq, batch.events)
                if isinstance(batch.events[-1], Terminal):
                    return
    except ChatError as error:
        # Without an id: what the client has seen so far is where it resumes.
        yield notice("stream.error", {"code": error.code, "message": error.message, "retryable": True})
    yield _retry()


def _retry() -> bytes:
    return retry(random.randint(*RETRY_MS))  # noqa: S311  # jitter, no secret


def _ping() -> ServerSentEvent:
    return ServerSentEvent(comment="ping", sep="\n")
