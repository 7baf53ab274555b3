"""From a command to its answer: start or attach, then stream, wait, or point to the run."""

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, nullcontext
from dataclasses import replace

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from chat.commands import Claim, NewRetry, NewRun, Started
from chat.errors import ChatError
from chat.events import RunFailed
from chat.imports import NewImport
from chat.runs import Cursor, Run, RunKind
from chat.sessions import Turn
from handlers.bodies import IdempotencyKey, Reply, checked
from handlers.context import engine_of
from handlers.formats import FORMATS, Encoder
from handlers.limits import started, take_seat
from handlers.sealing import followed_at
from handlers.streams import cursor_of, follow, run_headers
from handlers.views import AnswerView, RunView, run_view, source_view

Shape = Callable[[Run, Turn], Mapping[str, object]]
"""How a whole answer looks as JSON, given its run and what was said."""


def whole(run: Run, said: Turn) -> AnswerView:
    """The run, and what it answered."""
    return {**run_view(run), "answer": said.content, "sources": [source_view(source) for source in said.sources]}


def claim_of(request: Request, key: str | None, *meaning: object, path: str | None = None) -> Claim | None:
    """The idempotency key of the header, or the one given, bound to what the request means, and to its path.

    How the answer is delivered does not count: the same key may ask for a stream first and for JSON later. Where that
    is another path, ``path`` is the one for both.
    """
    key = request.headers.get("idempotency-key", key)  # an empty one is refused: who sends it believes it to be one
    if key is None:
        return None
    meant = json.dumps([path or request.url.path, *meaning])
    return Claim(checked(IdempotencyKey, {"key": key}).key, hashlib.sha256(meant.encode()).hexdigest())


async def replayed(request: Request, claim: Claim | None) -> Started | None:
    """The run that this request has started before, if its key says so.

    To be asked for before anything is checked that may have changed since, such as which models there are.

    Raises:
        ChatError: ``idempotency_conflict``, ``invalid_cursor``.
    """
    if claim is None or cursor_of(request) is not None:
        return None
    return await engine_of(request).store.claimed(claim)


async def answer(
    request: Request,
    new: NewRun | NewRetry | Started,
    reply: Reply,
    *,
    encoder: Encoder | None = None,
    shape: Shape = whole,
) -> Response:
    """Start the run, or attach to the one that this request has started before; then answer as ``reply`` asks.

    Raises:
        ChatError: whatever starting or following raises.
    """
    cursor = cursor_of(request)
    start = new if isinstance(new, Started) else await begun_once(request, new)
    headers = run_headers(start.run, replayed=start.replayed)
    if prefers_async(request):
        view: RunView = {**run_view(start.run), "events_url": await followed_at(request, start.run)}
        return JSONResponse(view, 202, headers | {"Preference-Applied": "respond-async"})
    leaving_cancels = reply.on_disconnect == "cancel"
    if not reply.stream:
        async with _cancelled_by_leaving(request, start.run.id) if leaving_cancels else nullcontext():
            return await _waited(request, start.run, headers, shape)
    return await follow(
        request,
        start.run.id,
        cursor.seq if cursor else 0,
        encoder or FORMATS[reply.format],
        replayed=start.replayed,
        cancel=leaving_cancels,
    )


def prefers_async(request: Request) -> bool:
    """Whether nobody waits for it: https://www.rfc-editor.org/rfc/rfc7240#section-4.1"""
    return "respond-async" in request.headers.get("prefer", "")


async def begun_once(request: Request, new: NewRun | NewRetry) -> Started:
    """Start the run, or attach to the one whose ``Last-Event-ID`` the request brings.

    Raises:
        ChatError: ``cursor_mismatch``, and whatever starting raises.
    """
    cursor = cursor_of(request)
    return await begun(request, new) if cursor is None else await _attached(request, new, cursor)


async def begun(request: Request, new: NewRun | NewRetry | NewImport) -> Started:
    """Start the run, as part of the trace that the request belongs to, if the client may have one."""
    return await started(request, replace(new, trace=engine_of(request).tracer.carried(request.headers.getlist)))


async def _attached(request: Request, new: NewRun | NewRetry, cursor: Cursor) -> Started:
    """The run that the client has seen part of, if this request is the one that started it."""
    engine = engine_of(request)
    run = await engine.run(cursor.run_id)
    if isinstance(new, NewRetry):
        same = run.message_id == (await engine.run(new.run_id)).message_id
    else:
        said = await engine.store.turn(run.message_id)  # nothing, if it was just deleted
        same = said is not None and said.content == new.turns[-1].content
    if not same or run.kind is not RunKind.ANSWER:
        raise ChatError("cursor_mismatch", "Last-Event-ID belongs to the answer to another message.")
    return Started(run, created=False, replayed=True)


@asynccontextmanager
async def _cancelled_by_leaving(request: Request, run_id: str) -> AsyncIterator[None]:
    """While inside, the run ends when the client goes away."""

    async def watch() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass
        await engine_of(request).cancel(run_id, "client_disconnected")

    watching = asyncio.create_task(watch())
    try:
        yield
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)


async def _waited(request: Request, run: Run, headers: dict[str, str], shape: Shape) -> Response:
    return JSONResponse(shape(*await outcome(request, run.id)), headers=headers)


async def outcome(request: Request, run_id: str) -> tuple[Run, Turn]:
    """The run when it has ended, and what it said.

    Raises:
        ChatError: why it failed, if it did; and whatever waiting for it raises.
    """
    engine = engine_of(request)
    take_seat(request)
    ended = await engine.result(run_id)
    said = await engine.answer(ended)
    if isinstance(ended.terminal, RunFailed):
        failure = ended.terminal
        details = {"run_id": run_id, "retryable": failure.retryable, "answer": said.content}
        raise ChatError(failure.code, failure.message, details=details, retry_after=failure.retry_after)
    return ended, said
