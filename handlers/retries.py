"""How a client is sent away for a moment, so that it comes back and not all others with it."""

import random
from collections.abc import AsyncGenerator

from sse_starlette import EventSourceResponse
from starlette.responses import Response

from handlers.formats.frames import retry

RETRY_MS = (500, 3_000)
"""Milliseconds, drawn anew for every stream that is sent away: not all clients of a deploy come back at once."""


def retry_ms(wait: float = 0) -> int:
    """``wait``: seconds before which it makes no sense to come back."""
    return round(wait * 1000) + random.randint(*RETRY_MS)  # noqa: S311  # nosec B311  # jitter, no secret


def try_again(wait: float = 0) -> Response:
    """An empty stream that sends EventSource away for a moment: any status but 200 would make it give up."""

    async def frames() -> AsyncGenerator[bytes, None]:
        yield retry(retry_ms(wait))

    return EventSourceResponse(frames(), sep="\n", ping=0)
