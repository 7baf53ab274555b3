"""How long a run waits for a store that is out of reach, before it gives up what it has begun."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from chat.errors import StoreUnavailableError

T = TypeVar("T")

READ_SECONDS = 10.0
"""How long a run's reads are tried again; a database that restarts takes a few seconds."""

READ_PAUSE = 0.1
"""Seconds between two tries."""

logger = logging.getLogger(__name__)


async def patiently(read: Callable[[], Awaitable[T]], run_id: str) -> T:
    """What ``read`` reads, though the store be out of reach for a moment: nobody waits for a status code any more, and
    a run that has been accepted is not to fail of a connection that was lost.

    Raises:
        StoreUnavailableError: it was out of reach all the time.
    """
    given_up = time.monotonic() + READ_SECONDS
    waits = False
    while True:
        try:
            return await read()
        except StoreUnavailableError as error:
            if time.monotonic() >= given_up:
                raise
            if not waits:
                logger.warning("a run waits for the store: %s", error.code, extra={"run_id": run_id})
            waits = True
            await asyncio.sleep(READ_PAUSE)
