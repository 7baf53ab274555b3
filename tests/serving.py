"""The whole application in this process, without a server: requests go straight to it.

What is streamed comes in one piece at its end, so this shows no streaming; ``tests/live`` does.
"""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Iterator, MutableMapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import httpx
from starlette.applications import Starlette

from chat.ports import ChatModel
from server import create_app
from settings import Settings
from tests.patience import PATIENCE
from tests.scripted import ScriptedModel


class Client(httpx.AsyncClient):
    """A client of one application, which is at hand, too."""

    def __init__(self, app: Starlette) -> None:
        super().__init__(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1", timeout=PATIENCE)
        self.app = app


def settings_in(folder: Path, **settings: Any) -> Settings:
    """Settings for a database in this folder; no file and no variable of who runs the tests counts."""
    given = {name: field.default for name, field in Settings.model_fields.items()}
    return Settings(_env_file=None, **(given | {"database_url": f"sqlite:///{folder}/chat.db"} | settings))


@asynccontextmanager
async def served(folder: Path, model: ChatModel | None = None, **settings: Any) -> AsyncIterator[Client]:
    """The application while it runs. Its log goes to stderr, as JSON, as it always does."""
    async with running(create_app(settings_in(folder, **settings), model=model or ScriptedModel())) as client:
        yield client


@asynccontextmanager
async def served_as_set(folder: Path, **settings: Any) -> AsyncIterator[Client]:
    """The same with the models that the settings name."""
    async with running(create_app(settings_in(folder, **settings))) as client:
        yield client


@asynccontextmanager
async def running(app: Starlette) -> AsyncIterator[Client]:
    with logging_left_alone():
        async with app.router.lifespan_context(app), Client(app) as client:
            yield client


class Exchange:
    """One request as a server sees it: its answer comes piece by piece, and its client may go away."""

    def __init__(self, app: Starlette, body: object, path: str = "/chat") -> None:
        self.sent = b""
        self._inbox: asyncio.Queue[MutableMapping[str, Any]] = asyncio.Queue()
        self._inbox.put_nowait({"type": "http.request", "body": json.dumps(body).encode()})
        self._more = asyncio.Condition()
        headers = [(b"content-type", b"application/json")]
        scope = {"type": "http", "method": "POST", "path": path, "query_string": b"", "headers": headers, "app": app}
        self.done = asyncio.create_task(app(scope, self._inbox.get, self._send))

    async def _send(self, message: MutableMapping[str, Any]) -> None:
        async with self._more:
            self.sent += message.get("body", b"")
            self._more.notify_all()

    async def until(self, part: bytes) -> None:
        """Return when this is part of what was sent."""
        async with asyncio.timeout(PATIENCE), self._more:
            await self._more.wait_for(lambda: part in self.sent)

    def leave(self) -> None:
        self._inbox.put_nowait({"type": "http.request", "body": b""})  # is no farewell
        self._inbox.put_nowait({"type": "http.disconnect"})


@contextmanager
def logging_left_alone() -> Iterator[None]:
    """The application configures logging, which belongs to the process; put it back as it was."""
    loggers = [logging.getLogger(), *logging.Logger.manager.loggerDict.values()]
    before = [
        (logger, logger.level, logger.handlers[:], logger.propagate, logger.disabled)
        for logger in loggers
        if isinstance(logger, logging.Logger)
    ]
    try:
        yield
    finally:
        for logger, level, handlers, propagate, disabled in before:
            logger.level, logger.handlers, logger.propagate, logger.disabled = level, handlers, propagate, disabled
        for made in logging.Logger.manager.loggerDict.values():
            if isinstance(made, logging.Logger) and made not in loggers:  # by the configuration
                made.level, made.handlers, made.propagate = logging.NOTSET, [], True
        logging.Logger.manager._clear_cache()  # type: ignore[attr-defined]
