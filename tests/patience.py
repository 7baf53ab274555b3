"""How long a test waits for what has to happen."""

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

T = TypeVar("T")

PATIENCE = 30.0
"""Seconds after which what should happen at once is taken as not happening: a busy machine stands still for some."""


async def soon(awaitable: Awaitable[T]) -> T:
    """Wait for what has to happen now; TimeoutError if it does not."""
    async with asyncio.timeout(PATIENCE):
        return await awaitable
