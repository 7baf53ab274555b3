"""The whole application, for targets that are no coroutines: it lives between the requests, and works during them."""

import asyncio
import tempfile
from collections.abc import Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any, Self, TypeVar

import httpx
from starlette.applications import Starlette

from tests.serving import Client, served_as_set

T = TypeVar("T")


class Application:
    """One that answers with what it was told. ``settings`` go before those that let anybody ask anything."""

    def __init__(self, **settings: Any) -> None:
        self._settings = {"stream_delay": 0, "max_runs": 0, "log_level": "ERROR"} | settings
        self._runner = asyncio.Runner()
        self._over = asyncio.Event()
        self._client: Client | None = None

    @property
    def app(self) -> Starlette:
        assert self._client is not None
        return self._client.app

    def __enter__(self) -> Self:
        self._runner.__enter__()
        self.run(self._begin())
        return self

    def __exit__(self, *_: object) -> None:
        self.run(self._end())
        self._runner.__exit__(None, None, None)

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self._runner.run(work)

    def ask(self, method: str, url: str, **arguments: Any) -> httpx.Response:
        async def asked() -> httpx.Response:
            assert self._client is not None
            async with asyncio.timeout(60):
                return await self._client.request(method, url, **arguments)

        return self.run(asked())

    async def _begin(self) -> None:
        started = asyncio.Event()
        self._living = asyncio.create_task(self._live(started))
        waiting = asyncio.create_task(started.wait())
        await asyncio.wait({self._living, waiting}, return_when=asyncio.FIRST_COMPLETED)
        if self._living.done():
            await self._living

    async def _live(self, started: asyncio.Event) -> None:
        with tempfile.TemporaryDirectory() as folder:
            async with served_as_set(Path(folder), **self._settings) as self._client:
                started.set()
                await self._over.wait()

    async def _end(self) -> None:
        self._over.set()
        with suppress(asyncio.CancelledError):
            await self._living
