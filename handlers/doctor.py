"""Numbered, timed events that cost nothing: what `server.py doctor` measures a chain of proxies with.

No model is asked and nothing is stored. Its limits keep it from being worth anybody's abuse.
"""

import asyncio
import re
from collections.abc import AsyncGenerator
from typing import Annotated

import anyio
from pydantic import Field
from sse_starlette import EventSourceResponse
from starlette.requests import Request
from starlette.responses import Response
from typing_extensions import TypedDict

from chat.errors import ChatError
from handlers.bodies import Body, query_of
from handlers.context import service_of
from handlers.formats.frames import PING, json_frame
from handlers.limits import take_seat
from handlers.pulse import GRACE
from handlers.streams import nothing_more

MOST_EVENTS = 100
LONGEST_INTERVAL = 1.0
"""Seconds: some proxies give up after a few, and that is what the silence is for."""
LONGEST_SILENCE = 300.0
"""Seconds: longer than what any proxy cuts off by default."""

NAME = "doctor"
"""Stands where a run's id stands: in the events' ids and in the response's headers."""

HEADERS = {
    "X-Session-Id": NAME,
    "X-User-Id": NAME,
    "X-Run-Id": NAME,
    "Location": "/doctor/stream",
    "Idempotency-Replayed": "true",
    "Preference-Applied": "respond-async",
    "Retry-After": "1",
}
"""One of each that clients of the other routes read, to see which of them arrive there."""

SENT = sorted(["Cache-Control", "Content-Type", "X-Accel-Buffering", "X-Request-Id", *HEADERS])

READ = (
    "accept",
    "authorization",
    "content-type",
    "cookie",
    "idempotency-key",
    "last-event-id",
    "origin",
    "prefer",
    "traceparent",
    "tracestate",
    "x-request-id",
    "x-session-id",
)
"""The request headers that this service, or who guards it, reads. Only their names are told, and no other's: what a
proxy adds is nobody's business."""

_CURSOR = re.compile(rf"{NAME}\.(\d{{1,3}})", re.ASCII)


class DoctorQuery(Body):
    events: int = Field(10, ge=0, le=MOST_EVENTS, description="How many numbered events the stream has.")
    interval: float = Field(0.25, ge=0, le=LONGEST_INTERVAL, description="Seconds before each of them.")
    silence: float = Field(0, ge=0, le=LONGEST_SILENCE, description="Seconds between the last and the stream's end.")
    pings: bool = Field(default=True, description="Whether comments keep the silence alive, as in other streams.")


class DoctorReportView(TypedDict):
    """What the service saw of the request, and what it sends: all that does not arrive is lost on the way."""

    service: str
    version: str
    http_version: Annotated[str, Field(description="What the last proxy, or the client, speaks to the service.")]
    received: Annotated[list[str], Field(description="Which headers arrived, of those that the service reads.")]
    sent: Annotated[list[str], Field(description="Which headers the response left with.")]
    body_bytes: int
    body_limit: Annotated[int, Field(description="The most bytes that the service takes.")]
    ping_seconds: Annotated[float, Field(description="The pause between comments in a silent stream.")]


class DoctorEventView(TypedDict):
    """A numbered event, or the end."""

    number: int
    after: Annotated[float, Field(description="Seconds from the request's arrival to this event's departure.")]


async def stream(request: Request) -> Response:
    """By GET and POST alike. A cursor on the last event gets 204, as in every stream. HEAD starts nothing."""
    began = asyncio.get_running_loop().time()
    query, after = query_of(request, DoctorQuery), _cursor(request.headers.get("last-event-id"))
    if after > query.events:
        return nothing_more()
    take_seat(request)
    service = service_of(request)
    report: DoctorReportView = {
        "service": service.name,
        "version": service.version,
        "http_version": request.scope["http_version"],
        "received": [name for name in READ if name in request.headers],
        "sent": SENT,
        "body_bytes": len(await request.body()),
        "body_limit": service.body_limit,
        "ping_seconds": service.ping_seconds,
    }
    stopping = anyio.Event()
    frames = _nothing() if request.method == "HEAD" else _frames(report, query, after, began, stopping)
    return EventSourceResponse(
        frames, headers=HEADERS, sep="\n", ping=0, shutdown_event=stopping, shutdown_grace_period=GRACE
    )


async def _frames(
    report: DoctorReportView, query: DoctorQuery, after: int, began: float, stopping: anyio.Event
) -> AsyncGenerator[bytes, None]:
    """What comes to an end before its time, because the server stops, has no `doctor.end`."""
    now = asyncio.get_running_loop().time
    yield json_frame(NAME, after, "doctor.report", report)
    for number in range(after + 1, query.events + 1):
        if await _stopped(stopping, query.interval):
            return
        yield json_frame(NAME, number, "doctor.event", _event(number, now() - began))
    silence = query.silence
    while query.pings and silence > report["ping_seconds"]:
        if await _stopped(stopping, report["ping_seconds"]):
            return
        silence -= report["ping_seconds"]
        yield PING
    if not await _stopped(stopping, silence):
        yield json_frame(NAME, query.events + 1, "doctor.end", _event(query.events + 1, now() - began))


async def _stopped(stopping: anyio.Event, seconds: float) -> bool:
    """Wait so long; whether the server stops before that is over."""
    with anyio.move_on_after(seconds):
        await stopping.wait()
    return stopping.is_set()


def _event(number: int, after: float) -> DoctorEventView:
    return {"number": number, "after": round(after, 4)}


async def _nothing() -> AsyncGenerator[bytes, None]:
    return
    yield


def _cursor(text: str | None) -> int:
    """The number of the last event that was seen.

    Raises:
        ChatError: ``invalid_cursor``.
    """
    if not text:
        return 0
    if (match := _CURSOR.fullmatch(text)) is None:
        raise ChatError("invalid_cursor", "The event id is not one that this stream has sent.")
    return int(match[1])
