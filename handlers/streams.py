"""The one place where followed events become an EventSourceResponse."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import closing
from functools import partial
from typing import Any

from sse_starlette import EventSourceResponse
from sse_starlette.sse import SendTimeoutError
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from chat.commits import Batch
from chat.errors import ChatError
from chat.following import Follower
from chat.live import FOLLOW_EVENTS
from chat.ownership import UserEngine
from chat.runs import Cursor, Run, RunKind, parse_cursor
from handlers.chaos import Chaos, chaos_of
from handlers.context import engine_of, service_of
from handlers.formats import Encoder
from handlers.formats.frames import PING
from handlers.limits import take_seat
from handlers.pulse import Pulse
from handlers.retries import retry_ms
from handlers.views import events_url
from handlers.wire import Way, Wire, wire_of


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
    if run.kind is RunKind.IMPORT:
        del headers["X-Session-Id"]  # it is no conversation, that a client could go on with
    return headers | ({"Idempotency-Replayed": "true"} if replayed else {})


def nothing_more() -> Response:
    """Tells EventSource that it has everything and may stop."""
    return Response(status_code=204, headers={"Cache-Control": "no-store"})


async def follow(
    request: Request, run_id: str, after: int, encoder: Encoder, *, replayed: bool = False, cancel: bool = False
) -> Response:
    """Stream what the run has behind ``after``. ``cancel``: the run ends when this client goes away.

    Raises:
        ChatError: ``not_found``, ``cursor_ahead``, ``cursor_expired``, and those of :func:`take_seat`.
    """
    engine = engine_of(request)
    run = await engine.resumable(run_id, min(after, 1) if encoder.counts_frames else after)
    if not (encoder.counts_frames or run.status.active) and after == run.last_seq:
        return nothing_more()

    take_seat(request, run)
    gone = partial(engine.cancel, run_id, "client_disconnected") if cancel else None
    delivery = Delivery(engine, service_of(request).pulse, run, after, encoder, on_leaving=gone)
    return RunStream(delivery, {**run_headers(run, replayed=replayed), **encoder.headers})


async def tell(engine: UserEngine, run: Run, encoder: Encoder) -> None:
    """Give the encoder all that is committed of the run by now, for what it knows then: its frames go nowhere."""
    encoder.opening(run, 0)
    seq = 0

    def told(batch: Batch) -> int:
        encoder.encode(run.id, batch.first_seq, batch.events)
        return batch.first_seq + len(batch.events) - 1

    with closing(await engine.follower(run.id, 0)) as follower:
        while follower.behind and (batch := await follower.next()) is not None:
            seq = told(batch)
        certain = follower.certain
    while not certain and (batch := await engine.store.events(run.id, seq, FOLLOW_EVENTS)).events:
        seq = told(batch)


class RunStream(EventSourceResponse):
    """A run as an event stream: sse-starlette's head, and behind it a :class:`Delivery`.

    The middlewares see the head, and the rest goes out when they have returned: see :class:`handlers.wire.Wire`.
    """

    def __init__(self, delivery: "Delivery", headers: Mapping[str, str]) -> None:
        super().__init__(_nothing(), headers=headers, sep="\n", ping=0)
        self._delivery = delivery

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] == "HEAD":
            await super().__call__(scope, receive, send)
        else:
            head = {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}
            await self._delivery.begin(wire_of(scope), send, head, chaos_of(scope))


class Delivery:
    """A run's events on their way to one client, in one task instead of sse-starlette's four.

    Its task group, with a task each for frames, pings, the client's leaving and the server's stop, costs 13 KiB and
    0.3 ms of CPU a stream: here the request's own task sends, one more listens for the client's leaving, and
    :class:`Pulse` has the rest. What becomes visible while the task waits goes out from the loop. Only a send that has
    to wait for its reader wakes the task.
    """

    __slots__ = (
        "_after",
        "_blocked",
        "_cut",
        "_encoder",
        "_engine",
        "_follower",
        "_loop",
        "_on_leaving",
        "_pulse",
        "_run",
        "_task",
        "_why",
        "_wire",
        "sending",
        "since",
    )

    def __init__(
        self,
        engine: UserEngine,
        pulse: Pulse,
        run: Run,
        after: int,
        encoder: Encoder,
        *,
        on_leaving: Callable[[], Awaitable[object]] | None,
    ) -> None:
        self.since = 0.0
        self.sending = False
        self._loop = asyncio.get_running_loop()
        self._engine = engine
        self._pulse = pulse
        self._run = run
        self._after = after
        self._encoder = encoder
        self._on_leaving = on_leaving
        self._follower: Follower | None = None
        self._blocked: Awaitable[None] | None = None
        self._task: asyncio.Task[Any] | None = None
        self._cut = False
        self._why: BaseException | None = None

    async def begin(self, wire: Wire, send: Send, head: Message, chaos: Chaos | None = None) -> None:
        """Send the head through the middlewares, and leave the rest to who is outside of them."""
        try:
            with self:
                await self._until_sent(send(head))
        except SendTimeoutError:
            await self._given_up()
            raise
        self._wire: Way = wire if chaos is None else chaos.upon(wire, self._run, self._after)
        wire.rest = self.go_on

    async def go_on(self, receive: Receive) -> None:
        """Send everything behind the head.

        Raises:
            SendTimeoutError: the reader stalled, and was dropped.
        """
        try:
            with self:
                listening = self._loop.create_task(self._listen(receive))
                listening.add_done_callback(self._left)
                try:
                    await self._send_all()
                    await self._until_sent(self._wire.end())
                finally:
                    listening.cancel()
        except SendTimeoutError:
            await self._given_up()
            raise

    def __enter__(self) -> None:
        """Be under the eyes of the pulse. What it cuts off ends as :meth:`_end` was told."""
        self._task = asyncio.current_task()
        self.since = self._loop.time()
        self._pulse.add(self)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> bool:
        task, self._task = self._task, None
        self._pulse.remove(self)
        assert task is not None
        if kind is not asyncio.CancelledError or not self._cut or task.uncancel():
            return False
        if self._why is not None:
            raise self._why from None
        return True

    def ping(self) -> None:
        if self._follower is not None and self._follower.waiting and not self._sent(PING):
            self._follower.nudge()

    def drop(self) -> None:
        self._end(SendTimeoutError())

    async def _listen(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        if self._on_leaving is not None:
            await self._on_leaving()

    async def _given_up(self) -> None:
        """A reader that is dropped has gone away, too; not one that holds up the server's stop, whose run goes on."""
        if self._on_leaving is not None and not self._engine.draining:
            await self._on_leaving()

    def _left(self, listening: "asyncio.Task[None]") -> None:
        if not listening.cancelled():
            self._end(listening.exception())

    def _end(self, why: BaseException | None) -> None:
        """Stop sending, once, and if ``why`` is given raise it."""
        if self._task is not None and not self._cut:
            self._cut, self._why = True, why
            self._task.cancel()

    async def _send_all(self) -> None:
        await self._through(self._encoder.opening(self._run, self._after))
        try:
            start = 0 if self._encoder.replays else self._after
            with closing(await self._engine.follower(self._run.id, start, self._push)) as self._follower:
                while (batch := await self._follower.next()) is not None:
                    if batch.events:
                        self._push(batch)
                    await self._unblocked()
                    if self._encoder.rest and not self._follower.behind:
                        await self._through(self._encoder.rest)
                        return
                if self._follower.ended:
                    return
        except ChatError as error:
            await self._through(self._encoder.trouble(error))
        await self._through(self._encoder.leaving(retry_ms()))

    def _push(self, batch: Batch) -> bool:
        frames = batch.shown.get(self._encoder)
        if frames is None:
            frames = self._encoder.encode(self._run.id, batch.first_seq, batch.events)
            batch.shown[self._encoder] = frames
        return (not frames or self._sent(frames)) and not self._encoder.rest

    def _sent(self, frames: bytes) -> bool:
        """Send without waiting. False if that could not be: :meth:`_unblocked` is to be awaited before the next."""
        self.since = self._loop.time()
        self._blocked = self._wire.write(frames)
        self.sending = self._blocked is not None
        return not self.sending

    async def _unblocked(self) -> None:
        if self._blocked is not None:
            await self._blocked  # when it fails the stream is over
            self._blocked, self.sending = None, False

    async def _until_sent(self, sending: Awaitable[None]) -> None:
        self.since, self.sending = self._loop.time(), True
        await sending
        self.sending = False

    async def _through(self, frames: bytes) -> None:
        """Send, and wait until it is done."""
        self._sent(frames)
        await self._unblocked()


async def _nothing() -> AsyncGenerator[bytes, None]:
    return
    yield
