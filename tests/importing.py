"""Imports, as tests start them and look at what they say."""

import asyncio
from collections.abc import Sequence
from contextlib import closing

from chat.documents import Chunk
from chat.engine import Engine
from chat.errors import ChatError
from chat.events import (
    Event,
    ImportDocument,
    ImportRefused,
)
from chat.ids import new_id
from chat.imports import NewImport, refusal_of
from chat.intake import File, Intake
from chat.sessions import NewSession
from tests.patience import soon


class Gated:
    """Takes everything for one chunk; what says `wait` when it is let through, and `bad` not at all."""

    media_types: Sequence[str] = ("text/plain",)

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.waiting = asyncio.Event()
        self.read: list[bytes] = []

    async def chunks(self, data: bytes, media_type: str) -> Sequence[Chunk]:
        if data.startswith(b"wait"):
            self.waiting.set()
            await self.gate.wait()
        if data.startswith(b"bad"):
            raise ChatError("document_unreadable", "No.")
        self.read.append(data)
        return [Chunk("paragraph 1", data.decode())] if data.strip() else []


INTAKE = Intake(Gated(), 100, 5)


def files(*texts: str) -> NewImport:
    """An import of Ann's: a file of each, named by its number."""
    named = [(f"{number}.txt", text) for number, text in enumerate(texts, 1)]
    brought = [File(name, name, "text/plain", text.encode()) for name, text in named]
    session = NewSession(new_id("ses"), "ann")
    return NewImport(new_id("run"), session, "ann", "box", [(file, refusal_of(INTAKE, file)) for file in brought])


async def documents(engine: Engine) -> list[str]:
    return [document.title for document in reversed((await engine.store.documents("ann", "box", 100, None)).items)]


def said(events: Sequence[Event]) -> list[object]:
    """The files that were done, and how; other events by their class."""
    return [
        event.file if isinstance(event, ImportDocument)
        else (event.file, event.code) if isinstance(event, ImportRefused)
        else type(event)
        for event in events
    ]  # fmt: skip


async def shown(engine: Engine, run_id: str, seq: int) -> None:
    """Returns when so much of the run is committed."""
    with closing(await engine.follower(run_id, seq - 1)) as follower:
        await soon(follower.next())
