from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from tests.live.browser import Watched
from tests.live.cluster import Cluster, cluster
from tests.live.hostile import Elsewhere
from tests.live.service import Service

Serve = Callable[..., Awaitable[Service]]


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


@pytest.fixture
async def postgres() -> AsyncIterator[Cluster]:
    """A server that the test may crash, with a database that nobody else has."""
    async with cluster() as made:
        yield made


@pytest.fixture
async def elsewhere() -> AsyncIterator[Elsewhere]:
    """An origin that nobody should ask."""
    async with Elsewhere() as elsewhere:
        yield elsewhere


@pytest.fixture
async def watched() -> AsyncIterator[Watched]:
    """Whose pages have to behave."""
    watched = Watched()
    yield watched
    assert watched.seen == []
