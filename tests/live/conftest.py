import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import NoReturn

import pytest

from tests.live.service import Service

Serve = Callable[..., Awaitable[Service]]


def unavailable(what: str) -> NoReturn:
    """CI has every program, so there a missing one is a failure; elsewhere it is a skip that says what to do."""
    if os.environ.get("PARLEY_REQUIRE_SERVICES") == "1":
        pytest.fail(what)
    pytest.skip(what)


@pytest.fixture
async def serve(tmp_path: Path) -> AsyncIterator[Serve]:
    """Starts services, each in a folder of its own: ``await serve(STREAM_DELAY="0")``."""
    async with AsyncExitStack() as stack:
        number = 0

        async def start(**settings: str) -> Service:
            nonlocal number
            number += 1
            folder = tmp_path / f"service{number}"
            folder.mkdir()
            return await stack.enter_async_context(Service(folder, **settings))

        yield start


@pytest.fixture
async def service(serve: Serve) -> Service:
    """A service with the echo model and default settings."""
    return await serve()
